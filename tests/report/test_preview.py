"""A page of what training will see, made from a step's batches."""

import re
import shutil
import threading
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest
import torch
from tiny import FLOW, write_pairs
from typer.testing import CliRunner

from transfusion.autoencoder.pixels import PixelConfig, PixelSpace
from transfusion.batch import TimeAndNoise, collate
from transfusion.cli.app import app
from transfusion.cli.preview import write_preview
from transfusion.cli.training import find_config
from transfusion.config import ConfigError
from transfusion.diffusion.process import make_process
from transfusion.report.preview import TITLE, Reading, preview_page
from transfusion.run import open_run, train_run
from transfusion.segments import Document, Latent, Modality, Text, Vocabulary
from transfusion.tokenizer import ByteTokenizer, JsonTokenizer
from transfusion.train.checkpoint import step_directory
from transfusion.train.saved import load_settings

VOCABULARY = Vocabulary(256, (Modality("image", 3, (2, 2)),))
READING = Reading(ByteTokenizer(), VOCABULARY, PixelSpace(PixelConfig()), make_process(FLOW))
CHIP = re.compile(r'<span class="(learnt|given)( special)?">([^<]*)</span>')
SMALL = ("data.hold_out=0", "train.batch_size=2", "model.trunk.dim=32", "model.trunk.depth=1", "tokenizer.kind=bytes")


def text(letters: str, *, is_target: bool = True) -> Text:
    """Tell bytes."""
    return Text(tuple(letters.encode()), is_target=is_target)


def shown(*documents: Document, t: float = 0.25, num_rows: int = 8) -> str:
    """Make the page of rows of one document each."""

    def draw(document: Document, number: int, latent: Latent) -> TimeAndNoise:
        return TimeAndNoise(t if latent.is_target else 0.0, torch.ones_like(latent.values))

    batch = collate([[document] for document in documents], VOCABULARY, draw, 16)
    return preview_page([batch], READING, [("found", "<pictures>")], num_rows)


def chips(page: str) -> list[tuple[str, str]]:
    """Return the tokens of a page, and whether each is learnt, without those of the legend."""
    return [(kind, unescape(word)) for kind, _, word in CHIP.findall(page.partition("<h2>")[2])]


def test_tokens_are_learnt_where_they_are_targets_of_what_is_before_them() -> None:
    picture = Latent(torch.zeros(3, 2, 4), "image", is_target=True)
    page = shown(Document((text("a\n"), picture, text("<q", is_target=False)), ("k",)))
    assert chips(page) == [
        *(("given", "bos"), ("learnt", "a"), ("learnt", "↵"), ("learnt", "begin image"), ("given", "end image")),
        *(("given", "<"), ("given", "q")),  # behind what is only given no end is learnt
    ]
    assert page.count("<img") == 3  # the picture, the picture with noise, the mask
    assert "image, 2 slots, denoised from t = 0.25" in page and "9 of 16 slots, 7 of padding" in page
    assert "1 of 16 slots, 56.2% full, 1.0 documents each" in page and "&lt;pictures&gt;" in page


def test_what_is_only_read_is_shown_clean() -> None:
    page = shown(Document((Latent(torch.zeros(3, 2, 2), "image", is_target=False, max_t=0.0), text("b")), ("k",)))
    assert page.count("<img") == 2 and "image, 1 slots, read at t = 0.00" in page
    assert chips(page)[-2:] == [("learnt", "b"), ("learnt", "eos")]


def test_no_more_rows_are_shown_than_are_asked_for() -> None:
    pictures = [Document((Latent(torch.zeros(3, 2, 2), "image", is_target=True),), (n,)) for n in range(4)]
    page = shown(*pictures, num_rows=2)
    assert page.count("<h2>") == 2 and "Row 2 of 4" in page and page.count("<img") == 2 * 3


