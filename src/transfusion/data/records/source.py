"""Records told as documents: those longer than a row in pieces, pictures decoded when they are told.

    Records ──by number──▶ record ──pictures decoded, viewed──▶ encoder ──▶ Document

It must not know formats of files.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from transfusion.data.augment import View, draw_view, seen
from transfusion.data.decode import PictureSource, open_picture
from transfusion.data.encode import IMAGE, Encoder, Shown
from transfusion.data.errors import DataError
from transfusion.data.records.pieces import Piece, Unit, plan_pieces
from transfusion.data.records.record import (
    Captioned,
    Conversation,
    Edit,
    Interleaved,
    Part,
    Record,
    Records,
    glancing,
    words,
)
from transfusion.data.settings import FolderConfig
from transfusion.data.splits import Chosen, spread
from transfusion.data.turns import Turn
from transfusion.keyed import Key, generator
from transfusion.segments import Document, Text

NUM_PREVIEWS = 8
BLOCK_LENGTH = 4096  # letters of a text that are made tokens together, at most
NUM_REMEMBERED = 16
MOST_PROMPT = 200  # letters before a picture that are told as its prompt in a preview
See = Callable[[PictureSource], Shown]


class RecordSource:
    """Documents of the records of a split."""

    def __init__(
        self,
        config: FolderConfig,
        records: Records,
        chosen: Chosen,
        encoder: Encoder,
        room: int,
    ) -> None:
        """Plan the pieces of records that may be longer than a row.

        Args:
            config: Size and augmentation of pictures.
            records: All of them.
            chosen: Those of the split.
            encoder: Tells them.
            room: Slots of a row behind BOS.
        """
        self.config, self.encoder, self._records = config, encoder, records
        self._glance = glancing(records)
        self._places = np.array(chosen.places, dtype=np.int64)
        self.quarantine = dict(records.quarantine)
        self.left_for_others = chosen.left
        self._remembered: OrderedDict[int, Interleaved] = OrderedDict()
        self._last: tuple[int, tuple[Record, Piece | None]] | None = None
        self._pieces = self._planned(room) if records.kind is Interleaved else None
        self.found = replace(records.found, records=self.size, splits=chosen.counts, held_out=chosen.told)

    @property
    def size(self) -> int:
        """Number of documents: records, or pieces of them."""
        return len(self._places if self._pieces is None else self._pieces)

    def document(self, index: int, visit: int) -> Document:
        """Tell what a visit sees of a record.

        Raises:
            BrokenPicture: A picture of it is missing or broken.
        """
        record, piece = self._at(index)
        rng = generator(self.encoder.seed, "augment", record.name, visit)
        view = draw_view(rng, flip=self.config.flip, crop=self.config.crop)
        key = _key(record, piece, visit)
        return _told(record, piece, self.encoder, key, lambda picture: self._seen(picture, view))

    def outline(self, index: int, visit: int | None = None) -> Document:
        """Return a record as long as it is told, or as it is told on a visit, without its pixels."""
        record, piece = self._glanced(index)
        size = self.encoder.outlined(self.config.size)
        encoder = self.encoder.without_dropout() if visit is None else self.encoder
        return _told(record, piece, encoder, _key(record, piece, visit or 0), lambda _: size)

    def name(self, index: int) -> str:
        """Name the record, and which piece of it, from the second on."""
        record, piece = self._glanced(index)
        return f"{record.name}, piece {piece.number + 1}" if piece and piece.number else record.name

    def texts(self) -> Iterator[str]:
        """Yield all words."""
        return (text for place in self._places.tolist() for text in words(self._glance(place)))

    def preview_prompts(self) -> list[str]:
        """Return what is told before a picture to draw, of records spread over the data."""
        places = [self._places[place] for place in spread(len(self._places), NUM_PREVIEWS)]
        return [prompt for place in places if (prompt := _prompt(self._glance(int(place))))]

    def digest(self) -> str:
        """Name what the data hold."""
        return self._records.digest()

    def _seen(self, picture: PictureSource, view: View) -> Shown:
        return seen(open_picture(picture, self.config.size, crop=self.config.crop), view, self.config.size)

    def _at(self, index: int) -> tuple[Record, Piece | None]:
        """Return a record, and which piece of it, if it is told in pieces."""
        if self._pieces is None:
            return self._records[int(self._places[index])], None
        place, *piece = self._pieces[index].tolist()
        return self._cut_record(place), Piece(*piece)

    def _glanced(self, index: int) -> tuple[Record, Piece | None]:
        """Return the same but for what its pictures hold; the last is remembered: its length and its name are asked."""
        if self._last is None or self._last[0] != index:
            is_whole = self._pieces is None
            self._last = index, (self._glance(int(self._places[index])), None) if is_whole else self._at(index)
        return self._last[1]

    def _cut_record(self, place: int) -> Interleaved:
        """Return a record of text and pictures in turn, its long texts cut; the last few are remembered."""
        if place in self._remembered:
            self._remembered.move_to_end(place)
        else:
            record = self._records[place]
            self._remembered[place] = Interleaved(record.name, blocks(record.parts))
            if len(self._remembered) > NUM_REMEMBERED:
                self._remembered.popitem(last=False)
        return self._remembered[place]

    def _planned(self, room: int) -> NDArray[np.int64]:
        """Return the pieces of all records, (pieces, 6): the record, and what a Piece holds."""
        encode, picture = self.encoder.tokenizer.encode, Unit(self.encoder.num_slots(self.config.size), is_text=False)
        found: list[tuple[int, ...]] = []
        for place in self._places.tolist():
            parts = self._cut_record(place).parts
            units = [Unit(len(encode(part)), is_text=True) if isinstance(part, str) else picture for part in parts]
            found += [(place, *piece) for piece in plan_pieces(units, room)]
        return np.array(found, dtype=np.int64).reshape(-1, 6)


def _key(record: Record, piece: Piece | None, visit: int) -> tuple[Key, ...]:
    return record.name, piece.number if piece else 0, visit


def _told(record: Record, piece: Piece | None, encoder: Encoder, key: tuple[Key, ...], see: See) -> Document:
    """Tell a record, or a piece of it.

    Args:
        record: What is told.
        piece: Which part of it, of one that is told in pieces.
        encoder: Tells it.
        key: The document's key.
        see: Gives a picture as the encoder takes it.
    """
    match record:
        case Captioned():
            return encoder.captioned(record.text, see(record.picture), key)
        case Edit():
            return encoder.instructed(_shown(record.prompt, see), see(record.picture), key)
        case Conversation():
            turns = [Turn[Shown](turn.by, _shown(turn.parts, see)) for turn in record.turns]
            try:
                return encoder.talked(turns, key, record.system)
            except DataError as error:
                raise DataError(f"{record.name}: {error}") from error
        case Interleaved():
            assert piece is not None, "interleaved records are told in pieces"
            return _piece(record.parts, piece, encoder, key, see)
        case _:
            assert_never(record)


def _shown(parts: Sequence[str | PictureSource], see: See) -> list[str | Shown]:
    return [part if isinstance(part, str) else see(part) for part in parts]


def _piece(parts: Sequence[Part], piece: Piece, encoder: Encoder, key: tuple[Key, ...], see: See) -> Document:
    """Tell a piece of text and pictures in turn, and what follows it."""
    told: list[Text | Shown] = []
    for number in range(piece.first, piece.last + 1):
        part, (begin, end) = parts[number], piece.within(number)
        if not isinstance(part, str):
            told.append(see(part))
            continue
        tokens = encoder.tokenizer.encode(part)
        told += [Text(tokens[begin:end])] if tokens[begin:end] else []
        if end is not None and end < len(tokens):
            return encoder.interleaved(told, key, begins=not piece.number, next_token=tokens[end])
    for part in parts[piece.last + 1 :]:
        if not isinstance(part, str):
            return encoder.interleaved(told, key, begins=not piece.number, next_latent=IMAGE)
        if tokens := encoder.tokenizer.encode(part):
            return encoder.interleaved(told, key, begins=not piece.number, next_token=tokens[0])
    return encoder.interleaved(told, key, begins=not piece.number)


def blocks(parts: Sequence[Part]) -> tuple[Part, ...]:
    """Cut long texts before blanks, so that a piece of one does not take the tokens of all of it.

    >>> blocks(("a" * 5000 + " b",)) == ("a" * 4096, "a" * 904 + " b")
    True
    """
    return tuple(block for part in parts for block in (_cut(part) if isinstance(part, str) else (part,)))


def _cut(text: str) -> Iterator[str]:
    begin = 0
    while len(text) - begin > BLOCK_LENGTH:
        blank = max(text.rfind(" ", begin + 1, begin + BLOCK_LENGTH), text.rfind("\n", begin + 1, begin + BLOCK_LENGTH))
        end = blank if blank > begin else begin + BLOCK_LENGTH
        yield text[begin:end]
        begin = end
    yield text[begin:]


def _prompt(record: Record) -> str:
    """Return the words before the first picture of a record that is drawn; empty where there are none."""
    if isinstance(record, Captioned):
        return record.text
    if isinstance(record, Edit) and all(isinstance(part, str) for part in record.prompt):
        return " ".join(words(record))
    if not isinstance(record, Interleaved):
        return ""
    for before, part in zip(record.parts, record.parts[1:], strict=False):
        if isinstance(before, str) and not isinstance(part, str):
            return before[-MOST_PROMPT:].strip()
    return ""
