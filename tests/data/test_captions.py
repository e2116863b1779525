"""Captions: each names its picture by the folder of its table, and every split has one name."""

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from transfusion.data.captions import FolderCaptions, folder_captions
from transfusion.data.encode import EncodeConfig, Encoder
from transfusion.data.errors import DataError
from transfusion.data.readers import save_quarantine
from transfusion.data.sources import FolderConfig, held_out_config, open_source
from transfusion.tokenizer import ByteTokenizer

ENCODER = Encoder(ByteTokenizer(), EncodeConfig(), 0)
LATIN = os.fsdecode(b"caf\xe9")  # a name that is not UTF-8


def save(*files: Path) -> None:
    """Write pictures."""
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(os.fsencode(file), "PNG")


def table(folder: Path, *rows: dict[str, object], key: str = "file_name") -> Path:
    """Write a table of captions."""
    told = [{key: row.pop("file"), "text": "a cat", **row} for row in rows]
    name = "metadata.jsonl" if key == "file_name" else "captions.jsonl"
    (folder / name).write_text("\n".join(map(json.dumps, told)))
    return folder


def read(folder: Path, split: str | None = None) -> list[str]:
    """Return the pictures of a split."""
    return [row.file for row in folder_captions(folder, split, None).rows]


def test_marks_have_one_name(tmp_path: Path) -> None:
    marks = ["training", "Train", None, "train ", "Val", "fold1", "Fold1"]
    save(*(tmp_path / f"{number}.png" for number in range(len(marks))))
    table(tmp_path, *({"file": f"{number}.png", "split": mark} for number, mark in enumerate(marks)))
    assert read(tmp_path) == read(tmp_path, "Training") == [f"{number}.png" for number in range(4)]
    found = folder_captions(tmp_path, hold_out=None)
    assert found.found.splits == {"train": 4, "val": 1, "fold1": 1, "Fold1": 1}
    assert read(tmp_path, "val") == read(tmp_path, "VAL") == ["4.png"] and read(tmp_path, "Fold1") == ["6.png"]
    held = held_out_config(FolderConfig(path=tmp_path, resolution=8))
    assert isinstance(held, FolderConfig) and held.split == "val"


@pytest.mark.parametrize("key", ["file", "file_name"])
def test_a_table_without_marks_of_pictures_in_folders_of_splits(tmp_path: Path, key: str) -> None:
    save(tmp_path / "train" / "1.png", tmp_path / "Test" / "2.png")
    table(tmp_path, {"file": "train/1.png"}, {"file": "Test/2.png"}, key=key)
    assert read(tmp_path) == ["train/1.png"] and read(tmp_path, "test") == ["Test/2.png"]
    save(tmp_path / "3.png")
    table(tmp_path, {"file": "train/1.png"}, {"file": "Test/2.png"}, {"file": "3.png"}, key=key)
    assert read(tmp_path) == ["train/1.png", "3.png"] and read(tmp_path, "test") == ["Test/2.png"]
    table(tmp_path, {"file": "Test/2.png"}, {"file": "3.png"}, {"file": "3.png", "split": "train"}, key=key)
    assert read(tmp_path) == ["3.png", "3.png"]
    table(tmp_path, {"file": "Test/2.png"}, {"file": "3.png", "split": "val"}, key=key)
    assert read(tmp_path) == ["Test/2.png"]  # the data say themselves what is held out


def test_pairs_in_folders_of_splits_that_are_asked_for_as_they_lie(tmp_path: Path) -> None:
    for file in ("train/1", "test/2", "more/3"):
        save(tmp_path / f"{file}.png")
        (tmp_path / f"{file}.txt").write_text(file)
    assert [row.text for row in folder_captions(tmp_path, layout="pairs").rows] == ["more/3", "train/1"]


def test_tables_beside_each_other_have_one_rule(tmp_path: Path) -> None:
    save(tmp_path / "a" / "test" / "1.png", tmp_path / "b" / "2.png")
    table(tmp_path / "a", {"file": "test/1.png"})
    table(tmp_path / "b", {"file": "2.png"})
    assert read(tmp_path) == ["b/2.png"]


@pytest.mark.parametrize("link", ["more", "in/more"])
def test_a_picture_named_by_a_folder_and_by_a_link_to_it_is_on_one_side(tmp_path: Path, link: str) -> None:
    save(*(tmp_path / "all" / f"{number}.png" for number in range(60)))
    (tmp_path / link).parent.mkdir(exist_ok=True)
    (tmp_path / link).symlink_to(tmp_path / "all")
    (tmp_path / "all" / "up").symlink_to(tmp_path)
    names = [f"{folder}/{number}.png" for number in range(60) for folder in ("all", f"all/up/{link}", link)]
    table(tmp_path, *({"file": name} for name in names))
    sides = [
        {os.path.realpath(tmp_path / row.file) for row in folder_captions(tmp_path, split, 0.3).rows}
        for split in ("train", "test")
    ]
    assert all(sides) and not sides[0] & sides[1]
    table(tmp_path, *({"file": f"{link}/{number}.png"} for number in range(60)))
    assert "without a caption" not in folder_captions(tmp_path).found.line()


