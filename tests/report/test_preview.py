"""A page of what training will see, made from a step's batches."""

import re
from html import unescape
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny import FLOW
from typer.testing import CliRunner

from transfusion.autoencoder.pixels import PixelConfig, PixelSpace
from transfusion.batch import TimeAndNoise, collate
from transfusion.cli.app import app
from transfusion.cli.preview import write_preview
from transfusion.config import ConfigError
from transfusion.diffusion.process import make_process
from transfusion.report.preview import TITLE, Reading, preview_page
from transfusion.segments import Document, Latent, Modality, Text, Vocabulary
from transfusion.tokenizer import ByteTokenizer

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
    data, file = tmp_path / "data", tmp_path / "page.html"
    data.mkdir()
    for number in range(4):
        Image.new("RGB", (32, 32), (60 * number, 0, 0)).save(data / f"{number}.png")
        (data / f"{number}.txt").write_text("red")
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
