"""The words of the built-in world: captions, and the parser that decides whether a text is true of a scene.

The grammar, which ``parse`` reads exactly and ``caption`` writes:

    caption   [intro] item | [intro] item relation item | [intro] item, item and item
    item      a|an|one|two|three|four  [size]  [colour]  shape[s]  [in the place]

It must not know pixels.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Protocol

import numpy as np

from transfusion.data.shapes.scene import (
    COLOUR_NAMES,
    PLACES,
    SHAPES,
    SIZES,
    USUAL_COLOUR,
    USUAL_PLACES,
    USUAL_SIZE,
    Scene,
    SceneObject,
    is_in_place,
    pick,
    usual_places,
)
from transfusion.keyed import stable_fraction

INTROS = ("", "", "draw ", "just ", "only ", "show ", "paint ")
NUMBERS = ("zero", "one", "two", "three", "four")
PLURALS = {"cross": "crosses"} | {shape: f"{shape}s" for shape in SHAPES if shape != "cross"}
SINGULARS = {plural: shape for shape, plural in PLURALS.items()}
RELATIONS = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}
TEST_TEXTS = 1 / 5
NUM_TRIES = 200
TELLS_USUAL_PLACES = 0.25  # share of captions that tell places though they are the usual ones
TELLS_RELATION = 0.6  # share of captions of a usual pair that tell how one stands to the other
TELLS_USUAL_LOOKS = 0.25  # share of things called large, or black in a prompt, though that is usual
DOMINANCE = 0.1  # a relation is told only if one axis differs more than the other by this much
TRUE_BY = 0.03  # a relation is true from this difference of the centres on


class Thing(Protocol):
    """An object of a scene, or a detected one."""

    @property
    def shape(self) -> str:
        """One of SHAPES."""
        ...

    @property
    def colour(self) -> str:
        """One of COLOURS."""
        ...

    @property
    def size(self) -> str:
        """One of SIZES."""
        ...

    @property
    def x(self) -> float:
        """Centre from the left."""
        ...

    @property
    def y(self) -> float:
        """Centre from the top."""
        ...


@dataclass(frozen=True)
class Item:
    """So many things alike; what is None is not said."""

    count: int
    shape: str
    colour: str | None = None
    size: str | None = None
    place: str | None = None

    def fits(self, thing: Thing) -> bool:
        """Return whether a thing is as the item says."""
        return (
            thing.shape == self.shape
            and self.colour in (None, thing.colour)
            and self.size in (None, thing.size)
            and (self.place is None or is_in_place(thing.x, thing.y, self.place))
        )


@dataclass(frozen=True)
class Statement:
    """What a caption says: its items, and how the first stands to the second."""

    items: tuple[Item, ...]
    relation: str | None = None

    def holds(self, things: Sequence[Thing]) -> bool:
        """Return whether things are exactly what is said: nothing missing, nothing more, every word true."""
        wanted = [item for item in self.items for _ in range(item.count)]
        if len(wanted) != len(things):
            return False
        return any(
            all(item.fits(thing) for item, thing in zip(wanted, order, strict=True)) and self._is_related(order)
            for order in permutations(things)
        )

    def _is_related(self, things: Sequence[Thing]) -> bool:
        """Return whether all things of the first item stand so to all of the second."""
        if self.relation is None:
            return True
        first, second = things[: self.items[0].count], things[self.items[0].count :]
        return all(is_related(one, self.relation, other) for one in first for other in second)


def is_related(one: Thing, relation: str, other: Thing, *, by: float = TRUE_BY) -> bool:
    """Return whether one thing stands in a relation to another, by more than ``by`` between their centres."""
    across, down = RELATIONS[relation]
    return across * (one.x - other.x) + down * (one.y - other.y) > by


def is_test_text(text: str) -> bool:
    """Return whether a text belongs to the test split: training never produces it."""
    return stable_fraction(f"text:{text}") < TEST_TEXTS


def noun(item: Item) -> str:
    """Write an item: "a small red circle", "three crosses in the top left"."""
    words = [word for word in (item.size, item.colour) if word]
    words.append(item.shape if item.count == 1 else PLURALS[item.shape])
    if item.count == 1:
        words.insert(0, "an" if words[0][0] in "aeiou" else "a")
    else:
        words.insert(0, NUMBERS[item.count])
    place = f" in the {item.place}" if item.place else ""
    return " ".join(words) + place


def write(statement: Statement, intro: str = "") -> str:
    """Write a statement as a caption."""
    nouns = [noun(item) for item in statement.items]
    if statement.relation:
        return f"{intro}{nouns[0]} {statement.relation} {nouns[1]}"
    body = ", ".join(nouns[:-1])
    return f"{intro}{body} and {nouns[-1]}" if body else f"{intro}{nouns[0]}"


_ITEM = re.compile(
    rf"(?P<count>an|a|one|two|three|four)(?: (?P<size>{'|'.join(SIZES)}))?(?: (?P<colour>{'|'.join(COLOUR_NAMES)}))?"
    rf" (?P<shape>{'|'.join([*PLURALS.values(), *SHAPES])})"
    rf"(?: in the (?P<place>{'|'.join(sorted(PLACES, key=len)[::-1])}))?"
)
_INTRO = re.compile("^(?:" + "|".join(intro for intro in INTROS if intro) + ")")


def parse(text: str) -> Statement | None:
    """Read a caption; None for anything that the grammar does not write."""
    body = _INTRO.sub("", text.strip().lower())
    for relation in RELATIONS:
        halves = body.split(f" {relation} ")
        if len(halves) == 2:
            items = tuple(_item(half) for half in halves)
            return _statement(items, relation)
    return _statement(tuple(_item(part) for part in re.split(r", | and ", body)), None)


def _statement(items: tuple[Item | None, ...], relation: str | None) -> Statement | None:
    whole = tuple(item for item in items if item is not None)
    return Statement(whole, relation) if len(whole) == len(items) else None


def _item(text: str) -> Item | None:
    found = _ITEM.fullmatch(text)
    if found is None:
        return None
    count = NUMBERS.index(found["count"]) if found["count"] in NUMBERS else 1
    if (found["shape"] in SINGULARS) != (count > 1):
        return None
    return Item(count, SINGULARS.get(found["shape"], found["shape"]), found["colour"], found["size"], found["place"])


def caption(scene: Scene, rng: np.random.Generator, *, is_complete: bool = False) -> str:
    """Describe a scene truly, all of its objects, in a text of the training split.

    Args:
        scene: What to describe.
        rng: All randomness.
        is_complete: Name the colour of every object; a prompt may leave out the usual one.
    """
    for attempt in range(NUM_TRIES):
        has_intro = not is_complete or attempt > NUM_TRIES // 10  # some scenes have no bare text outside the test split
        intro = pick(INTROS, rng) if has_intro else ""
        text = write(_told(scene, rng, is_complete), intro)
        if not is_test_text(text):
            return text
    raise RuntimeError(f"every caption of {scene} belongs to the test split")


def _told(scene: Scene, rng: np.random.Generator, is_complete: bool) -> Statement:
    """Decide what is said. What is usual may be left out: usual places, being large, and in prompts being black.

    So a text says all that is unusual, and words that say which thing they are about are learnt many times sooner.
    Objects come in reading order, but in prompts with places, where any order is clear.
    """
    objects, places = scene.in_reading_order, usual_places(scene)
    if places is None or rng.random() < TELLS_USUAL_PLACES:
        order = range(len(objects)) if is_complete else rng.permutation(len(objects)).tolist()
        return Statement(tuple(_told_item([objects[i]], rng, is_complete, has_place=True) for i in order))
    groups: dict[tuple[str, str, str], list[SceneObject]] = {}
    for thing in objects:
        groups.setdefault((thing.shape, thing.size, thing.colour), []).append(thing)
    is_unusual_pair = len(objects) == 2 and places != USUAL_PLACES[2][0]
    if is_unusual_pair or (len(groups) == len(objects) == 2 and rng.random() < TELLS_RELATION):
        pair = objects if is_complete else [objects[i] for i in rng.permutation(2)]
        first, second = (_told_item([thing], rng, is_complete, has_place=False) for thing in pair)
        return Statement((first, second), _relation(pair))
    return Statement(tuple(_told_item(group, rng, is_complete, has_place=False) for group in groups.values()))


def _told_item(alike: Sequence[SceneObject], rng: np.random.Generator, is_complete: bool, *, has_place: bool) -> Item:
    """Tell objects alike in shape, colour and size."""
    thing = alike[0]
    has_size = thing.size != USUAL_SIZE or rng.random() < TELLS_USUAL_LOOKS
    has_colour = is_complete or thing.colour != USUAL_COLOUR or rng.random() < TELLS_USUAL_LOOKS
    return Item(
        len(alike),
        thing.shape,
        thing.colour if has_colour else None,
        thing.size if has_size else None,
        thing.place if has_place else None,
    )


def _relation(objects: Sequence[SceneObject]) -> str | None:
    """Return how the first of two objects clearly stands to the second, if it does."""
    across, down = objects[0].x - objects[1].x, objects[0].y - objects[1].y
    if abs(across) > abs(down) + DOMINANCE:
        return "right of" if across > 0 else "left of"
    if abs(down) > abs(across) + DOMINANCE:
        return "below" if down > 0 else "above"
    return None


def caption_is_right(text: str, scene: Scene) -> bool:
    """Return whether a text is a complete and true description: every object with its shape and colour."""
    statement = parse(text)
    if statement is None or any(item.colour is None for item in statement.items):
        return False
    return statement.holds(scene.objects)
