"""Which records belong to which split: as the data mark them, or a share held out by a stable hash of their names.

It knows names and marks, and nothing of files.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transfusion.data.errors import DataError
from transfusion.keyed import stable_fraction

TRAIN, TEST = "train", "test"


@dataclass(frozen=True)
class Chosen:
    """The records of one split.

    Attributes:
        places: Their indices, in order.
        split: Name of the split; None where the data have no splits.
        left: How many records were left for each of the other splits.
    """

    places: list[int]
    split: str | None
    left: dict[str, int]


def choose(
    names: Sequence[str], marks: Sequence[str | None], split: str | None, hold_out: float, *, where: Path
) -> Chosen:
    """Choose the records of a split.

    Args:
        names: Of all records; those of one name stay together.
        marks: Split that the data name for each; None for none, which is "train" where others have one.
        split: What is wanted; None is "train" where there are splits, and everything where there are none.
        hold_out: Share of the names that become "test" by a hash that never changes.
        where: The data, for errors.

    Raises:
        DataError: The split does not exist, is empty, or is made twice.
    """
    is_marked = any(mark is not None for mark in marks)
    if hold_out and is_marked:
        raise DataError(f"{where} marks its splits itself ({_counted(_filled(marks))}); set data.hold_out=0")
    if not hold_out and not is_marked:
        if split is None:
            return Chosen(list(range(len(names))), None, {})
        raise DataError(
            f"{where} has no splits, so there is no split {split!r} of it; train with data.hold_out=0.05 to hold out a "
            'share (it is the split "test" then, the rest "train"), or mark rows of a captions.jsonl with "split"'
        )
    filled = _filled(marks) if is_marked else [TEST if _fraction(name) < hold_out else TRAIN for name in names]
    if hold_out and TEST not in filled:
        raise DataError(f"data.hold_out={hold_out} holds out none of {len(names)} records of {where}; hold more out")
    wanted = split or TRAIN
    places = [place for place, found in enumerate(filled) if found == wanted]
    if not places:
        hint = "a larger data.hold_out holds more out" if hold_out else "name one of these: data.split=NAME"
        raise DataError(f"{where} has no records of split {wanted!r}; it has {_counted(filled)}; {hint}")
    return Chosen(places, wanted, dict(Counter(found for found in filled if found != wanted)))


def _filled(marks: Sequence[str | None]) -> list[str]:
    return [mark or TRAIN for mark in marks]


def _fraction(name: str) -> float:
    return stable_fraction(f"hold-out:{name}")


def _counted(splits: Sequence[str]) -> str:
    return ", ".join(f"{name!r} ({count})" for name, count in sorted(Counter(splits).items())) or "none"
