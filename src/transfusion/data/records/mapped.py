"""Records that something makes of numbered items, one of each: checked once, made again when they are asked for.

It must not know what the items are.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Protocol

from transfusion.data.decode import Held, Slice
from transfusion.data.errors import DataError
from transfusion.data.found import Found
from transfusion.data.records.record import Interleaved, Part, Record, pictures, says_nothing, words
from transfusion.data.records.rows import Rows
from transfusion.data.records.sides import Sides
from transfusion.data.records.within import check_unicode, name_within
from transfusion.data.settings import Layout

SKIPPED, SILENT = "row that its reader leaves out", "record in which nothing is said that a model would learn"


class Mapped(NamedTuple):
    """What is made of an item.

    Attributes:
        record: The record; None: the item is left out.
        split: The split that it is marked for, if any.
    """

    record: Record | None
    split: str | None = None


class Items(Protocol):
    """What records are made of, by number."""

    def __len__(self) -> int:
        """Count them."""
        ...

    def where(self, index: int) -> str:
        """Say where one stands."""
        ...

    def made(self, index: int) -> Mapped:
        """Make a record of one.

        Raises:
            DataError: None can be made; names the place.
        """
        ...

    def digest(self) -> str:
        """Name what they hold and what is made of it."""
        ...


class RowItems:
    """Items that are the rows of a file; what is made of one is told by who extends it."""

    def __init__(self, file: Path, images: Path) -> None:
        """Find the rows; pictures are named relative to ``images``."""
        self._rows, self._images = Rows(file), images
        self.digest = self._rows.digest

    def __len__(self) -> int:
        """Count the rows."""
        return len(self._rows)

    def where(self, index: int) -> str:
        """Say where a row stands."""
        return self._rows.where(index)


class MappedRecords:
    """Records of items. Those that share a picture are held out together, by the name of one's first; those without
    pictures by their words, and documents, which many may show one logo, by all that they hold.
    """

    def __init__(self, items: Items, layout: Layout, path: Path, images: Path) -> None:
        """Make every record once, to check it and to count.

        Args:
            items: What they are made of.
            layout: What that is called.
            path: The data.
            images: Folder relative to which pictures are named, wherever it lies.

        Raises:
            DataError: One cannot be made, two are called alike, they are of several kinds, or there are none.
        """
        self._items, self._images = items, images
        self.quarantine: dict[str, str] = {}
        self._places, sides = list[int](), Sides(images)
        num_pictures = num_letters = 0
        left_out = Counter[str]()
        kind: type[Record] | None = None
        names = set[str]()
        for index in range(len(items)):
            record, split = items.made(index)
            if record is None:
                left_out[SKIPPED] += 1
                continue
            check_unicode(words(record), items.where(index))
            self._check(record, items.where(index), kind, names)
            kind = type(record)
            names.add(record.name)
            if says_nothing(record):
                left_out[SILENT] += 1
                self.quarantine[record.name] = f"{items.where(index)}: {SILENT}"
                continue
            self._places.append(index)
            is_tied = not isinstance(record, Interleaved)
            sides.add(self._own(record), split, pictures(record), is_tied=is_tied)
            num_pictures += sum(1 for _ in pictures(record))
            num_letters += sum(map(len, words(record)))
        if kind is None or not self._places:
            first = f"; the first: {next(iter(left_out))}" if left_out else ""
            raise DataError(f"{path} gives no records{first}")
        self.kind: type[Record] = kind
        self.splits: Sequence[str | None] = sides.splits
        self.groups: Sequence[str] = sides.groups
        self.own: Sequence[str] = sides.own
        self.found = Found(
            str(path),
            layout,
            pictures=num_pictures,
            letters=num_letters,
            texts=len(self._places),
            noted=sides.noted,
            left_out=dict(left_out),
        )

    @staticmethod
    def _check(record: Record, where: str, kind: type[Record] | None, names: Collection[str]) -> None:
        """Check that a record is of the kind of those before, and called otherwise.

        Raises:
            DataError: It is not.
        """
        if kind is not None and not isinstance(record, kind):
            told = f"is {type(record).__name__}, and those before are {kind.__name__}"
            raise DataError(f"{where} {told}: records of one kind are wanted, in data of their own each")
        if record.name in names:
            raise DataError(
                f"{where}: a record before it is called {record.name!r}, too; a record's name is the key of all that "
                "is drawn for it: give each its own"
            )

    def __getitem__(self, index: int) -> Record:
        """Return a record.

        Raises:
            DataError: It is none any more.
        """
        record = self._items.made(self._places[index]).record
        if record is None:
            raise DataError(f"{self._items.where(self._places[index])} is left out now, and was not before")
        return record

    def digest(self) -> str:
        """Name what the items hold."""
        return f"{self.found.layout}:{self._digest}"

    @cached_property
    def _digest(self) -> str:
        return self._items.digest()

    def _own(self, record: Record) -> str:
        first = None if isinstance(record, Interleaved) else next(pictures(record), None)
        return own_hash(record.parts if first is None else (first,), self._images)


def own_hash(parts: Iterable[Part], images: Path) -> str:
    """Return a hash of parts, 16 hexadecimal digits, that is the same wherever the data lie."""
    told = repr([part if isinstance(part, str) else (part_name(part, images),) for part in parts])
    return hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def part_name(part: Part, images: Path) -> str:
    """Name what a part holds, wherever the data lie; a picture outside the folder by where it lies."""
    if isinstance(part, Path):
        return name_within(part, images) or os.path.abspath(part)
    if isinstance(part, Slice):
        return f"{part_name(part.path, images)}, {part.begin}:{part.size}"
    return hashlib.sha256(part.data).hexdigest() if isinstance(part, Held) else str(part)
