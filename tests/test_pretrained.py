"""The Python surface on an untrained model: shapes, round trips, scores, and what is refused."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from transfusion.config import ConfigError, override
from transfusion.generate.options import FinishedEvent, LatentEvent
from transfusion.pretrained import Transfusion
from transfusion.recipes import RECIPES
from transfusion.segments import Document, Latent, Text
from transfusion.train.state import begin

SMALL = ("model.trunk.dim=32", "model.trunk.depth=1", "denoising.num_steps=2", "tokenizer.kind=bytes")
PICTURE = Image.new("RGB", (40, 30), "red")


@pytest.fixture(scope="module")
def model() -> Transfusion:
    """Begin a run of the built-in world and take its first weights."""
    state = begin(override(RECIPES["tiny"](), SMALL), torch.device("cpu"))
    return Transfusion(state.model, state.tokenizer, state.config)


def test_pictures_and_texts_come_back(model: Transfusion) -> None:
    pictures = model.generate_images(["a star", "a circle"], steps=1, seed=3)
    assert [picture.size for picture in pictures] == [(32, 32), (32, 32)]
    assert np.array_equal(pictures[1], model.generate_images(["a circle"], steps=1, seed=4)[0])
    assert model.edit(PICTURE, "make it blue").size == (32, 32)
    assert len(model.caption([PICTURE, np.asarray(PICTURE)])) == 2
    assert model.ask(PICTURE, "how many?") == model.ask(PICTURE, " how many ")


def test_a_checkpoint_is_the_same_model(model: Transfusion, tmp_path: Path) -> None:
    again = Transfusion.from_pretrained(model.save_pretrained(tmp_path / "saved"))
    assert again.config == model.config
    assert model.score(["a star", PICTURE]) == again.score(["a star", PICTURE])


def test_a_list_is_scored_whole_and_a_document_by_its_targets(model: Transfusion) -> None:
    score = model.score(["a star", PICTURE, "yes"])
    assert score.num_tokens == len("a star") + 1 + len("yes")  # BEGIN is a target too
    assert score.log_likelihood < 0 and score.denoising["image"] > 0
    asked = model.document([PICTURE, Text((97, 98), is_target=False), Text((99,))])
    assert model.score(asked).denoising == {} and model.score(asked).num_tokens == 1


def test_generate_continues_and_stream_tells_the_same(model: Transfusion) -> None:
    options = model.options(max_tokens=3, begins_with_image=True, seed=1)
    document = model.generate(["a star"], options)
    assert isinstance(document, Document) and any(isinstance(part, Latent) for part in document.segments)

    async def events() -> list[object]:
        return [event async for event in model.stream(["a star"], options)]

    told = asyncio.run(events())
    assert any(isinstance(event, LatentEvent) for event in told)
    (last,) = [event for event in told if isinstance(event, FinishedEvent)]
    for one, other in zip(document.segments, last.result.document.segments, strict=True):
        if isinstance(one, Latent) and isinstance(other, Latent):
            assert torch.equal(one.values, other.values)
        else:
            assert one == other


def test_what_is_refused(model: Transfusion) -> None:
    with pytest.raises(ConfigError, match="expected a list of prompts"):
        model.generate_images("a star")
    with pytest.raises(ConfigError, match="expected a list of pictures"):
        model.caption("out.png")
    with pytest.raises(ConfigError, match="a question is empty"):
        model.ask(PICTURE, "???")
    with pytest.raises(ConfigError, match="an instruction is empty"):
        model.edit(PICTURE, "")
