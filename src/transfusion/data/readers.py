"""Readers of real input: captioned pictures of a folder, decoded; and by these names captions and plain text.

A file that cannot be read whole is quarantined by name and reason. Readers know files, and nothing of documents or
tokens.
"""

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from transfusion.data.augment import View, seen
from transfusion.data.captions import CaptionRow, FolderCaptions, folder_captions, read_captions
from transfusion.data.decode import open_picture
from transfusion.data.errors import BrokenPicture, DataError, plain
from transfusion.data.layouts import CAPTIONS_FILE
from transfusion.data.settings import Layout
from transfusion.data.splits import spread
from transfusion.data.text import Passage, TextFile
from transfusion.files import read_rows, write_whole

__all__ = [
    "CAPTIONS_FILE",
    "QUARANTINE_FILE",
    "BrokenPicture",
    "CaptionRow",
    "CaptionedPicture",
    "DataError",
    "ImageFolder",
    "Passage",
    "TextFile",
    "open_picture",
    "read_captions",
    "sample_folder",
    "save_quarantine",
]
QUARANTINE_FILE = "quarantine.jsonl"
MOST_AHEAD = 2**28  # bytes of pictures that are decoded ahead and kept: 21,800 of 64 pixels
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CaptionedPicture:
    """A caption row with its decoded picture, (height, width, 3) uint8."""

    file: str
    text: str
    number: int
    picture: NDArray[np.uint8]


