"""Which checkpoint of a run foretells held-out documents best: ``best.json``, beside the newest checkpoints.

    {"step": 1000, "total": 1.62, "losses": {"text": 0.84, "image": 0.26}}

``RUN/best`` means that checkpoint wherever a model is asked for. It must not know how losses are taken.
"""

import json
import logging
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from transfusion.files import row_of, write_whole
from transfusion.train.checkpoint import step_directory
from transfusion.train.manifest import MANIFEST

BEST_FILE = "best.json"
BEST = "best"
MAX_STEP = 10**18  # no run comes so far, and a name of that length is one
_log = logging.getLogger(__name__)


class Best(NamedTuple):
    """The best checkpoint so far.

    Attributes:
        step: Steps after which it was taken.
        total: Its held-out losses, each by its weight in training.
        losses: Each of them, by its name.
    """

    step: int
    total: float
    losses: dict[str, float]


def meant(path: Path) -> Path:
    """Return a run's best checkpoint where a path names it, ``RUN/best``, and nothing lies there; else the path."""
    if path.name != BEST or os.path.lexists(path) or (best := read_best(path.parent)) is None:
        return path
    return step_directory(path.parent, best.step)


def read_best(run: Path) -> Best | None:
    """Return the best checkpoint of a run, None where none is known: it is gone, or the note on it damaged."""
    file = run / BEST_FILE
    if not file.is_file():
        return None
    best = _best_of(row_of(file.read_bytes()) or {})
    if best is None:
        _log.warning("%s is damaged, and passed over: the next checkpoint is the best so far", file)
        return None
    return best if (step_directory(run, best.step) / MANIFEST).exists() else None


def _best_of(row: Mapping[str, object]) -> Best | None:
    step, total, losses = row.get("step"), row.get("total"), row.get("losses")
    if type(step) is not int or not 0 <= step < MAX_STEP or not isinstance(losses, dict) or not losses:
        return None
    numbers = [float(f"{value}") for value in (total, *losses.values()) if type(value) in (int, float)]
    if len(numbers) != 1 + len(losses) or not all(map(math.isfinite, numbers)):
        return None
    return Best(step, numbers[0], dict(zip(losses, numbers[1:], strict=True)))


def offer_best(
    run: Path, step: int, losses: Mapping[str, float], total: Callable[[Mapping[str, float]], float]
) -> bool:
    """Make the checkpoint of a step the best if its losses are lower than the best's; return whether it is now.

    Args:
        run: The run's folder.
        step: Steps after which the checkpoint was taken.
        losses: Its held-out losses; without any it is not the best.
        total: Weighs losses as the run does now: that may have changed since the best was found. Where the best has
            other losses than these, the two cannot be compared, and this one is the best so far.
    """
    best, found = read_best(run), total(losses)
    if not losses or not math.isfinite(found):
        return False
    if best is not None and best.step != step and best.losses.keys() == losses.keys() and total(best.losses) <= found:
        return False
    write_whole(run / BEST_FILE, json.dumps({"step": step, "total": found, "losses": dict(losses)}) + "\n")
    return True


def forget_best(run: Path, *, beyond: int) -> None:
    """Forget a best checkpoint that came ``beyond`` the step a training goes on from: it is of another."""
    best = read_best(run)
    if best is None or best.step > beyond:
        (run / BEST_FILE).unlink(missing_ok=True)
