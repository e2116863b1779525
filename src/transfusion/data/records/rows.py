"""Rows of JSON by number: lines of a ``.jsonl`` file, or elements of a ``.json`` file that is one array.

Where each row begins and ends is found once, without reading what it holds; a row is parsed when it is asked for, so
memory is 16 bytes a row. It must not know what rows mean.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from transfusion.data.errors import DataError

SUFFIXES = (".json", ".jsonl")
BLOCK = 2**20
BLANKS = b" \t\r\n"
MARK = b"\xef\xbb\xbf"  # of the byte order, which some editors write before UTF-8
BLANK = re.compile(r"[ \t\r\n]+")
Row = dict[str, object]


class Rows:
    """The rows of a file, by number from 0."""

    def __init__(self, file: Path) -> None:
        """Find where the rows are.

        Raises:
            DataError: There is no such file, it is empty, or one array that does not end.
        """
        self.file = file
        if not file.is_file():
            raise DataError(f"{file}: there is no such file")
        self.is_array = _first(file) == b"["
        places = list(_elements(file) if self.is_array else _lines(file))
        if not places:
            raise DataError(f"{file} holds no rows; expected one JSON object a line, or an array of them")
        self._places: NDArray[np.int64] = np.array(places, dtype=np.int64)  # (rows, 3): begin, end, number from 1

    def __len__(self) -> int:
        """Count the rows."""
        return len(self._places)

    def __getitem__(self, index: int) -> Row:
        """Return a row, parsed.

        Raises:
            DataError: It is no JSON object; names the place.
        """
        text = self.bytes(index)
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:  # ValueError: not UTF-8, or a number of thousands of digits, too
            raise DataError(f"{self.where(index)}: not JSON ({error}); expected an object such as {{...}}") from error
        if not isinstance(row, dict):
            raise DataError(f"{self.where(index)}: expected a JSON object; got {text[:80].decode(errors='replace')}")
        return cast(Row, row)

    def __iter__(self) -> Iterator[Row]:
        """Yield all rows, parsed."""
        return (self[index] for index in range(len(self)))

    def bytes(self, index: int) -> bytes:
        """Return a row as it is written."""
        begin, end, _ = self._places[index].tolist()
        with self.file.open("rb") as stream:
            stream.seek(begin)
            return stream.read(end - begin)

    def where(self, index: int) -> str:
        """Say where a row stands."""
        return f"{self.file}, {self.place(index)}"

    def place(self, index: int) -> str:
        """Say which row of the file it is."""
        return f"element {index + 1}" if self.is_array else f"line {self._places[index, 2]}"

    def digest(self) -> str:
        """Name what the file holds."""
        with self.file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()


def first_row(file: Path) -> Row:
    """Return the first row of a file, which is read once for all who ask: one array is read whole for it.

    Raises:
        DataError: There is none.
    """
    status = file.stat()
    return _first_row(file, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=1)
def _first_row(file: Path, size: int, written_ns: int) -> Row:
    del size, written_ns
    return Rows(file)[0]


def _first(file: Path) -> bytes:
    """Return the first byte that is no blank."""
    with file.open("rb") as stream:
        beginning = stream.read(BLOCK).removeprefix(MARK).lstrip(BLANKS)
    return beginning[:1]


def _lines(file: Path) -> Iterator[tuple[int, int, int]]:
    """Yield begin, end and number from 1 of every line that is not blank."""
    end = 0
    with file.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            begin, end = end, end + len(line)
            skipped = len(MARK) if number == 1 and line.startswith(MARK) else 0
            if line[skipped:].strip(BLANKS):
                yield begin + skipped, end, number


def _elements(file: Path) -> Iterator[tuple[int, int, int]]:
    """Yield begin, end and number from 1 of every element of the array that a file is, which is held meanwhile.

    Raises:
        DataError: It is not JSON, does not end, or more follows it.
    """
    text = file.read_bytes().decode("latin-1")  # a letter a byte; what strings say is read later
    decoder, number = json.JSONDecoder(), 0
    place = _skipped(text, text.index("[") + 1)
    while text[place : place + 1] != "]":
        try:
            _, end = decoder.raw_decode(text, place)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{file}, element {number + 1}: not JSON ({error}), or the file is cut short") from error
        number += 1
        yield place, end, number
        place = _skipped(text, end)
        if text[place : place + 1] == ",":
            place = _skipped(text, place + 1)
        elif text[place : place + 1] != "]":
            raise DataError(f"{file}: after element {number} comes {text[place : place + 20]!r}; expected , or ]")
    if _skipped(text, place + 1) != len(text):
        raise DataError(f"{file}: more follows the array; expected one array, or one JSON object a line")


def _skipped(text: str, place: int) -> int:
    """Return where the blanks from a place on end."""
    found = BLANK.match(text, place)
    return place if found is None else found.end()
