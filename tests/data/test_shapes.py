"""The built-in world: the detector is exact, every word is true, and training never sees the test split."""

import hashlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageFilter

from transfusion.data.shapes import (
    CATEGORIES,
    Scene,
    answer_is_right,
    caption,
    caption_is_right,
    detect,
    edit,
    edit_is_right,
    is_test_scene,
    is_test_text,
    parse,
    prompts,
    question,
    render,
    sample_scene,
    satisfies,
    scene_for,
    story,
    true_answer,
)
from transfusion.data.shapes.scene import (
    COLOUR_NAMES,
    HELD_OUT_PAIRS,
    SHAPES,
    USUAL_COLOUR,
    USUAL_PLACES,
    USUAL_SIZE,
    SceneObject,
    usual_places,
)
from transfusion.keyed import generator

NUM_SCENES = 400


def scenes(count: int = NUM_SCENES, split: str = "train") -> list[Scene]:
    """Draw keyed scenes."""
    return [sample_scene(generator(1, "scene", i), split="test" if split == "test" else "train") for i in range(count)]


def moved(scene: Scene, i: int) -> Scene:
    """Move a whole scene by less than a pixel: models do not draw on the nine places."""
    x, y = generator(5, "moved", i).uniform(-0.02, 0.02, 2)
    return Scene(tuple(replace(thing, x=thing.x + x, y=thing.y + y) for thing in scene.objects))


def is_seen(picture: np.ndarray, scene: Scene) -> bool:
    """Return whether the detector finds exactly a scene, places within 2 % of the side."""
    left = detect(picture)
    for thing in scene.objects:
        match = [
            seen
            for seen in left
            if (seen.shape, seen.colour, seen.size) == (thing.shape, thing.colour, thing.size)
            and max(abs(seen.x - thing.x), abs(seen.y - thing.y)) < 0.02
        ]
        if not match:
            return False
        left.remove(match[0])
    return not left


@pytest.mark.parametrize("resolution", [32, 48, 64])
def test_detector_is_exact_on_rendered_scenes(resolution: int) -> None:
    for i, scene in enumerate(scenes()):
        for shown in (scene, moved(scene, i)):
            assert is_seen(render(shown, resolution), shown)


@pytest.mark.parametrize("resolution", [32, 64])
def test_detector_bears_mild_blur_and_noise(resolution: int) -> None:
    rights: list[bool] = []
    for i, scene in enumerate(scenes()):
        blurred = Image.fromarray(render(scene, resolution)).filter(ImageFilter.GaussianBlur(0.5))
        noisy = np.asarray(blurred, dtype=float) + generator(2, "noise", i).normal(0, 6, (resolution, resolution, 3))
        rights.append(is_seen(noisy.clip(0, 255).astype(np.uint8), scene))
    assert np.mean(rights) >= 0.99


def test_garbage_is_not_an_object() -> None:
    rng = generator(0, "garbage")
    noise = rng.integers(0, 256, (32, 32, 3)).astype(np.uint8)
    assert not any(seen.shape in SHAPES for seen in detect(noise) if seen.confidence > 0.72)
    bar = np.full((32, 32, 3), 255, np.uint8)
    bar[14:18, 4:28] = (220, 40, 40)
    assert [seen.shape for seen in detect(bar)] == ["unclear"]
    grey = render(Scene((SceneObject("circle", "red", "large", 0.5, 0.5),)))
    grey = np.repeat(grey.mean(-1, keepdims=True).astype(np.uint8), 3, axis=-1)
    assert all(seen.shape == "unclear" for seen in detect(grey))
    assert detect(np.full((32, 32, 3), 255, np.uint8)) == []


def test_training_never_sees_the_test_split() -> None:
    for i in range(2000):
        rng = generator(3, "train", i)
        scene = sample_scene(rng)
        change = edit(scene, rng)
        for shown in (scene, change.before, change.after):
            assert not is_test_scene(shown)
            assert not any((o.colour, o.shape) in HELD_OUT_PAIRS for o in shown.objects)
        for text in (caption(scene, rng), caption(scene, rng, is_complete=True), change.instruction):
            assert not is_test_text(text)


def test_test_scenes_are_of_the_test_split() -> None:
    assert all(is_test_scene(scene) for scene in scenes(100, "test"))


def changes(scene: Scene) -> list[Scene]:
    """Change one object's colour, or its shape, or add one."""
    first = scene.objects[0]
    colour = COLOUR_NAMES[(COLOUR_NAMES.index(first.colour) + 1) % len(COLOUR_NAMES)]
    shape = SHAPES[(SHAPES.index(first.shape) + 1) % len(SHAPES)]
    rest = scene.objects[1:]
    return [
        Scene((replace(first, colour=colour), *rest)),
        Scene((replace(first, shape=shape), *rest)),
        Scene((*scene.objects, first)),
    ]


def test_captions_are_true_and_notice_changes() -> None:
    for i, scene in enumerate(scenes()):
        rng = generator(4, "caption", i)
        complete = caption(scene, rng, is_complete=True)
        assert caption_is_right(complete, scene), (complete, scene)
        assert not any(caption_is_right(complete, other) for other in changes(scene)), (complete, scene)
        short = parse(caption(scene, rng))
        assert short is not None and short.holds(scene.objects)


