"""How a training ends before its end: what is kept, and what is said of it. It must not know what is trained."""

import logging
import threading
from pathlib import Path
from typing import Protocol

from transfusion.train.changes import record_stop
from transfusion.train.checkpoint import checkpoints, step_directory
from transfusion.train.manifest import CheckpointError

LOWER = 10  # a rate that is too high by far is found in a few tries
_log = logging.getLogger(__name__)


class NotFiniteError(FloatingPointError):
    """A loss, the gradient or the weights are not finite; the message says what to do."""


class Kept(Protocol):
    """The state of a training, as far as keeping it goes.

    Attributes:
        saved_step: Steps after which the newest checkpoint was taken; None while there is none.
    """

    saved_step: int | None

    @property
    def step(self) -> int:
        """Steps that are done."""
        ...

    @property
    def is_whole(self) -> bool:
        """Whether all of it is after ``step`` steps, and not in between."""
        ...

    def save(self, run: Path) -> Path:
        """Publish a checkpoint of the present step."""
        ...


def last_checkpoint(state: Kept, run: Path) -> str:
    """Say which checkpoint a run would go on from."""
    if state.saved_step is None:
        return "there is no checkpoint"
    return f"the last checkpoint is {step_directory(run, state.saved_step)}"


def not_finite(state: Kept, what: str, run: Path, lr: float, *, facts: str = "") -> NotFiniteError:
    """Make the error that says ``what`` is not finite at the present step, with what is known, and how to go on."""
    lower = f"train.optimizer.lr={lr / LOWER:.2g}"
    advice = "lower the rates (train.optimizer.lr, muon_lr, clip) or take train.precision=fp32, as in"
    if state.saved_step is None:
        return NotFiniteError(
            f"{what} not finite at step {state.step}{facts}; there is no checkpoint yet, so begin again by the same "
            f"command: {advice} `{lower}`"
        )
    begun = f"{advice} `transfusion train {run} {lower}`"
    where = f"{last_checkpoint(state, run)}, and from there the run takes other rates: {begun}"
    if state.saved_step == state.step:
        where += "; if it stops at this step again, move that checkpoint away to go on from the one before"
    return NotFiniteError(f"{what} not finite at step {state.step}{facts}; {where}")


def keep(state: Kept, run: Path, error: BaseException, stop: threading.Event) -> None:
    """Save the last finished step where training ends before it should, and note on the error what is saved."""
    if isinstance(error, NotFiniteError):
        # What led to it is in the weights already: the last checkpoint is the better one to go on from.
        record_stop(run, state.step)
        return
    is_hurried = stop.is_set() and any(isinstance(cause, KeyboardInterrupt) for cause in (error, error.__context__))
    note = _left(state, run) if is_hurried else _saved(state, run)
    error.add_note(note)
    if isinstance(error, GeneratorExit):
        _log.warning("training ends: %s", note)


def _left(state: Kept, run: Path) -> str:
    """Say what is there already, where nobody waits for more."""
    try:
        published = checkpoints(run)  # a checkpoint is whole or not there, wherever the interrupt came
    except CheckpointError as error:
        return f"what is saved of step {state.step} cannot be seen: {error}"
    last = published[-1] if published else None
    if last == step_directory(run, state.step):
        return f"the state after step {state.step} is saved in {last}"
    return f"step {state.step} is not saved; " + (
        f"the last checkpoint is {last}" if last else "there is no checkpoint"
    )


def _saved(state: Kept, run: Path) -> str:
    """Save what is whole and not saved yet; say what the run goes on from."""
    if not state.is_whole:
        return f"an update of the weights after step {state.step} was under way; {last_checkpoint(state, run)}"
    if state.step == 0:
        return "no step was finished; nothing is lost"
    try:
        folder = step_directory(run, state.step) if state.saved_step == state.step else state.save(run)
    except Exception as failed:  # it is told; the first error must not be lost behind it
        return f"the state after step {state.step} could not be saved ({failed}); {last_checkpoint(state, run)}"
    return f"the state after step {state.step} is saved in {folder}; the same command goes on from there"
