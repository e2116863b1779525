"""From a source to batches: which documents each step takes is a pure function of (seed, step).

Responsible for the split into micro-batches, packing and background workers. The state of the
data in a checkpoint is the step, so resuming and the number of workers cannot move a sample.
"""

import signal
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter  # pyright: ignore[reportPrivateUsage]

from transfusion.batch import Batch, Draw, collate
from transfusion.data.errors import BrokenPicture, DataError
from transfusion.data.found import Found
from transfusion.data.limit import Limit, TooLong
from transfusion.data.order import Order, Shuffled
from transfusion.data.pack import plan_rows
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

    def order(self, config: "LoaderConfig") -> Order:
        """Return what comes at each place."""
        ...

    def part(self, index: int) -> str:
        """Name the source of document ``index``."""
        ...


@dataclass(frozen=True)
class LoaderConfig:
    """What decides the batches of a run: documents per step, micro-batches, slots per row, seed, what is too long."""

    batch_size: int
    accumulation: int
    row_length: int
    seed: int
    too_long: TooLong = "drop"


class Steps(Dataset[list[Batch]]):
    """The micro-batches of every step, by step number."""

    def __init__(self, source: Source, config: LoaderConfig, vocabulary: Vocabulary, draw: Draw) -> None:
        """Bind everything that a worker needs."""
        self._source, self._config, self._vocabulary, self._draw = source, config, vocabulary, draw
        self._limit = Limit(vocabulary, config.row_length, config.too_long)
        self._mixed = source if isinstance(source, Mixed) else None
        self._order: Order = Shuffled(config.seed, source.size) if self._mixed is None else self._mixed.order(config)

    def __getitem__(self, step: int) -> list[Batch]:
        """Build the micro-batches of a step; documents that turn out too long, or whose pictures are broken, are left
        out and counted.

        Raises:
            DataError: One is too long and the settings refuse that, or too few are left.
        """
        size, parts = self._config.batch_size, self._config.accumulation
        documents, slots, broken = list[Document](), Counter[str](), dict[str, str]()
        for number in range(step * size, (step + 1) * size):
            index, visit = self._order.place(number)
            told = self._told(index, visit, broken)
            fitted = None if told is None else self._limit.fitted(told)
            if fitted is None:
                continue
            documents.append(fitted)
            if self._mixed is not None:
                slots[self._mixed.part(index)] += num_slots(fitted, self._vocabulary)
        if len(documents) < parts:
            first = f"; {len(broken)} are broken, the first: {next(iter(broken.values()))}" if broken else ""
            raise DataError(
                f"of the {size} documents of step {step} only {len(documents)} fit into a row (train.row_length "
                f"{self._config.row_length}); raise train.row_length, or shorten texts by train.too_long=cut{first}"
            )
        batches = [self._batch(documents[part::parts]) for part in range(parts)]
        num_dropped = size - len(documents) - len(broken)
        return [replace(batches[0], num_dropped=num_dropped, broken=broken, slots=slots), *batches[1:]]

    def _told(self, index: int, visit: int, broken: dict[str, str]) -> Document | None:
        """Return a document as a visit tells it; None, with the reason noted, where it cannot be told."""
        try:
            return self._source.document(index, visit)
        except BrokenPicture as error:
            broken[f"{self._source.name(index)} ({index})"] = str(error)
            return None

    def _batch(self, documents: list[Document]) -> Batch:
        lengths = [num_slots(document, self._vocabulary) for document in documents]
        rows = plan_rows(lengths, self._config.row_length)
        packed = [[documents[index] for index in row] for row in rows]
        longest = max(int(np.sum([lengths[index] for index in row])) for row in rows)
        return collate(packed, self._vocabulary, self._draw, longest)


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
