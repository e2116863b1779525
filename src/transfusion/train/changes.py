"""What was changed in a run while it went on, and why it might be: ``changes.jsonl``, a row for each event.

    {"step": 40, "stopped": "a loss or the gradient is not finite"}
    {"step": 40, "setting": "train.optimizer.lr", "old": 0.001, "new": 0.0003}
    {"step": 0, "begun": true}                      anew in the same folder: what stands above it is of another run

It must not know how a run is resumed.
"""

import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from transfusion.config import RunConfig
from transfusion.files import append_row, read_rows

CHANGES_FILE = "changes.jsonl"
CHANGEABLE = ("train.optimizer.lr", "train.optimizer.muon_lr", "train.optimizer.clip", "train.precision")
_log = logging.getLogger(__name__)


class Change(NamedTuple):
    """A setting that differs: its path, what it was and what it shall be."""

    setting: str
    old: object
    new: object

    def __str__(self) -> str:
        """Say it."""
        return f"{self.setting} is {self.new!r}, was {self.old!r}"


def differences(old: RunConfig, new: RunConfig) -> list[Change]:
    """List the settings in which two trees differ."""
    return list(_differences(json.loads(old.to_json()), json.loads(new.to_json()), ""))


def _differences(old: object, new: object, path: str) -> Iterable[Change]:
    if isinstance(old, dict) and isinstance(new, dict) and old.keys() == new.keys():
        for name in old:
            yield from _differences(old[name], new[name], f"{path}.{name}".lstrip("."))
    elif old != new:
        yield Change(path, old, new)


def record_begin(run: Path) -> None:
    """Say that a run begins at its first step, where the folder tells of one before."""
    if (run / CHANGES_FILE).exists():
        append_row(run / CHANGES_FILE, {"step": 0, "begun": True})


def record_stop(run: Path, step: int) -> None:
    """Say that a run stopped after ``step`` steps for numbers that are not finite."""
    try:
        append_row(run / CHANGES_FILE, {"step": step, "stopped": "a loss or the gradient is not finite"})
    except OSError as error:  # the stop itself is what must be told
        _log.warning("that the run stopped could not be recorded in %s: %s", run / CHANGES_FILE, error)


def record_changes(run: Path, step: int, changes: Iterable[Change]) -> None:
    """Say what is changed in a run that goes on after ``step`` steps."""
    for change in changes:
        append_row(run / CHANGES_FILE, {"step": step, **change._asdict()})


def changed_since(run: Path, step: int) -> dict[str, object]:
    """Return the settings that the run took since the checkpoint of a step was written, by their paths."""
    taken: dict[str, object] = {}
    for row in read_rows(run / CHANGES_FILE):
        if "begun" in row:
            taken.clear()
        elif row.get("setting") in CHANGEABLE and isinstance(row.get("step"), int) and row["step"] >= step:
            taken[row["setting"]] = row.get("new")
    return taken


def may_change(run: Path, step: int) -> bool:
    """Return whether rates and precision may change at a checkpoint: the run stopped there or later for numbers that
    are not finite, and has not got beyond since.
    """
    is_stopped = False
    for row in read_rows(run / CHANGES_FILE):
        if "begun" in row:
            is_stopped = False
        elif "stopped" in row and isinstance(row.get("step"), int):
            is_stopped = is_stopped or row["step"] >= step
    return is_stopped
