"""The global order: which record comes at which place, and on which visit. A pure function of the seed and the place.

A source alone is told all through, again and again, each time in another order. Several are mixed by slots: the
documents of each lie end to end, every slot as long as its weight makes it short, and the middles of all of them tell
the order. So at every place each source has had its share of the slots, to a document:

    text      |---a---|---b---|---c---|---d---|    weight 2
    captions  |-x-|-y-|-z-|-u-|-v-|-w-|-q-|-r-|    weight 1           x a y z b u v c w q d r

It must not know what documents are, nor where they come from.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from transfusion.keyed import Key, generator

NUM_KEPT = 2  # visits of a source whose order is held
NUM_WALKED = 32  # places that are walked rather than sought, at most
NUM_HALVINGS = 64


class Place(NamedTuple):
    """A record, and how often it was told before; or a track, and how many of its documents came before."""

    which: int
    before: int


class Order(Protocol):
    """What comes at each place of the global order."""

    def place(self, number: int) -> Place:
        """Return the record and the visit of a place, from 0."""
        ...

    def places(self, first: int, last: int) -> NDArray[np.int64]:
        """Return the records and visits of the places ``first`` to ``last - 1``, (count, 2)."""
        ...


class Shuffled:
    """The records of one source: all of them on every visit, each visit in another order; by number if without end."""

    def __init__(self, seed: int, size: int | None, *ids: Key) -> None:
        """Bind the key of the order.

        Args:
            seed: The run's.
            size: How many records there are; None: without end.
            ids: Tell one source of a mixture from another.
        """
        self.size, self._seed, self._ids = size, seed, ids
        self._orders: dict[int, NDArray[np.int32]] = {}

    def place(self, number: int) -> Place:
        """Return the record and the visit of a place."""
        if self.size is None:
            return Place(number, 0)
        visit, place = divmod(number, self.size)
        return Place(int(self.order(visit)[place]), visit)

    def places(self, first: int, last: int) -> NDArray[np.int64]:
        """Return the records and visits of places."""
        assert self.size is not None, "what has no end is asked for place by place"
        parts: list[NDArray[np.int64]] = []
        while first < last:
            visit, place = divmod(first, self.size)
            records = self.order(visit)[place : place + last - first].astype(np.int64)
            parts.append(np.stack([records, np.full_like(records, visit)], axis=1))
            first += len(records)
        return np.concatenate(parts) if parts else np.zeros((0, 2), np.int64)

    def together(self, places: NDArray[np.int64]) -> int:
        """Return how many of the first of some places are of one visit."""
        return int(np.searchsorted(places[:, 1], places[0, 1], side="right"))

    def change(self, place: int) -> None:
        """There are no weights."""
        raise NotImplementedError(f"a source alone has no weights to change at place {place}")

    def order(self, visit: int) -> NDArray[np.int32]:
        """Return the records in the order of a visit."""
        assert self.size is not None, "there is no order of what has no end"
        if visit not in self._orders:
            _make_room(self._orders)
            order = generator(self._seed, "order", *self._ids, visit).permutation(self.size)
            self._orders[visit] = order.astype(np.int32)
        return self._orders[visit]


class Track:
    """The documents of one source end to end in their shuffled order, again and again."""

    def __init__(self, shuffled: Shuffled, lengths: NDArray[np.float32]) -> None:
        """Bind the lengths.

        Args:
            shuffled: The order.
            lengths: Slots of every record, > 0; of a source without end, one number: their mean.
        """
        self.shuffled, self._lengths = shuffled, lengths
        self.num_slots = float(lengths.sum(dtype=np.float64))
        self._middles: dict[int, NDArray[np.float64]] = {}

    @property
    def mean(self) -> float:
        """Slots of a document."""
        return self.num_slots / len(self._lengths)

    def begin(self, number: int) -> float:
        """Return the slots before the ``number``-th document, from 0."""
        visit, place = divmod(number, len(self._lengths))
        return self.middle(number) - float(self._ordered(visit)[place]) / 2

    def middle(self, number: int) -> float:
        """Return the slots before the middle of the ``number``-th document."""
        visit, place = divmod(number, len(self._lengths))
        return visit * self.num_slots + float(self._middles_of(visit)[place])

    def near(self, num_slots: float) -> int:
        """Return about how many documents have their middles within so many slots."""
        visit = max(0, int(num_slots // self.num_slots))
        within = np.searchsorted(self._middles_of(visit), num_slots - visit * self.num_slots, side="right")
        return visit * len(self._lengths) + int(within)

    def _ordered(self, visit: int) -> NDArray[np.float32]:
        return self._lengths if self.shuffled.size is None else self._lengths[self.shuffled.order(visit)]

    def _middles_of(self, visit: int) -> NDArray[np.float64]:
        if visit not in self._middles:
            _make_room(self._middles)
            lengths = self._ordered(visit)
            self._middles[visit] = np.cumsum(lengths, dtype=np.float64) - lengths / 2
        return self._middles[visit]


def _make_room(kept: dict[int, NDArray[np.float64]] | dict[int, NDArray[np.int32]]) -> None:
    """Forget the oldest of what is kept, where there is no room for one more."""
    while len(kept) >= NUM_KEPT:
        kept.pop(next(iter(kept)))


class Phase(NamedTuple):
    """Weights, and the place from which they hold."""

    first: int
    weights: tuple[float, ...]


@dataclass(frozen=True)
class _Stretch:
    """A phase that has begun: the tracks, each from a document on, and each slot as long as its weight makes it.

    Attributes:
        first: The place at which it begins.
        heads: How many documents of each track came before.
        begins: The slots of those.
        lengths: Of a slot of each track.
    """

    tracks: Sequence[Track]
    first: int
    heads: tuple[int, ...]
    begins: tuple[float, ...]
    lengths: tuple[float, ...]

    def time(self, track: int, number: int) -> float:
        """Return when the ``number``-th document of a track comes."""
        if self.lengths[track] == inf:
            return inf
        return (self.tracks[track].middle(number) - self.begins[track]) * self.lengths[track]

    def reached(self, time: float) -> tuple[int, ...]:
        """Return how many documents of each track come until a time, with those before the stretch."""
        return tuple(self._reached(track, time) for track in range(len(self.tracks)))

    def _reached(self, track: int, time: float) -> int:
        if self.lengths[track] == inf:
            return self.heads[track]
        number = max(self.heads[track], self.tracks[track].near(self.begins[track] + time / self.lengths[track]))
        while number > self.heads[track] and self.time(track, number - 1) > time:
            number -= 1
        while self.time(track, number) <= time:
            number += 1
        return number

    def next_of(self, heads: Sequence[int]) -> int:
        """Return of which track the next document is, after so many of each."""
        return min(range(len(heads)), key=lambda track: (self.time(track, heads[track]), track))

    def heads_at(self, number: int) -> list[int]:
        """Return how many documents of each track come before a place of the stretch."""
        target = number - self.first + sum(self.heads)
        heads = list(self._near(target))
        while sum(heads) < target:
            heads[self.next_of(heads)] += 1
        return heads

    def _near(self, target: int) -> tuple[int, ...]:
        """Return heads of so many documents in all, or of a few less."""
        density = sum(1 / (t.mean * length) for t, length in zip(self.tracks, self.lengths, strict=True))
        gap = NUM_WALKED / density
        low = max(0.0, (target - sum(self.heads)) / density - gap / 2)
        high = low + gap
        while low > 0 and sum(self.reached(low)) > target:
            low, gap = max(0.0, low - gap), 2 * gap
        while sum(self.reached(high)) <= target:
            high, gap = high + gap, 2 * gap
        heads = self.reached(low) if low > 0 else self.heads
        for _ in range(NUM_HALVINGS):  # more documents than are walked may come at one time
            if target - sum(heads) <= NUM_WALKED:
                break
            middle = (low + high) / 2
            found = self.reached(middle)
            if sum(found) <= target:
                low, heads = middle, found
            else:
                high = middle
        return heads


class Merged:
    """The documents of several tracks in one order, each track with its share of the slots."""

    def __init__(self, tracks: Sequence[Track], phases: Sequence[Phase]) -> None:
        """Bind tracks and weights.

        Args:
            tracks: The sources.
            phases: Weights of the tracks from places on, ascending, the first from 0.
        """
        self.tracks, self._phases = tracks, list(phases)
        self._begun: list[_Stretch] = []
        self._number, self._end = -1, 0
        self._stretch, self._heads = self._stretch_of(0), list[int]()

    def place(self, number: int) -> Place:
        """Return the track of a place, and how many of its documents came before."""
        if number != self._number or number == self._end:
            self._seek(number)
        track = self._stretch.next_of(self._heads)
        found = Place(track, self._heads[track])
        self._heads[track] += 1
        self._number += 1
        return found

    @property
    def num_phases(self) -> int:
        """How many there are."""
        return len(self._phases)

    def change(self, phase: Phase) -> None:
        """Add a phase behind the others."""
        self._phases.append(phase)
        self._number = -1

    def heads(self, number: int) -> list[int]:
        """Return how many documents of each track come before a place."""
        return self._stretch_of(self._phase_at(number)).heads_at(number)

    def _phase_at(self, number: int) -> int:
        return max(place for place, phase in enumerate(self._phases) if phase.first <= number)

    def _seek(self, number: int) -> None:
        phase = self._phase_at(number)
        self._stretch = self._stretch_of(phase)
        self._end = self._phases[phase + 1].first if phase + 1 < len(self._phases) else -1
        self._heads, self._number = self._stretch.heads_at(number), number

    def _stretch_of(self, phase: int) -> _Stretch:
        """Return a phase as it begins where the one before it ends."""
        while len(self._begun) <= phase:
            first, weights = self._phases[len(self._begun)]
            heads = self._begun[-1].heads_at(first) if self._begun else [0] * len(self.tracks)
            begins = tuple(track.begin(head) for track, head in zip(self.tracks, heads, strict=True))
            lengths = tuple(1 / weight if weight else inf for weight in weights)
            self._begun.append(_Stretch(self.tracks, first, tuple(heads), begins, lengths))
        return self._begun[phase]