def sample_folder(
    rows: Sequence[CaptionRow], path: Path, resolution: int | tuple[int, int], count: int
) -> NDArray[np.uint8]:
    """Decode up to ``count`` pictures spread over the rows of a folder, (count, height, width, 3) uint8.

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
    """Captioned pictures of a folder. Its layouts stand in ``layouts``.

    Where they take at most ``MOST_AHEAD`` bytes they are decoded once and kept as uint8; of more each is decoded
    whenever it is asked for, so that neither memory nor the time to begin grows with them.

    ``view`` gives pictures of the size that is asked; ``__getitem__`` as they are kept.
    """

    def __init__(
        self,
        path: Path,
        resolution: int | tuple[int, int],
        *,
        split: str | None = None,
        hold_out: float | None = 0.0,
        layout: Layout = "auto",
        captions: FolderCaptions | None = None,
        crop: float = 1.0,
        at_most: int | None = None,
    ) -> None:
        """Read the captions and decode the pictures of a split; broken ones go to ``quarantine``.

        Args:
            path: The folder.
            resolution: Side, or height and width, to which pictures are brought.
            split: See ``splits.choose``.
            hold_out: See ``splits.choose``.
            layout: How the folder is laid out, if that is known.
            captions: What was read of the folder already, in place of split, share and layout.
            crop: Least side of the crops that views show, as a share. Below 1 pictures are kept larger, 1 / crop
                times as many pixels a side and at most their own: 0.5 takes four times the memory.
            at_most: Decode the pictures of so many captions, spread over all (``splits.spread``); the others are
                decoded whenever they are asked for. None: decode all, if they are not too many.

        Raises:
            DataError: The folder or its captions are unusable, or no picture is whole.
            UnreadableFile: The file system fails; no picture is called broken for that.
        """
        self._crop = crop
        self._size = (resolution, resolution) if isinstance(resolution, int) else resolution
        read = captions or folder_captions(path, split, hold_out, layout)
        self.path = path = read.path
        self.left_for_others = read.left_for_others
        if at_most is None and not _is_kept(len(read.rows), self._size, crop):
            at_most = 0
        decoded = _Decoded(path, resolution, read.rows, at_most, crop)
        if not decoded.rows:
            raise DataError(
                f"none of the {len(read.rows)} pictures of {path} can be read; "
                f"the first: {next(iter(decoded.broken.values()))}"
            )
        broken, self.captions = decoded.broken, decoded.rows
        self.quarantine = {**read.quarantine, **{plain(file): why for file, why in broken.items()}}
        num_missing = sum(_size(path / file) is None for file in broken)
        missed = {
            "picture whose file is not there": num_missing,
            "picture that cannot be read": len(broken) - num_missing,
        }
        left_out = {**read.found.left_out, **{why: count for why, count in missed.items() if count}}
        self.found = replace(read.found, records=len(self.captions), left_out=left_out)
        pictures = [decoded.pictures[row] for row in decoded.wanted]
        self._pictures = np.stack(pictures) if crop == 1 and pictures else pictures
        self._places = None if at_most is None else {row: place for place, row in enumerate(decoded.wanted)}
        if broken:
            told = "%d of %d pictures of %s cannot be read and are left out; the first: %s"
            _log.warning(told, len(broken), len(read.rows), path, next(iter(broken.values())))

    def __len__(self) -> int:
        """Count the pictures that are not known to be broken."""
        return len(self.captions)

    def __getitem__(self, index: int) -> CaptionedPicture:
        """Return one captioned picture.

        Raises:
            BrokenPicture: It was not decoded before, and is broken.
        """
        row = self.captions[index]
        return CaptionedPicture(row.file, row.text, row.number, self._picture(index))

    def view(self, index: int, view: View) -> NDArray[np.uint8]:
        """Return what a view shows of a picture."""
        return seen(self._picture(index), view, self._size)

    def _picture(self, index: int) -> NDArray[np.uint8]:
        row = self.captions[index]
        place = index if self._places is None else self._places.get(row)
        if place is None:
            return open_picture(self.path / row.file, self._size, crop=self._crop)
        return self._pictures[place]

    def digest(self) -> str:
        """Name files, captions and the pixels that were decoded at first, so that changed data are noticed; where none
        were, the sizes of the files.
        """
        if self._places is not None and not self._places:
            sizes = {row.file: _size(self.path / row.file) for row in self.captions}
            told = json.dumps([(row.file, row.text, sizes[row.file]) for row in self.captions])
            return f"files:{hashlib.sha256(told.encode()).hexdigest()}"
        digest = hashlib.sha256()
        for picture in self._pictures:
            digest.update(picture.data)
        digest.update(json.dumps([(row.file, row.text) for row in self.captions]).encode())
        return f"folder:{digest.hexdigest()}"


def _is_kept(count: int, size: tuple[int, int], crop: float) -> bool:
    """Return whether so many pictures are decoded ahead and kept."""
    return count * size[0] * size[1] * 3 / crop**2 <= MOST_AHEAD


def _size(file: Path) -> int | None:
    """Return the bytes of a file, None where there is none."""
    try:
        return file.stat().st_size
    except (OSError, ValueError):  # ValueError: no name of a file
        return None


class _Decoded:
    """Pictures of captions, decoded.

    Attributes:
        rows: The captions, without those of broken pictures.
        wanted: Those whose pictures are decoded.
        pictures: The pictures of these, (height, width, 3) uint8 each.
        broken: Why pictures are broken, by file.
    """

    def __init__(
        self,
        path: Path,
        resolution: int | tuple[int, int],
        rows: Sequence[CaptionRow],
        at_most: int | None,
        crop: float,
    ) -> None:
        """Decode pictures of all captions, or of ``at_most`` that are spread over those that are whole."""
        self.rows, self.wanted = list(rows), list[CaptionRow]()
        self.pictures: dict[CaptionRow, NDArray[np.uint8]] = {}
        self.broken: dict[str, str] = {}
        is_whole = False
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:  # each holds one picture at full size
            while not is_whole and self.rows:
                count = len(self.rows)
                self.wanted = [self.rows[place] for place in spread(count, count if at_most is None else at_most)]
                new = [row for row in self.wanted if row not in self.pictures]
                for row, found in zip(
                    new, pool.map(lambda row: _decoded(path / row.file, resolution, crop), new), strict=True
                ):
                    if isinstance(found, str):
                        self.broken[row.file] = found
                    else:
                        self.pictures[row] = found
                self.rows = [row for row in self.rows if row.file not in self.broken]
                is_whole = len(self.rows) == count


def save_quarantine(quarantine: Mapping[str, str], folder: Path) -> Path:
    """Write what is left out, and why, into a folder; what a run met later and named there stays."""
    known = {str(row.get("file")): str(row.get("reason")) for row in read_rows(folder / QUARANTINE_FILE)}
    rows = [json.dumps({"file": file, "reason": reason}) for file, reason in {**known, **quarantine}.items()]
    return write_whole(folder / QUARANTINE_FILE, "\n".join(rows) + "\n")


def _decoded(file: Path, resolution: int | tuple[int, int], crop: float = 1.0) -> NDArray[np.uint8] | str:
    try:
        return open_picture(file, resolution, crop=crop)
    except BrokenPicture as error:
        return str(error)
