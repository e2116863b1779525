"""A format of one's own: a function in a file of one's own, named by data.reader, makes records of what data.path has.

    # my_format.py
    from transfusion.data.records import Captioned

    def record(row: dict) -> Captioned | None:            # of a row of JSON: data.path is a file of them, or a folder
        return Captioned(row["key"], row["title"], row["picture"]) if row["title"] else None

    def records(path: Path) -> Sequence[Captioned]:       # of data.path itself, where the argument is marked as a Path
        return MyArchive(path)                            # anything with a length and items by number

    transfusion train folder data.path=rows.jsonl data.layout=own data.reader=my_format.py:record

Records are Captioned, Interleaved, Conversation or Edit, all of one kind. Their pictures are Paths, relative to
data.images or to the data, or a Slice of a file, or a Held in memory. A function of rows leaves one out by returning
None. The row's "split" counts, or else the split that its file or folder is called as (train.jsonl, test/1.jsonl). An
argument that is not marked is a row where data.path is a .json or .jsonl file.

**This runs the file's code**: when a run opens its data, also when it goes on, for its settings name the file. Using a
model (generate, from_pretrained) never imports it. What the file holds is part of the data: changed, they changed.
"""

import hashlib
import importlib.util
import inspect
import sys
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import cast

from transfusion.data.decode import Held, PictureSource, Slice
from transfusion.data.errors import DataError
from transfusion.data.records.mapped import Mapped, MappedRecords, part_name
from transfusion.data.records.places import Place, find_files
from transfusion.data.records.record import Captioned, Conversation, Edit, Interleaved, Part, Record
from transfusion.data.records.rows import SUFFIXES as ROW_SUFFIXES
from transfusion.data.records.rows import Rows
from transfusion.data.records.within import split_of

KINDS = (Captioned, Interleaved, Conversation, Edit)
PATH_MARKS = (Path, "Path", "pathlib.Path")
Function = Callable[[object], object]


class Own:
    """What a function of one's own makes: of rows of files, each; or at once, of a path."""

    def __init__(self, path: Path, images: Path, reader: str) -> None:
        """Import the function, and find what it is given.

        Args:
            path: The data.
            images: Folder relative to which pictures are named.
            reader: ``FILE.py:function``.

        Raises:
            DataError: There is no such function, the file's code fails, or there are no such data.
        """
        self._file, self._images, self._reader = Path(reader.rpartition(":")[0]), images, reader
        if not path.exists():
            raise DataError(f"there is no {path}; data.path names what data.reader reads")
        self._function = _imported(reader)
        self._rows: list[Rows] = []
        self._splits: list[str | None] = []
        self._all: Sequence[object] = ()
        if _takes_path(self._function, reader, path):
            self._all = self._sequence(path)
            self._where = f"{reader} of {path}"
        else:
            places = _files(path, reader)
            self._rows, self._splits = [Rows(place.file) for place in places], [place.split for place in places]
        self._starts = [0]
        for rows in self._rows:
            self._starts.append(self._starts[-1] + len(rows))

    def __len__(self) -> int:
        """Count the rows, or what the function made at once."""
        return self._starts[-1] if self._rows else len(self._all)

    def where(self, index: int) -> str:
        """Say where one stands."""
        if not self._rows:
            return f"{self._where}, record {index}"
        number, place = self._at(index)
        return self._rows[number].where(place)

    def made(self, index: int) -> Mapped:
        """Make the record of a row."""
        where, split, row = self.where(index), None, None
        if self._rows:
            number, place = self._at(index)
            row = self._rows[number][place]
            split = split_of(row, where) or self._splits[number]
        try:
            record = self._function(row) if self._rows else self._all[index]
        except Exception as error:  # whatever the user's code raises
            raise DataError(f"{where}: {self._reader} fails: {type(error).__name__}: {error}") from error
        if record is None and self._rows:
            return Mapped(None, split)
        try:
            return Mapped(_checked(record, self._images), split)
        except DataError as error:
            raise DataError(f"{where}: {self._reader} {error}") from error

    def digest(self) -> str:
        """Name the function's file and its data: rows by what they hold, others by the records."""
        told = [hashlib.sha256(self._file.read_bytes()).hexdigest(), self._reader.rpartition(":")[2]]
        told += [rows.digest() for rows in self._rows]
        if not self._rows:
            records = (self.made(index).record for index in range(len(self)))
            told += ["\0".join((repr(type(record)), *self._parts(record))) for record in records if record is not None]
        return hashlib.sha256("\n".join(told).encode("utf-8", "surrogatepass")).hexdigest()

    def _parts(self, record: Record) -> list[str]:
        return [record.name, *(part_name(part, self._images) for part in record.parts)]

    def _at(self, index: int) -> tuple[int, int]:
        """Return which file a row stands in, and its place there."""
        number = bisect_right(self._starts, index) - 1
        return number, index - self._starts[number]

    def _sequence(self, path: Path) -> Sequence[object]:
        try:
            found = self._function(path)
            len(cast(Sequence[object], found))
        except Exception as error:
            raise DataError(f"{self._reader} of {path} fails: {type(error).__name__}: {error}") from error
        return cast(Sequence[object], found)


