"""Whose the folder of a run is: nobody else trained there meanwhile, and nothing of a training before goes on there.

It must not know what is trained.
"""

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

from transfusion.train.best import forget_best
from transfusion.train.changes import Change, record_begin, record_changes
from transfusion.train.checkpoint import CHECKPOINTS, checkpoints, retire
from transfusion.train.endings import Kept
from transfusion.train.lock import BusyError, RunLock, hold_run
from transfusion.train.manifest import MANIFEST, reading
from transfusion.train.metrics import Metrics
from transfusion.train.saved import check_no_model


class Seen(NamedTuple):
    """What tells a checkpoint from one that took its place: its name, and when it was written."""

    name: str
    written_ns: int


def seen(run: Path) -> frozenset[Seen]:
    """List the checkpoints that a run's folder holds now."""
    with reading(run / CHECKPOINTS):
        manifests = [folder / MANIFEST for folder in checkpoints(run)]
        return frozenset(Seen(file.parent.name, file.stat().st_mtime_ns) for file in manifests if file.exists())


def check_untouched(run: Path, before: frozenset[Seen] | None) -> None:
    """Check that no checkpoint came into a run's folder since those ``before`` were seen; None: no one looked.

    Raises:
        BusyError: One did.
    """
    others = set[Seen]() if before is None else seen(run) - before
    if others:
        raise BusyError(
            f"{run} was trained in since this was opened ({', '.join(sorted(o.name for o in others))} came); "
            "open the run again, or name another folder"
        )


class Trained(Kept, Protocol):
    """The state of a training, as far as its folder goes.

    Attributes:
        changes: Settings that a resume took and that the run has not told of yet.
        seen: Checkpoints that the run's folder held when the state was opened, and its own; None: none was looked at.
        taken: The folder that is this training's already; None: none yet.
    """

    changes: tuple[Change, ...]
    seen: frozenset[Seen] | None
    taken: Path | None

    def begin_facts(self) -> dict[str, object] | None:
        """Return what the run's folder is told of what it begins from."""
        ...


def take_folder(state: Trained, run: Path) -> bool:
    """Make a run's folder this training's, where nobody trained in it since its state was opened: of a training before,
    checkpoints are set aside and the best is forgotten. Where the training begins there, that is told. The run's lock
    must be held.

    Returns:
        Whether the training begins there, so that whatever else lies there is of one before.

    Raises:
        BusyError: Somebody did; nothing was written.
        ConfigError: The folder holds a model.
    """
    check_no_model(run)
    check_untouched(run, state.seen)
    if state.taken not in (None, run.resolve()):
        state.saved_step = None  # its checkpoints lie in another folder
    is_begun = state.saved_step is None and state.taken != run.resolve()
    if state.saved_step is None:
        retire(run)  # first: whatever else is of the run before goes after it
    if is_begun:
        record_begin(run, state.step, state.begin_facts())  # also where the first step fails, the folder is a run's
    forget_best(run, beyond=state.step)
    state.taken = run.resolve()
    return is_begun


@contextmanager
def trained_in(state: Trained, run: Path, *, lock: RunLock | None, metrics: Metrics | None) -> Generator[Metrics]:
    """Hold a run's folder while a training is at work in it, and tell there what it begins from, and what it changes.

    Args:
        state: The training's.
        run: The folder.
        lock: Its lock, where the caller holds it.
        metrics: Its files of numbers, where the caller has opened them.

    Raises:
        BusyError: Another training is at work there, or was since the state was opened.
        ValueError: An error left the state in the middle of an update; the run must be opened again.
    """
    if not state.is_whole:
        raise ValueError(f"the weights are in the middle of an update after step {state.step}; open the run again")
    with ExitStack() as stack:
        if lock is None:
            stack.enter_context(hold_run(run))
        take_folder(state, run)
        record_changes(run, state.step, state.changes)
        state.changes = ()
        yield stack.enter_context(Metrics(run, state.step)) if metrics is None else metrics
