"""Which split the names of files tell."""

import os
from pathlib import Path

import pytest

from transfusion.data.errors import DataError
from transfusion.data.records.places import find_files, splits_named

HASH, OTHER_HASH = "-0123456789abcdef", "-fedcba9876543210"


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        ([f"train-00000-of-00001{HASH}.parquet", f"test-00000-of-00001{OTHER_HASH}.parquet"], ["train", "test"]),
        (["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"], ["train", "train"]),
        (["pets-train-000.tar", "pets-train-001.tar", "pets-val-000.tar"], ["train", "train", "val"]),
        (["pets-000.tar", "test.tar"], ["pets", "test"]),  # nothing is for training: refused by the splits
        (["pets-000.tar", "train.tar"], None),
        (["train_sft-0.parquet", "test_sft-0.parquet", "rest-0.parquet"], ["train", "test", "rest"]),
        (["pets-000.tar", "pets-001.tar"], None),
        (["wiki.train.parquet", "wiki.test.parquet"], ["train", "test"]),
        (["a.train.0.tar", "a.rest.0.tar", "a val.tar"], ["train", "a.rest", "val"]),
        (["train-images-idx3-ubyte", "t10k-images-idx3-ubyte.gz"], ["train", "test"]),
    ],
)
def test_names_tell_splits_where_all_do(names: list[str], splits: list[str] | None) -> None:
    assert splits_named(names) == ({} if splits is None else dict(zip(names, splits, strict=True)))


def is_tar(name: str) -> bool:
    """Tell files of the format."""
    return name.endswith(".tar")


def found(folder: Path, *names: str, is_named: bool = True) -> list[str | None]:
    """Return the splits of files of a folder."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return [place.split for place in find_files(folder, is_tar, is_named=is_named)]


@pytest.mark.parametrize("names", [("extra.tar", "train/0.tar", "test/0.tar"), ("x/0.tar", "x/val/0.tar")])
def test_files_beside_folders_of_splits_are_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(
        DataError, match=r"splits \((test/, train/|val/)\) and of data beside them \((extra|0).tar\); move"
    ):
        found(tmp_path, *names)


def test_folders_beside_files_that_are_no_splits_of_the_format_are_passed_over(tmp_path: Path) -> None:
    assert found(tmp_path, "a.tar", "more/b.tar", "test/c.png") == [None]


@pytest.mark.parametrize("is_named", [False, True])
def test_a_link_to_itself_is_no_folder(tmp_path: Path, is_named: bool) -> None:
    (tmp_path / "aaa").symlink_to("aaa")
    (tmp_path / "b.tar").symlink_to("b.tar")
    assert found(tmp_path, "c.tar", is_named=is_named)[-1:] == [None] and os.path.islink(tmp_path / "b.tar")
