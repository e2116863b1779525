"""GenEval's six categories in the built-in world, scored by the exact detector (GenEval, 2310.11513)."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from PIL import Image

from transfusion.data.shapes import CATEGORIES, Prompt, prompts, satisfies


class Drawer(Protocol):
    """Draws a picture for every prompt."""

    def generate_images(self, prompts: Sequence[str], *, seed: int = 0) -> list[Image.Image]:
        """Return RGB pictures in the order of the prompts."""
        ...


class Drawn(NamedTuple):
    """A prompt, the picture drawn for it, and whether it shows just that."""

    prompt: Prompt
    picture: Image.Image
    is_right: bool


def evaluate_geneval(model: Drawer, *, num_prompts: int, seed: int) -> list[Drawn]:
    """Draw ``num_prompts`` prompts of every category and judge the pictures."""
    asked = [prompt for category in CATEGORIES for prompt in prompts(category, num_prompts, seed)]
    pictures = model.generate_images([prompt.text for prompt in asked], seed=seed)
    return [
        Drawn(prompt, picture, satisfies(np.asarray(picture), prompt))
        for prompt, picture in zip(asked, pictures, strict=True)
    ]


def geneval_scores(drawn: Sequence[Drawn]) -> dict[str, float]:
    """Return the share of right pictures by category, and their mean as ``"overall"``, as GenEval does."""
    scores = {name: _share([d.is_right for d in drawn if d.prompt.category == name]) for name in CATEGORIES}
    return {"overall": sum(scores.values()) / len(scores), **scores}


def held_out_score(drawn: Sequence[Drawn]) -> float:
    """Return the share of right pictures among prompts with a colour and shape never shown together."""
    return _share([d.is_right for d in drawn if d.prompt.has_held_out_pair])


def _share(rights: Sequence[bool]) -> float:
    return sum(rights) / max(len(rights), 1)
