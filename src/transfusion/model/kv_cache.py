"""The key-value cache, an argument of the one forward.

``extend`` writes the new slots behind each row's own, ``peek`` reads the prefix and writes nothing: prefill,
decoding and denoising are the same code. Rows may have different lengths. It must not know text or latents.

    row 0   k k k k k . . .      length 5        extend(row 0, 2 new) → length 7
    row 1   k k . . . . . .      length 2        peek(row 1, 4 new)   → still 2

Letters: R rows of the cache, B rows of a view, K kv heads, S keys, E head size.
"""

import torch
from torch import Tensor

from transfusion.layout import Columns
from transfusion.mask import Slots, dense_mask, slots_of
from transfusion.model.transformer import TransformerConfig

EMPTY = -2  # document id of a place in the cache that holds nothing: equal to no slot's
GROWTH = 2


class KVCache:
    """Keys, values and slot facts of many rows, growing as needed."""

    def __init__(self, config: TransformerConfig, num_rows: int, *, capacity: int = 64) -> None:
        """Make room for ``num_rows`` rows of ``capacity`` slots; both grow on demand."""
        self.config = config
        self.lengths = torch.zeros(num_rows, dtype=torch.int64)
        self._facts = torch.zeros(num_rows, capacity, 3, dtype=torch.int64)  # document, span, private
        self._facts[..., 0] = EMPTY
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
        """Empty one row for another sequence."""
        self.lengths[row] = 0
        self._facts[row, :, 0] = EMPTY

    def reserve(self, num_rows: int, capacity: int) -> None:
        """Grow so that at least ``num_rows`` rows of ``capacity`` slots fit; what is stored stays."""
        rows = self.num_rows if num_rows <= self.num_rows else max(num_rows, GROWTH * self.num_rows)
        slots = self.capacity if capacity <= self.capacity else max(capacity, GROWTH * self.capacity)
        if (rows, slots) == (self.num_rows, self.capacity):
            return
        self.lengths = _grown(self.lengths, (rows,), 0)
        self._facts = _grown(self._facts, (rows, slots, 3), EMPTY)
        shape = (rows, slots, self.config.kv_heads, self.config.head_dim)
        self._keys = [_grown(keys, shape, 0) for keys in self._keys]
        self._values = [_grown(values, shape, 0) for values in self._values]

    def extend(self, rows: Tensor, columns: Columns, counts: Tensor) -> "CacheView":
        """Write new slots behind the rows' own.

        Args:
            rows: (B,) int64 rows of the cache, all different.
            columns: (B, T) columns; row b has ``counts[b]`` slots and padding behind them.
            counts: (B,) int64.

        Returns:
            A view for one forward over the columns.
        """
        width = columns.tokens.shape[1]
        self.reserve(self.num_rows, int(self.lengths[rows].max()) + width)
        starts = self.lengths[rows]
        places = starts[:, None] + torch.arange(width)
        facts = torch.stack((columns.document_ids, columns.span_ids, columns.private), dim=-1).cpu()
        self._facts[rows[:, None], places] = facts
        self.lengths[rows] = starts + counts
        return CacheView(self, rows, columns, starts=starts, places=places)

    def peek(self, rows: Tensor, columns: Columns) -> "CacheView":
        """Let new (B, T) slots look at the rows' prefixes without writing anything."""
        return CacheView(self, rows, columns, starts=self.lengths[rows], places=None)

    def facts(self, rows: Tensor, length: int) -> Slots:
        """Return the rule's view of the first ``length`` places of rows, each (B, length)."""
        document_ids, span_ids, private = self._facts[rows, :length].unbind(-1)
        return Slots(torch.arange(length).expand_as(document_ids), document_ids, span_ids, private)

    def layer(self, layer: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return the (R, capacity, K, E) storage of a layer, made in the dtype and place of ``like`` at first use."""
        while len(self._keys) <= layer:
            shape = (self.num_rows, self.capacity, self.config.kv_heads, self.config.head_dim)
            self._keys.append(like.new_zeros(shape))
            self._values.append(like.new_zeros(shape))
        return self._keys[layer], self._values[layer]


class CacheView:
    """One forward's access to the cache: its mask, and the keys and values of every layer."""

    def __init__(
        self, cache: KVCache, rows: Tensor, columns: Columns, *, starts: Tensor, places: Tensor | None
    ) -> None:
        """Bind rows and new slots; ``places`` is where they are written, or None to write nothing."""
        device = columns.tokens.device
        self._cache = cache
        self._rows = rows.to(device)
        self._places = None if places is None else places.to(device)
        width = columns.tokens.shape[1]
        self._length = int(starts.max()) + (0 if places is None else width)
        query = slots_of(columns, starts[:, None].to(device))
        prefix = Slots(*(fact.to(device) for fact in cache.facts(rows, self._length)))
        if places is None:
            prefix = Slots(*(torch.cat(pair, dim=-1) for pair in zip(prefix, query, strict=True)))
        self.mask = dense_mask(query, prefix)  # (B, 1, T, S)

    def join(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Put a layer's cached keys and values before the new ones.

        Args:
            layer: Index of the layer.
            key: (B, K, T, E) new keys.
            value: (B, K, T, E) new values.

        Returns:
            Keys and values, each (B, K, S, E), in the order of the view's mask.
        """
        stored_keys, stored_values = self._cache.layer(layer, key)
        if self._places is not None:
            stored_keys[self._rows[:, None], self._places] = key.transpose(1, 2)
            stored_values[self._rows[:, None], self._places] = value.transpose(1, 2)
        keys = stored_keys[self._rows, : self._length].transpose(1, 2)  # (B, K, S, E)
        values = stored_values[self._rows, : self._length].transpose(1, 2)
        if self._places is not None:
            return keys, values
        return torch.cat((keys, key), dim=2), torch.cat((values, value), dim=2)


def _grown(old: Tensor, shape: tuple[int, ...], fill: int) -> Tensor:
    new = old.new_full(shape, fill)
    new[tuple(slice(size) for size in old.shape)] = old
    return new
