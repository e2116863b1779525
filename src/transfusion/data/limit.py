"""What becomes of a document that is longer than a row: it is left out, its text is cut, or it is refused.

It knows documents and their slots, and not where they come from.
"""

from dataclasses import dataclass, replace
from typing import Literal

from transfusion.data.errors import DataError
from transfusion.layout import num_slots
from transfusion.segments import Document, Segment, Text, Vocabulary

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

    def fitted(self, document: Document) -> Document | None:
        """Return a document that fits into a row, or None for one to be left out.

        Raises:
            DataError: It is too long, and the settings refuse such, or cutting its text is not enough.
        """
        length = num_slots(document, self.vocabulary)
        if length <= self.row_length:
            return document
        if self.too_long == "drop":
            return None
        shorter = cut(document, length - self.row_length) if self.too_long == "cut" else None
        if shorter is None:
            raise DataError(too_long(f"document {document.key}", length, self.row_length))
        return shorter


def too_long(name: str, length: int, row_length: int) -> str:
    """Say that a document does not fit into a row, and what to do."""
    return (
        f"{name} takes {length} slots, more than a row (train.row_length {row_length}); raise train.row_length to at "
        f"least {length}, use larger patches, or shorten texts (train.too_long=cut) or leave such out (=drop)"
    )


def cut(document: Document, excess: int) -> Document | None:
    """Take ``excess`` tokens from the end of a document's longest text; None if it has not so many to spare.

    What follows the cut is no target of the text before it; the token cut off is, where the document ends there.
    """
    places = [place for place, part in enumerate(document.segments) if isinstance(part, Text)]
    longest = max(places, key=lambda place: _length(document.segments[place]), default=None)
    if longest is None or _length(document.segments[longest]) <= excess:
        return None
    text = document.segments[longest]
    assert isinstance(text, Text)
    kept = replace(text, tokens=text.tokens[: len(text.tokens) - excess])
    before, after = document.segments[:longest], document.segments[longest + 1 :]
    if not after:
        next_token = text.tokens[len(kept.tokens)] if text.is_target else None
        return replace(document, segments=(*before, kept), is_complete=False, next_token=next_token)
    return replace(document, segments=(*before, kept, *_unforetold(after[0]), *after[1:]))


def _length(segment: Segment) -> int:
    return len(segment.tokens) if isinstance(segment, Text) else 0


def _unforetold(segment: Segment) -> tuple[Segment, ...]:
    """Return a segment whose beginning is no target."""
    if isinstance(segment, Text):
        return Text(segment.tokens[:1], is_target=False), replace(segment, tokens=segment.tokens[1:])
    return (replace(segment, is_announced=False),)
