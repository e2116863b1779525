"""The files of a folder by kind, as names alone. It reads nothing, and must not know what a layout is.

Passed over and counted: what is hidden by its name, folders of runs, whose samples are no one's data, and links to
folders that are read already: every folder is read once, by its own name where it lies among the data, else by that of
the first link to it.
"""

import os
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath

from transfusion.data.formats import SUFFIXES

TEXT_SUFFIX = ".txt"
RUN_FILES = ("metrics.jsonl", ".training.lock")
RUN_FOLDERS = ("checkpoints", "samples", "tensorboard")
STEPS = "checkpoints/step_*"


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
        num_repeated: Links to folders that are read by another name.
    """

    path: Path
    pictures: tuple[PurePosixPath, ...]
    texts: tuple[PurePosixPath, ...]
    others: tuple[PurePosixPath, ...]
    num_hidden: int = 0
    runs: tuple[str, ...] = ()
    num_repeated: int = 0

    @cached_property
    def pairs(self) -> dict[PurePosixPath, PurePosixPath]:
        """The text of the same name, by picture."""
        texts = {text.with_suffix(""): text for text in self.texts}
        return {picture: texts[stem] for picture in self.pictures if (stem := picture.with_suffix("")) in texts}

    @property
    def passed_over(self) -> dict[str, int]:
        """What was not looked into, counted by why."""
        return {
            "name that is hidden": self.num_hidden,
            "folder that holds a run": len(self.runs),
            "link to a folder that is read already": self.num_repeated,
        }

    def has(self, name: str) -> bool:
        """Return whether a file lies at the top."""
        return PurePosixPath(name) in self.others

    def under(self, name: str) -> "Tree":
        """Return the files of a folder at the top."""

        def inner(files: tuple[PurePosixPath, ...]) -> tuple[PurePosixPath, ...]:
            return tuple(file.relative_to(name) for file in files if file.parts[0] == name and len(file.parts) > 1)

        return Tree(self.path / name, inner(self.pictures), inner(self.texts), inner(self.others))

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


def scan(path: Path) -> Tree:
    """Sort the files of a folder by kind; links to folders are followed, each folder is read once."""
    walk = _Walk(path)
    walk.through(path)
    while walk.links:  # what lies among the data has its own name: links come behind
        walk.through(walk.links.popleft())
    files = sorted(walk.files, key=lambda file: file.parts)
    kinds = [_kind(file) for file in files]
    pictures, texts, others = (
        tuple(file for file, kind in zip(files, kinds, strict=True) if kind == wanted)
        for wanted in ("picture", "text", "other")
    )
    return Tree(path, pictures, texts, others, walk.num_hidden, tuple(sorted(walk.runs)), walk.num_repeated)


@dataclass
class _Walk:
    """What is found on the way through a folder.

    Attributes:
        top: The folder.
        files: Files, relative to it.
        runs: Folders of runs, relative to it.
        links: Links to folders that are not followed yet.
        seen: Folders that were read, by device and number.
        num_hidden: Names that are hidden.
        num_repeated: Folders that were met again.
    """

    top: Path
    files: list[PurePosixPath] = field(default_factory=list[PurePosixPath])
    runs: list[str] = field(default_factory=list[str])
    links: deque[Path] = field(default_factory=deque[Path])
    seen: set[tuple[int, int]] = field(default_factory=set[tuple[int, int]])
    num_hidden: int = 0
    num_repeated: int = 0

    def through(self, folder: Path) -> None:
        """Go through a folder and what lies in it, but not along links to folders."""
        facts = folder.stat()
        if (facts.st_dev, facts.st_ino) in self.seen:
            self.num_repeated += 1
            return
        self.seen.add((facts.st_dev, facts.st_ino))
        is_own_run = folder == self.top and is_run(folder)
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        for entry in found:
            path = Path(entry.path)
            name = PurePosixPath(path.relative_to(self.top).as_posix())
            if entry.name.startswith("."):
                self.num_hidden += 1
            elif not _is_folder(entry):
                if _is_file(entry):
                    self.files.append(name)
            elif is_run(path) or (is_own_run and entry.name in RUN_FOLDERS):
                self.runs.append(name.as_posix())
            elif entry.is_symlink():
                self.links.append(path)
            else:
                self.through(path)


def is_run(folder: Path) -> bool:
    """Return whether a folder is one that a run writes into."""
    return any((folder / name).is_file() for name in RUN_FILES) or any(True for _ in folder.glob(STEPS))


def _is_folder(entry: os.DirEntry[str]) -> bool:
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
