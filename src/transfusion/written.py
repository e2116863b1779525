"""What a run writes into its folder beside its checkpoints, so that one that begins there shows nothing of one before.

A user's own files stay, with their folders; and so does what lies behind a link.
"""

import contextlib
import logging
import re
from pathlib import Path

from transfusion.data.readers import QUARANTINE_FILE
from transfusion.evaluate.suite import SCORES_FILE
from transfusion.files import PARTIAL, beside, read_rows, sweep_unfinished
from transfusion.report import REPORT_FILE
from transfusion.samples import SAMPLES, SAMPLES_FOLDER
from transfusion.train.best import BEST_FILE
from transfusion.train.changes import CHANGES_FILE
from transfusion.train.metrics import BOARD_FOLDER, METRICS_FILE

SHOWN = (BEST_FILE, QUARANTINE_FILE, SCORES_FILE, REPORT_FILE)
FILES = (*SHOWN, CHANGES_FILE, METRICS_FILE)
WRITTEN = {SAMPLES_FOLDER: SAMPLES, BOARD_FOLDER: r"events\.out\.tfevents\..*"}
_log = logging.getLogger(__name__)


def forget_before(run: Path) -> None:
    """Delete what a training before left in a folder where one begins, but what it changed: that is told apart there.

    Its checkpoints must be set aside, and the run's lock be held. The numbers go last: they say that there was one, so
    that what a kill leaves is deleted by who begins next; without them the files may be a user's, and stay. Numbers
    that another tool wrote by that name are none.
    """
    if _has_numbers(run):
        _log.info("%s tells of a training before; its samples, scores and curves are deleted", run)
        delete_written(run, (*SHOWN, METRICS_FILE))


def tells_of_a_training(run: Path) -> bool:
    """Return whether files of a folder tell of a training: by numbers of steps, or what it began from and changed."""
    rows = read_rows(run / CHANGES_FILE)
    kinds = ("begun", "stopped", "setting")
    return _has_numbers(run) or any(isinstance(row.get("step"), int) and {*row} & {*kinds} for row in rows)


def _has_numbers(run: Path) -> bool:
    """Return whether a folder has the numbers of a training, and not of another tool."""
    rows = read_rows(run / METRICS_FILE)
    return any(isinstance(row.get("step"), int) and any("/" in name for name in row) for row in rows)


def delete_written(run: Path, files: tuple[str, ...] = FILES) -> None:
    """Delete what a run wrote into its folder, and nothing else: samples, curves, and the files that are named."""
    sweep_unfinished(run)
    for name, pattern in WRITTEN.items():
        folder = run / name
        if folder.is_symlink():
            # Other runs may write there, and nothing in a file's name says of which run it is.
            _log.warning("%s is a link: all in %s stays; delete there what is this run's", folder, folder.resolve())
            continue
        sweep_unfinished(folder)
        for file in list(folder.iterdir()) if folder.is_dir() else []:
            if re.fullmatch(pattern, file.name):
                _delete(file)
        with contextlib.suppress(OSError):  # something of the user's is left in it
            folder.rmdir()
    for name in files:
        _delete(run / name)


def _delete(file: Path) -> None:
    """Delete a file and an unfinished one beside it; of a link the link alone."""
    for path in (file, beside(file, PARTIAL)):
        if path.is_file() or path.is_symlink():
            path.unlink()
