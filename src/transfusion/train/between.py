"""Work between two steps that is not worth a run. It must not know what is trained."""

import logging
from collections.abc import Callable
from typing import TypeVar

from transfusion.memory import is_used_up

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
