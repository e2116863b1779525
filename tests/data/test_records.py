"""Records of any format: rows by number, pieces of what is longer than a row, pictures where they stand."""

import json
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from transfusion.config import override
from transfusion.data.decode import BrokenPicture, Held, Slice, open_picture
from transfusion.data.encode import EncodeConfig, Encoder
from transfusion.data.errors import DataError
from transfusion.data.fit import FittedSource
from transfusion.data.limit import Limit
from transfusion.data.loader import Source
from transfusion.data.records.pieces import Unit, plan_pieces
from transfusion.data.records.rows import Rows
from transfusion.data.sources import FolderConfig, open_reader
from transfusion.data.tasks import told_tasks
from transfusion.files import append_row
from transfusion.layout import IGNORE, layout, num_slots
from transfusion.recipes import RECIPES
from transfusion.run import open_run, train_run
from transfusion.segments import Latent, Modality, Text, Vocabulary
from transfusion.tokenizer import ByteTokenizer
from transfusion.train.broken import Broken

IMAGE = Modality("image", 3, (8, 8), (2, 2))  # 4 patches: 6 slots a picture of 16 pixels
VOCABULARY = Vocabulary(256, (IMAGE,))
ENCODER = Encoder(ByteTokenizer(), EncodeConfig(caption_dropout=0.0), 0, modality=IMAGE)
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


def picture(folder: Path, name: str) -> str:
    """Write a picture of one colour, named for it."""
    (folder / "jpg").mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 20), COLOURS[name]).save(folder / "jpg" / f"{name}.png")
    return f"jpg/{name}.png"


def segments(folder: Path, parts: Sequence[str]) -> list[dict[str, str]]:
    """Make segments of words, and of pictures where a word is a colour's name."""
    return [
        {"type": "image", "file": picture(folder, part)} if part in COLOURS else {"type": "text", "text": part}
        for part in parts
    ]


def documents(folder: Path, *rows: Sequence[str], **marks: str) -> Path:
    """Write rows of text and pictures in turn."""
    lines = [json.dumps({"segments": segments(folder, parts), **marks}) for parts in rows]
    (folder / "documents.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def opened(path: Path, room: int = 31, **settings: object) -> Source:
    """Open records at 16 pixels, told into rows of so many slots behind BOS."""
    config = FolderConfig.model_validate({"path": path, "resolution": 16, "hold_out": 0.0, **settings})
    return open_reader(config).source(ENCODER, room)


def told(source: Source) -> list[list[str]]:
    """Say what each document holds: its words, and colours of its pictures."""
    found: list[list[str]] = []
    for index in range(source.size or 0):
        parts = source.document(index, 0).segments
        found.append([_said(part) for part in parts])
    return found


def _said(part: Text | Latent) -> str:
    if isinstance(part, Text):
        return bytes(part.tokens).decode()
    return list(COLOURS)[int(part.values.mean(dim=(1, 2)).argmax())]


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_rows_are_found_by_number_whatever_they_are_written_as(tmp_path: Path, indent: int | None, mark: bytes) -> None:
    rows = [{"text": 'a "b" [c], {d}\\ ' + "é" * number, "number": number} for number in range(7)]
    rows.append(rows[0])
    (tmp_path / "a.json").write_bytes(mark + json.dumps(rows, indent=indent, ensure_ascii=False).encode())
    lines = "\n\n".join(json.dumps(row) for row in rows)
    (tmp_path / "a.jsonl").write_bytes(mark + lines.encode())
    for name in ("a.json", "a.jsonl"):
        found = Rows(tmp_path / name)
        assert [found[number] for number in (6, 0, 3)] == [rows[6], rows[0], rows[3]] and list(found) == rows
        written = [found.bytes(number).strip() for number in range(len(found))]
        assert written[0] == written[-1] and len(set(written)) == len(rows) - 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no rows"),
        ('{"a": 1}\n[2]\n', "line 2: expected a JSON object"),
        ('{"a": 1}\n\n{"a":', "line 3: not JSON"),
        ('[{"a": 1}, {"a"', "element 2: not JSON"),
        ('[{"a": 1}] 3', "more follows the array"),
        ('[{"a": 1} {"a": 2}]', "after element 1 comes"),
    ],
)
def test_rows_that_are_none_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        list(Rows(tmp_path / "a.json"))


