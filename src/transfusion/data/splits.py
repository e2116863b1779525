"""Which records belong to which split: as the data mark them, or a share held out by a stable hash of their names.

It knows names and marks, and nothing of files.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from transfusion.data.errors import DataError
from transfusion.data.found import MOST_LISTED, counted, listed
from transfusion.keyed import stable_fraction

TRAIN, TEST = "train", "test"
TRAINING = (TRAIN, "training")
VALIDATION = ("val", "validation", "valid", "dev", "eval", "evaluation")
TESTING = (TEST, "testing")
NAMES = (*TRAINING, *TESTING, *VALIDATION)  # of splits, as folders and files are called by them, in any case
DEFAULT_SHARE = 0.02
MOST_HELD_OUT = 500
NONE_HELD_OUT = "all that would be share pictures with others that would not; data.hold_out=0.1 holds more out"
IN_BOTH = "train and another"  # the split of what is in these at once: it is neither trained on nor measured
FEWEST_NAMES = 50  # of which some are held out by default: 2 % of fewer is not one
_WORD = re.compile(rf"(?<![^ ._-])(?:{'|'.join(NAMES)})(?![^ ._0-9-])", re.IGNORECASE)
_NUMBER = re.compile(r"[._-]?\d+(?:[._-]of[._-]\d+)?")


@dataclass(frozen=True)
class Chosen:
    """The records of one split.

    Attributes:
        places: Their indices, in order.
        split: Name of the split; None where the data have no splits.
        left: How many records were left for each of the other splits.
        hold_out: Share that is held out by the hash of names.
        told: What is to be said of that; where the data mark their splits, of names that are in two.
    """

    places: list[int]
    split: str | None
    left: dict[str, int]
    hold_out: float = 0.0
    told: str = ""

    @property
    def counts(self) -> dict[str, int]:
        """Records of every split; none where the data have no splits."""
        return {} if self.split is None else {self.split: len(self.places), **self.left}


def choose(
    names: Sequence[str],
    marks: Sequence[str | None],
    split: str | None,
    hold_out: float | None,
    *,
    where: Path,
    unit: str = "record",
    called: Callable[[int], str] | None = None,
    own: Sequence[str] | None = None,
) -> Chosen:
    """Choose the records of a split.

    Args:
        names: Of all records; those of one name stay together. One that more than 500 of the records have, and a larger
            share than is held out, is trained on whatever its hash is; so is one that more than half of few have.
        marks: Split that the data name for each; None for none, which is "train" where others have one.
        split: What is wanted; None is "train" where there are splits, and everything where there are none.
        hold_out: Share of the names that become "test" by a hash that never changes; None: ``default_share`` where
            the data mark no splits, or "train" alone.
        where: The data, for errors.
        unit: What a record is called.
        called: Names a record for a person, by its index; None: the names themselves do.
        own: See ``default_share``.

    Raises:
        DataError: The split does not exist or is empty; or the data mark splits, and a share shall be held out beside.
    """
    is_marked = any(mark not in (None, TRAIN) for mark in marks)
    if hold_out and is_marked:
        raise DataError(f"{where} marks its splits itself ({_counted(_filled(marks))}); set data.hold_out=0")
    share = hold_out if hold_out is not None else 0.0 if is_marked else default_share(names, own)
    filled = _filled(marks) if is_marked else _held_out(names, share)
    is_none = TEST not in filled and (hold_out is None or TEST in _held_out(own or names, share))
    if not is_marked and (not share or is_none):
        if split is None or (split == TRAIN and TRAIN in marks):
            why = _too_few(names, unit) or (NONE_HELD_OUT if is_none else "data.hold_out=0")
            own = TRAIN if TRAIN in marks else None
            return Chosen(list(range(len(names))), own, {}, told=f"nothing is held out ({why})")
        raise DataError(
            f"{where} has no splits, so there is no split {split!r} of it; train with data.hold_out=0.05 to hold out a "
            'share (it is the split "test" then, the rest "train"), or mark rows of a captions.jsonl with "split"'
        )
    if share and TEST not in filled:
        raise DataError(
            f"data.hold_out={share} holds out none of {counted(len(names), unit)} of {where}; hold more out"
        )
    wanted = split if split and split in filled else split_named(split or TRAIN) or split
    places = [place for place, found in enumerate(filled) if found == wanted]
    if not places:
        hint = "a larger data.hold_out holds more out" if share else "name one of these: data.split=NAME"
        raise DataError(f"{where} has no {unit}s of split {wanted!r}; it has {_counted(filled)}; {hint}")
    left = dict(Counter(found for found in filled if found != wanted))
    num_held_out = f"{filled.count(TEST)} of {counted(len(names), unit)}"
    told = (
        _crossing(names, filled, called)
        if is_marked
        else f"{num_held_out} held out as split 'test' (data.hold_out=0: none)"
    )
    return Chosen(places, wanted, left, share, told)


def default_share(names: Sequence[str], own: Sequence[str] | None = None) -> float:
    """Return the share of the names that is held out by default: 2 %, and so much less that at most 500 records are.

    At least one name is held out, but where the first in line became one with others; of fewer than 50 names none. The
    share falls as records come, so none that was trained on is ever held out of more of them.

    Args:
        names: Of all records.
        own: Of each what would be its name if it stood alone; it is held out no sooner by ``names``. None: the same. By
            these the share is found: it falls also where records that come make one name of several.
    """
    large = _large(names, 0.0)
    if len({*names} - large) < FEWEST_NAMES:
        return 0.0
    each = zip(names, names if own is None else own, strict=True)
    fractions = sorted(hold_out_fraction(alone) for name, alone in each if name not in large)
    share = min(DEFAULT_SHARE, fractions[MOST_HELD_OUT]) if len(fractions) > MOST_HELD_OUT else DEFAULT_SHARE
    return max(share, math.nextafter(fractions[0], 1.0))


def held_out_split(counts: Mapping[str, int]) -> str | None:
    """Return on which of the other splits losses are taken while training: one to choose by, before the test."""
    known = {name.lower(): name for name, count in counts.items() if count}
    return next((known[name] for name in (*VALIDATION, *TESTING) if name in known), None)


def spread(size: int, count: int) -> list[int]:
    """Return ``count`` places of so many, or all, evenly spread: files often lie sorted, the first unlike the rest."""
    few = min(count, size)
    return [place * size // few for place in range(few)]


def split_named(name: str) -> str | None:
    """Return the split that a folder or a file is named for, None where it is named for none.

    >>> split_named("Training"), split_named("valid"), split_named("cat")
    ('train', 'valid', None)
    """
    lowered = name.lower()
    return TRAIN if lowered in TRAINING else lowered if lowered in NAMES else None


def split_marked(mark: str) -> str:
    """Return the split that a record is marked for: marks of one meaning are one, and others stay as they are.

    >>> split_marked("Training"), split_marked("test "), split_marked("fold1")
    ('train', 'test', 'fold1')
    """
    return split_named(mark.strip()) or mark


def split_around(folder: str) -> str | None:
    """Return the split that a folder, or the uppermost around it that does, is called as.

    >>> split_around("a/Test/train"), split_around("a/tests")
    ('test', None)
    """
    return next((split for part in folder.split("/") if (split := split_named(part))), None)


def strictest(splits: Iterable[str | None]) -> str | None:
    """Return the split of a record that is of several: one for testing, else one for validation, else "train"."""
    found = {*splits}
    return next((split for split in (*TESTING, *VALIDATION, TRAIN) if split in found), None)


def by_folders(marks: Sequence[str | None], folders: Mapping[int, str]) -> Sequence[str | None]:
    """Return the splits of records: as they are marked; and where none is marked for a split that is held out, those
    without a mark are of the split that the folders of their pictures are called as.

    Args:
        marks: The split that each is marked for, if any.
        folders: The split that its folders are called as, by the record's number, where they are.

    Returns:
        The marks themselves, where no folder is called as a split that is held out.

    >>> by_folders([None, None, "train"], {0: "test", 2: "test"})
    ['test', None, 'train']
    """
    if any(mark not in (None, TRAIN) for mark in marks) or not {*folders.values()} - {TRAIN}:
        return marks
    return [mark or folders.get(number) for number, mark in enumerate(marks)]


def apart(names: Sequence[str], marks: Sequence[str | None]) -> Sequence[str | None]:
    """Return the splits of records, of which those for training are ``IN_BOTH`` whose name is in another split, too.

    A name that more than 500 records have is let be, and told: a logo would leave nothing to train on.

    Args:
        names: Of all records; those of one name share something.
        marks: The split that the data name for each; None for none, which is "train" where others have one.

    >>> apart(["a", "b", "a", "b", "c"], ["train", "val", "test", None, None])
    ['train and another', 'val', 'test', 'train and another', None]
    """
    others = {name for name, mark in zip(names, marks, strict=True) if mark not in (None, TRAIN)}
    if not others:
        return marks
    others -= {name for name, count in Counter(names).items() if count > MOST_HELD_OUT}
    is_trained = (mark in (None, TRAIN) for mark in marks)
    each = zip(names, marks, is_trained, strict=True)
    return [IN_BOTH if trained and name in others else mark for name, mark, trained in each]


def alike(names: Iterable[str]) -> dict[tuple[str, str], dict[str, str]]:
    """Return the names that differ in nothing but the split that a word of them names, "train" and another, by what
    stands before and after the word. A number behind it, that of a part, is no difference.

    >>> alike(["wiki.train", "wiki.test", "Train to Pakistan", "Test Pilot"])
    {('wiki.', ''): {'wiki.train': 'train', 'wiki.test': 'test'}}
    """
    found: dict[tuple[str, str], dict[str, str]] = {}
    for name in names:
        for word in _WORD.finditer(name):
            before, after = name[: word.start()].lower(), name[word.end() :].lower()
            found.setdefault((before, "" if _NUMBER.fullmatch(after) else after), {})[name] = split_named(word[0]) or ""
    return {key: group for key, group in found.items() if TRAIN in group.values() and len({*group.values()}) > 1}


def _too_few(names: Sequence[str], unit: str) -> str:
    """Say that so few names are not held out of by default; nothing where they are."""
    count, told = len(set(names)), counted(len(names), unit)
    told = f"{told} that share pictures or texts: {counted(count, 'group')}" if count < len(names) else told
    return f"{told}, fewer than {FEWEST_NAMES}; data.hold_out=0.1 holds some out" if count < FEWEST_NAMES else ""


def _held_out(names: Sequence[str], share: float) -> list[str]:
    """Return the split of each name by its hash."""
    large = _large(names, share)
    return [TEST if name not in large and hold_out_fraction(name) < share else TRAIN for name in names]


def _large(names: Sequence[str], share: float) -> set[str]:
    """Return the names that so many records have that they are not held out."""
    most = max(share * len(names) if share > DEFAULT_SHARE else 0, min(MOST_HELD_OUT, len(names) / 2), 1)
    return {name for name, count in Counter(names).items() if count > most}


def _filled(marks: Sequence[str | None]) -> list[str]:
    return [mark or TRAIN for mark in marks]


def _crossing(names: Sequence[str], splits: Sequence[str], called: Callable[[int], str] | None) -> str:
    """Say which names are trained on and held out."""
    trained = {name for name, split in zip(names, splits, strict=True) if split == TRAIN}
    places = {names[place]: place for place, split in enumerate(splits) if split != TRAIN and names[place] in trained}
    both = sorted(places, key=None if called is None else places.__getitem__)
    if called is not None:
        both[:MOST_LISTED] = [called(places[name]) for name in both[:MOST_LISTED]]
    return f"in 'train' and in another split at once: {listed(both)}" if both else ""


def hold_out_fraction(name: str) -> float:
    """Return the place of a name in [0, 1): it is held out where that is below the share."""
    return stable_fraction(f"hold-out:{name}")


def _counted(splits: Sequence[str]) -> str:
    return ", ".join(f"{name!r} ({count})" for name, count in sorted(Counter(splits).items())) or "none"
