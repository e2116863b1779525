"""What ``--anew`` deletes: what a run wrote into its folder, checkpoints too. A user's own files stay.

A folder that is no run's is refused.
"""

import contextlib
from pathlib import Path

from transfusion.config import ConfigError
from transfusion.data.found import listed
from transfusion.files import PARTIAL
from transfusion.train.checkpoint import CHECKPOINTS, has_any, remove_all
from transfusion.train.lock import LOCK_FILE
from transfusion.train.saved import check_no_model
from transfusion.written import delete_written, tells_of_a_training


def check_run(folder: Path) -> None:
    """Refuse to begin anew in a folder that is no run's: what lies there by the names of a run's files is a user's.

    A folder that is not there, or empty, is anyone's. A run left checkpoints, or rows of its numbers or its changes.

    Raises:
        ConfigError: It is none, or holds a model; nothing was deleted.
    """
    check_no_model(folder)
    held = sorted(path.name for path in folder.iterdir() if not _is_passing(path)) if folder.is_dir() else []
    if held and not has_any(folder) and not tells_of_a_training(folder):
        raise ConfigError(
            f"{folder} holds {listed(held)} and no sign of a run (no checkpoint, no numbers of one), so that --anew, "
            "which deletes what a run wrote, is refused there; name another folder (--run), or move these away"
        )


def _is_passing(path: Path) -> bool:
    """Return whether a file is a lock, or one that a kill left unfinished."""
    return path.name == LOCK_FILE or path.name.endswith(f".{PARTIAL}")


def clear(run: Path) -> None:
    """Delete what a run wrote into its folder, and nothing else. Its lock must be held."""
    remove_all(run)  # first: no checkpoint is left without its numbers
    delete_written(run)
    with contextlib.suppress(OSError):  # a link, or something of the user's is left in it
        (run / CHECKPOINTS).rmdir()
