"""Where numbers of a run go: ``metrics.jsonl`` and TensorBoard. It must not know what the numbers mean."""

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from torch.utils.tensorboard import SummaryWriter

from transfusion.files import read_rows, row_of, write_whole

METRICS_FILE = "metrics.jsonl"
BOARD_FOLDER = "tensorboard"
_log = logging.getLogger(__name__)
LOSS, HELD_OUT = "loss/", "held_out/"  # what names of losses begin with: of the step; of documents held out
NORM = "gradient_norm"
ROW_START = b'{"step": '
SHARE = "share/"  # what names of the share of all slots so far begin with, that each source of a mixture had


def read_metrics(directory: Path) -> list[dict[str, float]]:
    """Read the rows written so far; a row cut short by a kill, and what else is no row of ours, is left out."""
    return [row for row in read_rows(directory / METRICS_FILE) if _step_of(row) is not None]


def is_of_a_step(row: Mapping[str, object]) -> bool:
    """Return whether a row is of a training of ours, and not of another tool: a step with what only ours tell of it."""
    is_told = NORM in row or any(name.startswith((LOSS, HELD_OUT)) for name in row)
    return is_told and _step_of(row) is not None


class Metrics:
    """Writes one row per logged step; rows behind the step of a resume are taken back first."""

    def __init__(self, directory: Path, first_step: int) -> None:
        """Open a run's files to go on from ``first_step``."""
        directory.mkdir(parents=True, exist_ok=True)
        _take_back(directory / METRICS_FILE, first_step)
        # Without a buffer: a row that cannot be written is told then, and not once more when the file is closed.
        self._file = (directory / METRICS_FILE).open("ab", buffering=0)
        self._board = _opened_board(directory / BOARD_FOLDER, first_step)
        self._is_whole = True

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write the numbers of a step, on a line of its own also where the last one was cut.

        Raises:
            OSError: There is no room for them.
        """
        row = (b"" if self._is_whole else b"\n") + json.dumps({"step": step, **values}).encode() + b"\n"
        self._is_whole = False
        while row:
            row = row[self._file.write(row) or 0 :]
        self._is_whole = True
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def __enter__(self) -> "Metrics":
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the files."""
        self._file.close()
        if self._board is not None:
            self._board.close()


def _opened_board(folder: Path, first_step: int) -> SummaryWriter | None:
    """Open TensorBoard's folder; None where it can have none, for it names files in UTF-8 alone."""
    try:
        str(folder).encode()
    except UnicodeEncodeError:
        _log.warning("%s is not UTF-8, so there are no curves for TensorBoard; see %s", folder, METRICS_FILE)
        return None
    return SummaryWriter(str(folder), purge_step=first_step + 1)  # what stands after the step is not shown


def _take_back(file: Path, step: int) -> None:
    """Take back our rows behind a step and a last one that was cut; lines that are not ours stay as they are.

    The file is cut at its end, which needs no room, or replaced as a whole: a full disk costs no row.
    """
    data = file.read_bytes() if file.exists() else b""
    *lines, last = data.split(b"\n")
    if row_of(last) is not None or not ROW_START.startswith(last[: len(ROW_START)]):
        lines.append(last)
    kept = b"".join(line + b"\n" for line in lines if not _is_behind(row_of(line) or {}, step))
    if not data.startswith(kept):
        write_whole(file, kept)
    elif kept != data:
        os.truncate(file, len(kept))


def _is_behind(row: Mapping[str, object], step: int) -> bool:
    return is_of_a_step(row) and (_step_of(row) or 0) > step


def _step_of(row: Mapping[str, object]) -> int | None:
    step = row.get("step")
    return step if isinstance(step, int) else None
