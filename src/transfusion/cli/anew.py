"""What ``--anew`` deletes: what a run wrote into its folder. A user's own files stay, with their folders; and so does
what lies behind a link, but for the run's own checkpoints.
"""

import contextlib
import logging
import re
from pathlib import Path

from transfusion.data.readers import QUARANTINE_FILE
from transfusion.evaluate.suite import SCORES_FILE
from transfusion.files import PARTIAL, beside, sweep_unfinished
from transfusion.report import REPORT_FILE
from transfusion.samples import SAMPLES, SAMPLES_FOLDER
from transfusion.train.best import BEST_FILE
from transfusion.train.changes import CHANGES_FILE
from transfusion.train.checkpoint import CHECKPOINTS, remove_all
from transfusion.train.metrics import BOARD_FOLDER, METRICS_FILE

FILES = (METRICS_FILE, CHANGES_FILE, BEST_FILE, QUARANTINE_FILE, SCORES_FILE, REPORT_FILE)
WRITTEN = {SAMPLES_FOLDER: SAMPLES, BOARD_FOLDER: r"events\.out\.tfevents\..*"}
_log = logging.getLogger(__name__)


def clear(run: Path) -> None:
    """Delete what a run wrote into its folder, and nothing else. Its lock must be held."""
    remove_all(run)  # first: no checkpoint is left without its numbers
    sweep_unfinished(run)
    for name in FILES:
        _delete(run / name)
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
    for name in (*WRITTEN, CHECKPOINTS):
        with contextlib.suppress(OSError):  # a link, or something of the user's is left in it
            (run / name).rmdir()


def _delete(file: Path) -> None:
    """Delete a file and an unfinished one beside it; of a link the link alone."""
    for path in (file, beside(file, PARTIAL)):
        if path.is_file() or path.is_symlink():
            path.unlink()
