"""Work between two steps that is not worth a run. It must not know what is trained."""

import logging
from collections.abc import Callable
from typing import Protocol, TypeVar

from transfusion.memory import is_used_up

NUM_EVALUATIONS = 50  # of a run, where its settings leave it open
MAX_SHARE = 0.02  # of a run that evaluations may take then
PASSES = 3  # a step costs about three forwards
_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")


def tried(what: str, work: Callable[[], _Result], step: int) -> _Result | None:
    """Do something; where it fails, say so and go on, unless memory is used up: the next step would end less gently.

    Args:
        what: What there will be none of, for the log.
        work: Does it.
        step: Steps that are done.
    """
    try:
        return work()
    except Exception as error:
        if is_used_up(error):
            raise
        _log.warning("no %s after step %d (%s: %s); training goes on", what, step, type(error).__name__, error)
        return None


class Evaluated(Protocol):
    """How long a training is, and how often it is evaluated."""

    @property
    def steps(self) -> int:
        """All steps of the run."""
        ...

    @property
    def evaluate_every(self) -> int | None:
        """Steps between evaluations; 0: there are none; None: it is left open."""
        ...


def distance(train: Evaluated, num_records: float, of_step: float) -> int:
    """Return the steps between evaluations; 0: there are none.

    Args:
        train: The training's settings.
        num_records: What is evaluated, in records of a step.
        of_step: Records of a step.
    """
    if train.evaluate_every is not None:
        return train.evaluate_every
    cost = num_records / (PASSES * of_step)  # in steps
    return max(round(train.steps / NUM_EVALUATIONS), round(cost / MAX_SHARE), 1)
