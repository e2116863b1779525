"""What ``--anew`` deletes: what a run wrote into its folder. Links and a user's own files stay, with their folders."""

import contextlib
import re
from pathlib import Path

from transfusion.data.readers import QUARANTINE_FILE
from transfusion.evaluate.suite import SCORES_FILE
from transfusion.files import PARTIAL, beside
from transfusion.report import REPORT_FILE
from transfusion.train.changes import CHANGES_FILE
from transfusion.train.checkpoint import CHECKPOINTS, remove_all
from transfusion.train.loop import SAMPLES_FOLDER
from transfusion.train.metrics import BOARD_FOLDER, METRICS_FILE

FILES = (METRICS_FILE, CHANGES_FILE, QUARANTINE_FILE, SCORES_FILE, REPORT_FILE)
WRITTEN = {SAMPLES_FOLDER: r"step_\d+\.png", BOARD_FOLDER: r"events\.out\.tfevents\..*"}


def clear(run: Path) -> None:
    """Delete what a run wrote into its folder, and nothing else. Its lock must be held."""
    for name in FILES:
        _delete(run / name)
    for name, pattern in WRITTEN.items():
        for file in list((run / name).iterdir()) if (run / name).is_dir() else []:
            if re.fullmatch(pattern, file.name):
                _delete(file)
    remove_all(run)
    for name in (*WRITTEN, CHECKPOINTS):
        with contextlib.suppress(OSError):  # a link, or something of the user's is left in it
            (run / name).rmdir()


def _delete(file: Path) -> None:
    """Delete a file and an unfinished one beside it; of a link what it points to, for the link is the user's."""
    target = file.resolve()
    for path in (target, beside(target, PARTIAL)):
        if path.is_file():
            path.unlink()
