"""Where numbers of a run go: ``metrics.jsonl`` and TensorBoard. It must not know what the numbers mean."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from torch.utils.tensorboard import SummaryWriter

METRICS_FILE = "metrics.jsonl"
BOARD_FOLDER = "tensorboard"


def read_metrics(directory: Path) -> list[dict[str, float]]:
    """Read the rows written so far; a last row cut short by a kill is left out."""
    file = directory / METRICS_FILE
    rows: list[dict[str, float]] = []
    for line in file.read_text().splitlines() if file.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


class Metrics:
    """Writes one row per logged step; rows behind the step of a resume are taken back first."""

    def __init__(self, directory: Path, first_step: int) -> None:
        """Open a run's files to go on from ``first_step``."""
        kept = [row for row in read_metrics(directory) if row["step"] <= first_step]
        directory.mkdir(parents=True, exist_ok=True)
        (directory / METRICS_FILE).write_text("".join(json.dumps(row) + "\n" for row in kept))
        self._file = (directory / METRICS_FILE).open("a")
        self._board = SummaryWriter(str(directory / BOARD_FOLDER), purge_step=first_step)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write the numbers of a step."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
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
        self._board.close()
