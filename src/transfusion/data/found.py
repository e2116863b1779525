"""What data hold and what of it is not taken, as one value and one line. It must not know how it was found."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from transfusion.data.errors import plain

MOST_LISTED = 4


@dataclass(frozen=True)
class Found:
    """What was found before a run, each kind counted.

    Attributes:
        where: The data.
        layout: What they were read as.
        records: What is trained on: captions of whole pictures, or chunks of text; None where they never end.
        pictures: Files of pictures, with a caption or without.
        captions: Captions read, of all splits.
        texts: Files of text.
        letters: Letters of the text that is read, of all splits.
        splits: Captions, or blocks of text, of each split.
        noted: How the layout was understood, where that is worth a word; else empty.
        held_out: What is to be said of a held-out share; where the data mark their splits, of what is in two of them.
        unknown: Files of no known kind, by ending.
        parts: What was found of each source, where several are mixed: a line each, and no more is said.
        left_out: What else is not taken, by why: a noun phrase whose first word counts, as "picture without a caption".
    """

    where: str
    layout: str
    records: int | None = None
    pictures: int = 0
    captions: int = 0
    texts: int = 0
    letters: int = 0
    splits: Mapping[str, int] = field(default_factory=dict[str, int])
    noted: str = ""
    held_out: str = ""
    unknown: Mapping[str, int] = field(default_factory=dict[str, int])
    left_out: Mapping[str, int] = field(default_factory=dict[str, int])
    parts: Sequence[str] = ()

    def line(self) -> str:
        """Say it in one line; of several sources, in one line each.

        >>> Found("pets", "pairs", 2, pictures=3, captions=2, texts=2, unknown={".json": 1}).line()
        ... # doctest: +NORMALIZE_WHITESPACE
        'found in pets (layout pairs): 3 pictures, 2 captions, 2 texts, no splits; trains on 2 records; not taken: 1
        file of no known kind (.json)'
        """
        if self.parts:
            return "\n".join(self.parts)
        if self.layout == "shapes":
            parts = [self.where, f"trains on {_trained(self.records)}", self._not_taken()]
            return f"found: {'; '.join(part for part in parts if part)}"
        counts = {"picture": self.pictures, "caption": self.captions, "text": self.texts, "letter": self.letters}
        known = [counted(count, name) for name, count in counts.items() if count]
        splits = ", ".join(f"{name!r} {count}" for name, count in sorted(self.splits.items()))
        known.append(f"splits {splits}" if splits else "no splits")
        parts = [", ".join(known), self.noted, f"trains on {_trained(self.records)}", self.held_out, self._not_taken()]
        told = f"found in {self.where} (layout {self.layout}): {'; '.join(part for part in parts if part)}"
        return plain(told)

    def _not_taken(self) -> str:
        left = [counted(count, why) for why, count in self.left_out.items() if count]
        if self.unknown:
            endings = ", ".join(f"{ending} {count}" if count > 1 else ending for ending, count in self.unknown.items())
            left.append(f"{counted(sum(self.unknown.values()), 'file of no known kind')} ({endings})")
        return f"not taken: {', '.join(left)}" if left else ""


def counted(count: int, phrase: str) -> str:
    """Say how many of a thing there are; the first word of its phrase is the thing.

    >>> counted(1, "picture without a caption"), counted(4, "picture without a caption")
    ('1 picture without a caption', '4 pictures without a caption')
    """
    thing, _, rest = phrase.partition(" ")
    return f"{count:,} {thing}{'' if count == 1 else 's'} {rest}".rstrip()


def listed(names: Sequence[str]) -> str:
    """List the first few of some names.

    >>> listed(["a", "b"]), listed(list("abcdefg"))
    ('a, b', 'a, b, c, d and 3 more')
    """
    more = len(names) - MOST_LISTED
    return ", ".join(names[:MOST_LISTED]) + (f" and {more} more" if more > 0 else "")


def _trained(records: int | None) -> str:
    return "records without end" if records is None else counted(records, "record")