def test_what_a_caption_leaves_out_is_usual() -> None:
    for i, scene in enumerate(scenes()):
        rng = generator(6, "usual", i)
        for text in (caption(scene, rng), caption(scene, rng, is_complete=True)):
            statement = parse(text)
            assert statement is not None
            tells_places = all(item.place for item in statement.items)
            assert tells_places or usual_places(scene) is not None, (text, scene)
            if not tells_places and statement.relation is None:
                assert usual_places(scene) == USUAL_PLACES[len(scene.objects)][0], (text, scene)
            for thing in scene.objects:
                items = [item for item in statement.items if item.shape == thing.shape]
                assert thing.size == USUAL_SIZE or any(item.size for item in items), (text, scene)
                assert thing.colour == USUAL_COLOUR or any(item.colour for item in items), (text, scene)


def test_every_training_scene_has_a_caption() -> None:
    for shape in SHAPES:
        for colour in COLOUR_NAMES:
            thing = SceneObject(shape, colour, "small", 0.5, 0.5)
            for count in (1, 2, 3, 4):
                scene = Scene((thing,) * count)
                assert caption(scene, generator(0, "all", shape, colour, count), is_complete=True)


@pytest.mark.parametrize(
    ("text", "is_grammar"),
    [
        ("a red circle", True),
        ("draw an orange star in the top left", True),
        ("three crosses", True),
        ("a red circle left of a small blue square", True),
        ("a circle, two stars and a cross", True),
        ("a red circles", False),
        ("three cross", False),
        ("a crimson circle", False),
        ("a circle a star", False),
        ("", False),
        ("a red circle left of", False),
    ],
)
def test_grammar(text: str, is_grammar: bool) -> None:
    assert (parse(text) is not None) == is_grammar


def test_answers_are_accepted_and_others_rejected() -> None:
    answers: list[str] = []
    for i, scene in enumerate(scenes()):
        turn = question(scene, generator(5, "question", i))
        assert answer_is_right(scene, turn.question, f" {turn.answer.upper()} "), (turn, scene)
        assert not answer_is_right(scene, turn.question, "maybe")
        assert true_answer(scene, turn.question + "?") == turn.answer
        answers.append(turn.answer)
    assert 0.5 < answers.count("yes") / max(answers.count("no"), 1) < 2
    assert true_answer(scenes(1)[0], "what is love") is None


def test_edits_are_right_after_and_wrong_before() -> None:
    kinds: set[str] = set()
    for i, scene in enumerate(scenes(200)):
        change = edit(scene, generator(6, "edit", i))
        assert edit_is_right(render(change.after), change)
        assert not edit_is_right(render(change.before), change)
        kinds.add(change.instruction.split()[0])
    assert kinds == {"make", "remove", "add", "move", "turn"}


def test_stories_go_on_from_picture_to_picture() -> None:
    for i in range(30):
        pages = story(generator(7, "story", i))
        assert 1 <= len(pages) <= 4
        assert caption_is_right(pages[0][0], pages[0][1])


@pytest.mark.parametrize("category", CATEGORIES)
def test_prompts_are_new_distinct_and_can_be_satisfied(category: str) -> None:
    asked = prompts(category, 110, 0)  # type: ignore[arg-type]
    assert len({prompt.text for prompt in asked}) == 110
    assert all(is_test_text(prompt.text) for prompt in asked)
    named = [prompt for prompt in asked if any(item.colour for item in prompt.statement.items)]
    if category in ("colors", "color_attribution"):
        assert 0.15 < np.mean([prompt.has_held_out_pair for prompt in named]) < 0.5
    for i, prompt in enumerate(asked):
        scene = scene_for(prompt, generator(8, "scene", i))
        assert satisfies(render(scene), prompt)
        assert not satisfies(render(changes(scene)[1]), prompt)
        assert not satisfies(render(Scene(scene.objects[1:])), prompt)


def test_too_many_prompts_are_refused() -> None:
    with pytest.raises(ValueError, match="gave only"):
        prompts("single_object", 5000, 0)


def digest(make: Callable[[int], bytes]) -> str:
    """Hash what is made of the first ten keys."""
    return hashlib.sha256(b"".join(make(i) for i in range(10))).hexdigest()[:12]


def test_the_same_key_makes_the_same_world() -> None:
    def words(i: int) -> bytes:
        rng = generator(0, "golden", i)
        scene = sample_scene(rng)
        return f"{caption(scene, rng)}|{question(scene, rng)}|{edit(scene, rng).instruction}".encode()

    def pixels(i: int) -> bytes:
        return render(sample_scene(generator(0, "golden", i))).tobytes()

    assert digest(words) == digest(words)
    assert digest(pixels) == digest(pixels)


def test_a_relation_holds_for_all_that_are_counted() -> None:
    reds = [SceneObject("circle", "red", "small", x, 0.5) for x in (0.25, 0.75)]
    beside = Scene((*reds, SceneObject("square", "blue", "small", 0.25, 0.25)))
    above = Scene((*reds, SceneObject("square", "blue", "small", 0.5, 0.75)))
    assert not caption_is_right("two red circles left of a blue square", beside)
    assert caption_is_right("two red circles below a blue square", beside)
    assert not caption_is_right("a blue square right of two red circles", beside)
    assert caption_is_right("two red circles above a blue square", above)
    assert caption_is_right("a blue square below two red circles", above)


def test_a_question_about_one_of_several_has_no_answer() -> None:
    circles = [SceneObject("circle", colour, "small", x, 0.5) for colour, x in (("red", 0.25), ("blue", 0.75))]
    scene = Scene((*circles, SceneObject("star", "red", "small", 0.5, 0.25)))
    assert true_answer(scene, "what colour is the circle") is None
    assert true_answer(scene, "what colour is the star") == "red"
    assert true_answer(scene, "where is the blue circle") == "right"
    assert true_answer(scene, "where is the blue star") is None
    assert true_answer(scene, "is the star above the circle") is None
    assert not answer_is_right(scene, "what colour is the circle", "red")
