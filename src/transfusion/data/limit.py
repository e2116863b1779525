"""What becomes of a document that is longer than a row: it is left out, its text is cut, or it is refused; and one of
which nothing would be learnt is left out.

It knows documents and their slots, and not where they come from.
"""

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from transfusion.data.errors import DataError
from transfusion.layout import has_targets, num_slots
from transfusion.segments import Document, Segment, Text, Vocabulary, unforetold

TooLong = Literal["drop", "cut", "refuse"]


@dataclass(frozen=True)
class Limit:
    """What fits, and what becomes of the rest.

    Attributes:
        vocabulary: Counts the slots of documents.
        row_length: Most slots of a document.
        too_long: What becomes of a longer one.
    """

    vocabulary: Vocabulary
    row_length: int
    too_long: TooLong

    def fitted(self, document: Document, name: str = "") -> Document | None:
        """Return a document that fits into a row, or None for one to be left out: it is too long, or nothing is left of
        it that a model would learn. ``name`` is for errors.

        Raises:
            DataError: It is too long, and the settings refuse such, or cutting its text is not enough.
        """
        length = num_slots(document, self.vocabulary)
        if length <= self.row_length:
            return document if has_targets(document) else None
        if self.too_long == "drop":
            return None
        shorter = cut(document, length - self.row_length) if self.too_long == "cut" else None
        if shorter is None:
            raise DataError(too_long(name or f"document {document.key}", length, self.row_length))
        return shorter if has_targets(shorter) else None


def silent(name: str, length: int, row_length: int) -> str:
    """Say that nothing of a document is learnt, and what to do where it was cut."""
    told = f"{name} holds nothing that a model would learn"
    if length <= row_length:
        return f"{told}: no words of its own, no answer and no picture to draw"
    return (
        f"{told} once it is cut: of its {length} slots what comes before fills a row (train.row_length {row_length}); "
        f"raise train.row_length to at least {length}"
    )


def too_long(name: str, length: int, row_length: int) -> str:
    """Say that a document does not fit into a row, and what to do."""
    return (
        f"{name} takes {length} slots, more than a row (train.row_length {row_length}); raise train.row_length to at "
        f"least {length}, use larger patches, shorten texts (train.too_long=cut) or leave it out (train.too_long=drop)"
    )


def cut(document: Document, excess: int) -> Document | None:
    """Take ``excess`` tokens from a document's texts; None if they have not so many to spare.

    First from its end, whole statements too, but for the last token behind a latent; then from the ends of the texts
    before that, from the last to the first. What follows a cut is no target of the text before it; the first token
    that was cut off at the end is, in place of the document's end.
    """
    parts = (part for part in document.segments if not isinstance(part, Text) or part.tokens)
    shorter = replace(document, segments=tuple(parts))
    while excess and (taken := _from_end(shorter, excess)):
        shorter, excess = taken.document, excess - taken.num_taken
    for place in reversed(range(len(shorter.segments) - 1)):
        text = shorter.segments[place]
        count = min(excess, len(text.tokens) - 1) if isinstance(text, Text) else 0
        if isinstance(text, Text) and count > 0:
            kept = replace(text, tokens=text.tokens[:-count])
            before, after = shorter.segments[:place], shorter.segments[place + 1 :]
            shorter = replace(shorter, segments=(*before, kept, *_unforetold(after[0]), *after[1:]))
            excess -= count
    return None if excess else shorter


class _Taken(NamedTuple):
    document: Document
    num_taken: int


def _from_end(document: Document, excess: int) -> _Taken | None:
    """Take up to ``excess`` tokens from the text that a document ends with."""
    *before, last = document.segments or (None,)
    if not isinstance(last, Text):
        return None
    is_only = not before or not isinstance(before[-1], Text)
    count = min(excess, len(last.tokens) - is_only)
    if count <= 0 and (is_only or last.tokens):
        return None
    tokens = last.tokens[: len(last.tokens) - count]
    next_token = last.tokens[len(tokens)] if count and last.is_target else None
    segments = (*before, replace(last, tokens=tokens)) if tokens else tuple(before)
    return _Taken(Document(segments, document.key, is_complete=False, next_token=next_token), count)


def _unforetold(segment: Segment) -> tuple[Segment, ...]:
    """Return a segment whose beginning is no target."""
    if isinstance(segment, Text):
        return unforetold(segment)
    return (replace(segment, is_announced=False),)
