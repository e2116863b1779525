"""What is kept of records that a format scans: a few numbers each, names as bytes. It must not know formats.

At 10 million records of 20 letters that are less than 1 GB in all.
"""

import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from sys import intern
from typing import overload

import numpy as np
from numpy.typing import NDArray

from transfusion.data.errors import plain
from transfusion.data.splits import apart, by_folders, hold_out_fraction, split_around

WHOLE_BYTES = 2**15  # of a picture that is read whole to know it again: 4 KiB, a page, of eight places are as much
END_BYTES = 4096  # of a larger one, from each end
BETWEEN = 6, 512  # places between these, and bytes of each


class Tally:
    """Records, one after another, and what was left out.

    Attributes:
        quarantine: What is left out and why, by name.
        left_out: What else is not taken, counted by why.
    """

    def __init__(self, width: int) -> None:
        """Begin.

        Args:
            width: Numbers that say where a record lies.
        """
        self._width = width
        self._numbers, self._marks, self._ends, self._names = array("q"), array("Q"), array("q", [0]), bytearray()
        self._files = array("Q")
        self._splits: list[str | None] = []
        self._folders: dict[int, str] = {}
        self.quarantine: dict[str, str] = {}
        self.left_out: Counter[str] = Counter()
        self._digest = hashlib.sha256()

    def __len__(self) -> int:
        """Count the records."""
        return len(self._marks)

    def add(
        self,
        name: str,
        numbers: tuple[int, ...],
        mark: int,
        text: str,
        split: str | None,
        *,
        folder: str = "",
        file: int | None = None,
    ) -> None:
        """Take a record.

        Args:
            name: Names it among all.
            numbers: Say where it lies.
            mark: A hash of its picture, or of its text.
            text: Its words.
            split: The split that the data mark for it, if any.
            folder: Which its picture is named in; where it is called as a split, see ``by_folders``.
            file: A hash of the file of its picture, alike for all of its names, where it is one of its own.
        """
        if around := split_around(folder):
            self._folders[len(self)] = intern(around)
        assert len(numbers) == self._width, numbers
        self._numbers.extend(numbers)
        self._marks.append(mark)
        self._files.append(mark if file is None else file)
        self._names += name.encode("utf-8", "surrogateescape")
        self._ends.append(len(self._names))
        self._splits.append(split and intern(split))
        self._digest.update(json.dumps([name, mark, text, split]).encode())

    def begin(self, name: str) -> None:
        """Say what the records that follow lie in, which belongs to what they are."""
        self._digest.update(json.dumps([name]).encode())

    def leave(self, name: str, why: str, kind: str) -> None:
        """Leave something out: named with its reason, and counted by its kind."""
        self.quarantine[plain(name)] = plain(why)
        self.left_out[kind] += 1

    def numbers(self, index: int) -> tuple[int, ...]:
        """Return the numbers of a record."""
        return tuple(self._numbers[index * self._width : (index + 1) * self._width])

    def name(self, index: int) -> str:
        """Return the name of a record."""
        name = self._names[self._ends[index] : self._ends[index + 1]]
        return name.decode("utf-8", "surrogateescape")

    @cached_property
    def splits(self) -> Sequence[str | None]:
        """The split of each record, if any; by folders, none for training has the picture of one that is held out."""
        splits = by_folders(self._splits, self._folders)
        return splits if splits is self._splits else apart(self.groups, splits)

    @property
    def own(self) -> "Marks":
        """The hashes of all records."""
        return Marks(np.frombuffer(self._marks, dtype=np.uint64))

    @cached_property
    def groups(self) -> "Marks":
        """The same, but one for all records of a file that has several names."""
        _, first, inverse = np.unique(
            np.frombuffer(self._files, dtype=np.uint64), return_index=True, return_inverse=True
        )
        return named_groups(np.frombuffer(self._marks, dtype=np.uint64), first[inverse])

    def digest(self) -> str:
        """Name all records, by their names, hashes, words and splits."""
        return self._digest.hexdigest()


class Marks(Sequence[str]):
    """Hashes, 8 bytes each, that are read as strings."""

    def __init__(self, values: NDArray[np.uint64]) -> None:
        """Keep them, (records,) uint64."""
        self._values = values

    def __len__(self) -> int:
        """Count them."""
        return len(self._values)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> "Marks": ...
    def __getitem__(self, index: int | slice) -> "str | Marks":
        """Return one, as 16 digits, or some."""
        return Marks(self._values[index]) if isinstance(index, slice) else f"{int(self._values[index]):016x}"


def named_groups(own: NDArray[np.uint64], roots: NDArray[np.int64]) -> Marks:
    """Name groups of records by the hash that is held out last: a group is held out where all of its own hashes are.

    So what was trained on is never held out of more data: a record that comes to a group leaves it where it was, or has
    it trained on. That costs of the share: of groups of several hashes fewer are held out than of others.

    Args:
        own: The hash of each record, (records,).
        roots: One record of the group of each, (records,).

    Returns:
        The name of each record's group.
    """
    is_tied = own != own[roots]
    is_tied = np.bincount(roots[is_tied], minlength=len(own)).astype(bool)[roots]  # groups of several hashes
    tied = np.flatnonzero(is_tied)
    fractions = [hold_out_fraction(f"{value:016x}") for value in own[tied].tolist()]
    order = tied[np.lexsort((own[tied], np.array(fractions), roots[tied]))]
    last = np.arange(len(own))
    last[roots[order]] = order  # of each group the last in order stays
    return Marks(own[np.where(is_tied, last[roots], np.arange(len(own)))])


def mark_of(*parts: bytes | memoryview) -> int:
    """Return a hash of bytes: 64 bits, of which equal ones in data of 10 million are not to be expected.

    >>> mark_of(b"a", b"b") == mark_of(b"ab"), mark_of(b"a") == mark_of(b"b")
    (True, False)
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(part)
    return int.from_bytes(digest.digest(), "little")


def mark_of_places(size: int, read: Callable[[int, int], bytes | memoryview]) -> int:
    """Return a hash of a picture's bytes: of a small one all; of others the size, both ends and a few places between,
    for no more is read of millions before a run. Ends alone are the border, where pictures are not compressed.

    Args:
        size: Its bytes.
        read: Returns so many bytes from a place on.
    """
    if size <= WHOLE_BYTES:
        return mark_of(size.to_bytes(8, "little"), read(0, size))
    count, length = BETWEEN
    between = [read(size * number // (count + 1), length) for number in range(1, count + 1)]
    return mark_of(size.to_bytes(8, "little"), read(0, END_BYTES), *between, read(size - END_BYTES, END_BYTES))


def mark_of_picture(data: memoryview) -> int:
    """Return ``mark_of_places`` of a picture in memory."""
    return mark_of_places(len(data), lambda begin, size: data[begin : begin + size])


class Tallied:
    """Records that a tally keeps."""

    _tally: Tally

    @property
    def splits(self) -> Sequence[str | None]:
        """The split of each record, if any."""
        return self._tally.splits

    @property
    def groups(self) -> Sequence[str]:
        """A hash of each picture, or of each text."""
        return self._tally.groups

    @property
    def own(self) -> Sequence[str]:
        """The same, of each alone."""
        return self._tally.own

    @property
    def quarantine(self) -> Mapping[str, str]:
        """What is left out and why, by name."""
        return self._tally.quarantine