@given(st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=12), st.integers(6, 30))
def test_pieces_hold_every_slot_once_and_fit(parts: list[tuple[int, bool]], room: int) -> None:
    units = [Unit(length if is_text else 6, is_text) for length, is_text in parts]
    taken: list[tuple[int, int]] = []  # part and place in it
    for piece in plan_pieces(units, room):
        held = 0
        for number in range(piece.first, piece.last + 1):
            begin, end = piece.within(number)
            unit = units[number]
            places = range(unit.length)[begin:end] if unit.is_text else range(1)
            taken += [(number, place) for place in places]
            held += len(places) if unit.is_text else unit.length
        assert 0 < held <= room
    expected = [
        (number, place) for number, unit in enumerate(units) for place in range(unit.length if unit.is_text else 1)
    ]
    assert taken == expected


def test_pictures_stand_where_they_are_named(tmp_path: Path) -> None:
    data = documents(tmp_path, ["one", "red", "two", "green", "blue"], ["three"])
    assert told(opened(data)) == [["one", "red", "two", "green", "blue"], ["three"]]


def test_a_record_longer_than_a_row_is_told_in_pieces_each_target_once(tmp_path: Path) -> None:
    parts = ["abcdef", "red", "ghijklmnopqrstu", "green", "blue", "vw"]
    source = opened(documents(tmp_path, parts), 14)
    found = told(source)
    assert "".join(part for piece in found for part in piece if part not in COLOURS) == "abcdefghijklmnopqrstuvw"
    assert [part for piece in found for part in piece if part in COLOURS] == ["red", "green", "blue"]
    targets: list[int] = []
    for index in range(source.size or 0):
        document = source.document(index, 0)
        assert num_slots(document, VOCABULARY) <= 15
        assert num_slots(source.outline(index), VOCABULARY) == num_slots(document, VOCABULARY)
        targets += [target for target in layout(document, VOCABULARY).columns.targets.tolist() if target != IGNORE]
    begin, end = VOCABULARY.begin_token(1), VOCABULARY.eos
    assert targets == [*b"abcdef", begin, *b"ghijklmnopqrstu", begin, begin, *b"vw", end]


def test_what_is_said_before_a_picture_goes_with_it(tmp_path: Path) -> None:
    source = opened(documents(tmp_path, ["one", "red", "two", "green"]), 15)
    assert told(source) == [["one", "red"], ["t", "wo", "green"]]


def test_long_texts_come_in_blocks_and_lose_nothing(tmp_path: Path) -> None:
    text = "word " * 3000
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": text}) + "\n", encoding="utf-8")
    assert "".join("".join(piece) for piece in told(opened(tmp_path / "a.jsonl", 100))) == text


def test_lists_of_texts_and_images_are_read(tmp_path: Path) -> None:
    row = {"texts": ["one", None, "two"], "images": [None, picture(tmp_path, "blue"), None]}
    (tmp_path / "rows.json").write_text(json.dumps([row]), encoding="utf-8")
    assert told(opened(tmp_path / "rows.json")) == [["one", "blue", "two"]]


def test_pictures_may_lie_in_another_folder(tmp_path: Path) -> None:
    documents(tmp_path / "a", ["one", "red"])
    (tmp_path / "rows").mkdir()
    (tmp_path / "a" / "documents.jsonl").rename(tmp_path / "rows" / "documents.jsonl")
    assert told(opened(tmp_path / "rows", images=tmp_path / "a")) == [["one", "red"]]


def test_marks_of_splits_are_one_by_meaning(tmp_path: Path) -> None:
    rows = [{"text": split, "split": split} for split in ("training", "Train", "Val", "test")]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    source = opened(tmp_path / "a.jsonl", hold_out=None)
    assert told(source) == [["training"], ["Train"]] and source.left_for_others == {"val": 1, "test": 1}


