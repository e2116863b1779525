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

from transfusion.data.order import Order, Place
from transfusion.data.pack import best_fit
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

    @property
    def end(self) -> int:
        """The row behind its last."""
        return self.row + self.num_rows


class _Packed(NamedTuple):
    """The documents of a window, (count, 2), and which of them each row holds."""

    places: NDArray[np.int64]
    rows: list[list[int]]


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
        self._kept: dict[int, _Packed] = {}

    def rows(self, first: int, count: int) -> list[list[Place]]:
        """Return rows from the ``first`` on: the records of each, with their visits."""
        return [self._row(number) for number in range(first, first + count)]

    def planned(self, row: int) -> Planned:
        """Return where the window of a row begins: all that whoever goes on there need know."""
        window = self._window_of(row)
        return (window.place, window.row, *self._changed[: window.num_changes])

    @property
    def fill(self) -> float:
        """Which share of the rows' slots is planned to be filled, in the first window."""
        window = self._window_of(self._begin[1])
        slots = self._slots_of(self._packed(window).places[:, 0])
        return int(slots.sum()) / (window.num_rows * self._row_length)

    @property
    def mean(self) -> float:
        """Documents of a row, in the first window."""
        window = self._window_of(self._begin[1])
        return window.num_documents / window.num_rows

    def _row(self, number: int) -> list[Place]:
        window = self._window_of(number)
        places, rows = self._packed(window)
        return [Place(*place) for place in places[rows[number - window.row]].tolist()]

    def _window_of(self, row: int) -> _Window:
        """Return the window of a row; all up to it are packed, as how many rows they make says where it begins."""
        while not self._windows or self._windows[-1].end <= row:
            self._extend()
        return self._windows[bisect_right(self._windows, row, key=lambda window: window.row) - 1]

    def _extend(self) -> None:
        """Plan one more window."""
        place, row = self._begin
        if self._windows:
            last = self._windows[-1]
            place, row = last.place + last.num_documents, last.end
        while len(self._changed) < len(self._changes) and self._changes[len(self._changed)] <= row:
            self._order.change(place)
            self._changed.append(place)
        left = self._changes[len(self._changed) :]
        places = self._places(place, min(NUM_ROWS, left[0] - row) if left else NUM_ROWS)
        num_rows = len(self._keep(places, place).rows)
        self._windows.append(_Window(place, row, len(places), num_rows, len(self._changed)))

    def _places(self, place: int, num_rows: int) -> NDArray[np.int64]:
        """Return the documents from a place on that fill so many rows, as far as they may share a window."""
        wanted = num_rows * self._row_length
        guess = self._windows[-1].num_documents if self._windows else FIRST_GUESS
        places = self._order.places(place, place + guess)
        while True:
            together = self._order.together(places)
            sums = np.cumsum(self._slots_of(places[:, 0]), dtype=np.int64)
            if sums[-1] >= wanted or together < len(places):
                return places[: min(together, int(np.searchsorted(sums, wanted)) + 1)]
            places = np.concatenate([places, self._order.places(place + len(places), place + 2 * len(places))])

    def _packed(self, window: _Window) -> _Packed:
        """Return the rows of a window, packed again where they were forgotten."""
        if (known := self._kept.get(window.place)) is not None:
            return known
        return self._keep(self._order.places(window.place, window.place + window.num_documents), window.place)

    def _keep(self, places: NDArray[np.int64], place: int) -> _Packed:
        """Pack the documents of a window; its rows come in an order of their own: packed, the fullest come first."""
        while len(self._kept) >= NUM_KEPT:
            self._kept.pop(next(iter(self._kept)))
        rows = best_fit(self._slots_of(places[:, 0]).tolist(), self._row_length)
        order = generator(self._seed, "rows", place).permutation(len(rows))
        self._kept[place] = _Packed(places, [rows[number] for number in order])
        return self._kept[place]
