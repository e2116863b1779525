"""Captions, answers and edits of test scenes in the built-in world, scored by parsing and by the detector."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from transfusion.data.shapes import (
    Edit,
    Scene,
    answer_is_right,
    caption_is_right,
    edit,
    edit_is_right,
    question,
    render,
    sample_scene,
)
from transfusion.keyed import generator

Pixels = NDArray[np.uint8]


class Captioner(Protocol):
    """Describes pictures."""

    def caption(self, images: Sequence[Pixels]) -> list[str]:
        """Return one caption per picture."""
        ...


class Answerer(Protocol):
    """Answers questions about pictures."""

    def ask_many(self, images: Sequence[Pixels], questions: Sequence[str]) -> list[str]:
        """Return one answer per picture and question."""
        ...


class Editor(Protocol):
    """Edits pictures."""

    def edit_many(self, images: Sequence[Pixels], instructions: Sequence[str], *, seed: int = 0) -> list[Image.Image]:
        """Return one picture per picture and instruction."""
        ...


class Captioned(NamedTuple):
    """A test picture and what the model says of it."""

    picture: Pixels
    scene: Scene
    text: str
    is_right: bool


class Answered(NamedTuple):
    """A test picture, a question, the true answer and the model's."""

    picture: Pixels
    question: str
    truth: str
    text: str
    is_right: bool


class Edited(NamedTuple):
    """A test edit and the picture that the model made of it."""

    before: Pixels
    change: Edit
    picture: Image.Image
    is_right: bool


def evaluate_captions(model: Captioner, resolution: int, *, num_scenes: int, seed: int) -> list[Captioned]:
    """Caption test scenes; a caption is right if it names every object's colour and shape and nothing untrue."""
    scenes = [sample_scene(generator(seed, "caption-scene", i), split="test") for i in range(num_scenes)]
    pictures = [render(scene, resolution) for scene in scenes]
    texts = model.caption(pictures)
    return [
        Captioned(picture, scene, text, caption_is_right(text, scene))
        for picture, scene, text in zip(pictures, scenes, texts, strict=True)
    ]


def evaluate_questions(model: Answerer, resolution: int, *, num_scenes: int, seed: int) -> list[Answered]:
    """Ask one question about each of so many test scenes."""
    results: list[tuple[Pixels, Scene, str, str]] = []
    for i in range(num_scenes):
        rng = generator(seed, "question-scene", i)
        scene = sample_scene(rng, split="test")
        turn = question(scene, rng)
        results.append((render(scene, resolution), scene, turn.question, turn.answer))
    texts = model.ask_many([row[0] for row in results], [row[2] for row in results])
    return [
        Answered(picture, asked, truth, text, answer_is_right(scene, asked, text))
        for (picture, scene, asked, truth), text in zip(results, texts, strict=True)
    ]


def evaluate_edits(model: Editor, resolution: int, *, num_scenes: int, seed: int) -> list[Edited]:
    """Edit so many test scenes; an edit is right if it changed what was told and nothing else."""
    changes: list[Edit] = []
    for i in range(num_scenes):
        rng = generator(seed, "edit-scene", i)
        changes.append(edit(sample_scene(rng, split="test"), rng, split="test"))
    befores = [render(change.before, resolution) for change in changes]
    pictures = model.edit_many(befores, [change.instruction for change in changes], seed=seed)
    return [
        Edited(before, change, picture, edit_is_right(np.asarray(picture), change))
        for before, change, picture in zip(befores, changes, pictures, strict=True)
    ]
