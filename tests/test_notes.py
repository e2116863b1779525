"""Notes in the files of pictures: every format that can hold one gives it back, and no pixel changes."""

import json
import logging
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from transfusion.notes import Note, noted, read_record
from transfusion.pictures import encoded

PICTURE = Image.effect_noise((32, 24), 80).convert("RGB")
RECORD = {"prompts": ["ü ✓ \udc80\0\n", "--x"], "seed": 3}
NOTE = Note(json.dumps(RECORD), {"prompt": "ü ✓ \udc80\0\n--x", "seed": "3", "Software": "transfusion 1"})


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF", "GIF"])
def test_a_note_comes_back_and_changes_no_pixel(form: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(noted(PICTURE, form, NOTE))
    assert read_record(tmp_path / "a") == RECORD
    plain = Image.open(BytesIO(encoded(PICTURE, form))).convert("RGB")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a").convert("RGB")), np.asarray(plain))
    (tmp_path / "b").write_bytes(encoded(PICTURE, form))
    assert read_record(tmp_path / "b") is None


@pytest.mark.parametrize("form", ["BMP", "PPM"])
def test_formats_without_a_place_say_so(form: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert noted(PICTURE, form, NOTE) == encoded(PICTURE, form)
    assert f"a file of {form} cannot say" in caplog.text


def test_people_read_it_too() -> None:
    chunks = Image.open(BytesIO(noted(PICTURE, "PNG", NOTE))).info
    assert chunks["prompt"] == "ü ✓ ??\n--x" and chunks["seed"] == "3" and chunks["Software"] == "transfusion 1"
    exif = Image.open(BytesIO(noted(PICTURE, "JPEG", NOTE))).getexif()
    assert exif[0x0131] == "transfusion 1"
    assert exif[0x010E].encode("latin-1").decode() == "prompt: ü ✓ ??\n--x\nseed: 3"


def test_a_note_too_long_for_a_jpeg_is_left_out_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    long = Note(json.dumps({"prompts": ["x" * 70_000]}), {"Software": "transfusion"})
    (tmp_path / "a.jpg").write_bytes(noted(PICTURE, "JPEG", long))
    assert read_record(tmp_path / "a.jpg") is None and "no room for 70" in caplog.text
    for form in ("PNG", "WEBP", "TIFF", "GIF"):
        (tmp_path / "a").write_bytes(noted(PICTURE, form, long))
        assert read_record(tmp_path / "a") == {"prompts": ["x" * 70_000]}


@pytest.mark.parametrize("record", ["{", "[" * 100_000, '{"a": ' + "1" * 5000 + "}"])
def test_a_damaged_note_is_an_error(record: str, tmp_path: Path) -> None:
    chunks = PngInfo()
    chunks.add_text("transfusion", record)
    PICTURE.save(tmp_path / "a.png", pnginfo=chunks)
    with pytest.raises(ValueError):
        read_record(tmp_path / "a.png")


def test_comments_of_others_are_none_of_ours(tmp_path: Path) -> None:
    PICTURE.save(tmp_path / "a.jpg", comment=b"hand-made \xff")
    PICTURE.save(tmp_path / "a.gif", comment=b"{}")
    assert read_record(tmp_path / "a.jpg") is None and read_record(tmp_path / "a.gif") is None
    with pytest.raises(OSError):
        read_record(tmp_path / "no.png")
