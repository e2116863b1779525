"""The one sequence layout: document → columns, for training, prompts and the null prompt of guidance alike.

The only place that knows how latents are wrapped, how targets are shifted and how positions count:

    document   Text(a b)      Latent(4 patches)              Text(c)
    slot       0    1    2    3      4    5    6    7    8      9
    token      BOS  a    b    BEGIN  p    p    p    p    END    c
    target     a    b    BEGIN  -    -    -    -    -    c      EOS
    span       -    -    -    -      0    0    0    0    -      -

The slot whose input is BEGIN or a patch has no target, END is never a target (paper section 3, footnote 8), EOS is
a target that takes no slot; where a document was cut, the token that follows is that target in its place. It must not
know the model, the mask or noise.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from transfusion.segments import Document, Latent, Text, Vocabulary

IGNORE = -100  # target of a slot without a text loss; the value that cross-entropy skips
NO_SPAN = -1  # span id of a slot outside every latent
PADDING = -1  # document id of a slot that belongs to no document


class Columns(NamedTuple):
    """One entry per slot; all int64, of shape (T,), or (B, T) once batched.

    Attributes:
        tokens: Input token id; 0 at patches and padding.
        targets: Token id to predict, or IGNORE.
        positions: Index of the slot in its document, for the rotary embedding.
        document_ids: Which document of its row; PADDING for none.
        span_ids: Which latent of its document; NO_SPAN for text.
        modality: 0 for text, k for a patch of the k-th modality.
        private: 1 where later slots outside the span must not look.
    """

    tokens: Tensor
    targets: Tensor
    positions: Tensor
    document_ids: Tensor
    span_ids: Tensor
    modality: Tensor
    private: Tensor


PADDING_SLOT = Columns(*(torch.tensor([v]) for v in (0, IGNORE, 0, PADDING, NO_SPAN, 0, 0)))


class SpanStart(NamedTuple):
    """Where a latent of a document landed: its first patch slot, number of patches, and the latent."""

    start: int
    num_patches: int
    latent: Latent


class Writer:
    """Writes the slots of one document in order; the engine keeps one per row and goes on writing."""

    def __init__(self, vocabulary: Vocabulary, document_id: int = 0) -> None:
        """Begin a document with its BOS slot."""
        self.vocabulary = vocabulary
        self.document_id = document_id
        self.num_spans = 0
        self._rows: list[tuple[int, int, int, int, int]] = []  # token, target, span, modality, private
        self._predicts = False
        self._slot(vocabulary.bos)

    def __len__(self) -> int:
        """Count the slots written."""
        return len(self._rows)

    def _slot(self, token: int, *, predicts: bool = True) -> None:
        self._rows.append((token, IGNORE, NO_SPAN, 0, 0))
        self._predicts = predicts

    def _supervise(self, token: int) -> None:
        """Make ``token`` the target of the slot before it, unless that slot's input is a BEGIN or a patch."""
        if self._predicts:
            before = self._rows[-1]
            self._rows[-1] = (before[0], token, *before[2:])

    def text(self, tokens: Iterable[int], *, is_target: bool = True) -> None:
        """Write text tokens."""
        for token in tokens:
            if is_target:
                self._supervise(token)
            self._slot(token)

    def begin(self, modality: int, *, is_target: bool = True) -> None:
        """Write the token that begins a latent of modality index ``modality``."""
        token = self.vocabulary.begin_token(modality)
        if is_target:
            self._supervise(token)
        self._slot(token, predicts=False)

    def patches(self, count: int, modality: int, *, is_private: bool = False) -> int:
        """Write the patch slots of one span and return the first of them."""
        start = len(self._rows)
        self._rows.extend([(0, IGNORE, self.num_spans, modality, int(is_private))] * count)
        self.num_spans += 1
        self._predicts = False
        return start

    def end(self, modality: int) -> None:
        """Write the token that ends a latent; it is never a target."""
        self._slot(self.vocabulary.end_token(modality))

    def document(self, document: Document) -> list[SpanStart]:
        """Write all segments of a document and return where its latents landed, in order."""
        spans: list[SpanStart] = []
        last_is_target = False
        for segment in document.segments:
            if isinstance(segment, Text):
                self.text(segment.tokens, is_target=segment.is_target)
            else:
                spans.append(self._latent(segment))
            last_is_target = segment.is_target
        if document.next_token is not None:
            self._supervise(document.next_token)
        elif document.next_latent is not None:
            self._supervise(self.vocabulary.begin_token(self.vocabulary.index(document.next_latent)))
        elif document.is_complete and last_is_target:
            self._supervise(self.vocabulary.eos)
        return spans

    def _latent(self, latent: Latent) -> SpanStart:
        modality = self.vocabulary.index(latent.modality)
        count = self.vocabulary.modality(modality).num_patches(latent.values.shape)
        self.begin(modality, is_target=latent.is_target and latent.is_announced)
        start = self.patches(count, modality, is_private=latent.is_private)
        self.end(modality)
        return SpanStart(start, count, latent)

    def columns(self, start: int = 0) -> Columns:
        """Return the columns of the slots from ``start`` on."""
        rows = torch.tensor(self._rows[start:], dtype=torch.int64).reshape(-1, 5)  # (T, 5)
        tokens, targets, spans, modality, private = rows.T.contiguous().unbind(0)
        positions = torch.arange(start, len(self._rows))
        document_ids = torch.full_like(positions, self.document_id)
        return Columns(tokens, targets, positions, document_ids, spans, modality, private)