def test_rows_alike_are_held_out_together(tmp_path: Path) -> None:
    rows = [{"text": f"text {number % 40}"} for number in range(120)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    sides = [
        {"".join(parts) for parts in told(opened(tmp_path / "a.jsonl", hold_out=0.3, split=split))}
        for split in ("train", "test")
    ]
    assert not sides[0] & sides[1] and len(sides[0] | sides[1]) == 40


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"segments": "x"}, "expected a list as 'segments'"),
        ({"segments": [{"type": "video", "file": "a"}]}, "segment 1 is"),
        ({"segments": [{"type": "image"}]}, "segment 1 is"),
        ({"segments": [{"type": "image", "file": "/etc/a.png"}]}, "lies outside"),
        ({"segments": [{"type": "image", "file": "a/../../b.png"}]}, "lies outside"),
        ({"segments": [], "split": 3}, "expected a string as 'split'"),
        ({"texts": ["a"], "images": []}, "not the same length"),
        ({"texts": ["a"], "images": ["b"]}, "place 1"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, row: object, message: str) -> None:
    (tmp_path / "documents.jsonl").write_text(f"{json.dumps({'segments': []})}\n{json.dumps(row)}", encoding="utf-8")
    with pytest.raises(DataError, match=rf"documents.jsonl, line 2.*{message}"):
        opened(tmp_path)


