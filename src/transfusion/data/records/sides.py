"""On which side of training records stand, as far as their pictures tell.

    test/1.png                in a folder called as a split: so is the record, where none is marked as held out
    train/1.png test/2.png    in several: it is of the strictest, and so it is not trained on
    a.png b.png, b.png        records that share a picture, by whatever name or link, are held out together
                              (documents of text and pictures in turn are not)
    train/1.png, a link to it in test/    where folders tell: the first record is neither trained on nor held out

It must not open pictures, and asks the file system once about each that is named.
"""

import os
from array import array
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from sys import intern

import numpy as np
from numpy.typing import NDArray

from transfusion.data.decode import Held, PictureSource, Slice
from transfusion.data.found import counted
from transfusion.data.records.tally import Marks, mark_of, named_groups
from transfusion.data.records.within import name_within
from transfusion.data.splits import apart, by_folders, split_around, strictest


class Sides:
    """The splits and the groups of records: 8 bytes a record and 16 a picture, and the names of marks."""

    def __init__(self, images: Path) -> None:
        """Begin.

        Args:
            images: Folder that pictures are named relative to; what it is called itself tells nothing.
        """
        self._images = images
        self._splits: list[str | None] = []
        self._folders: dict[int, str] = {}
        self._num_across = 0
        self._own = array("Q")
        self._pictures, self._holders = array("Q"), array("q")

    def add(self, own: str, split: str | None, pictures: Iterable[PictureSource], *, is_tied: bool = True) -> None:
        """Take a record.

        Args:
            own: A hash of what it holds, 16 hexadecimal digits: its group, where it shares no picture.
            split: The split that it is marked for, if any.
            pictures: All of its pictures.
            is_tied: Whether it is of one group with records that share a picture. Documents are not: a picture that
                many show, as a logo, would make one of them all.
        """
        number, found = len(self._own), set[str]()
        self._own.append(int(own, 16))
        self._splits.append(split and intern(split))
        for picture in pictures:
            if is_tied:
                self._pictures.append(mark_of(_identity(picture)))
                self._holders.append(number)
            if around := self._split_around(picture):
                found.add(around)
        if around := strictest(found):
            self._folders[number] = intern(around)
            self._num_across += len(found) > 1

    @cached_property
    def splits(self) -> Sequence[str | None]:
        """The split of each record, if any; by folders, none for training shares a picture with what is held out."""
        splits = by_folders(self._splits, self._folders)
        return splits if splits is self._splits else apart(self.groups, splits)

    @cached_property
    def groups(self) -> Sequence[str]:
        """The group of each record: a hash of one of those that share pictures with it, or with one that does."""
        pictures, holders = np.array(self._pictures, dtype=np.uint64), np.array(self._holders, dtype=np.int64)
        return named_groups(np.array(self._own, dtype=np.uint64), _roots(len(self._own), pictures, holders))

    @property
    def own(self) -> Sequence[str]:
        """The hash of each record alone."""
        return Marks(np.array(self._own, dtype=np.uint64))

    @property
    def noted(self) -> str:
        """Say how many records have pictures in several splits, where these count; else nothing."""
        if not self._num_across or self.splits is self._splits:
            return ""
        told = counted(self._num_across, "record with pictures in several splits")
        return f"{told}, of which they are held out as the strictest"

    def _split_around(self, picture: PictureSource) -> str | None:
        """Return the split that the folders of a picture, or of the file that holds it, are called as."""
        file = picture.path if isinstance(picture, Slice) else picture
        name = name_within(file, self._images) if isinstance(file, Path) else None
        return name and split_around(name.rpartition("/")[0])


def _identity(picture: PictureSource) -> bytes:
    """Return bytes that are alike for all names of one picture."""
    match picture:
        case Path():
            return file_of(picture)
        case Slice():
            return b"%s:%d:%d" % (file_of(picture.path), picture.begin, picture.size)
        case Held():
            return picture.data
        case _:
            return picture.values.tobytes()


def file_of(path: Path) -> bytes:
    """Return what a file is known by, whatever links lead to it; its name, where there is none."""
    try:
        facts = os.stat(path)
    except (OSError, ValueError):  # the loader names it, when its turn comes
        return str(path).encode("utf-8", "surrogatepass")
    return f"{facts.st_dev}:{facts.st_ino}".encode()


def _roots(count: int, marks: NDArray[np.uint64], holders: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return one of each set of records that pictures tie together, (count,), by the records that hold each mark."""
    order = np.argsort(marks, kind="stable")
    marks, holders = marks[order], holders[order]
    is_same = marks[1:] == marks[:-1]
    parents = array("q", range(count))
    for first, second in zip(holders[:-1][is_same].tolist(), holders[1:][is_same].tolist(), strict=True):
        one, other = _root(parents, first), _root(parents, second)
        parents[max(one, other)] = min(one, other)
    roots = np.array(parents, dtype=np.int64)
    while not np.array_equal(above := roots[roots], roots):
        roots = above
    return roots


def _root(parents: "array[int]", place: int) -> int:
    while parents[place] != place:
        parents[place] = parents[parents[place]]
        place = parents[place]
    return place
