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
    Scene,
    SceneObject,
    is_in_place,
    pick,
)
from transfusion.keyed import stable_fraction

INTROS = ("", "", "draw ", "just ", "only ", "show ", "paint ")
NUMBERS = ("zero", "one", "two", "three", "four")
PLURALS = {"cross": "crosses"} | {shape: f"{shape}s" for shape in SHAPES if shape != "cross"}
SINGULARS = {plural: shape for shape, plural in PLURALS.items()}
RELATIONS = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}
TEST_TEXTS = 1 / 5
NUM_TRIES = 200
TELLS_PLACES = 0.5  # share of prompts that tell places; a model learns words sooner where it knows what they are about
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
        return self.relation is None or is_related(things[0], self.relation, things[1])


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
        is_complete: Name the colour of every object; else colours may be left out, as prompts do.
    """
    for attempt in range(NUM_TRIES):
        has_intro = not is_complete or attempt > NUM_TRIES // 10  # some scenes have no bare text outside the test split
        intro = pick(INTROS, rng) if has_intro else ""
        text = write(_told(scene, rng, is_complete), intro)
        if not is_test_text(text):
            return text
    raise RuntimeError(f"every caption of {scene} belongs to the test split")


def _told(scene: Scene, rng: np.random.Generator, is_complete: bool) -> Statement:
    has_colours = is_complete or rng.random() < 0.85
    has_places = not is_complete and rng.random() < TELLS_PLACES
    relation = _relation(scene.objects) if len(scene.objects) == 2 and not has_places else None
    if relation is not None and rng.random() < 0.7:
        first, second = (_told_item([thing], rng, has_colours, has_place=False) for thing in scene.objects)
        return Statement((first, second), relation)
    groups = [[thing] for thing in scene.objects] if has_places else _groups(scene, has_colours)
    items = [_told_item(group, rng, has_colours, has_place=has_places) for group in groups]
    return Statement(tuple(items[i] for i in rng.permutation(len(items))))


def _told_item(alike: Sequence[SceneObject], rng: np.random.Generator, has_colour: bool, *, has_place: bool) -> Item:
    """Tell objects alike in shape and colour; size and place only of a single one."""
    thing, is_single = alike[0], len(alike) == 1
    size = thing.size if is_single and rng.random() < 0.25 else None
    place = thing.place if is_single and has_place else None
    return Item(len(alike), thing.shape, thing.colour if has_colour else None, size, place)


def _groups(scene: Scene, has_colours: bool) -> list[list[SceneObject]]:
    """Group the objects that an item names alike."""
    groups: dict[tuple[str, str], list[SceneObject]] = {}
    for thing in scene.objects:
        groups.setdefault((thing.shape, thing.colour if has_colours else ""), []).append(thing)
    return list(groups.values())


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
