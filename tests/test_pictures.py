"""Contact sheets."""

import numpy as np
import pytest
from PIL import Image, ImageFont

from transfusion import pictures
from transfusion.pictures import CAPTION_LINES, LINE_HEIGHT, sheet

PICTURES = [Image.new("RGB", (32, 32), colour) for colour in ("red", "green", "blue")]
ODD = [
    "a red circle left of a very large blue square",
    "ein größerer Kreis",
    "一个红色的圆圈 " * 8,
    "🟥 left of 🔵",
    "half \ud800 a pair",
    "line\nbreak\ttab \x00\x07",
    "longwordwithoutanyblankthatgoesonandon" * 3,
    "word " * 2000,
    "x" * 100_000,
    "",
    "مرحبا",
]


def test_a_sheet_without_captions_is_as_large_as_its_pictures() -> None:
    assert sheet(PICTURES, num_columns=2).size == (204, 204) and sheet(PICTURES, num_columns=3).size == (304, 104)


def test_each_caption_stands_under_its_picture() -> None:
    plain = np.asarray(sheet(PICTURES, num_columns=3))
    drawn = np.asarray(sheet(PICTURES, num_columns=3, captions=["a", "", "c"]))
    assert drawn.shape == (104 + LINE_HEIGHT, 304, 3) and np.array_equal(drawn[:100], plain[:100])
    is_dark = (drawn[100:].sum(2) < 300).any(0)
    assert [bool(is_dark[start : start + 96].any()) for start in (4, 104, 204)] == [True, False, True]


def test_a_long_caption_takes_several_lines() -> None:
    heights = [sheet(PICTURES, num_columns=3, captions=[caption]).height for caption in ("word", ODD[0], "word " * 99)]
    assert heights == [104 + count * LINE_HEIGHT for count in (1, 3, CAPTION_LINES)]


@pytest.mark.parametrize("font", ["own", "bitmap"])
def test_any_caption_is_drawn_within_its_column(monkeypatch: pytest.MonkeyPatch, font: str) -> None:
    if font == "bitmap":  # Pillow without FreeType
        monkeypatch.setattr(pictures, "_font", ImageFont.load_default_imagefont)
    for caption in ODD:
        drawn = np.asarray(sheet(PICTURES[:2], num_columns=2, captions=[caption, ""]))
        assert 104 <= drawn.shape[0] <= 104 + CAPTION_LINES * LINE_HEIGHT
        assert (drawn[100:, 104:] == 255).all(), caption
