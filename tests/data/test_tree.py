"""Links: splits that are made by them are these, and what is held out is never trained on, whatever leads to it."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from transfusion.data.captions import folder_captions
from transfusion.data.errors import DataError
from transfusion.data.readers import TextFile
from transfusion.data.settings import Layout
from transfusion.data.tree import scan

Row = tuple[str, str, str | None]


def picture(file: Path) -> None:
    """Write a picture."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), 9, np.uint8)).save(file)


def link(name: Path, target: Path) -> None:
    """Link to a file or folder by a relative path."""
    name.parent.mkdir(parents=True, exist_ok=True)
    name.symlink_to(os.path.relpath(target, name.parent))


def rows(folder: Path, layout: Layout = "auto") -> list[Row]:
    """Read a folder's captions of all splits."""
    splits = folder_captions(folder, layout=layout).found.splits or [None]
    return [
        (row.file, row.text, row.split) for split in splits for row in folder_captions(folder, split, 0, layout).rows
    ]


@pytest.mark.parametrize("pool", ["d/all", "d/aaa", "pool"])
def test_splits_of_linked_folders_are_these(tmp_path: Path, pool: str) -> None:
    data = tmp_path / "d"
    for name in "abc":
        picture(tmp_path / pool / name / "1.png")
    for split, name in (("train", "a"), ("train", "b"), ("test", "c")):
        link(data / split / name, tmp_path / pool / name)
    expected: list[Row] = [
        ("train/a/1.png", "a", "train"),
        ("train/b/1.png", "b", "train"),
        ("test/c/1.png", "c", "test"),
    ]
    assert sorted(rows(data)) == sorted(rows(data, "classes")) == sorted(expected)
    found = folder_captions(data, hold_out=None).found
    assert found.splits == {"train": 2, "test": 1}
    assert found.left_out == ({"folder read by a link of a split": 3} if pool.startswith("d/") else {})
    picture(tmp_path / pool / "more" / "1.png")
    if pool.startswith("d/"):
        with pytest.raises(DataError, match=r"of splits \(test/, train/\) and of data beside them"):
            rows(data)


def test_splits_that_are_links_themselves(tmp_path: Path) -> None:
    for split in ("one", "two"):
        picture(tmp_path / split / "cat" / f"{split}.png")
    link(tmp_path / "d" / "in" / "train", tmp_path / "one")
    link(tmp_path / "d" / "in" / "val", tmp_path / "two")
    link(tmp_path / "two" / "up", tmp_path / "d")  # round in a circle
    assert sorted(rows(tmp_path / "d")) == [
        ("in/train/cat/one.png", "cat", "train"), ("in/val/cat/two.png", "cat", "val")
    ]  # fmt: skip


def test_of_links_themselves_that_are_splits_the_name_goes_before_the_own(tmp_path: Path) -> None:
    for name in ("all/cat/1.png", "test/cat/2.png"):
        picture(tmp_path / name)
    link(tmp_path / "train", tmp_path / "all")
    assert sorted(rows(tmp_path)) == [("test/cat/2.png", "cat", "test"), ("train/cat/1.png", "cat", "train")]


def test_a_pool_nearer_to_the_top_than_its_splits(tmp_path: Path) -> None:
    picture(tmp_path / "pool" / "1.png")
    for split in ("train", "test"):
        picture(tmp_path / "x" / "y" / split / "dog" / f"{split}.png")
    link(tmp_path / "x" / "y" / "train" / "cat", tmp_path / "pool")
    assert sorted(row[0] for row in rows(tmp_path)) == [
        "x/y/test/dog/test.png", "x/y/train/cat/1.png", "x/y/train/dog/train.png"
    ]  # fmt: skip


SHARED = [
    ("val", "train"),  # a whole split
    ("val/cat", "train/cat"),
    ("test/cat", "pool"),  # and train/dog is, too
    ("test/cat", "pool/part"),
    ("test/cat/1.png", "train/cat/1.png"),
    ("test/cat/1.png", "pool/1.png"),
]


@pytest.mark.parametrize("layout", ["auto", "classes"])
@pytest.mark.parametrize(("name", "target"), SHARED, ids=[f"{name} {target}" for name, target in SHARED])
def test_what_is_held_out_and_trained_on_is_refused(tmp_path: Path, name: str, target: str, layout: Layout) -> None:
    data = tmp_path / "d"
    for file in ("d/train/cat/1.png", "d/pool/1.png", "d/pool/part/2.png"):
        picture(tmp_path / file)
    (data / "pool").rename(tmp_path / "pool")
    link(data / "train" / "dog", tmp_path / "pool")
    picture(tmp_path / "d" / "test" / "bus" / "3.png")
    link(data / name, tmp_path / target if target.startswith("pool") else data / target)
    with pytest.raises(DataError, match=r"are one by links, and of two splits \((train, test|val, train)\)"):
        rows(data, layout)


def test_hard_links_are_one_file_and_two_held_out_splits_may_be_one(tmp_path: Path) -> None:
    for split in ("train", "val"):
        picture(tmp_path / split / "cat" / f"{split}.png")
    link(tmp_path / "test", tmp_path / "val")
    assert folder_captions(tmp_path).found.left_out == {"link to a folder that is read already": 1}
    (tmp_path / "val" / "cat" / "t.png").hardlink_to(tmp_path / "train" / "cat" / "train.png")
    with pytest.raises(DataError, match="of two splits"):
        rows(tmp_path)


def test_texts_of_two_splits_that_are_one_are_refused(tmp_path: Path) -> None:
    (tmp_path / "all").write_text("words")
    for split in ("train", "valid"):
        link(tmp_path / f"{split}.txt", tmp_path / "all")
    with pytest.raises(DataError, match=r"train.txt and .*valid.txt are one by links, and of two splits"):
        TextFile(tmp_path)


def test_one_picture_of_two_names_is_on_one_side(tmp_path: Path) -> None:
    for number in range(60):
        picture(tmp_path / "cat" / f"{number}.png")
        link(tmp_path / "pet" / f"pet{number}.png", tmp_path / "cat" / f"{number}.png")
    sides = [
        {Path(row.file).stem.removeprefix("pet") for row in folder_captions(tmp_path, split, 0.3).rows}
        for split in ("train", "test")
    ]
    assert all(sides) and not sides[0] & sides[1]


def test_a_table_may_name_pictures_through_links(tmp_path: Path) -> None:
    picture(tmp_path / "far" / "1.png")
    link(tmp_path / "d" / "images", tmp_path / "far")
    (tmp_path / "d" / "captions.jsonl").write_text(json.dumps({"file": "images/1.png", "text": "a cat"}))
    assert rows(tmp_path / "d") == [("images/1.png", "a cat", None)]


def test_classes_called_as_splits_keep_their_own_names(tmp_path: Path) -> None:
    for name in ("bus/1.png", "train/2.png"):
        picture(tmp_path / name)
    link(tmp_path / "train" / "more", tmp_path)
    link(tmp_path / "tram", tmp_path / "train")
    assert [str(file) for file in scan(tmp_path).pictures] == ["bus/1.png", "train/2.png"]
