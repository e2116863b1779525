"""What a checkpoint says of its run beside weights and moments: ``state.json``. It must not know weights."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from transfusion.config import ConfigError
from transfusion.train.manifest import STATE_FILE, reading


class Origin(NamedTuple):
    """Where the weights that a run began from come from.

    Attributes:
        path: What was asked for.
        checkpoint: The folder that was read.
        step: Steps that had been taken; None where that is not told.
        weights: ``"averaged"`` or ``"trained"``.
        sha256: Of the file of weights.
    """

    path: str
    checkpoint: str
    step: int | None
    weights: str
    sha256: str

    def __str__(self) -> str:
        """Say it."""
        after = "" if self.step is None else f" after step {self.step}"
        return f"the {self.weights} weights of {self.checkpoint}{after}"


class Facts(NamedTuple):
    """What a checkpoint says of its run.

    Attributes:
        step: Steps that are done.
        train_seconds: How long they took.
        data: The digest of the data; None where none are bound.
        origin: What the run began from, if not from nothing.
        held_out: The digest of the data that held-out losses are taken on; None where none are bound.
        records: How many records the data had; None where that is not told.
        slots: Slots that the steps took of each source of a mixture; None of other data.
        planned: How the plan of rows stands, where steps are of rows: see ``data.plan.Planned``.
    """

    step: int
    train_seconds: float
    data: str | None
    origin: Origin | None
    held_out: str | None = None
    records: int | None = None
    slots: dict[str, int] | None = None
    planned: tuple[int, ...] = ()


def write_facts(folder: Path, facts: Facts) -> None:
    """Write them into a checkpoint's folder."""
    origin = None if facts.origin is None else facts.origin._asdict()
    (folder / STATE_FILE).write_text(json.dumps({**facts._asdict(), "origin": origin}, indent=1))


def read_facts(folder: Path) -> Facts:
    """Read what a checkpoint says of its run.

    Raises:
        CheckpointError: It is not what ``write_facts`` wrote.
    """
    with reading(folder / STATE_FILE):
        told: dict[str, Any] = json.loads((folder / STATE_FILE).read_bytes().decode())
        origin = None if told.get("origin") is None else Origin(*(told["origin"][name] for name in Origin._fields))
        further = (told.get(name) for name in ("held_out", "records", "slots"))
        planned = tuple(told.get("planned", ()))
        facts = Facts(told["step"], told["train_seconds"], told["data"], origin, *further, planned=planned)
        if type(facts.step) is not int or facts.step < 0 or not isinstance(facts.train_seconds, int | float):
            raise ValueError(f"step {facts.step!r} and train_seconds {facts.train_seconds!r} are no counts")
        for name, digest in (("data", facts.data), ("held_out", facts.held_out)):
            if not isinstance(digest, str | None):
                raise ValueError(f"{name} is {digest!r}; expected the name of the data")
        if not isinstance(facts.records, int | None):
            raise ValueError(f"records is {facts.records!r}; expected a count")
        if not isinstance(facts.slots, dict | None) or not all(type(n) is int for n in (facts.slots or {}).values()):
            raise ValueError(f"slots is {facts.slots!r}; expected a count for each source")
        if not all(type(number) is int and number >= 0 for number in planned) or len(planned) == 1:
            raise ValueError(f"planned is {planned!r}; expected places and rows")
    return facts


def step_of(folder: Path) -> int | None:
    """Return after how many steps a checkpoint was taken; None of a model that was saved without."""
    return read_facts(folder).step if (folder / STATE_FILE).exists() else None


def check_same(what: str, known: str | None, found: str | None, told: str) -> None:
    """Check that what a state is bound to by its digest, if it is, is the same still.

    Args:
        what: Data.
        known: Their digest when the state was bound to them; None: it is not.
        found: Their digest now; None: it is not asked for.
        told: What could have changed, and what to do.

    Raises:
        ConfigError: It is not.
    """
    if None not in (known, found) and known != found:
        raise ConfigError(f"the {what} changed since the checkpoint was written {told}")
