"""The one attention rule. Dense, block (Flex) and cached masks all derive from ``may_attend``.

Causal over everything, bidirectional inside a span (paper section 2), with a barrier between documents packed
into one row (our choice; the paper names none):

            t  B  p  p  E  t        t text, B begin, p patch of one image, E end
        t   x
        B   x  x
        p   x  x  x  x
        p   x  x  x  x
        E   x  x  x  x  x
        t   x  x  x  x  x  x

It must not know modalities, the model or the cache's storage.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

from transfusion.layout import NO_SPAN, Columns

MaskKernel = Literal["dense", "flex"]


class Slots(NamedTuple):
    """What the rule needs to know of slots; all int64 and of one shape, (B, T) or any that broadcasts.

    Attributes:
        order: Place in the row, increasing.
        document_ids: Document of each slot.
        span_ids: Span of each slot in its document, or NO_SPAN.
        private: 1 where later slots outside the span must not look.
    """

    order: Tensor
    document_ids: Tensor
    span_ids: Tensor
    private: Tensor


def slots_of(columns: Columns, first: Tensor | int = 0) -> Slots:
    """Take the rule's view of (B, T) columns whose first slot stands at place ``first`` ((B, 1) or int) of its row."""
    order = torch.arange(columns.tokens.shape[-1], device=columns.tokens.device) + first
    return Slots(order.expand_as(columns.tokens), columns.document_ids, columns.span_ids, columns.private)


def may_attend(query: Slots, key: Slots) -> Tensor:
    """Say which queries may look at which keys: the attention rule of the whole project.

    Returns:
        bool, of the broadcast shape of the arguments.
    """
    is_same_document = query.document_ids == key.document_ids
    is_same_span = (query.span_ids == key.span_ids) & (query.span_ids != NO_SPAN)
    is_past = (key.order <= query.order) & (key.private == 0)
    return is_same_document & (is_past | is_same_span)


def dense_mask(query: Slots, key: Slots) -> Tensor:
    """Build the mask of (B, Tq) queries over (B, Tk) keys.

    Returns:
        (B, 1, Tq, Tk) bool, True where attention is allowed; the 1 stands for the heads.
    """
    rows = Slots(*(column[:, None, :, None] for column in query))
    columns = Slots(*(column[:, None, None, :] for column in key))
    return may_attend(rows, columns)


def block_mask(slots: Slots, block_size: int = 128) -> BlockMask:
    """Build the same mask for FlexAttention from (B, T) slots: blocks without an allowed pair are skipped."""

    def rule(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        del head
        return may_attend(Slots(*(c[row, query] for c in slots)), Slots(*(c[row, key] for c in slots)))

    num_rows, length = slots.order.shape
    return create_block_mask(
        rule, num_rows, None, length, length, device=str(slots.order.device), BLOCK_SIZE=block_size
    )


def attention_mask(columns: Columns, kernel: MaskKernel) -> Tensor | BlockMask:
    """Build the mask of (B, T) columns over themselves, in the form that a kernel wants."""
    slots = slots_of(columns)
    return dense_mask(slots, slots) if kernel == "dense" else block_mask(slots)
