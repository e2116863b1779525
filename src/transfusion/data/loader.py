"""From a source to batches: which documents each step takes is a pure function of (seed, step).

Responsible for telling documents, the split into micro-batches and background workers. The state of the
data in a checkpoint is the step, so resuming and the number of workers cannot move a sample.
"""

import signal
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter  # pyright: ignore[reportPrivateUsage]

from transfusion.batch import Batch, Draw, collate
from transfusion.data.errors import BrokenPicture, DataError
from transfusion.data.found import Found
from transfusion.data.limit import Limit, TooLong
from transfusion.data.order import Place, Shuffled
from transfusion.data.pack import plan_rows
from transfusion.data.plan import Planned, RowOrder, RowPlan, Unit
from transfusion.layout import num_slots
from transfusion.segments import Document, Vocabulary


class Source(Protocol):
    """Random-access documents."""

    @property
    def size(self) -> int | None:
        """Number of documents; None if there is no end."""
        ...

    def document(self, index: int, visit: int) -> Document:
        """Return document ``index`` as it is told on its ``visit``-th visit (0 first)."""
        ...

    def outline(self, index: int, visit: int | None = None) -> Document:
        """Return document ``index`` as long as it can be told, or as long as it is on a visit; its latents may have a
        shape and no values.
        """
        ...

    def name(self, index: int) -> str:
        """Name document ``index`` for a person."""
        ...

    @property
    def quarantine(self) -> Mapping[str, str]:
        """What was left out and why, by name."""
        ...

    @property
    def left_for_others(self) -> Mapping[str, int]:
        """How many records were left for each of the other splits."""
        ...

    @property
    def found(self) -> Found:
        """What the data hold, each kind counted, and what of it is not taken."""
        ...

    def texts(self) -> Iterator[str]:
        """Yield the text to learn a tokenizer from."""
        ...

    def preview_prompts(self) -> list[str]:
        """Return a few captions to draw while training; none where there are no pictures."""
        ...

    def digest(self) -> str:
        """Name what the source holds, so that resuming on other data is noticed."""
        ...


@runtime_checkable
class Mixed(Protocol):
    """What a source has beside, that is mixed of several."""

    def order(self, config: "LoaderConfig", planned: Planned = ()) -> RowOrder:
        """Return what comes at each place; of rows, with the changes of weights that were planned."""
        ...

    def changes(self, config: "LoaderConfig") -> list[int]:
        """Return the rows from which other weights hold."""
        ...

    def part(self, index: int) -> str:
        """Name the source of document ``index``."""
        ...


