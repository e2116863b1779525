"""What rows of every format name: a picture within a folder, and a split. It must not open pictures."""

import os
import posixpath
from collections.abc import Iterable
from pathlib import Path

from transfusion.data.errors import DataError, has_lone_surrogates
from transfusion.data.records.rows import Row
from transfusion.data.splits import split_marked


def check_unicode(texts: Iterable[str], where: str) -> None:
    """Check that words can be written as UTF-8, which half a surrogate pair cannot.

    Args:
        texts: The words of a record.
        where: Where they stand, for errors.

    Raises:
        DataError: They cannot.
    """
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            around = text[max(0, error.start - 20) : error.start + 20]
            raise DataError(f"{where}: half a surrogate pair in {around!r}; write plain Unicode") from error


def picture_at(folder: Path, name: str, where: str) -> Path:
    """Return the file of a picture that a row names relative to a folder.

    Args:
        folder: The folder.
        name: What the row says.
        where: The row, for errors.

    Raises:
        DataError: It is no name of a file, absolute, or leads out of the folder.
    """
    normal = posixpath.normpath(name)
    if "\0" in name or has_lone_surrogates(name):
        raise DataError(f"{where}: a null or half a surrogate pair in {name!r:.80}; write plain Unicode")
    if posixpath.isabs(normal) or normal.startswith("../") or normal == "..":
        raise DataError(f"{where}: {name!r} lies outside {folder}; name pictures relative to it (data.images names it)")
    return folder / normal


def name_within(path: Path, folder: Path) -> str | None:
    """Return what a file is called relative to a folder, wherever the two lie and however they are named.

    Args:
        path: The file, relative to the working folder or absolute.
        folder: The folder, likewise; it may be a link.

    Returns:
        The name, without ``..``; None: it lies elsewhere.

    >>> name_within(Path("data/./a/../1.png"), Path("data")), name_within(Path("1.png"), Path("data"))
    ('1.png', None)
    """
    text, prefix = str(path), f"{folder}/"
    if text.startswith(prefix):  # most do, and nothing is asked of the system for them
        name = posixpath.normpath(text[len(prefix) :])
        if name != ".." and not name.startswith("../"):
            return name
    whole = os.path.abspath(path)
    for base in (os.path.abspath(folder), os.path.realpath(folder)):
        if whole.startswith(within := os.path.join(base, "")):
            return whole[len(within) :]
    return None


def split_of(row: Row, where: str) -> str | None:
    """Return the split that a row names, if any: names of one meaning are one.

    Raises:
        DataError: It is no string.
    """
    split = row.get("split")
    if split is not None and not isinstance(split, str):
        raise DataError(f"{where}: expected a string as 'split', such as \"train\"; got {split!r:.80}")
    return split_marked(split) if split else None
