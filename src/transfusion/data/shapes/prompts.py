"""Prompts of the six GenEval categories over the built-in world, none of which training ever shows.

A picture is right if the detector finds exactly what the prompt says: nothing missing, nothing more, every stated
colour, size, place and relation true. That is stricter than GenEval, which lets other things stand beside.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from transfusion.data.shapes.detect import detect
from transfusion.data.shapes.language import (
    INTROS,
    RELATIONS,
    TRUE_BY,
    Item,
    Statement,
    is_related,
    is_test_text,
    parse,
    write,
)
from transfusion.data.shapes.scene import (
    COLOUR_NAMES,
    HELD_OUT_PAIRS,
    MAX_OBJECTS,
    PLACES,
    SHAPES,
    SIZES,
    Scene,
    is_in_place,
    pick,
    scatter,
)
from transfusion.keyed import generator

Category = Literal["single_object", "two_objects", "counting", "colors", "position", "color_attribution"]
CATEGORIES: tuple[Category, ...] = (
    "single_object",
    "two_objects",
    "counting",
    "colors",
    "position",
    "color_attribution",
)
MAX_MISSES = 20_000  # draws in a row without a new prompt, after which there are taken to be no more
HELD_OUT_SHARE = 1 / 3  # of the prompts that name colours


@dataclass(frozen=True)
class Prompt:
    """A prompt.

    Attributes:
        category: Which of the six.
        text: What the model is given.
        has_held_out_pair: Whether it names a colour and shape that training never shows together.
    """

    category: Category
    text: str
    has_held_out_pair: bool

    @property
    def statement(self) -> Statement:
        """What the picture must show."""
        statement = parse(self.text)
        assert statement is not None, self.text
        return statement


def prompts(category: Category, count: int, seed: int) -> list[Prompt]:
    """Draw distinct prompts of a category from the test texts.

    Raises:
        ValueError: The grammar has not so many.
    """
    rng = generator(seed, "prompts", category)
    found: dict[str, Prompt] = {}
    misses = 0
    while len(found) < count:
        if misses == MAX_MISSES:
            raise ValueError(
                f"asked for {count} prompts of {category!r}; the grammar gave only {len(found)} distinct ones"
            )
        is_held_out = rng.random() < HELD_OUT_SHARE
        statement = _STATEMENTS[category](rng, is_held_out)
        text = write(statement, pick(INTROS, rng))
        pairs = {(item.colour, item.shape) for item in statement.items}
        is_new = is_test_text(text) and text not in found
        misses = 0 if is_new else misses + 1
        if is_new:
            found[text] = Prompt(category, text, bool(pairs & HELD_OUT_PAIRS))
    return list(found.values())


def satisfies(picture: NDArray[np.uint8], prompt: Prompt) -> bool:
    """Return whether an (H, W, 3) uint8 picture shows exactly what a prompt says."""
    return prompt.statement.holds(detect(picture))


def scene_for(prompt: Prompt, rng: np.random.Generator) -> Scene:
    """Make a scene that a prompt describes: what a perfect model would draw."""
    statement = prompt.statement
    while True:
        things = [
            (item.shape, item.colour or pick(COLOUR_NAMES, rng), item.size or pick(list(SIZES), rng))
            for item in statement.items
            for _ in range(item.count)
        ]
        scene = scatter(rng, things)
        if scene is not None and statement.holds(scene.objects) and _is_clear(scene, statement):
            return scene


def _is_clear(scene: Scene, statement: Statement) -> bool:
    """Return whether places and relations hold with room to spare."""
    if statement.relation and not is_related(scene.objects[0], statement.relation, scene.objects[1], by=2 * TRUE_BY):
        return False
    wanted = [item.place for item in statement.items for _ in range(item.count)]
    return all(
        place is None or (thing.place == place and is_in_place(thing.x, thing.y, place))
        for thing, place in zip(scene.objects, wanted, strict=True)
    )


def _size(rng: np.random.Generator) -> str | None:
    return pick(list(SIZES), rng) if rng.random() < 0.4 else None


def _place(rng: np.random.Generator) -> str | None:
    return pick(list(PLACES), rng) if rng.random() < 0.4 else None


def _pair(rng: np.random.Generator, is_held_out: bool) -> tuple[str, str]:
    if is_held_out:
        return sorted(HELD_OUT_PAIRS)[int(rng.integers(len(HELD_OUT_PAIRS)))]
    while True:
        pair = (pick(COLOUR_NAMES, rng), pick(SHAPES, rng))
        if pair not in HELD_OUT_PAIRS:
            return pair


def _two_shapes(rng: np.random.Generator) -> list[str]:
    return [SHAPES[i] for i in rng.permutation(len(SHAPES))[:2]]


def _single_object(rng: np.random.Generator, is_held_out: bool) -> Statement:
    del is_held_out
    return Statement((Item(1, pick(SHAPES, rng), None, _size(rng), _place(rng)),))


def _two_objects(rng: np.random.Generator, is_held_out: bool) -> Statement:
    del is_held_out
    return Statement(tuple(Item(1, shape, None, _size(rng)) for shape in _two_shapes(rng)))


def _counting(rng: np.random.Generator, is_held_out: bool) -> Statement:
    count = int(rng.integers(2, MAX_OBJECTS + 1))
    if rng.random() < 0.4:
        return Statement((Item(count, pick(SHAPES, rng)),))
    colour, shape = _pair(rng, is_held_out)
    return Statement((Item(count, shape, colour),))


def _colors(rng: np.random.Generator, is_held_out: bool) -> Statement:
    colour, shape = _pair(rng, is_held_out)
    return Statement((Item(1, shape, colour, _size(rng), _place(rng)),))


def _position(rng: np.random.Generator, is_held_out: bool) -> Statement:
    relation, has_colours = pick(list(RELATIONS), rng), rng.random() < 0.6
    if not has_colours:
        return Statement(tuple(Item(1, shape) for shape in _two_shapes(rng)), relation)
    return Statement(_two_pairs(rng, is_held_out), relation)


def _color_attribution(rng: np.random.Generator, is_held_out: bool) -> Statement:
    return Statement(_two_pairs(rng, is_held_out))


def _two_pairs(rng: np.random.Generator, is_held_out: bool) -> tuple[Item, Item]:
    """Two things of different shapes and colours, in either order."""
    while True:
        pairs = [_pair(rng, is_held_out), _pair(rng, False)]
        if pairs[0][0] != pairs[1][0] and pairs[0][1] != pairs[1][1]:
            one, other = (Item(1, pairs[i][1], pairs[i][0]) for i in rng.permutation(2))
            return one, other


_STATEMENTS: dict[Category, Callable[[np.random.Generator, bool], Statement]] = {
    "single_object": _single_object,
    "two_objects": _two_objects,
    "counting": _counting,
    "colors": _colors,
    "position": _position,
    "color_attribution": _color_attribution,
}
