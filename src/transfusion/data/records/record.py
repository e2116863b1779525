"""The kinds of record that a format gives: what a sample holds, before it is told as a document.

A picture is named by where it lies and decoded when it is told. It must not know files' formats, tokens or models.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from transfusion.data.decode import PictureSource
from transfusion.data.errors import DataError
from transfusion.data.found import Found

Part = str | PictureSource  # words, or a picture


@dataclass(frozen=True)
class Captioned:
    """A picture and what it shows: drawn from its caption, or described.

    Attributes:
        name: Names the record among all of its data.
        text: The caption.
        picture: The picture.
    """

    name: str
    text: str
    picture: PictureSource

    @property
    def parts(self) -> tuple[Part, ...]:
        """Words and pictures, in order."""
        return self.text, self.picture


@dataclass(frozen=True)
class Interleaved:
    """Words and pictures in the order in which they are read; text alone too. One longer than a row is told in pieces.

    Attributes:
        name: Names the record among all of its data.
        parts: Words and pictures.
    """

    name: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Turn:
    """What one side of a conversation says.

    Attributes:
        by: Who says it: a person's words are no target.
        parts: Words and pictures.
    """

    by: Literal["person", "model"]
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Conversation:
    """Turns of a person and the model.

    Attributes:
        name: Names the record among all of its data.
        turns: They, in order: of a person and the model in alternation, the model's last.
        system: What the model is told beforehand, if anything.

    Raises:
        DataError: The turns are in another order, or there are none.
    """

    name: str
    turns: tuple[Turn, ...]
    system: str = ""

    def __post_init__(self) -> None:
        """Check whose turn is when."""
        sides = ", ".join(turn.by for turn in self.turns) or "none"
        if not self.turns or sides != ", ".join(("person", "model") * (len(self.turns) // 2)):
            raise DataError(f"expected turns of a person and the model in alternation, the model's last; got {sides}")

    @property
    def parts(self) -> tuple[Part, ...]:
        """Words and pictures, in order."""
        told = tuple(part for turn in self.turns for part in turn.parts)
        return (self.system, *told) if self.system else told


@dataclass(frozen=True)
class Edit:
    """An instruction, with the pictures that it is about, and the picture to draw.

    Attributes:
        name: Names the record among all of its data.
        prompt: Words and pictures, in order; the pictures are only looked at.
        picture: What is to be drawn.
    """

    name: str
    prompt: tuple[Part, ...]
    picture: PictureSource

    @property
    def parts(self) -> tuple[Part, ...]:
        """Words and pictures, in order."""
        return *self.prompt, self.picture


Record = Captioned | Interleaved | Conversation | Edit


class Records(Protocol):
    """All records of some data, of every split, by number."""

    @property
    def kind(self) -> type[Record]:
        """Which kind of record they are."""
        ...

    @property
    def splits(self) -> Sequence[str | None]:
        """The split that the data mark for each record; None for none."""
        ...

    @property
    def groups(self) -> Sequence[str]:
        """By whose hash a share is held out: records of one group stay together, wherever they stand."""
        ...

    @property
    def own(self) -> Sequence[str]:
        """The group that each record would be of if it shared no picture."""
        ...

    @property
    def found(self) -> Found:
        """What the data hold."""
        ...

    @property
    def quarantine(self) -> Mapping[str, str]:
        """What is left out and why, by name."""
        ...

    def __getitem__(self, index: int) -> Record:
        """Return a record; its pictures are not opened.

        Raises:
            DataError: What lies there is no such record any more.
        """
        ...

    def digest(self) -> str:
        """Name what the data hold, but for the pixels of pictures in files of their own."""
        ...


@runtime_checkable
class Glanced(Protocol):
    """Records that can be told but for their pictures, without reading these."""

    def glance(self, index: int) -> Record:
        """Return a record; its pictures are there, and may be empty."""
        ...


def glancing(records: Records) -> Callable[[int], Record]:
    """Return what gives a record by its number where its words are wanted, and where pictures are, and not these."""
    return records.glance if isinstance(records, Glanced) else records.__getitem__


def words(record: Record) -> Iterator[str]:
    """Yield the words of a record, in order."""
    return (part for part in record.parts if isinstance(part, str))


def pictures(record: Record) -> Iterator[PictureSource]:
    """Yield the pictures of a record, in order."""
    return (part for part in record.parts if not isinstance(part, str))


def says_nothing(record: Record) -> bool:
    """Return whether a record holds nothing to learn: a conversation in which the model says nothing, or no part."""
    if isinstance(record, Conversation):
        told = (part for turn in record.turns if turn.by == "model" for part in turn.parts)
        return all(isinstance(part, str) and not part.strip() for part in told)
    return not record.parts
