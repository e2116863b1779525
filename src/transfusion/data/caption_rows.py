"""Tables of captions: rows that name a picture and what it shows, as JSON or CSV.

    {"file": "one.png", "text": "a cat on a sofa", "split": "test"}     lines of .jsonl, or one array of .json
    file_name,text                                                      .csv, also with ; or tabs between fields
    one.png,a cat on a sofa

A picture's name may be called ``file``, ``file_name`` or ``image``, its caption ``text`` or ``caption``; a list of
captions is one row each. It must not open pictures, nor know what else lies in the folder.
"""

import csv
import json
import posixpath
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple, cast

from transfusion.data.errors import DataError, has_lone_surrogates
from transfusion.data.formats import SUFFIXES
from transfusion.data.records.rows import SUFFIXES as ROW_SUFFIXES
from transfusion.data.records.rows import Row, Rows, first_row
from transfusion.data.settings import Layout

PICTURE_COLUMNS = ("file", "file_name", "image")
TEXT_COLUMNS = ("text", "caption")
CSV_SUFFIXES = (".csv", ".tsv")
CAPTIONS_FILE = "captions.jsonl"
CAPTIONS_ARRAY = "captions.json"
METADATA_FILES = ("metadata.jsonl", "metadata.csv")
TABLES = (CAPTIONS_FILE, *METADATA_FILES)


@dataclass(frozen=True)
class CaptionRow:
    """One caption of a picture.

    Attributes:
        file: The picture, relative to its folder.
        text: The caption.
        number: Which caption of this picture it is, from 0; with the file it names the record.
        split: The split that the row names, if any.
        same: The one name of the picture, where it has several by links and this is another.
    """

    file: str
    text: str
    number: int = 0
    split: str | None = None
    same: str | None = None

    @property
    def picture(self) -> str:
        """The one name of its picture."""
        return self.same or self.file


class _Row(NamedTuple):
    """A row of a table: where it stands, what it holds, and how it is written."""

    place: str
    value: Any
    line: str


def names_picture(row: Mapping[str, object]) -> str:
    """Return the column in which a row names a picture's file; empty where none does."""
    return next((key for key in PICTURE_COLUMNS if isinstance(row.get(key), str) and _is_picture(str(row[key]))), "")


def _is_picture(name: str) -> bool:
    return posixpath.splitext(name)[1].lower() in SUFFIXES


def speaks_of_captions(row: Row) -> str:
    """Return what of a row says that it is the caption of a picture; empty where nothing does."""
    picture = names_picture(row)
    text = next((key for key in TEXT_COLUMNS if isinstance(row.get(key), str | list)), "")
    return f"rows with {picture!r} and {text!r}" if picture and text else ""


def table_layout(file: Path, layout: Layout = "auto") -> Layout | None:
    """Return the layout of a table of captions that is named itself, None where a file is none.

    Args:
        file: The file.
        layout: The one that is asked for, which any file of rows may have.
    """
    if layout in ("captions", "metadata"):
        return layout if file.suffix.lower() in (*ROW_SUFFIXES, *CSV_SUFFIXES) else None
    if layout != "auto" or not (file.name in TABLES or _is_table(file)):
        return None
    return "metadata" if file.name in METADATA_FILES else "captions"


def _is_table(file: Path) -> bool:
    """Return whether the first row of a file names a picture, whatever it is called."""
    suffix = file.suffix.lower()
    if suffix in ROW_SUFFIXES:
        return bool(names_picture(first_row(file)))
    first = next(_csv_rows(file), None) if suffix in CSV_SUFFIXES else None
    return first is not None and bool(names_picture(first.value))


def table_rows(file: Path, quarantine: dict[str, str], prefix: str = "") -> Iterator[CaptionRow]:
    """Yield the captions of a table; blank ones go into quarantine.

    Args:
        file: The table.
        quarantine: Takes what is left out and why, by the row's place.
        prefix: Goes before the table's name there.

    Raises:
        DataError: A row names no picture or no caption, or cannot be read; names the line.
    """
    numbers: Counter[str] = Counter()
    folders = (posixpath.abspath(file.parent), posixpath.realpath(file.parent))  # which a whole name may begin with
    for row in _csv_rows(file) if file.suffix.lower() in CSV_SUFFIXES else _json_rows(file):
        where, shown = f"{file}, {row.place}", row.line[:80]
        name, texts = _said(row, where, file)
        if "\0" in name or has_lone_surrogates(name + "".join(texts)):
            raise DataError(f"{where}: a null or half a surrogate pair in {shown!r}; write plain Unicode")
        normal = _relative(name, folders)
        if normal is None:
            raise DataError(
                f"{where}: {name!r} lies outside the folder of the table; expected a name relative to {file.parent}: "
                "move the picture into it, or the table to a folder that holds both"
            )
        split = row.value.get("split")
        if split is not None and not isinstance(split, str):
            raise DataError(f"{where}: expected a string as 'split', such as \"train\"; got {split!r:.80}")
        for text in texts:
            if text:
                yield CaptionRow(normal, text, numbers[normal], split or None)
                numbers[normal] += 1
            else:
                why = f"{where}: the caption of {name!r} is empty; write one, or delete the row"
                quarantine[f"{prefix}{file.name}, {row.place}"] = why


