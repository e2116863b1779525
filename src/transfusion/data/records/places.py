"""Where the files of a format lie: in a folder, in folders of splits within it, or in one that it wraps.

    shards/a-000.tar                     all in one
    shards/train/0.tar  test/0.tar       the folders' names are splits
    data/train-00000-of-00002.parquet    so are the files', where all are named for one by a word of theirs
    photos/shards/a-000.tar              ``photos`` only wraps

It must not read what files hold.
"""

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from transfusion.data.errors import DataError
from transfusion.data.formats import SUFFIXES
from transfusion.data.found import listed
from transfusion.data.layouts import TABLES, is_note
from transfusion.data.splits import TEST, TRAIN, alike, split_named
from transfusion.data.tree import TEXT_SUFFIX, is_folder

DEEPEST = 4  # folders around the files, at most
NUMBER = re.compile(r"[._-]?\d+(?:[._-]of[._-]\d+)?(?:-[0-9a-f]{16})?$")  # of a part, and the hash that the hub adds
WORDS = {"t10k": TEST}  # what MNIST calls its test
Wanted = Callable[[str], bool]


class Place(NamedTuple):
    """A file of a format.

    Attributes:
        file: The file.
        name: What it is called within the data.
        split: The split that it, or the folder around it, is named for, if any.
    """

    file: Path
    name: str
    split: str | None = None


class _Folder(NamedTuple):
    """What lies in a folder: files that are wanted, sub-folders, and whether there are data of another kind."""

    files: list[str]
    inner: list[str]
    has_others: bool


def find_files(path: Path, is_wanted: Wanted, *, is_named: bool = False) -> list[Place]:
    """Find the files of a format, in order of their names.

    Args:
        path: A folder or a file.
        is_wanted: Tells them by their names.
        is_named: Whether the format was asked for: other data beside the files are passed over then. Where it was not,
            pictures, texts or a table of captions mean that the folder holds something else.

    Raises:
        DataError: They lie in several folders, and these are not named for splits; or beside folders that are.
    """
    if not path.is_dir():
        return [Place(path, path.name)] if path.is_file() and is_wanted(path.name) else []
    return _found(path, "", is_wanted, is_named, DEEPEST) or []


def _found(path: Path, prefix: str, is_wanted: Wanted, is_named: bool, deepest: int) -> list[Place] | None:
    """Return the files of a folder; None where it holds data of another kind."""
    folder = _listed(path, is_wanted, is_whole=is_named)
    if not is_named and (folder.has_others or (folder.files and folder.inner)):
        return None
    inner = [name for name in folder.inner if not folder.files or split_named(name)]
    within: dict[str, list[Place]] = {}
    for name in inner if deepest else ():
        found = _found(path / name, f"{prefix}{name}/", is_wanted, is_named, deepest - 1)
        if found is None:
            return None
        if found:
            within[name] = found
    if folder.files and within:
        raise DataError(
            f"{path} holds data of splits ({listed([f'{name}/' for name in within])}) and of data beside them "
            f"({listed(folder.files)}); move what belongs to no split out, or name one of them (data.path)"
        )
    if folder.files:
        splits = splits_named(folder.files)
        return [Place(path / name, prefix + name, splits.get(name)) for name in folder.files]
    if within and all(map(split_named, within)):
        return [place._replace(split=split_named(name)) for name, places in within.items() for place in places]
    if len(within) > 1:
        first = next(iter(within.values()))[0]
        raise DataError(
            f"{path} holds data in several folders ({listed([f'{name}/' for name in within])}; first: {first.name}); "
            "name one of them (data.path), or call them train/, test/"
        )
    return next(iter(within.values()), [])


def _listed(path: Path, is_wanted: Wanted, *, is_whole: bool) -> _Folder:
    """List a folder: the whole, or no further than to the first sign of data of another kind."""
    files: list[str] = []
    inner: list[str] = []
    has_others = False
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if is_folder(entry):
                inner.append(entry.name)
            elif is_wanted(entry.name):
                files.append(entry.name)
            elif _is_other(PurePosixPath(entry.name)):
                has_others = True
                if not is_whole:
                    break
    return _Folder(sorted(files), sorted(inner), has_others)


def _one_split(name: str) -> str | None:
    """Return the one split that words of a name name."""
    found = {split for word in re.split(r"[ ._-]", name) if (split := WORDS.get(word.lower()) or split_named(word))}
    return found.pop() if len(found) == 1 else None


def _is_other(file: PurePosixPath) -> bool:
    """Return whether a file is of another layout: a picture, a table of captions, a text that is no note."""
    ending = file.suffix.lower()
    return ending in SUFFIXES or file.name in TABLES or (ending == TEXT_SUFFIX and not is_note(file))


def splits_named(names: Sequence[str]) -> dict[str, str]:
    """Return the splits that files are named for, where all are; else none.

    >>> splits_named(["train-00000-of-00001.parquet", "test-00000-of-00001-0123456789abcdef.parquet"])
    {'train-00000-of-00001.parquet': 'train', 'test-00000-of-00001-0123456789abcdef.parquet': 'test'}
    >>> splits_named(["pets-train-000.tar", "pets-val-000.tar"]), splits_named(["pets-000.tar", "train.tar"])
    ({'pets-train-000.tar': 'train', 'pets-val-000.tar': 'val'}, {})

    Where one is named for a split that is held out, what is named for none is a split of its own, and not trained on:

    >>> splits_named(["train_sft-0.parquet", "test_sft-0.parquet", "unsupervised-0.parquet"])
    {'train_sft-0.parquet': 'train', 'test_sft-0.parquet': 'test', 'unsupervised-0.parquet': 'unsupervised'}
    """
    stems = {name: NUMBER.sub("", PurePosixPath(name).stem) for name in names}
    own = {name: split for name in names if (split := _one_split(name))}
    if len(own) == len(names) or any(split != TRAIN for split in own.values()):
        return {name: own.get(name, stem) for name, stem in stems.items()}
    by_stem = next((group for group in alike(stems.values()).values() if len(group) == len({*stems.values()})), {})
    return {name: by_stem[stem] for name, stem in stems.items()} if by_stem else {}
