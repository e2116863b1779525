"""The files of a folder by kind, as names alone. It reads nothing, and must not know what a layout is; what splits are
called it knows.

Passed over and counted: what is hidden by its name, folders of runs, whose samples are no one's data, and links to
folders that are read already. Every folder is read once, by the first of these names that it has:

    train/cat            its own, in a folder of a split
    train/cat -> ../all  that of a link in a folder of a split, or called as one
    all                  its own
    more -> all          that of a link

so that splits that are made by links are these. Which names are one folder, or one file, is kept.
"""

import os
from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from transfusion.data.errors import DataError
from transfusion.data.formats import SUFFIXES
from transfusion.data.splits import TRAIN, split_named

TEXT_SUFFIX = ".txt"
RUN_FILES = ("metrics.jsonl", ".training.lock")
RUN_FOLDERS = ("checkpoints", "samples", "tensorboard")
STEPS = "checkpoints/step_*"


class Twice(NamedTuple):
    """Two names of one file or folder, relative to the data; it is read by the second, a file by both."""

    name: PurePosixPath
    other: PurePosixPath
    is_link: bool = True


@dataclass(frozen=True)
class Tree:
    """The files of a folder, named relative to it, in order.

    Attributes:
        path: The folder.
        pictures: Files that end like a picture, at any depth.
        texts: Files that end in .txt, at any depth.
        others: All other files.
        num_hidden: Files and folders that were passed over for their names.
        runs: Folders of runs that were passed over.
        repeated: Folders that are read by another name.
        shared: Files that are read by another name, too.
        empty: Folders that hold nothing.
    """

    path: Path
    pictures: tuple[PurePosixPath, ...]
    texts: tuple[PurePosixPath, ...]
    others: tuple[PurePosixPath, ...]
    num_hidden: int = 0
    runs: tuple[str, ...] = ()
    repeated: tuple[Twice, ...] = ()
    shared: tuple[Twice, ...] = ()
    empty: tuple[str, ...] = ()

    @cached_property
    def pairs(self) -> dict[PurePosixPath, PurePosixPath]:
        """The text of the same name, by picture."""
        texts = {text.with_suffix(""): text for text in self.texts}
        return {picture: texts[stem] for picture in self.pictures if (stem := picture.with_suffix("")) in texts}

    @cached_property
    def _read(self) -> dict[PurePosixPath, PurePosixPath]:
        """The name that a folder is read by, by its others."""
        return {twice.name: twice.other for twice in self.repeated}

    @property
    def passed_over(self) -> dict[str, int]:
        """What was not looked into, counted by why."""
        return {
            "name beginning with a dot": self.num_hidden,
            "folder of a run": len(self.runs),
            "link to a folder that is read already": sum(twice.is_link for twice in self.repeated),
            "folder read by a link of a split": sum(not twice.is_link for twice in self.repeated),
        }

    def has(self, name: str) -> bool:
        """Return whether a file lies at the top."""
        return PurePosixPath(name) in self.others

    def under(self, name: str) -> "Tree":
        """Return the files of a folder at the top."""

        def inner(files: tuple[PurePosixPath, ...]) -> tuple[PurePosixPath, ...]:
            return tuple(file.relative_to(name) for file in files if file.parts[0] == name and len(file.parts) > 1)

        return Tree(self.path / name, inner(self.pictures), inner(self.texts), inner(self.others))

    def read_as(self, file: PurePosixPath) -> PurePosixPath:
        """Return the name that a file in a folder of several names is read by."""
        known = self._read
        for _ in known:  # a link may lead to a folder within another that has several names
            around = next((each for each in file.parents if each in known), None)
            if around is None or (known[around].is_relative_to(around) and file.is_relative_to(known[around])):
                break  # a folder may be read by a link within it
            file = known[around] / file.relative_to(around)
        return file

    def unknown(self, known: set[PurePosixPath]) -> dict[str, int]:
        """Count the files of no known kind by their endings; those without one by "no ending"."""
        found = Counter(file.suffix.lower() or "no ending" for file in self.others if file not in known)
        return dict(found.most_common())


def top(files: Iterable[PurePosixPath]) -> tuple[PurePosixPath, ...]:
    """Return the files that lie in no sub-folder."""
    return tuple(file for file in files if len(file.parts) == 1)


def folders(files: Iterable[PurePosixPath]) -> set[str]:
    """Return the folders at the top that files lie in, however deep."""
    return {file.parts[0] for file in files if len(file.parts) > 1}


def check_one_split(
    path: Path, twice: Iterable[tuple[PurePosixPath, PurePosixPath]], splits: Mapping[PurePosixPath, str]
) -> None:
    """Refuse what is in training and in another split by two of its names.

    Args:
        path: The data.
        twice: Two names of a file or a folder, relative to them; the second is the same for all names of one.
        splits: The splits of names.

    Raises:
        DataError: One is; says which.
    """
    ones: dict[PurePosixPath, dict[str, PurePosixPath]] = {}  # the names of each file and folder, by their splits
    for name, other in twice:
        for each in (name, other):
            if each in splits:
                ones.setdefault(other, {})[splits[each]] = each
    for named in ones.values():
        if TRAIN in named and len(named) > 1:
            names = " and ".join(str(path / name) for name in named.values())
            raise DataError(
                f"{names} are one by links, and of two splits ({', '.join(named)}): what is held out would be trained "
                "on; take one away"
            )


