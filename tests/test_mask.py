"""The attention rule: a table, brute force, and the equality of its dense and block forms."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import documents, model_config

from transfusion.layout import NO_SPAN, Columns, join, layout, stack
from transfusion.mask import attention_mask, block_mask, dense_mask, slots_of
from transfusion.segments import Document, Latent, Modality, Text, Vocabulary

VOCABULARY = Vocabulary(10, (Modality("image", 1, (1, 1)),))
TABLE = """
x.........
xx........
xxx.......
xxxxx.....
xxxxx.....
xxxxxx....
xxxxxxx...
xxxxxxxx..
xxxxxxxxx.
xxxxxxxxxx
"""


def brute_force(columns: Columns) -> torch.Tensor:
    """Apply the rule of the paper pair by pair, in plain Python."""
    documents, spans, private = (c.tolist() for c in (columns.document_ids, columns.span_ids, columns.private))
    length = len(documents[0])
    result: list[list[list[bool]]] = []
    for row in range(len(documents)):
        allowed = [[False] * length for _ in range(length)]
        for query in range(length):
            for key in range(length):
                if documents[row][query] != documents[row][key]:
                    continue
                in_span = spans[row][query] != NO_SPAN and spans[row][query] == spans[row][key]
                allowed[query][key] = in_span or (key <= query and not private[row][key])
        result.append(allowed)
    return torch.tensor(result)


def packed(seeds: list[int], length: int = 64) -> Columns:
    """Pack toy documents into two rows."""
    vocabulary = model_config().vocabulary()
    pool = documents(20)
    rows = [[layout(pool[s], vocabulary, i).columns for i, s in enumerate(seeds[r::2])] for r in range(2)]
    return stack([join(row, length) for row in rows])


def test_table_of_one_document() -> None:
    # BOS t BOI p p EOI t BOI p EOI
    image = torch.zeros(1, 1, 2)
    document = Document((Text((1,)), Latent(image, "image"), Text((2,)), Latent(torch.zeros(1, 1, 1), "image")))
    columns = stack([layout(document, VOCABULARY).columns])
    mask = attention_mask(columns, "dense")
    assert isinstance(mask, torch.Tensor)
    lines = ["".join("x" if allowed else "." for allowed in row) for row in mask[0, 0].tolist()]
    assert lines == TABLE.split()


def test_private_copies_are_seen_by_their_own_span_alone() -> None:
    image = torch.zeros(1, 1, 2)
    document = Document((Latent(image, "image", is_private=True), Latent(image, "image"), Text((1,))))
    mask = attention_mask(stack([layout(document, VOCABULARY).columns]), "dense")
    assert isinstance(mask, torch.Tensor)
    # BOS B p p E B p p E t: the private patches stand at 2 and 3.
    assert mask[0, 0, :, 2].tolist() == [False, False, True, True] + [False] * 6
    assert mask[0, 0, 9].tolist() == [True, True, False, False, True, True, True, True, True, True]


@given(st.lists(st.integers(0, 19), min_size=2, max_size=6))
@settings(deadline=None, max_examples=30)
def test_dense_is_brute_force(seeds: list[int]) -> None:
    columns = packed(seeds)
    slots = slots_of(columns)
    # Tensors, not lists: where CI is set, pytest writes the whole difference of unequal lists, which takes hours here.
    assert torch.equal(dense_mask(slots, slots)[:, 0], brute_force(columns))


@pytest.mark.parametrize("seeds", [[0, 1, 2, 3], [4, 7, 2], [12, 3, 8, 9, 1]])
def test_block_is_dense(seeds: list[int]) -> None:
    slots = slots_of(packed(seeds, 128))
    block = block_mask(slots, block_size=128)
    assert block.mask_mod is not None
    index = torch.arange(128)
    for row in range(2):
        materialised = block.mask_mod(torch.tensor(row), torch.tensor(0), index[:, None], index[None, :])
        assert torch.equal(materialised, dense_mask(slots, slots)[row, 0])


def test_packed_documents_do_not_see_each_other() -> None:
    columns = packed([0, 1, 2, 3])
    slots = slots_of(columns)
    mask = dense_mask(slots, slots)[:, 0]
    differs = columns.document_ids[:, :, None] != columns.document_ids[:, None, :]
    assert not bool((mask & differs).any())
