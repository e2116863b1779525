"""Readers of real input: captioned pictures in a folder, and plain text. Random access, nothing decoded silently.

A file that cannot be read whole is quarantined by name and reason. Readers know files, and nothing of documents or
tokens.
"""

import hashlib
import json
import logging
import os
import posixpath
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from transfusion.data.decode import open_picture
from transfusion.data.errors import BrokenPicture, DataError
from transfusion.data.formats import SUFFIXES
from transfusion.data.splits import choose
from transfusion.files import write_whole

CAPTIONS_FILE = "captions.jsonl"
QUARANTINE_FILE = "quarantine.jsonl"
BLOCK_LENGTH = 1000  # letters of a text that belong to one split together, at least
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CaptionRow:
    """One caption of a picture.

    Attributes:
        file: The picture, relative to its folder.
        text: The caption.
        number: Which caption of this picture it is, from 0; with the file it names the record.
        split: The split that the row names, if any.
    """

    file: str
    text: str
    number: int = 0
    split: str | None = None


@dataclass(frozen=True)
class CaptionedPicture:
    """A caption row with its decoded picture, (resolution, resolution, 3) uint8."""

    file: str
    text: str
    number: int
    picture: NDArray[np.uint8]


def sample_folder(rows: Sequence[CaptionRow], path: Path, resolution: int, count: int) -> NDArray[np.uint8]:
    """Decode up to ``count`` pictures spread over the rows of a folder, (count, side, side, 3) uint8.

    Raises:
        DataError: None of them can be read.
        UnreadableFile: The file system fails.
    """
    chosen = [rows[i] for i in np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)]
    decoded = [_decoded(path / row.file, resolution) for row in chosen]
    whole = [picture for picture in decoded if not isinstance(picture, str)]
    if not whole:
        raise DataError(f"none of {len(chosen)} pictures tried in {path} can be read; the first: {decoded[0]}")
    return np.stack(whole)


class ImageFolder:
    """Captioned pictures of a folder, decoded once and kept as uint8.

    Two forms: a ``captions.jsonl`` with rows {"file", "text"}, or sub-folders whose names are the captions.
    """

    def __init__(self, path: Path, resolution: int, *, split: str | None = None, hold_out: float = 0.0) -> None:
        """Read the captions and decode all pictures of a split; broken ones go to ``quarantine``.

        Args:
            path: The folder.
            resolution: Side to which pictures are brought.
            split: See ``splits.choose``.
            hold_out: See ``splits.choose``.

        Raises:
            DataError: The folder or its captions are unusable, or no picture is whole.
            UnreadableFile: The file system fails; no picture is called broken for that.
        """
        self.path = path
        rows, self.left_for_others = captions_of_split(path, split, hold_out)
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:  # each holds one picture at full size
            decoded = list(pool.map(lambda row: _decoded(path / row.file, resolution), rows))
        self.quarantine = {row.file: found for row, found in zip(rows, decoded, strict=True) if isinstance(found, str)}
        kept = [(row, found) for row, found in zip(rows, decoded, strict=True) if not isinstance(found, str)]
        if not kept:
            first = next(iter(self.quarantine.values()))
            raise DataError(f"none of the {len(rows)} pictures of {path} can be read; the first: {first}")
        self.captions = [row for row, _ in kept]
        self._pictures = np.stack([picture for _, picture in kept])
        if self.quarantine:
            _log.warning("%d of %d pictures of %s are broken and left out", len(self.quarantine), len(rows), path)

    def __len__(self) -> int:
        """Count the whole pictures."""
        return len(self.captions)

    def __getitem__(self, index: int) -> CaptionedPicture:
        """Return one captioned picture."""
        row = self.captions[index]
        return CaptionedPicture(row.file, row.text, row.number, self._pictures[index])

    def digest(self) -> str:
        """Name files, captions and pixels, so that changed data are noticed."""
        digest = hashlib.sha256(self._pictures.data)
        digest.update(json.dumps([(row.file, row.text) for row in self.captions]).encode())
        return f"folder:{digest.hexdigest()}"


def save_quarantine(quarantine: Mapping[str, str], folder: Path) -> Path:
    """Write what is left out, and why, into a folder."""
    rows = [json.dumps({"file": file, "reason": reason}) for file, reason in quarantine.items()]
    return write_whole(folder / QUARANTINE_FILE, "\n".join(rows) + "\n")


def _decoded(file: Path, resolution: int) -> NDArray[np.uint8] | str:
    try:
        return open_picture(file, resolution)
    except BrokenPicture as error:
        return str(error)


def read_captions(path: Path, split: str | None = None, hold_out: float = 0.0) -> list[CaptionRow]:
    """Read which pictures of a split a folder holds and what they show, in a fixed order.

    Raises:
        DataError: There is no such folder, its captions are unusable (names the line), or there is no such split.
    """
    return captions_of_split(path, split, hold_out)[0]


