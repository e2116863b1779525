"""What a run takes of each source of a mixture by its last step, known before the first. It must not read documents."""

from bisect import bisect_right
from collections.abc import Callable
from typing import NamedTuple

from transfusion.data.errors import DataError
from transfusion.data.loader import LoaderConfig, Source, order_of, row_plan
from transfusion.data.mixture import MixedOrder, MixtureSource
from transfusion.data.plan import RowPlan
from transfusion.layout import num_slots
from transfusion.segments import Vocabulary

FULL = 0.95  # share of the slots of rows from which nobody need think about their length
NUM_OUTLINED = 16  # documents of a source without end that are looked at

Before = Callable[[int], int]


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
    order, before = _ahead(source, config)
    if found := _faults(order, before, steps):
        raise DataError("; ".join(found))
    total = before(steps)
    source.forecasts = {each.name: each.line(total) for each in _forecast(order, total)}
    return source


def forecast(source: MixtureSource, config: LoaderConfig, steps: int) -> list[Forecast]:
    """Return what so many steps take of each source; of rows, as one window of each phase has them."""
    order, before = _ahead(source, config)
    return _forecast(order, before(steps))


def _ahead(source: MixtureSource, config: LoaderConfig) -> tuple[MixedOrder, Before]:
    """Return the order, and how many of its documents come before a step: of rows, about."""
    order = source.order(config)
    if config.unit == "documents":
        return order, lambda step: step * config.batch_size
    steps, places, rates = list[int](), list[int](), list[float]()
    for step, _ in source.config.phases:
        place = 0
        if places:
            place = places[-1] + round((step - steps[-1]) * rates[-1])
            order.change(place)
        plan = RowPlan(order, source.slots_of, config.row_length, config.seed, planned=(place, 0))
        steps.append(step)
        places.append(place)
        rates.append(plan.mean * config.batch_size)

    def before(step: int) -> int:
        phase = bisect_right(steps, step) - 1
        return places[phase] + round((step - steps[phase]) * rates[phase])

    return order, before


def _forecast(order: MixedOrder, total: int) -> list[Forecast]:
    counts = order.merged.heads(total)
    slots = [count * track.mean for count, track in zip(counts, order.merged.tracks, strict=True)]
    parts = zip(order.source.each.items(), order.merged.tracks, counts, slots, strict=True)
    return [
        Forecast(name, part.size, track.mean, count, taken / sum(slots)) for (name, part), track, count, taken in parts
    ]


def _faults(order: MixedOrder, before: Before, steps: int) -> list[str]:
    """Say what is wrong with a mixture for a run of so many steps: records that are told more often than they may be,
    and weights that no step has.
    """
    found: list[str] = []
    source, last = order.source, order.merged.heads(before(steps))
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
            f"{_step_beyond(order, before, place, most, steps)} on; lower its weight ({where}.weight), train for fewer "
            "steps, raise max_repeats, or bring more data"
        )
    return found


def _step_beyond(order: MixedOrder, before: Before, place: int, most: int, steps: int) -> int:
    """Return the first step, from 0, that takes more than so many documents of a source."""
    return bisect_right(range(steps), most, key=lambda step: order.merged.heads(before(step + 1))[place])


def rows_line(source: Source, config: LoaderConfig, vocabulary: Vocabulary, steps: int) -> str:
    """Say how full the rows of a run are, and how often that many of them tell each record, as its first window has it;
    "" where rows are not planned.
    """
    if config.unit == "documents" or source.size is None:
        return ""
    plan = row_plan(source, order_of(source, config), config, vocabulary)
    total = steps * config.batch_size * plan.mean
    advice = "" if plan.fill >= FULL else ": longer rows (train.row_length) waste less"
    return (
        f"rows of {config.row_length} slots, {plan.fill:.1%} full{advice}; {plan.mean:.1f} documents each, so the run "
        f"tells each {total / source.size:.2f} times"
    )


def records_of_step(source: Source, config: LoaderConfig, vocabulary: Vocabulary) -> float:
    """Return how many records a step takes, about."""
    if config.unit == "documents":
        return config.batch_size
    if source.size is not None:
        return config.batch_size * row_plan(source, order_of(source, config), config, vocabulary).mean
    slots = [num_slots(source.outline(index, 0), vocabulary) for index in range(NUM_OUTLINED)]
    return config.batch_size * config.row_length * NUM_OUTLINED / sum(slots)
