"""Edits: the spellings of their rows, pictures where the instruction has them, prompts that are what training tells."""

import json
import threading
from pathlib import Path

import pytest
from PIL import Image

from transfusion.config import override
from transfusion.data.encode import EncodeConfig, Encoder
from transfusion.data.errors import DataError
from transfusion.data.records.edits import edits
from transfusion.data.records.record import Edit
from transfusion.data.sources import FolderConfig, open_reader
from transfusion.data.tasks import told_tasks
from transfusion.layout import layout
from transfusion.pretrained import Transfusion
from transfusion.recipes import RECIPES
from transfusion.run import open_run, train_run
from transfusion.segments import Document, Modality, Vocabulary
from transfusion.tokenizer import ByteTokenizer

OMNIGEN = {"instruction": "<img><|image_1|></img> make it blue", "input_images": ["a.png"], "output_image": "b.png"}
IMAGE = Modality("image", 3, (8, 8), (2, 2))
ENCODER = Encoder(ByteTokenizer(), EncodeConfig(caption_dropout=0.0), 0, modality=IMAGE)


def rows(folder: Path, *given: object, name: str = "rows.jsonl") -> Path:
    """Write rows, and the pictures a.png, b.png and c.png."""
    folder.mkdir(parents=True, exist_ok=True)
    for each, colour in (("a.png", (255, 0, 0)), ("b.png", (0, 0, 255)), ("c.png", (0, 255, 0))):
        Image.new("RGB", (20, 20), colour).save(folder / each)
    (folder / name).write_text("\n".join(map(json.dumps, given)), encoding="utf-8")
    return folder / name


def told(folder: Path, row: object) -> list[str]:
    """Return the prompt of a row and, behind it, what is drawn; pictures by their names."""
    record = edits(rows(folder, row), folder)[0]
    assert isinstance(record, Edit)
    return [part.name if isinstance(part, Path) else str(part) for part in record.parts]


@pytest.mark.parametrize(
    "row",
    [
        OMNIGEN,
        {"input": "a.png", "instruction": "make it blue", "output": "b.png"},
        {"source": "a.png", "edit": "make it blue", "target": "b.png"},
        {"original_image": "a.png", "edit_prompt": "make it blue", "edited_image": "b.png"},
        {"input_image": "a.png", "prompt": "make it blue", "output_image": "b.png"},
        {"source_img": "a.png", "instruction": "make it blue", "target_img": "b.png"},
        {"input": "red", "input_image": "a.png", "edit": "make it blue", "output": "blue", "output_image": "b.png"},
    ],
    ids=lambda row: "-".join(row),
)  # fmt: skip
def test_every_spelling_is_one_edit(tmp_path: Path, row: object) -> None:
    assert told(tmp_path, row) == ["a.png", "make it blue", "b.png"]
    reader = open_reader(FolderConfig(path=tmp_path / "rows.jsonl", resolution=16))
    assert reader.config.layout == "edits"  # pyright: ignore


def test_pictures_stand_where_they_are_marked_and_first_where_they_are_not(tmp_path: Path) -> None:
    three = {"input_images": ["a.png", "b.png", "c.png"], "output_image": "a.png"}
    row = {"instruction": "Put <img><|image_3|></img> on <|image_1|>, twice <|image_3|>.", **three}
    assert told(tmp_path, row) == ["b.png", "Put", "c.png", "on", "a.png", ", twice", "c.png", ".", "a.png"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**OMNIGEN, "input_images": []}, r"has <\|image_1\|>, and there are 0 input pictures"),
        ({**OMNIGEN, "instruction": "<|image_0|> blue"}, "the first input picture is"),
        ({**OMNIGEN, "instruction": 3}, "expected an instruction and one output picture"),
        ({**OMNIGEN, "output_image": None}, "expected an instruction and one output picture"),
        ({**OMNIGEN, "output_image": ["a.png", "b.png"]}, "expected an instruction and one output picture"),
        ({**OMNIGEN, "input_images": [3]}, "expected the name of a picture"),
        ({**OMNIGEN, "output_image": "/b.png"}, "lies outside"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, row: object, message: str) -> None:
    file = rows(tmp_path, OMNIGEN, row)
    with pytest.raises(DataError, match=rf"rows.jsonl, line 2: .*{message}"):
        open_reader(FolderConfig(path=file, resolution=16))


def test_questions_and_answers_in_words_are_no_edits(tmp_path: Path) -> None:
    file = rows(tmp_path, {"instruction": "Say it", "input": "", "output": "It."})
    with pytest.raises(DataError, match="not a folder"):
        open_reader(FolderConfig(path=file))


def slots(document: Document) -> list[tuple[int, int, int]]:
    """Return what the model sees of every slot: token, position and modality."""
    columns = layout(document, Vocabulary(256, (IMAGE,))).columns
    seen = (columns.tokens, columns.positions, columns.modality)
    return list(zip(*(column.tolist() for column in seen), strict=True))


def test_prompts_are_what_training_tells_with_a_picture_and_without(tmp_path: Path) -> None:
    file = rows(tmp_path, OMNIGEN, {"instruction": "a blue star", "output_image": "b.png"})
    source = open_reader(FolderConfig(path=file, resolution=16)).source(ENCODER, 99)
    edited, drawn = (source.document(index, 0) for index in (0, 1))
    picture = open_reader(FolderConfig(path=file, resolution=16)).sample_pictures()
    assert picture is not None
    for trained, prompt in (
        (edited, ENCODER.edit_prompt(picture[0], "make it blue")),
        (drawn, ENCODER.draw_prompt("a blue star")),
    ):
        assert slots(trained)[: len(slots(prompt))] == slots(prompt)
        assert len(slots(trained)) == len(slots(prompt)) + 6 and trained.segments[-1].is_target
    assert source.preview_prompts() == ["a blue star"]
    assert told_tasks(FolderConfig(layout="edits"), EncodeConfig()) == ("draw", "edit")


def test_a_model_is_trained_on_edits_and_edits(tmp_path: Path) -> None:
    drawn = {"instruction": "a blue star", "output_image": "b.png"}
    rows(tmp_path / "data", *[OMNIGEN, drawn] * 4, name="edits.jsonl")
    small = ["data.resolution=16", "model.trunk.dim=32", "model.trunk.depth=1", "train.row_length=96"]
    small += ["train.steps=2", "train.batch_size=4", "tokenizer.kind=bytes", f"data.path={tmp_path / 'data'}"]
    config = override(RECIPES["folder"](), [*small, "denoising.num_steps=2"])
    state, source = open_run(config, tmp_path / "run", is_resumed=False, device="cpu")
    list(train_run(state, source, tmp_path / "run", threading.Event()))
    model = Transfusion.from_pretrained(tmp_path / "run")
    assert model.edit(tmp_path / "data/a.png", "make it blue").size == (16, 16)
