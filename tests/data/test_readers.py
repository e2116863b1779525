"""Readers: every size and mode, and nothing broken slips through."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from transfusion.data import readers
from transfusion.data.layouts import layout_of
from transfusion.data.readers import (
    BrokenPicture,
    DataError,
    ImageFolder,
    TextFile,
    open_picture,
    read_captions,
    save_quarantine,
)
from transfusion.data.splits import spread

EMOJI = Path(__file__).parents[3] / "shared" / "data" / "emoji"
RED = (255, 0, 0)


def close(picture: np.ndarray, colour: tuple[int, int, int]) -> bool:
    """Return whether a picture is of one colour, within JPEG's and CMYK's rounding."""
    return bool((np.abs(picture.astype(int) - colour) <= 3).all())


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        ("RGB", RED, RED),
        ("RGBA", (255, 0, 0, 0), (255, 255, 255)),
        ("RGBA", (255, 0, 0, 255), RED),
        ("RGBA", (0, 0, 0, 128), (127, 127, 127)),
        ("LA", (0, 128), (127, 127, 127)),
        ("L", 40, (40, 40, 40)),
        ("1", 1, (255, 255, 255)),
        ("I;16", 65535, (255, 255, 255)),
        ("I;16", 32768, (128, 128, 128)),
    ],
)
def test_modes(tmp_path: Path, mode: str, value: object, expected: tuple[int, int, int]) -> None:
    Image.new(mode, (20, 10), value).save(tmp_path / "a.png")  # type: ignore[arg-type]
    picture = open_picture(tmp_path / "a.png", 8)
    assert picture.shape == (8, 8, 3) and picture.dtype == np.uint8 and close(picture, expected)


def test_cmyk_and_palettes(tmp_path: Path) -> None:
    Image.new("CMYK", (9, 9), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
    assert close(open_picture(tmp_path / "a.jpg", 8), (254, 0, 0))
    palette = Image.new("P", (9, 9), 0)
    palette.putpalette([0, 0, 255] + [0] * 765)
    palette.save(tmp_path / "b.png", transparency=0)
    assert close(open_picture(tmp_path / "b.png", 8), (255, 255, 255))


@pytest.mark.parametrize(
    ("orientation", "corner"), [(1, (0, 0)), (2, (0, 1)), (3, (1, 1)), (4, (1, 0)), (6, (0, 1)), (8, (1, 0))]
)
def test_exif_rotation_is_applied(tmp_path: Path, orientation: int, corner: tuple[int, int]) -> None:
    picture = Image.new("RGB", (16, 16), "white")
    picture.paste(RED, (0, 0, 8, 8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(tmp_path / "a.png", exif=exif)
    found = open_picture(tmp_path / "a.png", 16)
    row, column = 4 + 8 * corner[0], 4 + 8 * corner[1]
    assert tuple(found[row, column]) == RED


@pytest.mark.parametrize("suffix", ["gif", "webp"])
def test_of_an_animation_the_first_frame_is_taken(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (12, 12), colour) for colour in ("white", "black")]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], lossless=True)
    assert close(open_picture(tmp_path / f"a.{suffix}", 8), (255, 255, 255))


def test_the_centre_is_cropped() -> None:
    wide = Image.new("RGB", (30, 10), "black")
    wide.paste(RED, (10, 0, 20, 10))
    assert close(open_picture(wide, 10), RED)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_truncated_files_are_broken(tmp_path: Path, suffix: str) -> None:
    whole = tmp_path / f"whole.{suffix}"
    Image.effect_noise((64, 64), 50).convert("RGB").save(whole)
    data = whole.read_bytes()
    for share in (0.0, 0.05, 0.3, 0.6, 0.9):
        part = tmp_path / f"part.{suffix}"
        part.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(BrokenPicture, match="part"):
            open_picture(part, 8)


def test_what_is_no_picture_is_broken(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("<html>404</html>")
    for name in ("a.jpg", "missing.png"):
        with pytest.raises(BrokenPicture, match=name):
            open_picture(tmp_path / name, 8)


def folder(path: Path, rows: list[dict[str, str]]) -> Path:
    """Write a captions file and its pictures."""
    for i, row in enumerate(rows):
        file = path / row["file"]
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (10 + i, 12), (i, 0, 0)).save(file)
    (path / "captions.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    return path


def test_folder_with_captions_quarantines_by_name(tmp_path: Path) -> None:
    folder(
        tmp_path, [{"file": f"p{i}.png", "text": f"text {i}", "split": "test" if i == 3 else "train"} for i in range(5)]
    )
    (tmp_path / "p1.png").write_bytes(b"broken")
    pictures = ImageFolder(tmp_path, 8)
    assert [row.text for row in pictures.captions] == ["text 0", "text 2", "text 4"]
    assert pictures.left_for_others == {"test": 1}
    assert list(pictures.quarantine) == ["p1.png"] and "p1.png" in pictures.quarantine["p1.png"]
    assert pictures[1].file == "p2.png" and int(pictures[1].picture[0, 0, 0]) == 2
    file = save_quarantine(pictures.quarantine, tmp_path / "run")
    assert json.loads(file.read_text())["file"] == "p1.png"
    assert [row.file for row in ImageFolder(tmp_path, 8, split="test").captions] == ["p3.png"]
    assert pictures.digest() == ImageFolder(tmp_path, 8).digest() != ImageFolder(tmp_path, 16).digest()


def test_folder_of_classes(tmp_path: Path) -> None:
    for name in ("b_dog/1.png", "a-cat/x/2.PNG", "a-cat/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (tmp_path / "a-cat" / "notes.txt").write_text("no picture")
    rows = read_captions(tmp_path)
    assert [(row.file, row.text) for row in rows] == [
        ("a-cat/1.png", "a cat"),
        ("a-cat/x/2.PNG", "a cat"),
        ("b_dog/1.png", "b dog"),
    ]


def test_few_pictures_are_decoded_and_of_these_all_are_whole(tmp_path: Path) -> None:
    folder(tmp_path, [{"file": f"p{i}.png", "text": f"text {i}"} for i in range(12)])
    whole, few = ImageFolder(tmp_path, 8), ImageFolder(tmp_path, 8, at_most=4)
    assert len(few) == len(whole) == 12 and few.captions == whole.captions
    assert all(np.array_equal(few[i].picture, whole[i].picture) for i in range(12))
    assert len({ImageFolder(tmp_path, 8, at_most=count).digest() for count in (3, 4, 12)} - {whole.digest()}) == 2
    for i in (3, 4, 11):  # the second and the last of the four, and one that takes a place
        (tmp_path / f"p{i}.png").write_bytes(b"broken")
    few = ImageFolder(tmp_path, 8, at_most=4)
    places = spread(len(few), 4)
    assert [few[place].text for place in places] == ["text 0", "text 2", "text 6", "text 9"]
    assert set(few.quarantine) == {"p3.png"} and few.found.records == 11
    with pytest.raises(BrokenPicture, match="p11.png"):
        few[len(few) - 1]


def test_of_many_pictures_none_is_decoded_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(tmp_path, [{"file": f"p{i}.png", "text": f"text {i}"} for i in range(12)])
    whole = ImageFolder(tmp_path, 8)
    monkeypatch.setattr(readers, "MOST_AHEAD", 12 * 8 * 8 * 3)
    assert ImageFolder(tmp_path, 8).digest() == whole.digest()
    monkeypatch.setattr(readers, "MOST_AHEAD", 12 * 8 * 8 * 3 - 1)
    decoded: list[Path] = []
    monkeypatch.setattr(
        readers, "open_picture", lambda file, size, **_: decoded.append(file) or open_picture(file, size)
    )
    many = ImageFolder(tmp_path, 8)
    digest = many.digest()
    assert not decoded and digest.startswith("files:")
    assert all(np.array_equal(many[i].picture, whole[i].picture) for i in range(12)) and len(decoded) == 12
    (tmp_path / "p3.png").write_bytes(b"broken")
    assert len(ImageFolder(tmp_path, 8)) == 12 and ImageFolder(tmp_path, 8).digest() != digest
    with pytest.raises(BrokenPicture, match="p3.png"):
        many[3]


def test_captions_may_hold_other_line_breaks(tmp_path: Path) -> None:
    folder(tmp_path, [{"file": "a.png", "text": "fine"}])
    (tmp_path / "captions.jsonl").write_text('{"file": "a.png", "text": "one\u2028two"}\r\n', encoding="utf-8")
    assert read_captions(tmp_path)[0].text == "one\u2028two"


def test_a_note_beside_pictures_is_no_text_to_learn(tmp_path: Path) -> None:
    (tmp_path / "README.txt").write_text("classes of animals")
    assert layout_of(tmp_path) == "text"
    (tmp_path / "cat").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "cat" / "1.png")
    assert layout_of(tmp_path) == "classes" and layout_of(tmp_path / "README.txt") == "text"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: not JSON"),
        ('{"file": "a.png"}', "line 2: expected an object with strings 'file' and 'text'"),
        ('["a.png"]', "line 2: expected an object"),
        (
            '{"file": "a.png", "text": 3}',
            "line 2: expected an object with strings 'file' and 'text'; .* 'file', 'text'",
        ),
        ('{"file": "../a.png", "text": "x"}', "line 2: '../a.png' lies outside the folder"),
        ('{"file": "a\\u0000.png", "text": "x"}', "line 2: a null or half a surrogate pair"),
        ('{"file": "a.png", "text": "\\ud800"}', "line 2: a null or half a surrogate pair"),
    ],
)
def test_bad_captions_are_named_by_line(tmp_path: Path, line: str, message: str) -> None:
    folder(tmp_path, [{"file": "a.png", "text": "fine"}])
    with (tmp_path / "captions.jsonl").open("w") as file:
        file.write('{"file": "a.png", "text": "fine"}\n' + line + "\n")
    with pytest.raises(DataError, match=message):
        read_captions(tmp_path)


def test_empty_and_missing_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no captioned pictures"):
        read_captions(tmp_path)
    with pytest.raises(DataError, match="is not a folder"):
        read_captions(tmp_path / "missing")
    folder(tmp_path, [{"file": "a.png", "text": "x"}])
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match="none of the 1 pictures"):
        ImageFolder(tmp_path, 8)


def test_text(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("second")
    (tmp_path / "a.txt").write_text("first\n")
    (tmp_path / "c.txt").write_text("  ")
    assert TextFile(tmp_path).documents() == ["first\n", "second"]
    assert TextFile(tmp_path / "b.txt").documents() == ["second"]
    (tmp_path / "bad.txt").write_bytes(b"one\ntwo \xff")
    with pytest.raises(DataError, match=r"bad.txt, line 2: byte 8 is not UTF-8"):
        TextFile(tmp_path / "bad.txt")
    with pytest.raises(DataError, match="no such file"):
        TextFile(tmp_path / "missing.txt")


@pytest.mark.skipif(not EMOJI.exists(), reason="the emoji data set is not beside this checkout")
def test_real_emoji() -> None:
    rows = read_captions(EMOJI, "train")
    assert len(rows) == 3197
    assert all(open_picture(EMOJI / row.file, 32).shape == (32, 32, 3) for row in rows[::100])
