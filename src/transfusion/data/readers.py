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
from transfusion.data.errors import BrokenPicture, DataError
from transfusion.data.layouts import CAPTIONS_FILE
from transfusion.data.settings import Layout
from transfusion.data.text import Passage, TextFile
from transfusion.files import write_whole

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
    """Captioned pictures of a folder, decoded once and kept as uint8. Its layouts stand in ``layouts``.

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
    ) -> None:
        """Read the captions and decode all pictures of a split; broken ones go to ``quarantine``.

        Args:
            path: The folder.
            resolution: Side, or height and width, to which pictures are brought.
            split: See ``splits.choose``.
            hold_out: See ``splits.choose``.
            layout: How the folder is laid out, if that is known.
            captions: What was read of the folder already, in place of split, share and layout.
            crop: Least side of the crops that views show, as a share. Below 1 pictures are kept larger, 1 / crop
                times as many pixels a side and at most their own: 0.5 takes four times the memory.

        Raises:
            DataError: The folder or its captions are unusable, or no picture is whole.
            UnreadableFile: The file system fails; no picture is called broken for that.
        """
        self.path = path
        read = captions or folder_captions(path, split, hold_out, layout)
        rows, self.left_for_others = read.rows, read.left_for_others
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:  # each holds one picture at full size
            decoded = list(pool.map(lambda row: _decoded(path / row.file, resolution, crop), rows))
        broken = {row.file: found for row, found in zip(rows, decoded, strict=True) if isinstance(found, str)}
        self.quarantine = {**read.quarantine, **broken}
        kept = [(row, found) for row, found in zip(rows, decoded, strict=True) if not isinstance(found, str)]
        if not kept:
            raise DataError(
                f"none of the {len(rows)} pictures of {path} can be read; the first: {next(iter(broken.values()))}"
            )
        self.captions = [row for row, _ in kept]
        left_out = {**read.found.left_out, **({"picture that cannot be read": len(broken)} if broken else {})}
        self.found = replace(read.found, records=len(kept), left_out=left_out)
        pictures = [picture for _, picture in kept]
        self._pictures = np.stack(pictures) if crop == 1 else pictures
        self._size = (resolution, resolution) if isinstance(resolution, int) else resolution
        if broken:
            _log.warning("%d of %d pictures of %s are broken and left out", len(broken), len(rows), path)

    def __len__(self) -> int:
        """Count the whole pictures."""
        return len(self.captions)

    def __getitem__(self, index: int) -> CaptionedPicture:
        """Return one captioned picture."""
        row = self.captions[index]
        return CaptionedPicture(row.file, row.text, row.number, self._pictures[index])

    def view(self, index: int, view: View) -> NDArray[np.uint8]:
        """Return what a view shows of a picture."""
        return seen(self._pictures[index], view, self._size)

    def digest(self) -> str:
        """Name files, captions and pixels, so that changed data are noticed."""
        digest = hashlib.sha256()
        for picture in self._pictures:
            digest.update(picture.data)
        digest.update(json.dumps([(row.file, row.text) for row in self.captions]).encode())
        return f"folder:{digest.hexdigest()}"


def save_quarantine(quarantine: Mapping[str, str], folder: Path) -> Path:
    """Write what is left out, and why, into a folder."""
    rows = [json.dumps({"file": file, "reason": reason}) for file, reason in quarantine.items()]
    return write_whole(folder / QUARANTINE_FILE, "\n".join(rows) + "\n")


def _decoded(file: Path, resolution: int | tuple[int, int], crop: float = 1.0) -> NDArray[np.uint8] | str:
    try:
        return open_picture(file, resolution, crop=crop)
    except BrokenPicture as error:
        return str(error)
