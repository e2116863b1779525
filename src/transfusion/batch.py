"""A training batch: columns of packed documents with the clean latents, times and noise of their spans.

Responsible for collating documents and for checking what it made. It must not know the model, nor how times are
distributed: the draw is handed in.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from transfusion.layout import IGNORE, Columns, join, layout, stack
from transfusion.segments import Document, Latent, Vocabulary


class TimeAndNoise(NamedTuple):
    """The draw of one span: its time in [0, 1] and (C, *axes) standard normal noise."""

    t: float
    noise: Tensor


Draw = Callable[[Document, int, Latent], TimeAndNoise]


@dataclass(frozen=True)
class Spans:
    """All spans of a batch that share a modality and a shape.

    Attributes:
        modality: Modality index >= 1.
        x_0: (I, C, *axes) float32 clean latents.
        noise: (I, C, *axes) float32 standard normal.
        t: (I,) float32 diffusion times in [0, 1].
        is_target: (I,) bool, whether the span has a diffusion loss.
        slots: (I, L) int64, index of each patch in the flattened (B * T) slots.
    """

    modality: int
    x_0: Tensor
    noise: Tensor
    t: Tensor
    is_target: Tensor
    slots: Tensor

    def to(self, device: torch.device | str) -> "Spans":
        """Move all tensors to a device."""
        names = ("x_0", "noise", "t", "is_target", "slots")
        return replace(self, **{name: getattr(self, name).to(device, non_blocking=True) for name in names})


@dataclass(frozen=True)
class Batch:
    """B rows of T slots.

    Attributes:
        columns: (B, T) columns.
        spans: Latents, grouped by modality and shape.
        text_slots: (N,) int64 flat indices of the slots with a text target: logits are computed only there.
        num_documents: Number of documents packed into the rows.
        num_dropped: Number of documents that were left out because they fit into no row.
        broken: Why documents were left out that could not be told, by name.
        slots: Slots of the documents of each source, where the data are a mixture; of all micro-batches of a step, on
            the first of them.
        planned: Where rows are planned: how the plan stands after the step, for whoever goes on there; on the first of
            a step's micro-batches.
    """

    columns: Columns
    spans: tuple[Spans, ...]
    text_slots: Tensor
    num_documents: int
    num_dropped: int = 0
    broken: Mapping[str, str] = field(default_factory=dict[str, str])
    slots: Mapping[str, int] = field(default_factory=dict[str, int])
    planned: tuple[int, ...] = ()

    @property
    def num_slots(self) -> int:
        """Number of slots that belong to a document."""
        return int((self.columns.document_ids >= 0).sum())

    @property
    def num_latents(self) -> int:
        """Number of latents of all modalities."""
        return sum(len(group.x_0) for group in self.spans)

    def to(self, device: torch.device | str) -> "Batch":
        """Move all tensors to a device."""
        return replace(
            self,
            columns=Columns(*(column.to(device, non_blocking=True) for column in self.columns)),
            spans=tuple(group.to(device) for group in self.spans),
            text_slots=self.text_slots.to(device, non_blocking=True),
        )

    def validate(self, vocabulary: Vocabulary) -> None:
        """Check that columns and latents agree.

        Raises:
            ValueError: Says which rule is broken, where, and with what value.
        """
        _check_columns(self.columns, vocabulary)
        expected = (self.columns.targets.flatten() != IGNORE).nonzero().flatten()
        if not torch.equal(expected, self.text_slots):
            raise ValueError(f"text_slots has {self.text_slots.numel()} slots; the targets name {expected.numel()}")
        modality = self.columns.modality.flatten()
        for group in self.spans:
            _check_spans(group, modality, vocabulary)
        named = sum(group.slots.numel() for group in self.spans)
        if named != int((modality > 0).sum()):
            raise ValueError(f"spans fill {named} patch slots; the columns hold {int((modality > 0).sum())}")


def _check_columns(columns: Columns, vocabulary: Vocabulary) -> None:
    for name, column in zip(Columns._fields, columns, strict=True):
        if column.shape != columns.tokens.shape or column.dtype != torch.int64:
            raise ValueError(f"column {name} is {column.dtype} {tuple(column.shape)}; expected int64 like tokens")
    tokens, targets = columns.tokens, columns.targets
    if int(tokens.min()) < 0 or int(tokens.max()) >= vocabulary.size:
        raise ValueError(f"tokens span [{int(tokens.min())}, {int(tokens.max())}], outside [0, {vocabulary.size})")
    supervised = targets[targets != IGNORE]
    if supervised.numel() and (int(supervised.min()) < 0 or int(supervised.max()) >= vocabulary.size):
        raise ValueError(f"targets reach {int(supervised.max())}, outside [0, {vocabulary.size})")
    if bool(((columns.modality > 0) & (targets != IGNORE)).any()):
        raise ValueError("a patch slot has a text target; patches are denoised and predict no token")
    if bool(((columns.private > 0) & (columns.span_ids < 0)).any()):
        raise ValueError("a slot outside every span is private; only latents can be")


def _check_spans(group: Spans, modality: Tensor, vocabulary: Vocabulary) -> None:
    record = vocabulary.modality(group.modality)
    expected = (group.x_0.shape[0], record.num_patches(group.x_0.shape[1:]))
    if tuple(group.slots.shape) != expected:
        raise ValueError(f"slots of {record.name!r} have shape {tuple(group.slots.shape)}; expected {expected}")
    if bool((modality[group.slots.flatten()] != group.modality).any()):
        raise ValueError(f"spans of {record.name!r} point at slots of another modality")
    if group.noise.shape != group.x_0.shape:
        raise ValueError(f"noise has shape {tuple(group.noise.shape)}; x_0 has {tuple(group.x_0.shape)}")
    if group.t.dtype != torch.float32:
        raise ValueError(f"t is {group.t.dtype}; times are float32 up to their embedding")
    if bool(((group.t < 0) | (group.t > 1)).any()):
        raise ValueError(f"t spans [{float(group.t.min())}, {float(group.t.max())}], outside [0, 1]")


def collate(rows: Sequence[Sequence[Document]], vocabulary: Vocabulary, draw: Draw, length: int) -> Batch:
    """Build a batch of documents that are already planned into rows.

    Args:
        rows: B lists of documents; each list fits into ``length`` slots.
        vocabulary: Special tokens and modalities of the model.
        draw: Gives each span its time and noise, from the document's key alone.
        length: T, slots per row.

    Returns:
        The batch, on the CPU.
    """
    stacked: list[Columns] = []
    places: dict[tuple[str, tuple[int, ...]], list[tuple[Tensor, Latent, TimeAndNoise]]] = {}
    for row, documents in enumerate(rows):
        parts: list[Columns] = []
        offset = row * length
        for document_id, document in enumerate(documents):
            columns, spans = layout(document, vocabulary, document_id)
            for number, (start, count, latent) in enumerate(spans):
                slots = torch.arange(offset + start, offset + start + count)
                key = (latent.modality, tuple(latent.values.shape))
                places.setdefault(key, []).append((slots, latent, draw(document, number, latent)))
            offset += len(columns.tokens)
            parts.append(columns)
        stacked.append(join(parts, length))
    columns = stack(stacked)
    return Batch(
        columns=columns,
        spans=tuple(_group(vocabulary.index(key[0]), found) for key, found in sorted(places.items())),
        text_slots=(columns.targets.flatten() != IGNORE).nonzero().flatten(),
        num_documents=sum(len(documents) for documents in rows),
    )


def _group(modality: int, found: Sequence[tuple[Tensor, Latent, TimeAndNoise]]) -> Spans:
    return Spans(
        modality=modality,
        x_0=torch.stack([latent.values.cpu() for _, latent, _ in found]).float(),
        noise=torch.stack([drawn.noise for _, _, drawn in found]),
        t=torch.tensor([drawn.t for _, _, drawn in found], dtype=torch.float32),
        is_target=torch.tensor([latent.is_target for _, latent, _ in found]),
        slots=torch.stack([slots for slots, _, _ in found]),
    )
