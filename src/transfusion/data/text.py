"""Plain text in files. Readers know files, and nothing of documents or tokens."""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from transfusion.data.captions import utf8
from transfusion.data.errors import DataError
from transfusion.data.found import Found
from transfusion.data.layouts import lay_out, text_splits
from transfusion.data.splits import choose
from transfusion.data.tree import top

BLOCK_LENGTH = 1000  # letters of a text that belong to one split together, at least
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Passage:
    """A stretch of a text.

    Attributes:
        text: The stretch.
        begins: Whether the text begins here.
        ends: Whether the text ends here.
    """

    text: str
    begins: bool = True
    ends: bool = True


class TextFile:
    """Plain text: a file, or all .txt files of a folder in sorted order, or of its folders train, test, val; files that
    are named for splits themselves (train.txt, valid.txt, test.txt) are these.
    """

    def __init__(
        self, path: Path, *, split: str | None = None, hold_out: float | None = 0.0, is_whole: bool = False
    ) -> None:
        """Read all text of a split; of several files those that are not UTF-8 go to ``quarantine``.

        Where a share is held out, texts are cut into blocks of about a thousand letters at line breaks, each of
        which belongs to one split; blocks of a split that follow one another stay one passage.

        Args:
            path: File or folder.
            split: See ``splits.choose``.
            hold_out: See ``splits.choose``.
            is_whole: Whether files that are named for splits are texts like others.

        Raises:
            DataError: A file is missing or empty, the only one or all are not UTF-8, or there is no such split.
        """
        self.quarantine: dict[str, str] = {}
        found, files = _files(path, is_whole=is_whole)
        texts = {file.name: text for file in files if (text := self._read(file)).strip()}
        if not texts:
            broken = f"; the first: {next(iter(self.quarantine.values()))}" if self.quarantine else ""
            raise DataError(f"{path} holds no text{broken}")
        marks = {file.name: file.split for file in files}
        blocks = [(name, number, block) for name, text in texts.items() for number, block in enumerate(_blocks(text))]
        names = [f"{name}:{number}" for name, number, _ in blocks]
        chosen = choose(names, [marks[name] for name, _, _ in blocks], split, hold_out, where=path, unit="block")
        self.left_for_others = chosen.left
        self.is_marked = any(marks.values())
        self.is_named = any(file.is_named for file in files)
        self.hold_out = chosen.hold_out
        self.passages = _joined(blocks, chosen.places)
        letters = sum(map(len, texts.values()))
        broken = {"text that is not UTF-8": len(self.quarantine)} if self.quarantine else {}
        left_out = {**found.left_out, **broken}
        self.found = replace(found, left_out=left_out, letters=letters, splits=chosen.counts, held_out=chosen.told)

    def _read(self, file: "_File") -> str:
        """Read a file, or put it into quarantine where it is one of several."""
        if not file.path.is_file():
            raise DataError(f"{file.path}: there is no such file")
        try:
            return utf8(file.path)
        except DataError as error:
            if file.is_only:
                raise
            self.quarantine[file.name] = str(error)
            _log.warning("%s is left out", error)
            return ""

    def documents(self) -> list[str]:
        """Return the text of every passage."""
        return [passage.text for passage in self.passages]

    def digest(self) -> str:
        """Name the text."""
        return f"text:{hashlib.sha256(json.dumps([astuple(found) for found in self.passages]).encode()).hexdigest()}"


class _File(NamedTuple):
    """A file of text.

    Attributes:
        name: Its name in the data.
        path: Where it is.
        split: The split that it, or its folder, is named for.
        is_only: Whether there is no other.
        is_named: Whether it is named for the split itself.
    """

    name: str
    path: Path
    split: str | None
    is_only: bool = False
    is_named: bool = False


def _files(path: Path, *, is_whole: bool) -> tuple[Found, list[_File]]:
    """Return the files of text that a path means, in order, and what else lies there.

    Raises:
        DataError: The folder holds none.
    """
    if not path.is_dir():
        return Found(str(path), "text", texts=1), [_File(path.name, path, None, is_only=True)]
    laid = lay_out(path, "text")
    files: list[_File] = []
    for part in laid.parts:
        texts = top(part.tree.texts)
        splits = text_splits(texts) if part.split is None and not is_whole else {}
        taken = [text for text in texts if not splits or text in splits]
        files += [
            _File(part.prefix + text.name, part.tree.path / text, splits.get(text, part.split), is_named=bool(splits))
            for text in taken
        ]
    if len(files) == 1:
        files = [files[0]._replace(is_only=True)]
    tree = laid.tree
    left = {*tree.texts} - {PurePosixPath(file.name) for file in files}
    beside = left & {
        *top(tree.texts),
        *(PurePosixPath(part.folder, t) for part in laid.parts for t in top(part.tree.texts)),
    }
    is_split = any(file.split for file in files)
    left_out = {
        "text in sub-folders": len(left - beside),
        "text beside the splits" if is_split else "text beside the folder of the data": len(beside),
        "picture beside the text": len(tree.pictures),
        **tree.passed_over,
    }
    left_out = {why: count for why, count in left_out.items() if count}
    found = Found(str(path), "text", pictures=len(tree.pictures), texts=len(tree.texts), noted=laid.told)
    return replace(found, unknown=tree.unknown(set()), left_out=left_out), files


def _blocks(text: str) -> list[str]:
    """Cut a text into blocks of about BLOCK_LENGTH letters, behind a line break where one comes soon."""
    blocks: list[str] = []
    start = 0
    while start < len(text):
        least = start + BLOCK_LENGTH
        found = text.find("\n", least, least + BLOCK_LENGTH)
        end = least if found < 0 else found + 1
        blocks.append(text[start:end])
        start = end
    return blocks


def _joined(blocks: Sequence[tuple[str, int, str]], places: Sequence[int]) -> list[Passage]:
    """Join the chosen blocks of (file, number, text) that follow one another in one file."""
    passages: list[Passage] = []
    for position, place in enumerate(places):
        name, number, text = blocks[place]
        ends = place + 1 == len(blocks) or blocks[place + 1][0] != name
        goes_on = position > 0 and number > 0 and places[position - 1] == place - 1
        before = passages.pop() if goes_on else Passage("", begins=number == 0)
        passages.append(Passage(before.text + text, before.begins, ends))
    return passages