def own(path: Path, images: Path, reader: str | None) -> MappedRecords:
    """Open what a function of one's own reads; runs its file.

    Raises:
        DataError: No function is named, or it fails; names the row and what it raised.
    """
    if reader is None:
        raise DataError("data.layout=own reads data by a function: name it, as data.reader=my_format.py:record")
    return MappedRecords(Own(path, images, reader), "own", path, images)


def _imported(reader: str) -> Function:
    """Import the function that ``FILE.py:function`` names."""
    name, _, function = reader.rpartition(":")
    file = Path(name)
    if not name or not file.is_file():
        raise DataError(f"data.reader={reader}: there is no file {name!r}; expected FILE.py:function")
    digest = hashlib.sha256(file.read_bytes() + str(file.resolve()).encode("utf-8", "surrogatepass")).hexdigest()
    known = f"transfusion_reader_{digest[:16]}"
    try:
        module = sys.modules.get(known) or _run(file, known)
    except Exception as error:
        raise DataError(f"data.reader={reader}: the file fails: {type(error).__name__}: {error}") from error
    found = vars(module).get(function)
    if not callable(found):
        raise DataError(f"data.reader={reader}: {name} has no function {function!r}")
    return cast(Function, found)


def _run(file: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise DataError(f"{file} is no Python; expected FILE.py:function")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look, and workers
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _takes_path(function: Function, reader: str, path: Path) -> bool:
    """Return whether a function takes the data's path: its argument is marked so, or the data are no rows."""
    try:
        first = next(iter(inspect.signature(function).parameters.values()), None)
    except (TypeError, ValueError):
        first = None
    if first is None:
        raise DataError(f"data.reader={reader} takes no argument; expected a row (a dict), or a Path")
    if first.annotation is inspect.Parameter.empty:
        return path.suffix.lower() not in ROW_SUFFIXES
    return first.annotation in PATH_MARKS


def _files(path: Path, reader: str) -> list[Place]:
    """Return the files of rows: the one, or all that lie in a folder, by name, or in folders of splits."""
    places = find_files(path, _is_rows, is_named=True) if path.is_dir() else [Place(path, path.name)]
    if not places:
        raise DataError(
            f"{path} has no .json or .jsonl, of whose rows {reader} makes records; mark its argument as a Path to give "
            "it the folder"
        )
    return places


def _is_rows(name: str) -> bool:
    return name.lower().endswith(ROW_SUFFIXES)


def _checked(record: object, images: Path) -> Record:
    """Return a record whose pictures lie where they are named.

    Raises:
        DataError: It is no record, or holds something else than words and pictures.
    """
    if not isinstance(record, KINDS):
        raise DataError(f"returned {record!r:.80}; expected {', '.join(kind.__name__ for kind in KINDS)}")
    match record:
        case Captioned():
            return replace(record, text=_words(record.text), picture=_picture(record.picture, images))
        case Interleaved():
            return replace(record, parts=_parts(record.parts, images))
        case Edit():
            return replace(record, prompt=_parts(record.prompt, images), picture=_picture(record.picture, images))
        case Conversation():
            turns = tuple(replace(turn, parts=_parts(turn.parts, images)) for turn in record.turns)
            return replace(record, turns=turns, system=_words(record.system))


def _parts(parts: object, images: Path) -> tuple[Part, ...]:
    if isinstance(parts, str) or not isinstance(parts, Sequence):
        raise DataError(f"gave {parts!r:.80} as parts; expected a sequence of strings (words) and Paths (pictures)")
    return tuple(part if isinstance(part, str) else _picture(part, images) for part in cast(Sequence[object], parts))


def _words(text: object) -> str:
    if not isinstance(text, str):
        raise DataError(f"gave {text!r:.80} as words; expected a string")
    return text


def _picture(picture: object, images: Path) -> PictureSource:
    """Return a picture, its file named relative to the working folder; a string is a file's name where no words are."""
    if isinstance(picture, str | Path):
        return images / picture
    if not isinstance(picture, Slice | Held):
        raise DataError(f"gave {picture!r:.80} as a picture; expected a Path, a Slice or a Held")
    return picture