def test_two_formats_at_once_are_refused_and_a_named_one_is_taken(tmp_path: Path) -> None:
    documents(tmp_path, ["one", "red"])
    (tmp_path / "captions.jsonl").write_text('{"file": "jpg/red.png", "text": "red"}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"two layouts at once, of interleaved \(documents.jsonl\) and of captions"):
        opened(tmp_path)
    assert told(opened(tmp_path, layout="interleaved")) == [["one", "red"]]


def test_pictures_are_read_from_within_files_and_from_memory(tmp_path: Path) -> None:
    data = (tmp_path / picture(tmp_path, "green")).read_bytes()
    (tmp_path / "many").write_bytes(b"before" + data + b"behind")
    plain = open_picture(tmp_path / "jpg/green.png", 8)
    for source in (Slice(tmp_path / "many", 6, len(data), "green"), Held(data, "green")):
        np.testing.assert_array_equal(open_picture(source, 8), plain)
    with pytest.raises(BrokenPicture, match="many, green: the file ends within it"):
        open_picture(Slice(tmp_path / "many", 9, 10**6, "green"), 8)


def test_what_a_model_of_such_data_can_be_asked_for() -> None:
    data = FolderConfig(layout="interleaved")
    assert told_tasks(data, EncodeConfig()) == ("draw", "story", "write")
    assert told_tasks(FolderConfig(layout="lines"), EncodeConfig()) == ("write",)


def small(path: Path, *settings: str) -> list[str]:
    """Settings of a run that takes a second."""
    sizes = ["data.resolution=16", "model.trunk.dim=32", "model.trunk.depth=1", "train.row_length=64"]
    loop = ["train.steps=3", "train.batch_size=32", "tokenizer.kind=bytes", "train.log_every=1"]
    return [f"data.path={path}", *sizes, *loop, *settings]


def test_documents_with_broken_pictures_are_left_out_named_and_counted(tmp_path: Path) -> None:
    data = documents(tmp_path / "data", *[["one", "red"]] * 30, ["two", "blue"])
    (data / "jpg/blue.png").write_bytes(b"no picture")
    config = override(RECIPES["folder"](), small(data, "train.max_dropped=0.1"))
    state, source = open_run(config, tmp_path / "run", is_resumed=False, device="cpu")
    assert len(list(train_run(state, source, tmp_path / "run", threading.Event()))) == 3
    rows = [json.loads(line) for line in (tmp_path / "run/quarantine.jsonl").read_text().splitlines()]
    assert [row["file"] for row in rows] == ["documents.jsonl:30 (30)"] and "blue.png" in rows[0]["reason"]
    metrics = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert sum(row.get("documents_broken", 0) for row in metrics) >= 3


def test_what_is_newly_broken_is_told_whatever_the_folder_knows(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(5):
        append_row(tmp_path / "quarantine.jsonl", {"file": f"old {number}", "reason": "broken"})
    broken = Broken(tmp_path, 1.0)
    with caplog.at_level("WARNING"):
        broken.add({"old 1": "broken", **{f"new {number}": "broken" for number in range(5)}}, 9)
    assert [record.getMessage().split(" is ")[0] for record in caplog.records] == ["new 0", "new 1", "new 2"]
    rows = (tmp_path / "quarantine.jsonl").read_text().splitlines()
    assert len(rows) == 10


def test_too_many_broken_pictures_end_the_run(tmp_path: Path) -> None:
    data = documents(tmp_path / "data", *[["one", "red"]] * 20, *[["two", "blue"]] * 20)
    (data / "jpg/blue.png").write_bytes(b"no picture")
    config = override(RECIPES["folder"](), small(data))
    state, source = open_run(config, tmp_path / "run", is_resumed=False, device="cpu")
    with pytest.raises(DataError, match=r"of 64 documents are broken, more than .* \(train.max_dropped 0.05"):
        list(train_run(state, source, tmp_path / "run", threading.Event()))
    assert state.step == 1


def test_one_text_is_on_one_side_whatever_else_its_row_says(tmp_path: Path) -> None:
    rows = [{"text": f"text {number % 40}", "id": number} for number in range(120)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    sides = [
        {"".join(parts) for parts in told(opened(tmp_path / "a.jsonl", hold_out=0.3, split=split))}
        for split in ("train", "test")
    ]
    assert not sides[0] & sides[1] and len(sides[0] | sides[1]) == 40


def test_a_table_of_captions_is_no_text(tmp_path: Path) -> None:
    (tmp_path / picture(tmp_path, "red")).rename(tmp_path / "red")
    for name, key in {"metadata.jsonl": "file_name", "captions.jsonl": "file"}.items():
        (tmp_path / name).write_text(json.dumps({key: "red", "text": "a"}), encoding="utf-8")
        assert opened(tmp_path / name).found.layout == name.partition(".")[0]


def test_rows_that_say_nothing_are_told_so(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "  "}\n', encoding="utf-8")
    with pytest.raises(DataError, match="holds nothing to train on"):
        FittedSource(opened(tmp_path / "a.jsonl"), Limit(VOCABULARY, 32, "drop"), 0.05)


def test_a_folder_of_pictures_that_no_row_names_is_refused(tmp_path: Path) -> None:
    picture(tmp_path / "cat", "red")
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n', encoding="utf-8")
    for path in (tmp_path / "cat", tmp_path / "a.jsonl"):
        with pytest.raises(DataError, match="data.images reaches nothing with data.layout="):
            opened(path, images=tmp_path)


HALF = "one \\ud83d two"  # as JSON writes it
HALVES = {
    "lines": f'{{"text": "{HALF}"}}',
    "interleaved": f'{{"segments": [{{"type": "text", "text": "{HALF}"}}]}}',
    "conversations": f'{{"conversations": [{{"from": "human", "value": "a"}}, {{"from": "gpt", "value": "{HALF}"}}]}}',
    "system": f'{{"messages": [{{"role": "system", "content": "{HALF}"}}, {{"role": "user", "content": "a"}}, '
    '{"role": "assistant", "content": "b"}]}',
    "edits": f'{{"instruction": "{HALF}", "output": "1.png"}}',
    "own": f'{{"mine": "{HALF}"}}',
}


@pytest.mark.parametrize("layout", HALVES)
def test_half_a_surrogate_pair_is_refused_with_its_line(tmp_path: Path, layout: str) -> None:
    whole = HALVES[layout].replace(HALF, "one")
    (tmp_path / "rows.jsonl").write_text(f"{whole}\n{HALVES[layout]}\n")
    code = "from transfusion.data.records import Interleaved\ndef record(row: dict):\n"
    (tmp_path / "mine.py").write_text(f"{code}    return Interleaved(repr(row), (row['mine'],))\n")
    own = {"layout": "own", "reader": f"{tmp_path / 'mine.py'}:record"} if layout == "own" else {}
    with pytest.raises(DataError, match=r"rows.jsonl, line 2: half a surrogate pair in 'one .+ud83d two'; write plain"):
        open_reader(FolderConfig.model_validate({"path": tmp_path / "rows.jsonl", **own}))


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ('{"segments": null, "texts": ["a"], "images": [null]}', ["a"]),
        ('{"conversations": null, "messages": [{"role": "user", "content": "a"}, '
         '{"role": "assistant", "content": "b"}]}', ["a", "b"]),
        ('{"messages": [{"role": "user", "content": [{"type": "image", "image": null, "url": "1.png"}]}, '
         '{"role": "assistant", "content": "b"}]}', ["b"]),
    ],
)  # fmt: skip
def test_a_null_is_no_value_and_the_next_key_is_read(tmp_path: Path, row: str, words: list[str]) -> None:
    (tmp_path / "rows.jsonl").write_text(f"{row}\n")
    assert list(open_reader(FolderConfig(path=tmp_path / "rows.jsonl")).texts()) == words
