"""Cached forwards equal the full forward, whatever the chunks, rows and lengths."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import documents, make_model
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from transfusion.layout import Columns, join, layout, stack
from transfusion.mask import attention_mask
from transfusion.model.kv_cache import CacheView, KVCache
from transfusion.model.transfusion import NoisedSpans, Outputs, TransfusionModel
from transfusion.segments import Document, Text

MODEL = make_model()
TOLERANCE = 2e-5  # float32 sums over keys in another order


def text_columns(length: int, key: int = 0) -> Columns:
    """Lay out text of ``length`` slots."""
    tokens = torch.randint(0, 20, (length - 1,), generator=torch.Generator().manual_seed(key))
    return layout(Document((Text(tuple(tokens.tolist())),)), MODEL.vocabulary).columns


def logits(model: TransfusionModel, columns: Columns, mask: Tensor, cache: object = None) -> Tensor:
    """Return the (B, T, V) logits of text columns."""
    slots = torch.arange(columns.tokens.numel())
    with torch.inference_mode():
        outputs: Outputs = model(columns, [], slots, mask, cache)
    return outputs.logits.unflatten(0, columns.tokens.shape)


def full(columns: Columns) -> Tensor:
    """Run without a cache."""
    mask = attention_mask(columns, "dense")
    assert isinstance(mask, Tensor)
    return logits(MODEL, columns, mask)


def extend(cache: KVCache, rows: Tensor, columns: Columns, counts: Tensor) -> CacheView:
    """Put new slots behind the rows' own and keep them at once."""
    view = cache.peek(rows, columns)
    cache.advance(rows, counts)
    return view


def part(columns: Columns, start: int, stop: int) -> Columns:
    """Take slots of (B, T) columns."""
    return Columns(*(column[:, start:stop] for column in columns))


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5))
@settings(deadline=None, max_examples=20)
def test_chunks_of_any_size_are_the_whole(sizes: list[int]) -> None:
    columns = stack([text_columns(sum(sizes))])
    cache, start, found = KVCache(MODEL.config.trunk, 1, capacity=2), 0, []
    for size in sizes:
        piece = part(columns, start, start + size)
        view = extend(cache, torch.tensor([0]), piece, torch.tensor([size]))
        found.append(logits(MODEL, piece, view.mask, view))
        start += size
    assert float((torch.cat(found, 1) - full(columns)).abs().max()) < TOLERANCE


@pytest.mark.parametrize("order", [[3, 0, 4], [1, 2, 3]], ids=["scattered", "side by side"])
def test_rows_of_different_lengths_share_a_view(order: list[int]) -> None:
    rows = [text_columns(length, key=length) for length in (9, 4, 6)]
    cache = KVCache(MODEL.config.trunk, 5, capacity=4)
    places, counts = torch.tensor(order), torch.tensor([8, 3, 5])
    first = stack([join([Columns(*(c[: len(c) - 1] for c in row))], 8) for row in rows])
    view = extend(cache, places, first, counts)
    logits(MODEL, first, view.mask, view)
    assert cache.lengths[places].tolist() == [8, 3, 5]
    assert int(cache.lengths.sum()) == 16
    last = stack([Columns(*(c[-1:] for c in row)) for row in rows])
    for view in (cache.peek(places, last), extend(cache, places, last, torch.ones(3, dtype=torch.int64))):
        found = logits(MODEL, last, view.mask, view)
        for i, row in enumerate(rows):
            assert float((found[i, 0] - full(stack([row]))[0, -1]).abs().max()) < TOLERANCE


def test_peek_keeps_nothing() -> None:
    columns = stack([text_columns(7)])
    cache, row = KVCache(MODEL.config.trunk, 1, capacity=4), torch.tensor([0])
    view = extend(cache, row, part(columns, 0, 4), torch.tensor([4]))
    logits(MODEL, part(columns, 0, 4), view.mask, view)
    before = [tensor[:, :4].clone() for layer in range(2) for tensor in cache.layer(layer, torch.zeros(()))]
    rest, other = part(columns, 4, 7), stack([text_columns(9, key=1)])
    found: list[Tensor] = []
    for _ in range(2):
        view = cache.peek(row, rest)
        found.append(logits(MODEL, rest, view.mask, view))
        view = cache.peek(row, other)
        logits(MODEL, other, view.mask, view)
    assert torch.equal(found[0], found[1])
    assert float((found[0] - full(columns)[:, 4:]).abs().max()) < TOLERANCE
    after = [tensor[:, :4] for layer in range(2) for tensor in cache.layer(layer, torch.zeros(()))]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert cache.lengths.tolist() == [4]


def test_what_was_peeked_at_is_not_seen_later() -> None:
    document = documents(5)[0]
    columns, spans = layout(document, MODEL.vocabulary)
    start, count = spans[0].start, spans[0].num_patches
    prefix, patches = (stack([Columns(*(c[a:b] for c in columns))]) for a, b in ((0, start), (start, start + count)))
    longer = stack([text_columns(start + count)])
    cache, pair = KVCache(MODEL.config.trunk, 2), torch.tensor([0, 1])
    extend(cache, pair[:1], prefix, torch.tensor([start]))
    extend(cache, pair[1:], longer, torch.tensor([start + count]))
    cache.peek(pair[:1], patches)
    both = stack([Columns(*(c[0, :1] for c in patches)), Columns(*(c[0, -1:] for c in longer))])
    seen = extend(cache, pair, both, torch.tensor([1, 1])).mask[:, 0, 0]  # (2, S)
    assert seen[0].nonzero()[:, 0].tolist() == list(range(start + 1))
    assert seen[1].all()


