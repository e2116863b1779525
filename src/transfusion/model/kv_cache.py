"""The key-value cache, an argument of the one forward.

``peek`` puts new slots behind each row's own for one forward, ``advance`` keeps them: prefill, decoding and denoising
are the same code. Rows may have different lengths. It must not know text or latents.

    row 0   k k k k k n n .      length 5        peek(row 0, 2 new), advance(row 0, 2) → length 7
    row 1   k k n n n n . .      length 2        peek(row 1, 4 new) → still 2: the next to come take their places

Rows that stand side by side are read where they are; any others are copied together, layer by layer.

Letters: R rows of the cache, B rows of a view, T new slots, K kv heads, S keys, E head size.
"""

from copy import copy

import torch
from torch import Tensor

from transfusion.layout import Columns
from transfusion.mask import Slots, dense_mask, slots_of
from transfusion.model.transformer import TransformerConfig

ALIGNED_SLOTS = 32  # every row begins at a multiple of 64 bytes, whatever K, E and dtype: kernels may ask for that
EMPTY = -2  # document id of a place in the cache that holds nothing: equal to no slot's


class KVCache:
    """Keys, values and slot facts of many rows, growing as needed."""

    def __init__(self, config: TransformerConfig, num_rows: int, *, capacity: int = 64) -> None:
        """Make room for ``num_rows`` rows of ``capacity`` slots; both grow on demand."""
        self.config = config
        self.lengths = torch.zeros(num_rows, dtype=torch.int64)
        self._facts = torch.zeros(num_rows, capacity, 3, dtype=torch.int64)  # document, span, private
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []

    @property
    def num_rows(self) -> int:
        """Number of rows R that there is room for."""
        return len(self.lengths)

    @property
    def capacity(self) -> int:
        """Number of slots per row that there is room for."""
        return self._facts.shape[1]

    def clear(self, row: int) -> None:
        """Empty one row for another sequence; nothing of the last one stays, not even a NaN behind a mask."""
        self.lengths[row] = 0
        for stored in (*self._keys, *self._values):
            stored[row] = 0

    def reserve(self, num_rows: int, capacity: int) -> None:
        """Grow by steps so that at least ``num_rows`` rows of ``capacity`` slots fit; what is stored stays.

        Without memory for it the cache stays as it was, but for layers that have more room than is used.
        """
        rows = self.num_rows if num_rows <= self.num_rows else max(num_rows, 2 * self.num_rows)
        slots = self.capacity if capacity <= self.capacity else max(capacity, 3 * self.capacity // 2)
        slots += -slots % ALIGNED_SLOTS if slots > self.capacity else 0
        if (rows, slots) == (self.num_rows, self.capacity):
            return
        shape = (rows, slots, self.config.kv_heads, self.config.head_dim)
        for stored in (self._keys, self._values):
            for layer in range(len(stored)):  # one by one: never all of the old beside all of the new
                stored[layer] = _grown(stored[layer], shape)
        self.lengths, self._facts = _grown(self.lengths, (rows,)), _grown(self._facts, (rows, slots, 3))

    def advance(self, rows: Tensor, counts: Tensor) -> None:
        """Keep the first (B,) ``counts`` slots that the last forward put behind (B,) different rows."""
        self.lengths[rows] += counts

    def peek(self, rows: Tensor, columns: Columns) -> "CacheView":
        """Put new (B, T) slots behind the rows' own for one forward; what is kept of the rows stays as it is."""
        starts, width = self.lengths[rows], columns.tokens.shape[1]
        self.reserve(self.num_rows, int(starts.max()) + width)
        return CacheView(self, _Places(rows, starts, width), columns)

    def slots(self, places: "_Places", columns: Columns) -> tuple[Slots, Slots]:
        """Note the facts of new slots; return the rule's view of them, (B, T), and of all up to them, (B, S)."""
        facts = torch.stack((columns.document_ids, columns.span_ids, columns.private), dim=-1).cpu()
        document_ids, span_ids, private = places.write(self._facts, facts).unbind(-1)
        order = torch.arange(places.length)
        document_ids = document_ids.masked_fill(order >= places.ends[:, None], EMPTY)
        keys = Slots(order.expand_as(document_ids), document_ids, span_ids, private)
        device = columns.tokens.device
        return slots_of(columns, places.starts[:, None].to(device)), Slots(*(fact.to(device) for fact in keys))

    def layer(self, layer: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return the (R, capacity, K, E) storage of a layer, made in the dtype and place of ``like`` at first use."""
        while len(self._keys) <= layer:
            shape = (self.num_rows, self.capacity, self.config.kv_heads, self.config.head_dim)
            keys, values = _zeros(like, shape), _zeros(like, shape)
            self._keys.append(keys)
            self._values.append(values)
        return self._keys[layer], self._values[layer]


class _Places:
    """Where the new slots of some rows stand in (R, capacity, ...) storage."""

    def __init__(self, rows: Tensor, starts: Tensor, width: int) -> None:
        self.starts = starts  # (B,)
        self.ends = starts + width
        self.length = int(self.ends.max())
        first, num_rows, start = int(rows[0]), len(rows), int(starts[0])
        are_adjacent = torch.equal(rows, torch.arange(first, first + num_rows))
        self._rows: slice | Tensor = slice(first, first + num_rows) if are_adjacent else rows
        self._new: tuple[slice | Tensor, slice | Tensor] = (rows[:, None], starts[:, None] + torch.arange(width))
        if are_adjacent and bool((starts == start).all()):
            self._new = (self._rows, slice(start, start + width))

    def to(self, device: torch.device) -> "_Places":
        """Return the same places for storage on a device: indices go there once, and not with every layer."""
        moved = copy(self)
        moved._rows = _moved(self._rows, device)
        moved._new = (_moved(self._new[0], device), _moved(self._new[1], device))
        return moved

    def write(self, stored: Tensor, new: Tensor) -> Tensor:
        """Put (B, T, ...) at its places and return all up to there, (B, S, ...)."""
        stored[self._new] = new
        return stored[self._rows, : self.length]


class CacheView:
    """One forward's access to the cache: its mask, and the keys and values of every layer."""

    def __init__(self, cache: KVCache, places: _Places, columns: Columns) -> None:
        """Bind new slots to their places."""
        self._cache = cache
        self._places = places.to(columns.tokens.device)
        self.mask = dense_mask(*cache.slots(places, columns))  # (B, 1, T, S)

    def join(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Put a layer's cached keys and values before the new ones.

        Args:
            layer: Index of the layer.
            key: (B, K, T, E) new keys.
            value: (B, K, T, E) new values.

        Returns:
            Keys and values, each (B, K, S, E), in the order of the view's mask; good until the rows' next view writes.
        """
        pairs = zip(self._cache.layer(layer, key), (key, value), strict=True)
        keys, values = (self._places.write(stored, new.transpose(1, 2)).transpose(1, 2) for stored, new in pairs)
        return keys, values


def _moved(index: slice | Tensor, device: torch.device) -> slice | Tensor:
    return index if isinstance(index, slice) else index.to(device)


def _zeros(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Make storage that may be written in and outside of inference mode."""
    with torch.inference_mode(False):
        return like.new_zeros(shape)


def _grown(old: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return storage of at least a shape with what is stored; one that an earlier try has grown may be larger."""
    shape = tuple(max(size, wanted) for size, wanted in zip(old.shape, shape, strict=True))
    if shape == old.shape:
        return old
    new = _zeros(old, shape)
    new[tuple(slice(size) for size in old.shape)] = old
    return new