@runtime_checkable
class Measured(Protocol):
    """What a source has beside, whose documents were all measured before the run."""

    def slots_of(self, indices: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return how many slots documents take at most, (count,) for (count,)."""
        ...


@dataclass(frozen=True)
class LoaderConfig:
    """What decides the batches of a run: documents or rows per step, micro-batches, slots per row, seed, what is too
    long.
    """

    batch_size: int
    accumulation: int
    row_length: int
    seed: int
    too_long: TooLong = "drop"
    unit: Unit = "documents"


@dataclass
class _Told:
    """What became of the documents of a step.

    Attributes:
        num_dropped: Documents that fit into no row.
        broken: Why others cannot be told, by name.
        slots: Of those that were told, by the source that a mixture has them of.
    """

    num_dropped: int = 0
    broken: dict[str, str] = field(default_factory=dict[str, str])
    slots: Counter[str] = field(default_factory=Counter[str])


class Steps(Dataset[list[Batch]]):
    """The micro-batches of every step, by step number."""

    def __init__(
        self, source: Source, config: LoaderConfig, vocabulary: Vocabulary, draw: Draw, *, planned: Planned = ()
    ) -> None:
        """Bind everything that a worker needs; ``planned``: see ``Batch.planned``."""
        self._source, self._config, self._vocabulary, self._draw = source, config, vocabulary, draw
        self._limit = Limit(vocabulary, config.row_length, config.too_long)
        self._mixed = source if isinstance(source, Mixed) else None
        self._order = order_of(source, config, planned)
        is_planned = config.unit == "rows" and source.size is not None
        self._plan = row_plan(source, self._order, config, vocabulary, planned) if is_planned else None

    def __getitem__(self, step: int) -> list[Batch]:
        """Build the micro-batches of a step; documents that turn out too long, or whose pictures are broken, are left
        out and counted.

        Raises:
            DataError: One is too long and the settings refuse that, or too few are left.
        """
        told, planned, size = _Told(), (), self._config.batch_size
        if self._config.unit == "documents":
            batches = self._of_documents(step, told)
        elif self._plan is None:
            batches = self._of_rows(self._filled(step, told))
        else:
            batches = self._of_rows([self._row(places, told) for places in self._plan.rows(step * size, size)])
            planned = self._plan.planned((step + 1) * size)
        first = replace(batches[0], num_dropped=told.num_dropped, broken=told.broken, slots=told.slots, planned=planned)
        if not any(batch.num_documents for batch in batches):
            raise DataError(_too_few(f"no document of step {step} fits into a row", self._config, told))
        return [first, *batches[1:]]

    def _of_documents(self, step: int, told: _Told) -> list[Batch]:
        """Pack the documents of a step into as few slots as they need."""
        size, parts = self._config.batch_size, self._config.accumulation
        places = map(self._order.place, range(step * size, (step + 1) * size))
        documents = [document for place in places if (document := self._document(place, told)) is not None]
        if len(documents) < parts:
            which = f"of the {size} documents of step {step} only {len(documents)} fit into a row"
            raise DataError(_too_few(which, self._config, told))
        return [self._batch(documents[part::parts]) for part in range(parts)]

    def _of_rows(self, rows: list[list[Document]]) -> list[Batch]:
        """Take rows as they are planned, every one of its whole length."""
        parts, length = self._config.accumulation, self._config.row_length
        return [collate(rows[part::parts], self._vocabulary, self._draw, length) for part in range(parts)]

    def _row(self, places: list[Place], told: _Told) -> list[Document]:
        """Tell the documents of a row. One that is told longer than it was measured is left out where there is no room:
        what a function of one's own tells may differ from time to time.
        """
        row, room = list[Document](), self._config.row_length
        for place in places:
            if (document := self._document(place, told, room)) is not None:
                row.append(document)
                room -= num_slots(document, self._vocabulary)
        return row

    def _filled(self, step: int, told: _Told) -> list[list[Document]]:
        """Fill the rows of a step from a source without end, whose documents have no length before they are told: each
        goes where it fits best, until one fits nowhere. Every step has documents of its own.
        """
        length, size = self._config.row_length, self._config.batch_size
        rows, room = [list[Document]() for _ in range(size)], [length] * size
        for number in range(step * size * length, (step + 1) * size * length):  # more than fit
            document = self._document(self._order.place(number), told)
            if document is None:
                continue
            count = num_slots(document, self._vocabulary)
            fitting = [row for row in range(size) if room[row] >= count]
            if not fitting:
                break
            row = min(fitting, key=lambda row: room[row])
            rows[row].append(document)
            room[row] -= count
        return rows

    def _document(self, place: Place, told: _Told, room: int | None = None) -> Document | None:
        """Return a document as a visit tells it; None where it cannot be told, which is noted, or there is no room."""
        index, visit = place
        try:
            document = self._limit.fitted(self._source.document(index, visit))
        except BrokenPicture as error:
            told.broken[f"{self._source.name(index)} ({index})"] = str(error)
            return None
        if document is None or (room is not None and num_slots(document, self._vocabulary) > room):
            told.num_dropped += 1
            return None
        if self._mixed is not None:
            told.slots[self._mixed.part(index)] += num_slots(document, self._vocabulary)
        return document

    def _batch(self, documents: list[Document]) -> Batch:
        lengths = [num_slots(document, self._vocabulary) for document in documents]
        rows = plan_rows(lengths, self._config.row_length)
        packed = [[documents[index] for index in row] for row in rows]
        longest = max(int(np.sum([lengths[index] for index in row])) for row in rows)
        return collate(packed, self._vocabulary, self._draw, longest)


def order_of(source: Source, config: LoaderConfig, planned: Planned = ()) -> RowOrder:
    """Return what comes at each place of a source's order."""
    return source.order(config, planned) if isinstance(source, Mixed) else Shuffled(config.seed, source.size)


def row_plan(
    source: Source, order: RowOrder, config: LoaderConfig, vocabulary: Vocabulary, planned: Planned = ()
) -> RowPlan:
    """Plan the rows of a source that ends."""

    def outlined(indices: NDArray[np.int64]) -> NDArray[np.int32]:
        slots = [num_slots(source.outline(index), vocabulary) for index in indices.tolist()]
        return np.minimum(slots, config.row_length).astype(np.int32)

    slots_of = source.slots_of if isinstance(source, Measured) else outlined
    changes = source.changes(config) if isinstance(source, Mixed) else ()
    return RowPlan(order, slots_of, config.row_length, config.seed, changes=changes, planned=planned)


def _too_few(which: str, config: LoaderConfig, told: _Told) -> str:
    broken = told.broken
    first = f"; {len(broken)} are broken, the first: {next(iter(broken.values()))}" if broken else ""
    return (
        f"{which} (train.row_length {config.row_length}); raise train.row_length, or shorten texts by "
        f"train.too_long=cut{first}"
    )


def load_steps(steps: Steps, first: int, last: int, num_workers: int) -> Generator[list[Batch]]:
    """Yield the micro-batches of steps ``first`` to ``last - 1`` in order, prepared by workers that end with it."""
    loader = DataLoader(
        steps,
        sampler=range(first, last),
        batch_size=None,
        num_workers=num_workers,
        prefetch_factor=4 if num_workers else None,
        persistent_workers=False,
        worker_init_fn=_leave_signals,
    )
    iterator = iter(loader)
    try:
        yield from iterator
    finally:
        if isinstance(iterator, _MultiProcessingDataLoaderIter):
            # Else they live as long as an error's traceback, and let SIGTERM pass: the process could not end.
            iterator._shutdown_workers()  # pyright: ignore[reportPrivateUsage]


def _leave_signals(worker: int) -> None:
    """Leave Ctrl-C and SIGTERM, which may be sent to the whole group, to the main process: it ends its workers after
    the step. One whose main process is gone notices and ends.
    """
    del worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
