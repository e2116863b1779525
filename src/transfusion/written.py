"""What a run writes into its folder beside its checkpoints, so that one that begins there shows nothing of one before.

A user's own files stay, with their folders; and so does what lies behind a link.
"""

import contextlib
import logging
import re
from pathlib import Path

from transfusion.config import ConfigError
from transfusion.data.found import listed
from transfusion.data.readers import QUARANTINE_FILE
from transfusion.evaluate.suite import SCORES_FILE
from transfusion.files import PARTIAL, beside, read_rows, sweep_unfinished
from transfusion.report import REPORT_FILE
from transfusion.samples import SAMPLES, SAMPLES_FOLDER
from transfusion.train.best import BEST_FILE
from transfusion.train.changes import CHANGES_FILE
from transfusion.train.checkpoint import has_any
from transfusion.train.metrics import BOARD_FOLDER, METRICS_FILE, is_of_a_step

SHOWN = (BEST_FILE, QUARANTINE_FILE, SCORES_FILE, REPORT_FILE)
FILES = (*SHOWN, CHANGES_FILE, METRICS_FILE)
WRITTEN = {SAMPLES_FOLDER: SAMPLES, BOARD_FOLDER: r"events\.out\.tfevents\..*"}
_log = logging.getLogger(__name__)


def check_free(run: Path) -> None:
    """Refuse to begin a run where files lie that it would write over or delete, and that are no run's.

    A run is known by its checkpoints, rows of its numbers or of its changes. Empty files are nobody's; and behind a
    link to a folder all stays.

    Raises:
        ConfigError: Some do; nothing was written.
    """
    if has_any(run) or tells_of_a_training(run):
        return
    files = [run / name for name in FILES]
    files += [file for name in WRITTEN if not (run / name).is_symlink() for file in _drawn(run, name)]
    if foreign := [str(file.relative_to(run)) for file in files if file.is_file() and file.stat().st_size]:
        raise ConfigError(
            f"{run} holds {listed(foreign)} and no sign of a run (no checkpoint, no numbers of one); a run writes files"
            " of these names, and what is there would be lost: name another folder (--run), or move these away"
        )


def forget_before(run: Path) -> None:
    """Delete what a training before left in a folder where one begins, but what it changed: that is told apart there.

    Its checkpoints must be set aside, and the run's lock be held. What a kill leaves is deleted by who begins next: the
    changes still say that it is a training's, or the numbers, which go last. Without either the files may be a user's,
    and stay; and so do numbers that another tool wrote.
    """
    if tells_of_a_training(run):
        has_numbers = _has_numbers(run)
        if has_numbers:
            _log.info("%s tells of a training before; its samples, scores and curves are deleted", run)
        delete_written(run, (*SHOWN, METRICS_FILE) if has_numbers else SHOWN)


def tells_of_a_training(run: Path) -> bool:
    """Return whether files of a folder tell of a training: by numbers of steps, or what it began from and changed."""
    rows = read_rows(run / CHANGES_FILE)
    kinds = ("begun", "stopped", "setting")
    return _has_numbers(run) or any(isinstance(row.get("step"), int) and {*row} & {*kinds} for row in rows)


def _has_numbers(run: Path) -> bool:
    """Return whether a folder has the numbers of a training, and not of another tool."""
    return any(map(is_of_a_step, read_rows(run / METRICS_FILE)))


def delete_written(run: Path, files: tuple[str, ...] = FILES) -> None:
    """Delete what a run wrote into its folder, and nothing else: samples, curves, and the files that are named."""
    sweep_unfinished(run)
    for name in WRITTEN:
        folder = run / name
        if folder.is_symlink():
            # Other runs may write there, and nothing in a file's name says of which run it is.
            _log.warning("%s is a link: all in %s stays; delete there what is this run's", folder, folder.resolve())
            continue
        sweep_unfinished(folder)
        for file in _drawn(run, name):
            _delete(file)
        with contextlib.suppress(OSError):  # something of the user's is left in it
            folder.rmdir()
    for name in files:
        _delete(run / name)


def _drawn(run: Path, name: str) -> list[Path]:
    """List what lies in one of the folders of ``WRITTEN`` by a name that a run gives."""
    folder = run / name
    return [
        file for file in (sorted(folder.iterdir()) if folder.is_dir() else []) if re.fullmatch(WRITTEN[name], file.name)
    ]


def _delete(file: Path) -> None:
    """Delete a file and an unfinished one beside it; of a link the link alone."""
    for path in (file, beside(file, PARTIAL)):
        if path.is_file() or path.is_symlink():
            path.unlink()