def test_the_page_is_written_from_the_settings_of_a_training(tmp_path: Path) -> None:
    data, file = write_pairs(tmp_path / "data", ["red"] * 4), tmp_path / "page.html"
    result = CliRunner().invoke(
        app, ["prepare", "preview", "folder", f"data.path={data}", *SMALL, "--to", str(file), "--rows", "1"]
    )
    assert result.exit_code == 0, result.output
    page = file.read_text()
    assert page.count("<h2>") == 1 and "4 pictures" in page and "denoised from t = " in page
    told = "".join(word for kind, word in chips(page) if kind == "learnt" and len(word) == 1)
    assert told.startswith("red") and not list(tmp_path.glob("runs*"))
    write_preview("folder", [f"data.path={data}", *SMALL], file, num_rows=1, step=1)  # over one of its own
    assert file.read_text() != page
    file.write_text("my notes")
    with pytest.raises(ConfigError, match="is there and no preview; name another file"):
        write_preview("folder", [f"data.path={data}", *SMALL], file, num_rows=1, step=0)
    with pytest.raises(ConfigError, match="there is no folder"):
        write_preview("folder", [f"data.path={data}", *SMALL], tmp_path / "no" / "p.html", num_rows=1, step=0)
    assert file.read_text() == "my notes" and TITLE in page


def test_the_widths_of_all_micro_batches_and_what_is_left_out_are_told() -> None:
    def draw(document: Document, number: int, latent: Latent) -> TimeAndNoise:
        return TimeAndNoise(0.5, latent.values)

    batches = [collate([[Document((text(word),), (word,))]], VOCABULARY, draw, size)
               for word, size in (("a", 16), ("b", 64), ("c", 32))]  # fmt: skip
    page = preview_page([replace(batches[0], num_dropped=3), *batches[1:]], READING, [], 1)
    widths = [batch.columns.tokens.shape[1] for batch in batches]
    assert f"3 of {min(widths)} to {max(widths)} slots" in page and len({*widths}) > 1
    assert "3 documents of this step: too long, or nothing to learn" in page


def test_what_only_a_device_can_compute_is_looked_at_on_any(tmp_path: Path) -> None:
    data = tmp_path / "a.txt"
    data.write_text("once there was a cat. " * 400)
    given = [f"data.path={data}", *SMALL, "objective.attention=flex"]
    assert write_preview("folder", given, tmp_path / "page.html", num_rows=1, step=0).exists()


def test_a_run_is_looked_at_by_its_own_tokenizer_also_where_its_init_is_gone(tmp_path: Path) -> None:
    def corpus(name: str, words: str) -> str:
        (tmp_path / f"{name}.jsonl").write_text("".join(f'{{"text": "{words} {n}"}}\n' for n in range(60)))
        return f"data.path={tmp_path / name}.jsonl"

    def trained(name: str, *given: str) -> Path:
        config = find_config("folder", [*given, *SMALL[:2], "train.steps=1", "train.row_length=64"])
        state, source = open_run(config, tmp_path / name, is_resumed=True, device="cpu")
        list(train_run(state, source, tmp_path / name, threading.Event()))
        return tmp_path / name

    small = ["model.trunk.dim=32", "model.trunk.depth=1", "tokenizer.vocab_size=300"]
    first = trained("first", corpus("a", "the cat sat on the mat"), *small)
    second = trained("second", corpus("b", "dogs run"), f"train.init={first}")
    shutil.rmtree(first)
    tokenizer = load_settings(step_directory(second, 1)).tokenizer
    assert isinstance(tokenizer, JsonTokenizer)
    own = {*tokenizer.pieces()}
    before = sorted(second.rglob("*"))
    for data in ([], [corpus("c", "dogs")], [corpus("d", "the cat sat")]):  # of too little text for so many tokens
        page = write_preview(str(second), data, tmp_path / "page.html", num_rows=60, step=0).read_text()
        assert "300 of the tokenizer" in page
        words = {word.replace(" ", "\u0120") for _, word in chips(page)} - {"bos", "eos"}
        assert words <= own
    assert sorted(second.rglob("*")) == before
