"""Tasks of the built-in world beside captions: questions, edits, stories, and the corpus of all their words."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from transfusion.data.shapes.language import (
    NUMBERS,
    PLURALS,
    RELATIONS,
    SINGULARS,
    Item,
    caption,
    is_related,
    is_test_text,
    noun,
)
from transfusion.data.shapes.scene import (
    COLOUR_NAMES,
    MAX_OBJECTS,
    PLACES,
    SHAPES,
    SIZES,
    Scene,
    SceneObject,
    Split,
    centre,
    in_split,
    is_free,
    pick,
    sample_scene,
)
from transfusion.keyed import generator

NUM_TRIES = 30
MOST_PAGES = 4  # of a story
NAMED_BY_PLACE = 0.8  # share of instructions that say where the object is


@dataclass(frozen=True)
class QuestionAnswer:
    """A question about a scene and its answer."""

    question: str
    answer: str


@dataclass(frozen=True)
class Edit:
    """A change of a scene, told as an instruction that fits the scene in one way only."""

    before: Scene
    instruction: str
    after: Scene


def question(scene: Scene, rng: np.random.Generator) -> QuestionAnswer:
    """Ask about a scene: how many, what colour, where, yes or no."""
    kinds = (_ask_count, _ask_colour, _ask_place, _ask_presence, _ask_relation)
    while True:
        found = kinds[int(rng.integers(len(kinds)))](scene, rng)
        if found is not None:
            return found


def _unique(scene: Scene, key: Callable[[SceneObject], object]) -> list[SceneObject]:
    """Return the objects that no other object is like, in what ``key`` looks at."""
    keys = [key(thing) for thing in scene.objects]
    return [thing for thing, found in zip(scene.objects, keys, strict=True) if keys.count(found) == 1]


def _ask_count(scene: Scene, rng: np.random.Generator) -> QuestionAnswer:
    is_absent = rng.random() < 0.2
    shape = pick(SHAPES if is_absent else [thing.shape for thing in scene.objects], rng)
    count = sum(thing.shape == shape for thing in scene.objects)
    return QuestionAnswer(f"how many {PLURALS[shape]} are there", NUMBERS[count])


def _ask_colour(scene: Scene, rng: np.random.Generator) -> QuestionAnswer | None:
    unique = _unique(scene, lambda thing: thing.shape)
    if not unique:
        return None
    thing = unique[int(rng.integers(len(unique)))]
    return QuestionAnswer(f"what colour is the {thing.shape}", thing.colour)


def _ask_place(scene: Scene, rng: np.random.Generator) -> QuestionAnswer | None:
    unique = [thing for thing in _unique(scene, lambda thing: (thing.shape, thing.colour)) if thing.place]
    if not unique:
        return None
    thing = unique[int(rng.integers(len(unique)))]
    return QuestionAnswer(f"where is the {thing.colour} {thing.shape}", thing.place or "")


def _ask_presence(scene: Scene, rng: np.random.Generator) -> QuestionAnswer:
    present = {(thing.colour, thing.shape) for thing in scene.objects}
    if rng.random() < 0.5:
        colour, shape = sorted(present)[int(rng.integers(len(present)))]
        return QuestionAnswer(f"is there {noun(Item(1, shape, colour))}", "yes")
    while True:
        one = scene.objects[int(rng.integers(len(scene.objects)))]
        colour, shape = (pick(COLOUR_NAMES, rng), one.shape) if rng.random() < 0.5 else (one.colour, pick(SHAPES, rng))
        if (colour, shape) not in present:
            return QuestionAnswer(f"is there {noun(Item(1, shape, colour))}", "no")


def _ask_relation(scene: Scene, rng: np.random.Generator) -> QuestionAnswer | None:
    unique = _unique(scene, lambda thing: thing.shape)
    if len(unique) < 2:
        return None
    one, other = (unique[i] for i in rng.permutation(len(unique))[:2])
    relation = pick(list(RELATIONS), rng)
    is_true, is_false = (is_related(a, relation, b) for a, b in ((one, other), (other, one)))
    if is_true == is_false:
        return None
    return QuestionAnswer(f"is the {one.shape} {relation} the {other.shape}", "yes" if is_true else "no")


def true_answer(scene: Scene, asked: str) -> str | None:
    """Work out the answer of a question from its words; None if it is no question of this world, or has no one answer
    because several things, or none, are what it asks about.
    """
    asked = asked.strip().rstrip("?").lower()
    if found := re.fullmatch(r"how many (\w+) are there", asked):
        shape = SINGULARS.get(found[1])
        return None if shape is None else NUMBERS[sum(thing.shape == shape for thing in scene.objects)]
    if found := re.fullmatch(r"what colour is the (\w+)", asked):
        thing = _only(scene, found[1])
        return None if thing is None else thing.colour
    if found := re.fullmatch(r"where is the (\w+) (\w+)", asked):
        thing = _only(scene, found[2], found[1])
        return None if thing is None else thing.place
    if found := re.fullmatch(r"is there an? (\w+) (\w+)", asked):
        return "yes" if any((o.colour, o.shape) == (found[1], found[2]) for o in scene.objects) else "no"
    if found := re.fullmatch(rf"is the (\w+) ({'|'.join(RELATIONS)}) the (\w+)", asked):
        one, other = _only(scene, found[1]), _only(scene, found[3])
        if one is not None and other is not None:
            return "yes" if is_related(one, found[2], other) else "no"
    return None


def _only(scene: Scene, shape: str, colour: str | None = None) -> SceneObject | None:
    """Return the one object of a shape, and colour where one is named; None if there is none or more than one."""
    found = [thing for thing in scene.objects if thing.shape == shape and colour in (None, thing.colour)]
    return found[0] if len(found) == 1 else None


def answer_is_right(scene: Scene, asked: str, text: str) -> bool:
    """Return whether a text answers a question about a scene truly; case and outer spaces do not count."""
    truth = true_answer(scene, asked)
    return truth is not None and text.strip().lower() == truth


def edit(scene: Scene, rng: np.random.Generator, *, split: Split = "train") -> Edit:
    """Change a scene: recolour, remove, add, move, or change a shape.

    Args:
        scene: The scene before; where nothing fits it another one of the split is drawn.
        rng: All randomness.
        split: The split that the scene after, or in "test" the instruction or either scene, belongs to.
    """
    kinds = (_recolour, _remove, _add, _move, _reshape)
    while True:
        for _ in range(NUM_TRIES):
            changed = kinds[int(rng.integers(len(kinds)))](scene, rng)
            if changed is not None and _edit_in_split(changed, split):
                return changed
        scene = sample_scene(rng, split=split)


def _edit_in_split(change: Edit, split: Split) -> bool:
    if split == "test":
        return is_test_text(change.instruction) and in_split(change.before, "test")
    return in_split(change.after, "train") and not is_test_text(change.instruction)


def _changeable(scene: Scene, rng: np.random.Generator) -> int | None:
    """Draw the index of an object that its colour and shape name alone."""
    unique = _unique(scene, lambda thing: (thing.colour, thing.shape))
    return scene.objects.index(unique[int(rng.integers(len(unique)))]) if unique else None


def _named(thing: SceneObject, rng: np.random.Generator) -> str:
    """Name an object by its colour and shape, sometimes by its place too."""
    place = f" in the {thing.place}" if thing.place and rng.random() < NAMED_BY_PLACE else ""
    return f"the {thing.colour} {thing.shape}{place}"


def _replaced(scene: Scene, index: int, *things: SceneObject) -> Scene:
    return Scene((*scene.objects[:index], *things, *scene.objects[index + 1 :]))


def _recolour(scene: Scene, rng: np.random.Generator) -> Edit | None:
    index, colour = _changeable(scene, rng), pick(COLOUR_NAMES, rng)
    if index is None or scene.objects[index].colour == colour:
        return None
    thing = scene.objects[index]
    after = _replaced(scene, index, replace(thing, colour=colour))
    return Edit(scene, f"make {_named(thing, rng)} {colour}", after)


def _remove(scene: Scene, rng: np.random.Generator) -> Edit | None:
    index = _changeable(scene, rng)
    if index is None or len(scene.objects) == 1:
        return None
    thing = scene.objects[index]
    return Edit(scene, f"remove {_named(thing, rng)}", _replaced(scene, index))


def _reshape(scene: Scene, rng: np.random.Generator) -> Edit | None:
    index, shape = _changeable(scene, rng), pick(SHAPES, rng)
    if index is None or scene.objects[index].shape == shape:
        return None
    thing = scene.objects[index]
    after = _replaced(scene, index, replace(thing, shape=shape))
    return Edit(scene, f"turn {_named(thing, rng)} into {noun(Item(1, shape))}", after)


def _add(scene: Scene, rng: np.random.Generator) -> Edit | None:
    if len(scene.objects) == MAX_OBJECTS:
        return None
    place, size = pick(list(PLACES), rng), pick(list(SIZES), rng)
    thing = SceneObject(pick(SHAPES, rng), pick(COLOUR_NAMES, rng), size, *centre(place))
    if not is_free(thing, scene.objects):
        return None
    item = Item(1, thing.shape, thing.colour, thing.size, place)
    return Edit(scene, f"add {noun(item)}", Scene((*scene.objects, thing)))


def _move(scene: Scene, rng: np.random.Generator) -> Edit | None:
    index, place = _changeable(scene, rng), pick(list(PLACES), rng)
    if index is None or scene.objects[index].place in (None, place):
        return None
    thing = scene.objects[index]
    x, y = centre(place)
    moved = replace(thing, x=x, y=y)
    if not is_free(moved, [other for other in scene.objects if other is not thing]):
        return None
    return Edit(scene, f"move {_named(thing, rng)} to the {place}", _replaced(scene, index, moved))


def story(rng: np.random.Generator, *, split: Split = "train") -> list[tuple[str, Scene]]:
    """Tell two to four pictures: a caption, then instructions that each change the picture before."""
    scene = sample_scene(rng, split=split)
    pages = [(caption(scene, rng, is_complete=True), scene)]
    for _ in range(int(rng.integers(1, MOST_PAGES))):
        change = edit(pages[-1][1], rng, split=split)
        if change.before is not pages[-1][1]:
            break
        pages.append((change.instruction, change.after))
    return pages


def corpus(seed: int, count: int) -> Iterator[str]:
    """Yield texts of all tasks, to learn a tokenizer from."""
    for index in range(count):
        rng = generator(seed, "corpus", index)
        scene = sample_scene(rng)
        yield caption(scene, rng)
        turn = question(scene, rng)
        yield f"{turn.question} {turn.answer}"
        yield edit(scene, rng).instruction
