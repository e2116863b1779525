"""Readers of real input: captioned pictures in a folder, and plain text. Random access, nothing decoded silently.

A file that cannot be read whole is quarantined by name and reason. Readers know files, and nothing of documents or
tokens.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from transfusion.data.decode import open_picture
from transfusion.data.errors import BrokenPicture, DataError
from transfusion.data.formats import SUFFIXES

CAPTIONS_FILE = "captions.jsonl"
QUARANTINE_FILE = "quarantine.jsonl"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CaptionRow:
    """A picture's file, relative to its folder, and its caption."""

    file: str
    text: str


@dataclass(frozen=True)
class CaptionedPicture:
    """A caption row with its decoded picture, (resolution, resolution, 3) uint8."""

    file: str
    text: str
    picture: NDArray[np.uint8]


def sample_folder(path: Path, resolution: int, split: str | None, count: int) -> NDArray[np.uint8]:
    """Decode up to ``count`` pictures spread over a folder, (count, side, side, 3) uint8.

    Raises:
        DataError: None of them can be read.
        UnreadableFile: The file system fails.
    """
    rows = read_captions(path, split)
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

    def __init__(self, path: Path, resolution: int, *, split: str | None = None) -> None:
        """Read the captions and decode all pictures; broken ones go to ``quarantine``.

        Args:
            path: The folder.
            resolution: Side to which pictures are brought.
            split: Take only rows whose "split" is this.

        Raises:
            DataError: The folder or its captions are unusable, or no picture is whole.
            UnreadableFile: The file system fails; no picture is called broken for that.
        """
        self.path = path
        rows = read_captions(path, split)
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
        return CaptionedPicture(row.file, row.text, self._pictures[index])

    def digest(self) -> str:
        """Name files, captions and pixels, so that changed data are noticed."""
        digest = hashlib.sha256(self._pictures.data)
        digest.update(json.dumps([(row.file, row.text) for row in self.captions]).encode())
        return f"folder:{digest.hexdigest()}"

    def save_quarantine(self, folder: Path) -> Path | None:
        """Write the broken files and their reasons into a folder; None if there are none."""
        if not self.quarantine:
            return None
        folder.mkdir(parents=True, exist_ok=True)
        rows = [json.dumps({"file": file, "reason": reason}) for file, reason in self.quarantine.items()]
        (folder / QUARANTINE_FILE).write_text("\n".join(rows) + "\n")
        return folder / QUARANTINE_FILE


def _decoded(file: Path, resolution: int) -> NDArray[np.uint8] | str:
    try:
        return open_picture(file, resolution)
    except BrokenPicture as error:
        return str(error)


def read_captions(path: Path, split: str | None = None) -> list[CaptionRow]:
    """Read which pictures a folder holds and what they show, in a fixed order.

    Raises:
        DataError: There is no such folder, or its captions are unusable; names the line.
    """
    if not path.is_dir():
        raise DataError(f"{path} is not a folder; expected pictures with a {CAPTIONS_FILE}, or sub-folders by class")
    file = path / CAPTIONS_FILE
    rows = _caption_rows(file, split) if file.exists() else _class_rows(path)
    if not rows:
        wanted = (
            f"rows with split {split!r} in {CAPTIONS_FILE}" if split else f"a {CAPTIONS_FILE} or sub-folders by class"
        )
        raise DataError(f"{path} holds no captioned pictures; expected {wanted}")
    return rows


def _caption_rows(file: Path, split: str | None) -> list[CaptionRow]:
    rows: list[CaptionRow] = []
    for number, line in enumerate(_utf8(file).split("\n"), start=1):  # other breaks may stand in a caption
        if not line.strip():
            continue
        where = f"{file}, line {number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{where}: not JSON ({error}); expected {{'file': ..., 'text': ...}}") from error
        if not isinstance(row, dict) or not isinstance(row.get("file"), str) or not isinstance(row.get("text"), str):
            raise DataError(f"{where}: expected an object with strings 'file' and 'text'; got {line[:80]}")
        if not row["text"].strip():
            raise DataError(f"{where}: the caption of {row['file']!r} is empty; write one or delete the row")
        if "\0" in row["file"] or _has_lone_surrogates(row["file"] + row["text"]):
            raise DataError(f"{where}: a null or half a surrogate pair in {line[:80]!r}; write plain Unicode")
        if not (file.parent / row["file"]).resolve().is_relative_to(file.parent.resolve()):
            raise DataError(f"{where}: {row['file']!r} lies outside the folder; move the picture into it")
        if split is None or row.get("split") == split:
            rows.append(CaptionRow(row["file"], row["text"].strip()))
    return rows


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


class TextFile:
    """Plain text: a .txt file, or all .txt files of a folder in sorted order."""

    def __init__(self, path: Path) -> None:
        """Read all text.

        Raises:
            DataError: A file is missing, empty or not UTF-8.
        """
        self.files: Sequence[Path] = sorted(path.glob("*.txt")) if path.is_dir() else [path]
        for file in self.files:
            if not file.exists():
                raise DataError(f"{file}: there is no such file")
        self._texts = [text for file in self.files if (text := _utf8(file)).strip()]
        if not self._texts:
            raise DataError(f"{path} holds no text")

    def documents(self) -> list[str]:
        """Return one string per file that is not empty."""
        return self._texts

    def digest(self) -> str:
        """Name the text."""
        return f"text:{hashlib.sha256(json.dumps(self._texts).encode()).hexdigest()}"
