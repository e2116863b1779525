"""Scenes of the built-in world: objects with shape, colour, size and place, and which of them training never sees.

A scene holds one to four objects that do not touch. Responsible for drawing scenes and for the held-out rules; it
must not know pixels or words.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from transfusion.keyed import stable_fraction

Split = Literal["train", "test"]

SHAPES = ("circle", "square", "triangle", "star", "cross")
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 40, 40),
    "green": (40, 160, 60),
    "blue": (40, 80, 220),
    "yellow": (245, 215, 30),
    "purple": (150, 50, 180),
    "orange": (245, 130, 20),
    "cyan": (50, 200, 220),
    "black": (30, 30, 30),
}
COLOUR_NAMES = tuple(COLOURS)
USUAL_COLOUR, USUAL_SIZE = "black", "large"  # what a text need not tell, as usual places
UNUSUAL_COLOURS = tuple(name for name in COLOUR_NAMES if name != USUAL_COLOUR)
SIZES: dict[str, float] = {"small": 0.14, "large": 0.2}  # radius over the side of the picture
MAX_OBJECTS = 4
EXTENT = 1.15  # no point of a shape is farther from its centre, in radii
MARGIN = 0.02  # least gap between what two objects may reach, over the side
CENTRES = (0.25, 0.5, 0.75)  # of objects, across and down: nine places, so that few pictures of a shape teach it
TEST_SCENES = 1 / 8
HELD_OUT_PAIRS = frozenset({("red", "star"), ("purple", "circle"), ("green", "cross")})
COUNT_SHARES = np.cumsum([0.45, 0.35, 0.12])  # of scenes with one, two and three objects; the rest has four
REPEATED = {1: 0.0, 2: 0.2, 3: 0.5, 4: 0.5}  # share of scenes whose objects are all alike, to learn counting
COMPOSED = 0.5  # share of scenes whose objects lie at the usual places, which a caption need not tell
SHARE_USUAL_COLOUR, SHARE_USUAL_SIZE = 0.25, 0.65
USUAL_PLACES: dict[int, tuple[tuple[str, ...], ...]] = {
    1: (("center",),),
    2: (("left", "right"), ("top", "bottom")),
    3: (("top", "bottom left", "bottom right"),),
    4: (("top left", "top right", "bottom left", "bottom right"),),
}
LOW, HIGH = 0.4, 0.6  # where a third of the picture ends
CLEAR = 0.02  # a place is named only if it lies at least this far within its third


@dataclass(frozen=True)
class SceneObject:
    """One object.

    Attributes:
        shape: One of SHAPES.
        colour: One of COLOURS.
        size: One of SIZES.
        x: Centre from the left, in [0, 1].
        y: Centre from the top, in [0, 1].
    """

    shape: str
    colour: str
    size: str
    x: float
    y: float

    @property
    def radius(self) -> float:
        """Radius over the side of the picture."""
        return SIZES[self.size]

    @property
    def place(self) -> str | None:
        """Name of the ninth of the picture that the centre is clearly in, or None near a border of two."""
        across, down = _third(self.x), _third(self.y)
        if across is None or down is None:
            return None
        return place_name(across, down)


@dataclass(frozen=True)
class Scene:
    """Up to four objects on a plain ground."""

    objects: tuple[SceneObject, ...]

    @property
    def signature(self) -> str:
        """What is in the scene, whatever the places: the key of the split."""
        return ";".join(sorted(f"{o.shape},{o.colour},{o.size}" for o in self.objects))

    @property
    def in_reading_order(self) -> list[SceneObject]:
        """The objects from the top line to the bottom, each from left to right."""
        return sorted(self.objects, key=lambda thing: (thing.y, thing.x))


def place_name(across: int, down: int) -> str:
    """Name a ninth of the picture by its column and line, each 0, 1 or 2."""
    words = (("top", "", "bottom")[down], ("left", "", "right")[across])
    return " ".join(word for word in words if word) or "center"


PLACES: dict[str, tuple[int, int]] = {place_name(x, y): (x, y) for y in range(3) for x in range(3)}


def is_in_place(x: float, y: float, place: str) -> bool:
    """Return whether a point lies in a named ninth, borders included."""
    across, down = PLACES[place]
    return _is_third(x, across) and _is_third(y, down)


def _is_third(value: float, third: int) -> bool:
    return (value <= LOW + CLEAR, LOW - CLEAR <= value <= HIGH + CLEAR, value >= HIGH - CLEAR)[third]


def _third(value: float) -> int | None:
    for third, (low, high) in enumerate(((0.0, LOW), (LOW, HIGH), (HIGH, 1.0))):
        if low + CLEAR * (third > 0) <= value <= high - CLEAR * (third < 2):
            return third
    return None


def is_test_scene(scene: Scene) -> bool:
    """Return whether a scene belongs to the test split: training shows none such, wherever its objects lie."""
    has_held_out = any((o.colour, o.shape) in HELD_OUT_PAIRS for o in scene.objects)
    return has_held_out or stable_fraction(f"scene:{scene.signature}") < TEST_SCENES


def in_split(scene: Scene, split: Split) -> bool:
    """Return whether a scene belongs to a split."""
    return is_test_scene(scene) == (split == "test")


def pick(options: Sequence[str], rng: np.random.Generator) -> str:
    """Draw one of the options, each as likely as the others."""
    return options[int(rng.integers(len(options)))]


def sample_scene(rng: np.random.Generator, *, num_objects: int | None = None, split: Split = "train") -> Scene:
    """Draw a scene.

    Args:
        rng: All randomness.
        num_objects: 1 to 4; None draws it.
        split: Draw until the scene belongs to it.
    """
    while True:
        count = num_objects or 1 + int(np.searchsorted(COUNT_SHARES, rng.random(), side="right"))
        things = _things(rng, count)
        placed = compose(rng, things) if rng.random() < COMPOSED else scatter(rng, things)
        if placed is not None and in_split(placed, split):
            return placed


def _things(rng: np.random.Generator, count: int) -> list[tuple[str, str, str]]:
    """Draw shapes, colours and sizes; often all alike, for counting."""
    num_drawn = 1 if rng.random() < REPEATED[count] else count
    things = [(pick(SHAPES, rng), _colour(rng), _size(rng)) for _ in range(num_drawn)]
    return things * (count // num_drawn)


def _colour(rng: np.random.Generator) -> str:
    return USUAL_COLOUR if rng.random() < SHARE_USUAL_COLOUR else pick(UNUSUAL_COLOURS, rng)


def _size(rng: np.random.Generator) -> str:
    return USUAL_SIZE if rng.random() < SHARE_USUAL_SIZE else "small"


def compose(rng: np.random.Generator, things: Sequence[tuple[str, str, str]]) -> Scene:
    """Put things (shape, colour, size) at the usual places for so many; things all alike at the first of those."""
    options = USUAL_PLACES[len(things)]
    places = options[int(rng.integers(len(options)))] if len(set(things)) > 1 else options[0]
    return Scene(tuple(SceneObject(*thing, *centre(place)) for thing, place in zip(things, places, strict=True)))


def usual_places(scene: Scene) -> tuple[str, ...] | None:
    """Return the usual places that the objects of a scene lie at, in reading order; None if they lie elsewhere."""
    found = tuple(str(thing.place) for thing in scene.in_reading_order)
    return found if found in USUAL_PLACES[len(found)] else None


def scatter(rng: np.random.Generator, things: Sequence[tuple[str, str, str]]) -> Scene | None:
    """Place things (shape, colour, size) at random so that they do not touch; None if they happen not to fit."""
    objects: list[SceneObject] = []
    for thing in things:
        for across, down in rng.integers(0, len(CENTRES), (12, 2)).tolist():
            candidate = SceneObject(*thing, CENTRES[across], CENTRES[down])
            if is_free(candidate, objects):
                objects.append(candidate)
                break
        else:
            return None
    return Scene(tuple(objects))


def centre(place: str) -> tuple[float, float]:
    """Return the centre (x, y) of an object at a named place."""
    across, down = PLACES[place]
    return CENTRES[across], CENTRES[down]


def is_free(candidate: SceneObject, others: Sequence[SceneObject]) -> bool:
    """Return whether an object touches none of the others."""
    return all(
        (candidate.x - o.x) ** 2 + (candidate.y - o.y) ** 2 > (EXTENT * (candidate.radius + o.radius) + MARGIN) ** 2
        for o in others
    )