def _said(row: _Row, where: str, file: Path) -> tuple[str, list[str]]:
    """Return the picture that a row names and its captions, blank ones empty.

    Raises:
        DataError: It names none, has no caption, or two columns of one meaning differ.
    """
    value = cast(dict[str, object], row.value) if isinstance(row.value, dict) else {}
    names = {key: name for key in PICTURE_COLUMNS if isinstance(name := value.get(key), str) and name.strip()}
    texts = {key: told for key in TEXT_COLUMNS if key in value and (told := _captions(value[key])) is not None}
    if not names or not texts:
        key = "file_name" if file.name in METADATA_FILES else "file"
        columns = f"; its columns are {', '.join(map(repr, value))}: rename those meant so" if value else ""
        raise DataError(
            f"{where}: expected an object with strings '{key}' and 'text'; got {row.line[:80]}{columns:.300}"
        )
    told = {key: captions for key, captions in texts.items() if any(captions)}
    _check_alike({key: posixpath.normpath(name) for key, name in names.items()}, where)
    _check_alike(told, where)
    return next(iter(names.values())), next(iter(told.values()), [""])


def _captions(value: object) -> list[str] | None:
    """Return the captions that a column holds, blank ones empty; None where it holds something else."""
    each = cast(list[object], value) if isinstance(value, list) else [value]
    told = [text.strip() if isinstance(text, str) else "" for text in each if text is None or isinstance(text, str)]
    return told if len(told) == len(each) else None


def _check_alike(told: Mapping[str, object], where: str) -> None:
    """Refuse two columns of one meaning that say different things."""
    (one, first), *others = [*told.items()] or [("", None)]
    if differing := next((key for key, value in others if value != first), None):
        raise DataError(
            f"{where}: columns {one!r} and {differing!r} mean the same, and are {first!r:.60} and "
            f"{told[differing]!r:.60}; take one of them out, or call it otherwise"
        )


def _json_rows(file: Path) -> Iterator[_Row]:
    """Yield the rows of a file of JSON: its lines, or the elements of the one array that it is."""
    text = utf8(file)
    if text.lstrip().startswith("["):
        rows = Rows(file)
        for number in range(len(rows)):
            yield _Row(rows.place(number), rows[number], rows.bytes(number).decode())
        return
    for number, line in enumerate(text.split("\n"), start=1):  # other breaks may stand in a caption
        if line.strip():
            try:
                yield _Row(f"line {number}", json.loads(line), line)
            except (ValueError, RecursionError) as error:  # ValueError: a number of thousands of digits, too
                raise DataError(
                    f"{file}, line {number}: not JSON ({error}); expected {{'file': ..., 'text': ...}} in each line, "
                    "or one array of these"
                ) from error


def _csv_rows(file: Path) -> Iterator[_Row]:
    """Yield the rows of a table with a head line, but for blank ones; their numbers are those of their last lines."""
    text = utf8(file)
    head = text.partition("\n")[0]
    mark = next((mark for mark in ",;\t" if mark in head), ",")
    table = csv.DictReader(StringIO(text, newline=""), restkey="", strict=True, delimiter=mark)
    try:
        for row in table:
            if row.get(""):
                raise DataError(
                    f"{file}, line {table.line_num}: more fields than the head line names; quote a caption that has "
                    'commas, as in 1.png,"a red, big dog"'
                )
            told = {name: value for name, value in row.items() if name}
            if any(told.values()):
                yield _Row(f"line {table.line_num}", told, ",".join(value for value in told.values() if value))
    except csv.Error as error:
        raise DataError(f"{file}, line {table.line_num}: not CSV ({error}); expected file_name,text") from error


def _relative(name: str, folders: Collection[str]) -> str | None:
    """Return the one name of a picture relative to a folder, "./a.png" is a.png; None where it leads out of it."""
    normal = posixpath.normpath(name)
    for folder in folders if posixpath.isabs(normal) else ():
        if normal.startswith(f"{folder}/"):
            return normal.removeprefix(f"{folder}/")
    return None if posixpath.isabs(normal) or normal.split("/")[0] == ".." else normal


def utf8(file: Path) -> str:
    """Read a text.

    Raises:
        DataError: It is not UTF-8; names the line and the byte.
    """
    data = file.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DataError(f"{file}, line {line}: byte {error.start} is not UTF-8; save the file as UTF-8") from error