def scan(path: Path) -> Tree:
    """Sort the files of a folder by kind; links to folders are followed, each folder is read once."""
    walk = _Walk(path)
    for split in walk.splits(path):
        walk.through(split)
    walk.follow()
    walk.through(path)  # what lies among the data has its own name: other links come behind
    walk.follow()
    files = sorted(walk.files, key=lambda file: file.parts)
    kinds = [_kind(file) for file in files]
    pictures, texts, others = (
        tuple(file for file, kind in zip(files, kinds, strict=True) if kind == wanted)
        for wanted in ("picture", "text", "other")
    )
    shared = tuple(_shared(path, files, walk.files))
    return Tree(
        path,
        pictures,
        texts,
        others,
        walk.num_hidden,
        tuple(sorted(walk.runs)),
        tuple(walk.repeated.values()),
        shared,
        tuple(sorted(walk.empty)),
    )


def _shared(path: Path, files: list[PurePosixPath], numbers: dict[PurePosixPath, int]) -> Iterator[Twice]:
    """Yield the names of each file beyond its first."""
    counts = Counter(numbers.values())
    first: dict[_Key, PurePosixPath] = {}
    for file in files:
        if counts[numbers[file]] > 1:  # it may be: numbers are of one device
            facts = (path / file).stat()
            known = first.setdefault((facts.st_dev, facts.st_ino), file)
            if known != file:
                yield Twice(file, known)


_Key = tuple[int, int]  # device and number


class _Listing(NamedTuple):
    """What lies in a folder, by names: files with their numbers, and folders."""

    key: _Key
    files: dict[str, int]
    folders: list[str]
    links: list[str]
    runs: list[str]
    num_hidden: int


@dataclass
class _Walk:
    """What is found on the way through a folder.

    Attributes:
        top: The folder.
        files: Files, relative to it, with their numbers.
        runs: Folders of runs, relative to it.
        links: Links to folders that are not followed yet.
        names: Folders that have their names, and these.
        done: Folders that were read.
        repeated: Folders that were met by another name.
        num_hidden: Names that are hidden.
        empty: Folders that hold nothing, relative to it.
        listings: What was read, by folder.
    """

    top: Path
    files: dict[PurePosixPath, int] = field(default_factory=dict[PurePosixPath, int])
    runs: list[str] = field(default_factory=list[str])
    links: deque[Path] = field(default_factory=deque[Path])
    names: dict[_Key, PurePosixPath] = field(default_factory=dict[_Key, PurePosixPath])
    done: set[_Key] = field(default_factory=set[_Key])
    repeated: dict[PurePosixPath, Twice] = field(default_factory=dict[PurePosixPath, Twice])
    num_hidden: int = 0
    empty: list[str] = field(default_factory=list[str])
    listings: dict[_Key, _Listing] = field(default_factory=dict[_Key, _Listing])

    def splits(self, folder: Path) -> list[Path]:
        """Return the folders that are called as splits, and make links that are the first to be followed; folders
        around them keep their own names, whatever leads back to them.
        """
        listing = self._listing(folder)
        named = [folder / name for name in listing.folders if split_named(name)]
        inner = [self.splits(folder / name) for name in listing.folders if not split_named(name)]
        links = [folder / name for name in listing.links if split_named(name)]
        self.links.extend(links)
        found = named + [path for paths in inner for path in paths]
        if found or links:
            self.names[listing.key] = self._name(folder)
        return found

    def follow(self) -> None:
        """Follow all links that were met, and those met on the way."""
        while self.links:
            self.through(self.links.popleft(), is_link=True)

    def through(self, folder: Path, *, is_link: bool = False) -> None:
        """Go through a folder and what lies in it, but not along links to folders."""
        listing, name = self._listing(folder), self._name(folder)
        known = self.names.setdefault(listing.key, name)
        if known != name:
            self.repeated[name] = Twice(name, known, is_link)
        if known != name or listing.key in self.done:
            return
        self.done.add(listing.key)
        self.num_hidden += listing.num_hidden
        self.files |= {name / file: number for file, number in listing.files.items()}
        self.runs += [(name / run).as_posix() for run in listing.runs]
        self.links.extend(folder / link for link in listing.links)
        if not (listing.files or listing.folders or listing.links or listing.runs):
            self.empty.append(name.as_posix())
        for inner in listing.folders:
            self.through(folder / inner)

    def _name(self, folder: Path) -> PurePosixPath:
        return PurePosixPath(folder.relative_to(self.top).as_posix())

    def _listing(self, folder: Path) -> _Listing:
        facts = folder.stat()
        key = (facts.st_dev, facts.st_ino)
        if key not in self.listings:
            is_own_run = folder == self.top and is_run(folder)
            self.listings[key] = _listed(folder, key, RUN_FOLDERS if is_own_run else ())
        return self.listings[key]


def _listed(folder: Path, key: _Key, run_folders: Collection[str]) -> _Listing:
    """Read the names of a folder."""
    listing = _Listing(key, {}, [], [], [], 0)
    num_hidden = 0
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        if entry.name.startswith("."):
            num_hidden += 1
        elif not is_folder(entry):
            if _is_file(entry):
                listing.files[entry.name] = entry.stat().st_ino if entry.is_symlink() else entry.inode()
        elif is_run(Path(entry.path)) or entry.name in run_folders:
            listing.runs.append(entry.name)
        else:
            (listing.links if entry.is_symlink() else listing.folders).append(entry.name)
    return listing._replace(num_hidden=num_hidden)


def is_run(folder: Path) -> bool:
    """Return whether a folder is one that a run writes into."""
    return any((folder / name).is_file() for name in RUN_FILES) or any(True for _ in folder.glob(STEPS))


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder, or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False


def _kind(file: PurePosixPath) -> str:
    suffix = file.suffix.lower()
    return "picture" if suffix in SUFFIXES else "text" if suffix == TEXT_SUFFIX else "other"
