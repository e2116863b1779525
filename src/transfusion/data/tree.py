"""The files of a folder by kind, as names alone. It reads nothing, and must not know what a layout is.

Passed over and counted: what is hidden by its name, and folders of runs, whose samples are no one's data.
"""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
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
    """

    path: Path
    pictures: tuple[PurePosixPath, ...]
    texts: tuple[PurePosixPath, ...]
    others: tuple[PurePosixPath, ...]
    num_hidden: int = 0
    runs: tuple[str, ...] = ()

    @cached_property
    def pairs(self) -> dict[PurePosixPath, PurePosixPath]:
        """The text of the same name, by picture."""
        texts = {text.with_suffix(""): text for text in self.texts}
        return {picture: texts[stem] for picture in self.pictures if (stem := picture.with_suffix("")) in texts}

    @property
    def folders(self) -> set[str]:
        """Folders at the top that hold pictures or texts."""
        return {file.parts[0] for file in (*self.pictures, *self.texts) if len(file.parts) > 1}

    @property
    def passed_over(self) -> dict[str, int]:
        """What was not looked into, counted by why."""
        return {"name that is hidden": self.num_hidden, "folder that holds a run": len(self.runs)}

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


def scan(path: Path) -> Tree:
    """Sort the files of a folder by kind; links to folders are followed, but never in a circle."""
    files: list[PurePosixPath] = []
    runs: list[str] = []
    num_hidden = 0
    for found, is_run in _walk(path, path, frozenset()):
        if is_run:
            runs.append(found.as_posix())
        elif found.name.startswith("."):
            num_hidden += 1
        else:
            files.append(found)
    files.sort(key=lambda file: file.parts)
    kinds = [_kind(file) for file in files]
    pictures, texts, others = (
        tuple(file for file, kind in zip(files, kinds, strict=True) if kind == wanted)
        for wanted in ("picture", "text", "other")
    )
    return Tree(path, pictures, texts, others, num_hidden, tuple(sorted(runs)))


def _walk(top: Path, folder: Path, above: frozenset[tuple[int, int]]) -> Iterator[tuple[PurePosixPath, bool]]:
    """Yield files, hidden names and folders of runs below a folder, and whether each is one of a run."""
    facts = folder.stat()
    if (facts.st_dev, facts.st_ino) in above:
        return
    is_own_run = folder == top and is_run(top)
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        name = PurePosixPath(Path(entry.path).relative_to(top).as_posix())
        if entry.name.startswith("."):
            yield name, False
        elif not _is_folder(entry):
            if _is_file(entry):
                yield name, False
        elif is_run(Path(entry.path)) or (is_own_run and entry.name in RUN_FOLDERS):
            yield name, True
        else:
            yield from _walk(top, Path(entry.path), above | {(facts.st_dev, facts.st_ino)})


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