def test_cleared_rows_forget() -> None:
    columns = stack([text_columns(5)])
    cache = KVCache(MODEL.config.trunk, 1)
    for _ in range(2):
        cache.clear(0)
        assert cache.lengths.tolist() == [0]
        view = extend(cache, torch.tensor([0]), columns, torch.tensor([5]))
        found = logits(MODEL, columns, view.mask, view)
        assert float((found - full(columns)).abs().max()) < TOLERANCE


@pytest.mark.parametrize("number", [0, 2])
def test_a_span_is_denoised_over_its_cached_prefix(number: int) -> None:
    document = documents(5)[number]
    columns, spans = layout(document, MODEL.vocabulary)
    batched, found = stack([columns]), spans[-1]
    inside = torch.arange(found.start, found.start + found.num_patches)[None]
    groups = [
        NoisedSpans(
            MODEL.vocabulary.index(span.latent.modality),
            span.latent.values[None],
            torch.full((1,), 0.5 if span is found else 0.0),
            torch.arange(span.start, span.start + span.num_patches)[None],
        )
        for span in spans
    ]
    nothing = torch.empty(0, dtype=torch.int64)
    with torch.inference_mode():
        whole: Outputs = MODEL(batched, groups, nothing, attention_mask(batched, "dense"))
        cache = KVCache(MODEL.config.trunk, 1)
        view = extend(cache, torch.tensor([0]), part(batched, 0, found.start), torch.tensor([found.start]))
        MODEL(part(batched, 0, found.start), groups[:-1], nothing, view.mask, view)
        patches = part(batched, found.start, found.start + found.num_patches)
        view = cache.peek(torch.tensor([0]), patches)
        alone = groups[-1]._replace(slots=inside - found.start)
        peeked: Outputs = MODEL(patches, [alone], nothing, view.mask, view)
    assert float((peeked.predictions[0] - whole.predictions[-1]).abs().max()) < TOLERANCE


class NoRoom(TorchDispatchMode):
    """Raises once, when storage is asked for the n-th time."""

    def __init__(self, place: int) -> None:
        super().__init__()
        self.left = place

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket is torch.ops.aten.new_zeros:
            self.left -= 1
            if self.left == -1:
                raise torch.OutOfMemoryError("once")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("is_inference", [False, True])
@pytest.mark.parametrize("place", range(6))
def test_growing_without_memory_leaves_the_cache_as_it_was(place: int, is_inference: bool) -> None:
    columns, first, second = stack([text_columns(12)]), torch.tensor([0]), torch.tensor([1])
    cache = KVCache(MODEL.config.trunk, 2, capacity=4)
    for row in (first, second):
        view = extend(cache, row, part(columns, 0, 4), torch.tensor([4]))
        logits(MODEL, part(columns, 0, 4), view.mask, view)
    with torch.inference_mode(is_inference):
        with pytest.raises(torch.OutOfMemoryError), NoRoom(place):
            cache.reserve(3, 9)
        assert (cache.num_rows, cache.capacity, cache.lengths.tolist()) == (2, 4, [4, 4])
        cache.reserve(2, 5)  # less than the first try wanted
        view = cache.peek(first, part(columns, 4, 6))
        found = logits(MODEL, part(columns, 4, 6), view.mask, view)
        assert float((found - full(part(columns, 0, 6))[:, 4:]).abs().max()) < TOLERANCE
        cache.reserve(5, 12)
        cache.clear(4)
        for row in (first, second):
            view = extend(cache, row, part(columns, 4, 12), torch.tensor([8]))
            found = logits(MODEL, part(columns, 4, 12), view.mask, view)
            assert float((found - full(columns)[:, 4:]).abs().max()) < TOLERANCE


@pytest.mark.parametrize("place", range(4))
def test_a_forward_that_fails_at_its_first_layers_may_be_repeated(place: int) -> None:
    columns, row = stack([text_columns(5)]), torch.tensor([0])
    cache = KVCache(MODEL.config.trunk, 1)
    view = cache.peek(row, columns)
    with pytest.raises(torch.OutOfMemoryError), NoRoom(place):
        logits(MODEL, columns, view.mask, view)
    assert cache.lengths.tolist() == [0]
    view = cache.peek(row, columns)
    found = logits(MODEL, columns, view.mask, view)
    cache.advance(row, torch.tensor([5]))
    assert float((found - full(columns)).abs().max()) < TOLERANCE and cache.lengths.tolist() == [5]


def test_a_cleared_row_holds_no_nan_for_rows_that_follow() -> None:
    columns = stack([text_columns(5)])
    cache, row = KVCache(MODEL.config.trunk, 1, capacity=8), torch.tensor([0])
    for layer in range(2):
        for stored in cache.layer(layer, torch.zeros(())):
            stored.fill_(torch.nan)
    cache.clear(0)
    view = cache.peek(row, columns)
    assert float((logits(MODEL, columns, view.mask, view) - full(columns)).abs().max()) < TOLERANCE


@pytest.mark.parametrize("capacity", [65, 97, 113])
def test_rows_begin_at_whole_cache_lines_whatever_was_asked_for(capacity: int) -> None:
    """Else a row's numbers could depend on where in the cache it stands, by kernels that look at the alignment."""
    cache = KVCache(MODEL.config.trunk, 3)
    cache.reserve(3, capacity)
    keys, values = cache.layer(0, torch.zeros((), dtype=torch.bfloat16))
    assert {stored[row].data_ptr() % 64 for stored in (keys, values) for row in range(3)} == {0}
