"""What ``--anew`` deletes: what a run wrote into its folder, checkpoints too. A user's own files stay."""

import contextlib
from pathlib import Path

from transfusion.train.checkpoint import CHECKPOINTS, remove_all
from transfusion.written import delete_written


def clear(run: Path) -> None:
    """Delete what a run wrote into its folder, and nothing else. Its lock must be held."""
    remove_all(run)  # first: no checkpoint is left without its numbers
    delete_written(run)
    with contextlib.suppress(OSError):  # a link, or something of the user's is left in it
        (run / CHECKPOINTS).rmdir()
