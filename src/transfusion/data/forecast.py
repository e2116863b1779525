"""What a run takes of each source of a mixture by its last step, known before the first. It must not read documents."""

from bisect import bisect_right
from typing import NamedTuple

from transfusion.data.errors import DataError
from transfusion.data.loader import LoaderConfig, Source, row_plan
from transfusion.data.mixture import MixedOrder, MixtureSource
from transfusion.data.order import Shuffled
from transfusion.data.plan import Plan
from transfusion.segments import Vocabulary

FULL = 0.95  # share of the slots of rows from which nobody need think about their length


class Forecast(NamedTuple):
    """What a run takes of a source.

    Attributes:
        name: Of the source.
        size: How many records it has; None: without end.
        mean: Slots of one of its documents.
        documents: How many of the run's documents are its.
        share: Of all slots of the run.
    """

    name: str
    size: int | None
    mean: float
    documents: int
    share: float

    @property
    def epochs(self) -> float | None:
        """How often each record is told, on average; None where there is no end."""
        return None if self.size is None else self.documents / self.size

    def line(self, total: int) -> str:
        """Say it; ``total``: documents of the run."""
        of_records = f"{self.documents / total:.1%} of the documents" if total else "no documents"
        told = "new ones always" if self.epochs is None else f"each told {self.epochs:.2f} times by the last step"
        return f"{self.share:.1%} of the slots ({of_records}, {self.mean:.0f} slots each), {told}"


def planned(source: MixtureSource, config: LoaderConfig, steps: int) -> MixtureSource:
    """Return a mixture that is measured, with what so many steps take of each source noted on what was found.

    Raises:
        DataError: Its settings do not go with so many steps; says which, and what to do.
    """
    order = source.order(config)
    plan = source.plan(order, config)
    if found := _faults(order, plan, steps):
        raise DataError("; ".join(found))
    total = plan.before(steps)
    source.forecasts = {each.name: each.line(total) for each in _forecast(order, total)}
    return source


def forecast(source: MixtureSource, config: LoaderConfig, steps: int) -> list[Forecast]:
    """Return what so many steps take of each source."""
    order = source.order(config)
    return _forecast(order, source.plan(order, config).before(steps))


def _forecast(order: MixedOrder, total: int) -> list[Forecast]:
    counts = order.merged.heads(total)
    slots = [count * track.mean for count, track in zip(counts, order.merged.tracks, strict=True)]
    parts = zip(order.source.each.items(), order.merged.tracks, counts, slots, strict=True)
    return [
        Forecast(name, part.size, track.mean, count, taken / sum(slots)) for (name, part), track, count, taken in parts
    ]


def _faults(order: MixedOrder, plan: Plan, steps: int) -> list[str]:
    """Say what is wrong with a mixture for a run of so many steps: records that are told more often than they may be,
    and weights that no step has.
    """
    found: list[str] = []
    source, last = order.source, order.merged.heads(plan.before(steps))
    for place, (own, part, count) in enumerate(zip(source.config.sources, source.sources, last, strict=True)):
        where = f"data.sources.{place}"
        late = [step for step, _ in own.changes if step >= steps]
        if late:
            found.append(
                f"{where}.changes has a weight of {own.name!r} from step {late[0]} on, and the last of train.steps="
                f"{steps} is step {steps - 1}, counted from 0; leave it out, or train for longer"
            )
        if own.max_repeats is None or part.size is None or count <= (most := own.max_repeats * part.size):
            continue
        found.append(
            f"source {own.name!r} has {part.size} records, which would be told {count / part.size:.2f} times by the "
            f"last step, and more than {where}.max_repeats={own.max_repeats} times from step "
            f"{_step_beyond(order, plan, place, most, steps)} on; lower its weight ({where}.weight), train for fewer "
            "steps, raise max_repeats, or bring more data"
        )
    return found


def _step_beyond(order: MixedOrder, plan: Plan, place: int, most: int, steps: int) -> int:
    """Return the first step, from 0, that takes more than so many documents of a source."""
    return bisect_right(range(steps), most, key=lambda step: order.merged.heads(plan.before(step + 1))[place])


def rows_line(source: Source, config: LoaderConfig, vocabulary: Vocabulary, steps: int) -> str:
    """Say how full the rows of a run are, and how often that many of them tell each record, as its first window has it;
    "" where rows are not planned.
    """
    if config.unit == "documents" or source.size is None:
        return ""
    order = source.order(config) if isinstance(source, MixtureSource) else Shuffled(config.seed, source.size)
    plan = row_plan(source, order, config, vocabulary)
    total = steps * config.batch_size * plan.mean
    advice = "" if plan.fill >= FULL else ": longer rows (train.row_length) waste less"
    return (
        f"rows of {config.row_length} slots, {plan.fill:.1%} full{advice}; {plan.mean:.1f} documents each, so the run "
        f"tells each {total / source.size:.2f} times"
    )
