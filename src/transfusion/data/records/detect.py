"""Which format of records a path has, by names of files and the first row: one table, one answer.

A folder of captioned pictures or of texts has none: see ``layouts``.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from transfusion.data.caption_rows import speaks_of_captions
from transfusion.data.errors import DataError
from transfusion.data.layouts import CAPTIONS_FILE, TABLES
from transfusion.data.records.conversations import CONVERSATIONS_FILES, conversations
from transfusion.data.records.edits import EDITS_FILES, edits, speaks_of_edits
from transfusion.data.records.idx import IdxFiles, is_images
from transfusion.data.records.interleaved import DOCUMENTS_FILE, Documents
from transfusion.data.records.own import own
from transfusion.data.records.places import Wanted, find_files
from transfusion.data.records.record import Records
from transfusion.data.records.rows import SUFFIXES as ROW_SUFFIXES
from transfusion.data.records.rows import Row, first_row
from transfusion.data.records.shards import Shards, is_tar
from transfusion.data.records.table import SAVED_FILES, Table, has_picture_column, is_parquet
from transfusion.data.settings import FolderConfig, Layout


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
    """Look at the first row of a file of rows; of a table of captions, its folder is what is meant."""

    def evidence(path: Path) -> str:
        if path.suffix.lower() not in ROW_SUFFIXES or not path.is_file() or path.name in TABLES:
            return ""
        return told(first_row(path))

    return evidence


def _either(*each: Callable[[Path], str]) -> Callable[[Path], str]:
    return lambda path: next((found for evidence in each if (found := evidence(path))), "")


def _file(config: FolderConfig, *names: str) -> Path:
    """Return the file of rows: the path, or the one of some names that lies in it.

    Raises:
        DataError: Several do.
    """
    path = config.path
    if not path.is_dir():
        return path
    found = [name for name in names if (path / name).is_file()]
    if len(found) > 1:
        raise DataError(
            f"{path} holds both {' and '.join(found)}; take one of them away, or name one (data.path={path / found[0]})"
        )
    return path / (found or names)[0]


def _images(config: FolderConfig) -> Path:
    """Return the folder that pictures are named relative to: the one that is named, or that of the rows."""
    return config.images or (config.path if config.path.is_dir() else config.path.parent)


def _placed(is_wanted: Wanted) -> Callable[[Path], str]:
    """Look for files by their names, and nothing else beside them."""
    return lambda path: next((place.name for place in find_files(path, is_wanted)), "")


def _table(*, has_pictures: bool) -> Callable[[Path], str]:
    """Look for a table, with a column of pictures or without."""

    def evidence(path: Path) -> str:
        saved = next((name for name in SAVED_FILES if (path / name).is_file()), "")
        found = saved or _placed(is_parquet)(path)
        return found if found and has_picture_column(path) == has_pictures else ""

    return evidence


def _opened_table(config: FolderConfig, *, has_pictures: bool) -> Records:
    columns, is_named = (config.picture_column, config.text_column), config.layout != "auto"
    return Table(config.path, columns=columns, has_pictures=has_pictures, images=config.images, is_named=is_named)


FORMATS: dict[Layout, Format] = {
    "interleaved": Format(
        _either(_named(DOCUMENTS_FILE), _keyed("segments", "texts")),
        lambda config: Documents(_file(config, DOCUMENTS_FILE), _images(config)),
    ),
    "lines": Format(
        _first(lambda row: "rows with 'text'" if "text" in row and not speaks_of_captions(row) else ""),
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
    "shards": Format(_placed(is_tar), lambda config: Shards(config.path, is_named=config.layout != "auto")),
    "table": Format(_table(has_pictures=True), lambda config: _opened_table(config, has_pictures=True)),
    "table_text": Format(_table(has_pictures=False), lambda config: _opened_table(config, has_pictures=False)),
    "idx": Format(_placed(is_images), lambda config: IdxFiles(config.path, is_named=config.layout != "auto")),
}


_WRITTEN = "write its pictures into a folder, with a captions.jsonl beside them"
PACKED: dict[Layout, str] = {
    "shards": "unpack each tar into a folder (tar -xf pets-000.tar -C pets), where pictures and their .txt are pairs",
    "table": _WRITTEN,
    "table_text": "text has none",
    "idx": _WRITTEN,
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
    named = _first(speaks_of_captions)(path) if evidence else ""
    told = [*(f"{name} ({found})" for name, found in evidence.items()), *beside]
    told += [f"captions ({named})"] if named else []
    if len(told) > 1:
        choice = " or ".join(f"data.layout={name.split()[0]}" for name in told)
        raise DataError(f"{path} looks like two layouts at once, of {' and of '.join(told)}; say which one: {choice}")
    return next((name for name in FORMATS if name in evidence), None)


def check_in_files(path: Path, layout: Layout = "auto") -> None:
    """Refuse pictures within larger files where pictures in files of their own are needed.

    Raises:
        DataError: They are such; says what to do.
    """
    for name, remedy in PACKED.items():
        if layout == name or (layout == "auto" and FORMATS[name].evidence(path)):
            raise DataError(
                f"{path} has layout {name}, and pictures in files of their own are needed here: {remedy}; or train "
                "on it as it is, through any autoencoder (transfusion train folder autoencoder.kind=pretrained)"
            )


def open_records(config: FolderConfig, layout: Layout) -> Records:
    """Open the records of a format.

    Raises:
        DataError: They cannot be read; names the place.
    """
    return FORMATS[layout].opened(config)