@pytest.mark.parametrize(("of", "to"), [("test", "train"), ("test/1.png", "train/1.png")])
@pytest.mark.parametrize("more", [[], ["2.png"]])
def test_a_picture_of_a_table_that_is_in_two_splits_by_links_is_refused(
    tmp_path: Path, of: str, to: str, more: list[str]
) -> None:
    save(tmp_path / "train" / "1.png", tmp_path / "2.png")
    (tmp_path / of).parent.mkdir(exist_ok=True)
    (tmp_path / of).symlink_to(tmp_path / to)
    table(tmp_path, *({"file": name} for name in ["train/1.png", "test/1.png", *more]))
    with pytest.raises(DataError, match=r"are one by links, and of two splits \((train, test|test, train)\)"):
        folder_captions(tmp_path)


def test_a_picture_that_a_link_puts_into_the_test_is_of_it(tmp_path: Path) -> None:
    save(tmp_path / "all" / "1.png", tmp_path / "more" / "2.png")
    (tmp_path / "test").symlink_to(tmp_path / "all")
    table(tmp_path, {"file": "all/1.png"}, {"file": "more/2.png"})
    assert read(tmp_path) == ["more/2.png"]


def test_a_picture_of_two_splits_is_told(tmp_path: Path) -> None:
    save(tmp_path / "1.png", tmp_path / "2.png")
    marks = [("1.png", "train"), ("1.png", "test"), ("2.png", "test")]
    table(tmp_path, *({"file": file, "split": mark} for file, mark in marks))
    assert "; in 'train' and in another split at once: 1.png" in folder_captions(tmp_path, hold_out=None).found.line()


def test_whole_names_are_of_the_tables_folder(tmp_path: Path) -> None:
    for split in ("train", "test"):
        save(tmp_path / "d" / split / "1.png")
        table(tmp_path / "d" / split, {"file": str(tmp_path / "d" / split / "1.png")})
    assert read(tmp_path / "d") == ["train/1.png"] and read(tmp_path / "d", "test") == ["test/1.png"]
    found = folder_captions(tmp_path / "d").found
    assert not found.left_out and open_source(FolderConfig(path=tmp_path / "d", resolution=8), ENCODER, 9).size == 1
    (tmp_path / "link").symlink_to("d")
    assert read(tmp_path / "link") == ["train/1.png"]


@pytest.mark.parametrize("name", ["../1.png", "a/../../1.png", "/etc/1.png", "HERE/../1.png", "HERE2/1.png", ".."])
@pytest.mark.parametrize("folder", ["d", "d/train"])
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str, folder: str) -> None:
    save(tmp_path / folder / "1.png")
    table(tmp_path / folder, {"file": name.replace("HERE", str(tmp_path / folder))})
    with pytest.raises(
        DataError, match=r"line 1: .* lies outside the folder of the table; expected a name relative to"
    ):
        folder_captions(tmp_path / "d")


def classes(folder: Path, *names: str) -> FolderCaptions:
    """Read a folder of classes of one picture each."""
    save(*(folder / name / "1.png" for name in names))
    return folder_captions(folder, hold_out=None)


@pytest.mark.parametrize(("name", "why"), [("___", "blank"), (" - ", "blank"), (LATIN, "not UTF-8")])
def test_a_class_without_a_name_is_left_out_and_counted(tmp_path: Path, name: str, why: str) -> None:
    save(tmp_path / "d" / "loose.png")
    found = classes(tmp_path / "d" / "in", "cat", name)
    assert [row.text for row in found.rows] == ["cat"] and f"this one is {why}; rename" in "".join(
        found.quarantine.values()
    )
    assert found.found.left_out == {"picture of a class whose folder's name is no caption": 1}
    assert save_quarantine(found.quarantine, tmp_path).read_bytes().decode() and found.found.line().encode()
    with pytest.raises(DataError, match=f"holds no captioned pictures; the first: .*this one is {why}"):
        classes(tmp_path / "e", name)


def test_names_that_are_not_utf_8_have_their_place(tmp_path: Path) -> None:
    names = [*map(str, range(60)), LATIN]
    save(*(tmp_path / "cat" / f"{name}.png" for name in names))
    sides = [read(tmp_path, split) for split in ("train", "test")]
    assert sorted(sides[0] + sides[1]) == sorted(f"cat/{name}.png" for name in names) and all(sides)
    source = open_source(FolderConfig(path=tmp_path, resolution=8), ENCODER, 99)
    assert source.digest() == open_source(FolderConfig(path=tmp_path, resolution=8), ENCODER, 99).digest()
    with pytest.raises(DataError, match=r"caf\\udce9"):
        folder_captions(tmp_path / LATIN)
