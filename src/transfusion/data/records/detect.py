"""Which format of records a path has, by names of files and the first row: one table, one answer.

A folder of captioned pictures or of texts has none: see ``layouts``.
"""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from transfusion.data.errors import DataError
from transfusion.data.layouts import CAPTIONS_FILE, TABLES
from transfusion.data.records.conversations import CONVERSATIONS_FILES, conversations
from transfusion.data.records.edits import EDITS_FILES, edits, speaks_of_edits
from transfusion.data.records.interleaved import DOCUMENTS_FILE, Documents
from transfusion.data.records.own import own
from transfusion.data.records.record import Records
from transfusion.data.records.rows import Row, Rows
from transfusion.data.settings import FolderConfig, Layout

ROW_SUFFIXES = (".json", ".jsonl")


class Format(NamedTuple):
    """A format of records.

    Attributes:
        evidence: Says what of a path speaks for it, for a person; empty where nothing does.
        opened: Opens it.
    """

    evidence: Callable[[Path], str]
    opened: Callable[[FolderConfig], Records]


def _named(name: str) -> Callable[[Path], str]:
    return lambda path: name if (path / name).is_file() else ""


def _keyed(*keys: str) -> Callable[[Path], str]:
    """Look for a key of the first row of a file of rows."""
    return _first(lambda row: next((f"rows with {key!r}" for key in keys if key in row), ""))


def _first(told: Callable[[Row], str]) -> Callable[[Path], str]:
    """Look at the first row of a file of rows."""

    def evidence(path: Path) -> str:
        if path.suffix.lower() not in ROW_SUFFIXES or not path.is_file():
            return ""
        status = path.stat()
        return told(_first_row(path, status.st_size, status.st_mtime_ns))

    return evidence


@lru_cache(maxsize=1)
def _first_row(path: Path, size: int, written_ns: int) -> Row:
    """Return the first row of a file, which is looked for once by all formats: one array is read whole for it."""
    del size, written_ns
    return Rows(path)[0]


def _either(*each: Callable[[Path], str]) -> Callable[[Path], str]:
    return lambda path: next((found for evidence in each if (found := evidence(path))), "")


def _file(config: FolderConfig, *names: str) -> Path:
    """Return the file of rows: the path, or the first of some names that lies in it."""
    path = config.path
    return next((path / name for name in names if (path / name).is_file()), path / names[0]) if path.is_dir() else path


def _images(config: FolderConfig) -> Path:
    """Return the folder that pictures are named relative to: the one that is named, or that of the rows."""
    return config.images or (config.path if config.path.is_dir() else config.path.parent)


FORMATS: dict[Layout, Format] = {
    "interleaved": Format(
        _either(_named(DOCUMENTS_FILE), _keyed("segments", "texts")),
        lambda config: Documents(_file(config, DOCUMENTS_FILE), _images(config)),
    ),
    "lines": Format(
        _keyed("text"),
        lambda config: Documents(config.path, _images(config), has_pictures=False),
    ),
    "conversations": Format(
        _either(*map(_named, CONVERSATIONS_FILES), _keyed("conversations", "messages")),
        lambda config: conversations(_file(config, *CONVERSATIONS_FILES), _images(config)),
    ),
    "edits": Format(
        _either(*map(_named, EDITS_FILES), _first(speaks_of_edits)),
        lambda config: edits(_file(config, *EDITS_FILES), _images(config)),
    ),
    "own": Format(lambda _: "", lambda config: own(config.path, _images(config), config.reader)),
}


def format_of(path: Path, layout: Layout = "auto") -> Layout | None:
    """Return the format of records that a path has, or None.

    Args:
        path: Folder or file.
        layout: The one that is asked for, if any.

    Raises:
        DataError: The path speaks for several, or for a table of captions beside one; or there is no such path.
    """
    if layout != "auto":
        return layout if layout in FORMATS else None
    evidence: dict[Layout, str] = {name: found for name, each in FORMATS.items() if (found := each.evidence(path))}
    tables = [name for name in TABLES if (path / name).is_file()] if evidence else []
    kinds = ["captions" if name == CAPTIONS_FILE else "metadata" for name in tables]
    beside = (f"{kind} ({name})" for kind, name in zip(kinds, tables, strict=True))
    told = [*(f"{name} ({found})" for name, found in evidence.items()), *beside]
    if len(told) > 1:
        choice = " or ".join(f"data.layout={name.split()[0]}" for name in told)
        raise DataError(f"{path} looks like two layouts at once, of {' and of '.join(told)}; say which one: {choice}")
    return next((name for name in FORMATS if name in evidence), None)


def open_records(config: FolderConfig, layout: Layout) -> Records:
    """Open the records of a format.

    Raises:
        DataError: They cannot be read; names the place.
    """
    return FORMATS[layout].opened(config)
