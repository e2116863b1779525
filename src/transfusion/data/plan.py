"""Which documents share a row, where a step is so many rows of one length.

Rows are planned before anything is told, from the lengths that documents have at most, window by window of the order:

    order     | 3 0 7 4 1 6 2 5 | 1 5 3 6 0 ...        a window has about NUM_ROWS rows, and ends where a visit does,
    rows      [3 1] [0 4 2] [7] [6 5]  [5 6] ...       or where weights change; best fit, the longest first; the rows
    steps     └── step 0 ──┘ └─── step 1 ───┘ ...      of a window are shuffled

So they are a pure function of the seed and the lengths, whoever asks and in whatever process. Where a window begins
follows from those before it: a checkpoint keeps that of the window under way. It must not know what documents are.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from transfusion.data.limit import too_long
from transfusion.data.order import Order, Place
from transfusion.keyed import generator

NUM_ROWS = 256  # of a window, about: only its last one has to stay half empty
NUM_KEPT = 2  # windows whose rows are held
FIRST_GUESS = 1024  # documents of a window

Unit = Literal["documents", "rows"]
SlotsOf = Callable[[NDArray[np.int64]], NDArray[np.int32]]
Planned = tuple[int, ...]  # the place and the row with which a window begins, and the places at which weights changed


class RowOrder(Order, Protocol):
    """An order that rows are planned on."""

    def together(self, places: NDArray[np.int64]) -> int:
        """Return how many of the first of some places, (count, 2), may share a window; at least 1."""
        ...

    def change(self, place: int) -> None:
        """Let the next weights hold from a place on."""
        ...


class _Window(NamedTuple):
    """A stretch of the order: its first place and row, how many of both it has, and the changes before it."""

    place: int
    row: int
    num_documents: int
    num_rows: int
    num_changes: int


class RowPlan:
    """Steps of so many rows, each as full as the documents of a window make it."""

    def __init__(
        self,
        order: RowOrder,
        slots_of: SlotsOf,
        row_length: int,
        seed: int,
        *,
        changes: Sequence[int] = (),
        planned: Planned = (),
    ) -> None:
        """Bind the order; windows are packed when they are asked for.

        Args:
            order: What comes at each place, without end; with the changes that ``planned`` tells of.
            slots_of: Most slots of records, (count,) for (count,); at most ``row_length`` each.
            row_length: Slots of a row.
            seed: The run's.
            changes: Rows from which the order's next weights hold, ascending; kept to a row or two.
            planned: Where to begin, as ``planned`` returned it; nothing before can be asked for.
        """
        self._order, self._slots_of, self._row_length, self._seed = order, slots_of, row_length, seed
        self._changes, self._changed = changes, list(planned[2:])
        self._begin: tuple[int, int] = (planned[0], planned[1]) if planned else (0, 0)
        self._windows: list[_Window] = []
        self._rows: list[int] = []  # with which each window begins
        self._kept: dict[int, list[list[Place]]] = {}

    def rows(self, first: int, count: int) -> list[list[Place]]:
        """Return rows from the ``first`` on: the records of each, with their visits."""
        return [self._row(number) for number in range(first, first + count)]

    def planned(self, row: int) -> Planned:
        """Return where the window of a row begins: all that whoever goes on there need know."""
        window = self._windows[self._window_of(row)]
        return (window.place, window.row, *self._changed[: window.num_changes])

    @property
    def fill(self) -> float:
        """Which share of the rows' slots is planned to be filled, in the first window."""
        window = self._windows[self._window_of(self._begin[1])]
        return int(self._measured(window).sum()) / (window.num_rows * self._row_length)

    @property
    def mean(self) -> float:
        """Documents of a row, in the first window."""
        window = self._windows[self._window_of(self._begin[1])]
        return window.num_documents / window.num_rows

    def _row(self, number: int) -> list[Place]:
        which = self._window_of(number)
        return self._packed(self._windows[which])[number - self._windows[which].row]

    def _window_of(self, row: int) -> int:
        """Return the window of a row; all up to it are packed, as how many rows they make says where it begins."""
        while not self._windows or sum(self._windows[-1][1::2]) <= row:
            self._extend()
        return bisect_right(self._rows, row) - 1

    def _extend(self) -> None:
        """Plan one more window."""
        place, row = self._begin
        if self._windows:
            last = self._windows[-1]
            place, row = last.place + last.num_documents, last.row + last.num_rows
        while len(self._changed) < len(self._changes) and self._changes[len(self._changed)] <= row:
            self._order.change(place)
            self._changed.append(place)
        left = self._changes[len(self._changed) :]
        count = self._count(place, min(NUM_ROWS, left[0] - row) if left else NUM_ROWS)
        window = _Window(place, row, count, 0, len(self._changed))
        num_rows = len(best_fit(self._measured(window).tolist(), self._row_length))
        self._windows.append(window._replace(num_rows=num_rows))
        self._rows.append(row)

    def _count(self, place: int, num_rows: int) -> int:
        """Return how many documents from a place on fill so many rows, as far as they may share a window."""
        wanted = num_rows * self._row_length
        guess = self._windows[-1].num_documents if self._windows else FIRST_GUESS
        places = self._order.places(place, place + guess)
        while True:
            together = self._order.together(places)
            sums = np.cumsum(self._slots_of(places[:, 0]), dtype=np.int64)
            if sums[-1] >= wanted or together < len(places):
                return min(together, int(np.searchsorted(sums, wanted)) + 1)
            places = np.concatenate([places, self._order.places(place + len(places), place + 2 * len(places))])

    def _packed(self, window: _Window) -> list[list[Place]]:
        """Return the rows of a window, in an order of their own: packed, the fullest come first."""
        if window.place not in self._kept:
            while len(self._kept) >= NUM_KEPT:
                self._kept.pop(next(iter(self._kept)))
            places = [Place(*place) for place in self._places(window).tolist()]
            rows = best_fit(self._measured(window).tolist(), self._row_length)
            order = generator(self._seed, "rows", window.place).permutation(len(rows))
            self._kept[window.place] = [[places[index] for index in rows[number]] for number in order]
        return self._kept[window.place]

    def _measured(self, window: _Window) -> NDArray[np.int32]:
        """Return the slots of the documents of a window."""
        return self._slots_of(self._places(window)[:, 0])

    def _places(self, window: _Window) -> NDArray[np.int64]:
        return self._order.places(window.place, window.place + window.num_documents)


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