def captions_of_split(path: Path, split: str | None, hold_out: float) -> tuple[list[CaptionRow], dict[str, int]]:
    """Return the rows of a split, as ``read_captions``, and how many were left for each of the other splits."""
    if not path.is_dir():
        raise DataError(f"{path} is not a folder; expected pictures with a {CAPTIONS_FILE}, or sub-folders by class")
    file = path / CAPTIONS_FILE
    rows = _caption_rows(file) if file.exists() else _class_rows(path)
    if not rows:
        raise DataError(
            f"{path} holds no captioned pictures; expected rows in a {CAPTIONS_FILE}, or sub-folders by class"
        )
    chosen = choose([row.file for row in rows], [row.split for row in rows], split, hold_out, where=path)
    return [rows[place] for place in chosen.places], chosen.left


def _caption_rows(file: Path) -> list[CaptionRow]:
    rows: list[CaptionRow] = []
    numbers: Counter[str] = Counter()
    for number, line in enumerate(_utf8(file).split("\n"), start=1):  # other breaks may stand in a caption
        if not line.strip():
            continue
        where = f"{file}, line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:  # ValueError: a number of thousands of digits, too
            raise DataError(f"{where}: not JSON ({error}); expected {{'file': ..., 'text': ...}}") from error
        if not isinstance(row, dict) or not isinstance(row.get("file"), str) or not isinstance(row.get("text"), str):
            raise DataError(f"{where}: expected an object with strings 'file' and 'text'; got {line[:80]}")
        if not row["text"].strip():
            raise DataError(f"{where}: the caption of {row['file']!r} is empty; write one or delete the row")
        if "\0" in row["file"] or _has_lone_surrogates(row["file"] + row["text"]):
            raise DataError(f"{where}: a null or half a surrogate pair in {line[:80]!r}; write plain Unicode")
        name = posixpath.normpath(row["file"])  # "./a.png" is a.png: one picture, one name
        if not _is_inside(file.parent, name):
            raise DataError(f"{where}: {row['file']!r} lies outside the folder; move the picture into it")
        split = row.get("split")
        if split is not None and not isinstance(split, str):
            raise DataError(f"{where}: expected a string as 'split', such as \"train\"; got {split!r:.80}")
        rows.append(CaptionRow(name, row["text"].strip(), numbers[name], split or None))
        numbers[name] += 1
    return rows


def _is_inside(folder: Path, name: str) -> bool:
    try:
        return (folder / name).resolve().is_relative_to(folder.resolve())
    except (RuntimeError, OSError):  # a link that leads to itself
        return True  # the picture is named as broken when it is opened


def _has_lone_surrogates(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def has_pictures(path: Path) -> bool:
    """Return whether a folder has captions, or sub-folders with pictures."""
    return (path / CAPTIONS_FILE).exists() or any(True for _ in _class_files(path))


def _class_files(path: Path) -> Iterator[Path]:
    return (file for file in path.glob("*/**/*") if file.suffix.lower() in SUFFIXES and file.is_file())


def _class_rows(path: Path) -> list[CaptionRow]:
    names = [file.relative_to(path) for file in sorted(_class_files(path))]
    return [CaptionRow(name.as_posix(), name.parts[0].replace("_", " ").replace("-", " ")) for name in names]


def _utf8(file: Path) -> str:
    data = file.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DataError(f"{file}, line {line}: byte {error.start} is not UTF-8; save the file as UTF-8") from error


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
    """Plain text: a .txt file, or all .txt files of a folder in sorted order."""

    def __init__(self, path: Path, *, split: str | None = None, hold_out: float = 0.0) -> None:
        """Read all text of a split.

        Where a share is held out, texts are cut into blocks of about a thousand letters at line breaks, each of
        which belongs to one split; blocks of a split that follow one another stay one passage.

        Args:
            path: File or folder.
            split: See ``splits.choose``.
            hold_out: See ``splits.choose``.

        Raises:
            DataError: A file is missing, empty or not UTF-8, or there is no such split.
        """
        self.files: Sequence[Path] = sorted(path.glob("*.txt")) if path.is_dir() else [path]
        for file in self.files:
            if not file.is_file():
                raise DataError(f"{file}: there is no such file")
        texts = {file.name: text for file in self.files if (text := _utf8(file)).strip()}
        if not texts:
            raise DataError(f"{path} holds no text")
        blocks = [
            (name, number, block)
            for name, text in texts.items()
            for number, block in enumerate(_blocks(text) if hold_out else [text])
        ]
        names = [f"{name}:{number}" for name, number, _ in blocks]
        chosen = choose(names, [None] * len(names), split, hold_out, where=path)
        self.left_for_others = chosen.left
        self.passages = _joined(blocks, chosen.places)

    def documents(self) -> list[str]:
        """Return the text of every passage."""
        return [passage.text for passage in self.passages]

    def digest(self) -> str:
        """Name the text."""
        return f"text:{hashlib.sha256(json.dumps([astuple(found) for found in self.passages]).encode()).hexdigest()}"


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
