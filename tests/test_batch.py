"""Batches: patches land where the layout says, and the validator notices what is broken."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from tiny import FLOW, documents, model_config

from transfusion.batch import Batch, collate
from transfusion.layout import IGNORE
from transfusion.objective import KeyedDraw

VOCABULARY = model_config().vocabulary()


def batch() -> Batch:
    """Collate five documents in two rows."""
    pool = documents(5)
    return collate([pool[:3], pool[3:]], VOCABULARY, KeyedDraw(FLOW, 0), 48)


def test_patches_are_where_the_columns_say() -> None:
    made = batch()
    made.validate(VOCABULARY)
    assert made.num_documents == 5 and made.columns.tokens.shape == (2, 48)
    named = torch.cat([group.slots.flatten() for group in made.spans]).sort().values
    assert torch.equal(named, (made.columns.modality.flatten() > 0).nonzero().flatten())
    assert made.num_slots == int((made.columns.document_ids >= 0).sum())
    assert [tuple(group.x_0.shape) for group in made.spans] == [(3, 2, 4, 4), (1, 3, 4), (2, 3, 6)]
    moved = made.to("cpu")
    assert torch.equal(moved.text_slots, made.text_slots)


def with_column(made: Batch, name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
    """Change one column."""
    return replace(made, columns=made.columns._replace(**{name: change(getattr(made.columns, name))}))


def with_spans(made: Batch, change: dict[str, object]) -> Batch:
    """Change the first group of spans."""
    return replace(made, spans=(replace(made.spans[0], **change), *made.spans[1:]))  # type: ignore[arg-type]


def patched_targets(targets: torch.Tensor) -> torch.Tensor:
    """Give a patch a target."""
    changed = targets.clone()
    changed[0, 6] = 1
    return changed


BREAKS: list[tuple[Callable[[Batch], Batch], str]] = [
    (lambda b: with_column(b, "positions", lambda c: c.float()), "column positions is torch.float32"),
    (lambda b: with_column(b, "modality", lambda c: c[:, 1:]), "column modality is"),
    (lambda b: with_column(b, "tokens", lambda c: c + 1000), "tokens span"),
    (lambda b: with_column(b, "targets", lambda c: torch.where(c == IGNORE, c, c + 1000)), "targets reach"),
    (lambda b: with_column(b, "targets", patched_targets), "a patch slot has a text target"),
    (lambda b: with_column(b, "private", torch.ones_like), "outside every span is private"),
    (lambda b: replace(b, text_slots=b.text_slots[1:]), "text_slots has"),
    (lambda b: replace(b, spans=b.spans[1:]), "spans fill"),
    (lambda b: with_spans(b, {"slots": b.spans[0].slots[:, 1:]}), "slots of 'image' have shape"),
    (lambda b: with_spans(b, {"slots": b.spans[0].slots - 3}), "point at slots of another modality"),
    (lambda b: with_spans(b, {"noise": b.spans[0].noise[1:]}), "noise has shape"),
    (lambda b: with_spans(b, {"t": b.spans[0].t.double()}), "t is torch.float64"),
    (lambda b: with_spans(b, {"t": b.spans[0].t + 1}), "outside \\[0, 1\\]"),
]


@pytest.mark.parametrize(("change", "message"), BREAKS, ids=[message for _, message in BREAKS])
def test_broken_batches_are_named(change: Callable[[Batch], Batch], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        change(batch()).validate(VOCABULARY)
