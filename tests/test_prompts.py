"""One in, one out; a list in, a list out: what counts as one, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import small

from transfusion.config import ConfigError
from transfusion.data.errors import DataError
from transfusion.prompts import Prompts, paired, several_pictures, several_texts
from transfusion.segments import Document, Latent, Text

MODEL = small()
PROMPTS = MODEL.prompts
PIXELS = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
PICTURE = Image.fromarray(PIXELS)
BATCH = np.stack([PIXELS, 255 - PIXELS])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Save the picture."""
    PICTURE.save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_a_picture_is_one_in_each_of_its_forms(file: Path) -> None:
    wanted = PROMPTS.picture(PICTURE)
    for form in (PICTURE, PIXELS, file, str(file)):
        several, is_many = several_pictures(form)
        assert not is_many and len(several) == 1
        assert np.array_equal(PROMPTS.pictures(several)[0], wanted)
    for many in ([PICTURE, file], (PIXELS, str(file)), (picture for picture in [PICTURE, PIXELS]), [PIXELS] * 2):
        several, is_many = several_pictures(many)  # pyright: ignore[reportArgumentType]
        assert is_many and all(np.array_equal(found, wanted) for found in PROMPTS.pictures(several))
    several, is_many = several_pictures(BATCH)
    assert is_many and np.array_equal(PROMPTS.pictures(several)[1], PROMPTS.picture(BATCH[1]))
    assert several_pictures([]) == ([], True) and several_pictures([PICTURE]) == ([PICTURE], True)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (PIXELS.astype(np.float32) / 255, r"float32 of shape \(40, 30, 3\); expected uint8, 0 to 255"),
        (PIXELS.transpose(2, 0, 1), r"shape \(3, 40, 30\)"),
        (PIXELS[:, :, :2], r"shape \(40, 30, 2\)"),
        (PIXELS[0, 0], r"shape \(3,\)"),
        (PIXELS[:0], r"shape \(0, 30, 3\)"),
        (torch.zeros(3, 8, 8), "got Tensor"),
        (7, "got int"),
        (None, "got NoneType"),
    ],
)
def test_what_is_no_picture_is_told(given: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        PROMPTS.picture(given)


@pytest.mark.parametrize("given", [7, None, b"png", {"a": PICTURE}, {"a.png"}])
def test_what_is_no_list_of_pictures_is_told(given: Any) -> None:
    with pytest.raises(ConfigError, match="expected one, or a list of pictures"):
        several_pictures(given)


def test_each_picture_that_cannot_be_read_is_named(file: Path) -> None:
    (file.parent / "bad.png").write_bytes(b"no picture")
    given = [file, file.parent / "bad.png", PIXELS, file.parent / "none.png"]
    with pytest.raises(DataError, match=r"2 of 4 .*\[1\] .*bad\.png.*\[3\] .*none\.png: there is no such file"):
        PROMPTS.pictures(given)
    with pytest.raises(DataError, match=r"12 of 13 pictures cannot.*; and 7 more"):
        PROMPTS.pictures([file] + ["none.png"] * 12)


def test_texts_are_one_or_several() -> None:
    assert several_texts("mono", "a prompt") == (["mono"], False)
    assert several_texts(("a", "b"), "a prompt") == (["a", "b"], True)
    for bad in (7, b"mono", Path("a.txt"), {"a": "b"}):
        with pytest.raises(ConfigError, match="expected one, or a list of texts, each a prompt"):
            several_texts(bad, "a prompt")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match=r"expected a prompt as text; \[1\] is int: '7'"):
        several_texts(["a", 7], "a prompt")  # pyright: ignore[reportArgumentType]


def test_pictures_and_texts_are_paired() -> None:
    p, q = PICTURE, Image.new("RGB", (9, 9))
    assert paired(p, "a", "a question") == ([p], ["a"], False)
    assert paired(p, ["a", "b"], "a question") == ([p, p], ["a", "b"], True)
    assert paired([p, q], "a", "a question") == ([p, q], ["a", "a"], True)
    assert paired([p, q], ["a", "b"], "a question") == ([p, q], ["a", "b"], True)
    assert paired([p], "a", "a question") == ([p], ["a"], True)
    assert paired([], "a", "a question") == ([], [], True)
    with pytest.raises(ConfigError, match="2 pictures and 3 texts, each a question; give as many, or one for all"):
        paired([p, q], ["a", "b", "c"], "a question")


def test_a_document_is_a_text_a_picture_or_a_list_of_parts() -> None:
    text = Text(tuple(b"mono"))
    assert PROMPTS.document("mono").segments == PROMPTS.document(["mono"]).segments == (text,)
    assert PROMPTS.document(("mono", text)).segments == (text, text)
    for picture in (PICTURE, PIXELS):
        (latent,) = PROMPTS.document(picture).segments
        assert isinstance(latent, Latent) and latent.values.shape == PROMPTS.shapes["image"]
    assert len(PROMPTS.document(BATCH).segments) == 2
    document = Document((text,))
    assert PROMPTS.document(document) is document and not PROMPTS.document([]).segments
    for bad in ([["mono"]], [document], [7]):
        with pytest.raises(ConfigError, match="give one at a time"):
            PROMPTS.document(bad)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="got int"):
        PROMPTS.document(7)  # pyright: ignore[reportArgumentType]


def test_a_latent_becomes_the_picture_again() -> None:
    (latent,) = PROMPTS.document(PICTURE).segments
    assert isinstance(latent, Latent)
    assert np.array_equal(PROMPTS.image(latent), PROMPTS.picture(PICTURE))
    assert Prompts(MODEL.tokenizer, small("model.modalities=[]").config).shapes == {}