class Layout(NamedTuple):
    """A document laid out: its columns and where its latents are."""

    columns: Columns
    spans: list[SpanStart]


def layout(document: Document, vocabulary: Vocabulary, document_id: int = 0) -> Layout:
    """Lay a document out as slots.

    Args:
        document: What to lay out; ``is_complete=False`` for a prompt.
        vocabulary: Special tokens and modalities of the model.
        document_id: Its number among the documents packed into the same row.

    Returns:
        Columns of shape (T,), and the place of each latent.

    Raises:
        KeyError: A latent's modality is unknown.
        ValueError: A latent's shape does not fit its modality.
    """
    writer = Writer(vocabulary, document_id)
    spans = writer.document(document)
    return Layout(writer.columns(), spans)


def num_slots(document: Document, vocabulary: Vocabulary) -> int:
    """Count the slots that a document takes, without laying it out."""
    count = 1
    for segment in document.segments:
        if isinstance(segment, Text):
            count += len(segment.tokens)
        else:
            modality = vocabulary.modality(vocabulary.index(segment.modality))
            count += 2 + modality.num_patches(segment.values.shape)
    return count


def has_targets(document: Document) -> bool:
    """Return whether a model learns anything of a document: a token, its end, what follows a cut, or a latent.

    >>> has_targets(Document((Text((1, 2), is_target=False),))), has_targets(Document((Text((1,)),)))
    (False, True)
    """
    if document.next_token is not None or document.next_latent is not None:
        return True
    learnt = (part.is_target and (isinstance(part, Latent) or bool(part.tokens)) for part in document.segments)
    return any(learnt) or (document.is_complete and bool(document.segments) and document.segments[-1].is_target)


def join(parts: Sequence[Columns], length: int) -> Columns:
    """Put columns one behind another and fill up with padding to ``length`` slots."""
    missing = length - sum(len(part.tokens) for part in parts)
    filler = [Columns(*(column.expand(missing) for column in PADDING_SLOT))] if missing else []
    return Columns(*(torch.cat(columns) for columns in zip(*parts, *filler, strict=True)))


def stack(rows: Sequence[Columns]) -> Columns:
    """Make (B, T) columns of B columns of shape (T,)."""
    return Columns(*(torch.stack(columns) for columns in zip(*rows, strict=True)))
