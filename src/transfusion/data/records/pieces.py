"""Where a record of words and pictures is cut so that each piece fits into a row: from lengths alone.

A picture is never cut. It must not know tokens or pictures.
"""

from collections.abc import Sequence
from typing import NamedTuple


class Unit(NamedTuple):
    """A part of a record.

    Attributes:
        length: Slots that it takes.
        is_text: Whether it may be cut.
    """

    length: int
    is_text: bool


class Piece(NamedTuple):
    """A stretch of a record, from within one part to within another.

    Attributes:
        number: Which piece of its record it is, from 0.
        first: The part that it begins in.
        skipped: Tokens of that part before it.
        last: The part that it ends in.
        taken: Tokens of that part up to its end; 1 for a picture.
    """

    number: int
    first: int
    skipped: int
    last: int
    taken: int

    def within(self, number: int) -> tuple[int, int | None]:
        """Return from where to where a part belongs to the piece; None: to its end."""
        return self.skipped if number == self.first else 0, self.taken if number == self.last else None


def plan_pieces(units: Sequence[Unit], room: int) -> list[Piece]:
    """Cut a record into pieces, each as long as a row allows.

    Text is cut where the row ends. Where a picture does not fit any more, the text before it goes with it into the next
    piece, if something else stays and both fit: a picture is drawn from what is said of it.

    Args:
        units: The parts.
        room: Slots of a row behind BOS. A picture that needs more is a piece by itself.

    Example:
        >>> plan_pieces([Unit(3, True), Unit(6, False), Unit(2, True), Unit(6, False)], 12)
        [Piece(number=0, first=0, skipped=0, last=1, taken=1), Piece(number=1, first=2, skipped=0, last=3, taken=1)]
    """
    pieces: list[list[tuple[int, int, int]]] = [[]]  # stretches: part, begin, end
    free = room
    for number, unit in enumerate(units):
        if not unit.is_text:
            if unit.length > free and pieces[-1]:
                pieces.append(_moved(pieces[-1], units, room - unit.length))
                free = room - sum(end - begin for _, begin, end in pieces[-1])
            pieces[-1].append((number, 0, 1))
            free -= unit.length
            continue
        begin = 0
        while begin < unit.length:
            if free <= 0:
                pieces.append([])
                free = room
            end = min(unit.length, begin + free)
            pieces[-1].append((number, begin, end))
            begin, free = end, free - (end - begin)
    stretches = [(piece[0], piece[-1]) for piece in pieces if piece]
    return [Piece(number, *first[:2], last[0], last[2]) for number, (first, last) in enumerate(stretches)]


def _moved(piece: list[tuple[int, int, int]], units: Sequence[Unit], room: int) -> list[tuple[int, int, int]]:
    """Take the text at the end of a piece away from it, where it fits elsewhere and something stays."""
    number, begin, end = piece[-1]
    if not units[number].is_text or len(piece) == 1 or end - begin > room:
        return []
    return [piece.pop()]
