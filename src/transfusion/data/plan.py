"""Which documents a step takes: so many of the global order, or as many as fill so many rows of one length.

Rows are planned before anything is told, from the lengths that documents have at most, window by window of the order,
so which documents share a row is a pure function of the seed and the place, whoever asks and in whatever process:

    order     | 3 0 7 4 1 6 2 5 | 1 5 3 6 0 ...        windows of about NUM_ROWS rows, across visits
    rows      [3 1] [0 4 2] [7] [6 5]  [5 6] ...       best fit, the longest first; the rows of a window are shuffled
    steps     └── step 0 ──┘ └─── step 1 ───┘ ...

It must not know what documents are, nor where they come from.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from transfusion.data.limit import too_long
from transfusion.data.order import Order, Place
from transfusion.keyed import generator

NUM_ROWS = 256  # of a window, about: only its last one has to stay half empty
NUM_SEEN = 1024  # documents of the order from which it follows how many make so many rows
NUM_KEPT = 2  # windows whose rows are held

Unit = Literal["documents", "rows"]
SlotsOf = Callable[[NDArray[np.int64]], NDArray[np.int32]]


class Plan(Protocol):
    """Which places of the order each step takes."""

    def before(self, step: int) -> int:
        """Return how many places of the order are taken before a step, about: rows mix those of a window."""
        ...


class DocumentPlan:
    """Steps of so many documents."""

    def __init__(self, batch_size: int) -> None:
        """Bind the documents of a step."""
        self._batch_size = batch_size

    def before(self, step: int) -> int:
        """Return how many places of the order come before a step."""
        return step * self._batch_size


class RowPlan:
    """Steps of so many rows, each as full as the documents of a window make it.

    Attributes:
        window: Documents of a window.
    """

    def __init__(self, order: Order, slots_of: SlotsOf, row_length: int, batch_size: int, seed: int) -> None:
        """Bind the order; windows are packed when they are asked for.

        Args:
            order: What comes at each place, without end.
            slots_of: Most slots of records, (count,) for (count,); at most ``row_length`` each.
            row_length: Slots of a row.
            batch_size: Rows of a step.
            seed: The run's.
        """
        self._order, self._slots_of = order, slots_of
        self._row_length, self._batch_size, self._seed = row_length, batch_size, seed
        mean = float(slots_of(order.places(0, NUM_SEEN)[:, 0]).mean())
        self.window = max(NUM_ROWS, round(NUM_ROWS * row_length / mean))
        self._ends: list[int] = []  # rows up to the end of each window
        self._windows: dict[int, list[list[Place]]] = {}

    def rows(self, step: int) -> list[list[Place]]:
        """Return the rows of a step: the records of each, with their visits."""
        first = step * self._batch_size
        return [self._row(number) for number in range(first, first + self._batch_size)]

    def before(self, step: int) -> int:
        """Return how many places of the order are taken before a step, to a part of a window."""
        row = step * self._batch_size
        window = self._window_of(row)
        begin = self._begin(window)
        return window * self.window + round(self.window * (row - begin) / (self._ends[window] - begin))

    @property
    def fill(self) -> float:
        """Which share of the rows' slots is planned to be filled, in the first window."""
        return int(self._measured(0).sum()) / (len(self._packed(0)) * self._row_length)

    @property
    def mean(self) -> float:
        """Documents of a row, in the first window."""
        return self.window / len(self._packed(0))

    def _row(self, number: int) -> list[Place]:
        window = self._window_of(number)
        return self._packed(window)[number - self._begin(window)]

    def _begin(self, window: int) -> int:
        return self._ends[window - 1] if window else 0

    def _window_of(self, row: int) -> int:
        """Return the window of a row; all up to it are packed once, as how many rows they make says where it begins."""
        while not self._ends or self._ends[-1] <= row:
            rows = best_fit(self._measured(len(self._ends)).tolist(), self._row_length)
            self._ends.append(self._begin(len(self._ends)) + len(rows))
        return bisect_right(self._ends, row)

    def _packed(self, window: int) -> list[list[Place]]:
        """Return the rows of a window, in an order of their own: packed, the fullest come first."""
        if window not in self._windows:
            while len(self._windows) >= NUM_KEPT:
                self._windows.pop(next(iter(self._windows)))
            places = [Place(*place) for place in self._places(window).tolist()]
            rows = best_fit(self._measured(window).tolist(), self._row_length)
            order = generator(self._seed, "rows", window).permutation(len(rows))
            self._windows[window] = [[places[index] for index in rows[number]] for number in order]
        return self._windows[window]

    def _measured(self, window: int) -> NDArray[np.int32]:
        """Return the slots of the documents of a window."""
        return self._slots_of(self._places(window)[:, 0])

    def _places(self, window: int) -> NDArray[np.int64]:
        return self._order.places(window * self.window, (window + 1) * self.window)


def best_fit(lengths: Sequence[int], row_length: int) -> list[list[int]]:
    """Pack documents into rows of a fixed length: best fit, the longest first (Johnson 1974), in about a microsecond
    for each.

    Args:
        lengths: Slots that each document takes, > 0.
        row_length: Slots of a row.

    Returns:
        Rows of indices into ``lengths``; a pure function of the arguments.

    Raises:
        ValueError: A document is longer than a row.

    Example:
        >>> best_fit([5, 3, 6, 2], 8)
        [[2, 3], [0, 1]]
    """
    longest = max(lengths, default=0)
    if longest > row_length:
        raise ValueError(too_long("a document", longest, row_length))
    rows: list[list[int]] = []
    with_room: list[list[int]] = [[] for _ in range(row_length + 1)]  # rows by their free slots
    are_some = 0  # bit n: rows with n free slots
    for index in np.argsort(-np.asarray(lengths), kind="stable").tolist():
        length = lengths[index]
        enough = are_some >> length
        if enough:
            free = length + (enough & -enough).bit_length() - 1
            row = with_room[free].pop()
            if not with_room[free]:
                are_some ^= 1 << free
        else:
            free, row = row_length, len(rows)
            rows.append([])
        rows[row].append(index)
        with_room[free - length].append(row)
        are_some |= 1 << (free - length)
    return rows
