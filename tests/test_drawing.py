"""Drawing: one and many, and the names that a user of diffusers tries."""

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from spaces import Blocks
from tiny import make_model, small

from transfusion import describing
from transfusion.autoencoder.space import Picture
from transfusion.config import ConfigError
from transfusion.diffusion.guidance import Guidance
from transfusion.generate.row import Row, Track
from transfusion.segments import Document, Latent, Text

MODEL = small()
PICTURE, OTHER = Image.new("RGB", (40, 30), "red"), Image.new("RGB", (32, 32), "blue")


@pytest.fixture(autouse=True)
def _few_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a few tokens of a caption alone: an untrained model does not end it."""
    monkeypatch.setattr(describing, "MAX_CAPTION_TOKENS", 4)


def same(one: Image.Image, other: Image.Image) -> bool:
    """Return whether two pictures have the same pixels, up to one level: forwards of other shapes round otherwise."""
    return bool(np.abs(np.asarray(one, dtype=int) - np.asarray(other, dtype=int)).max() <= 1)


def all_same(one: list[Image.Image], other: list[Image.Image]) -> bool:
    """Return whether two lists have the same pictures."""
    return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))


def test_one_prompt_gives_one_picture_and_a_list_a_list() -> None:
    one = MODEL.generate_images("a star", seed=3)
    assert isinstance(one, Image.Image) and one.size == (32, 32)
    for many in (["a star", "a circle"], ("a star", "a circle")):
        pictures = MODEL.generate_images(many, seed=3)
        assert same(pictures[0], one) and same(pictures[1], MODEL.generate_images("a circle", seed=4))
    assert all_same(MODEL.generate_images(["a star"], seed=3), [one]) and MODEL.generate_images([]) == []
    assert not same(one, MODEL.generate_images("a star"))
    assert same(MODEL.generate_images("a star"), MODEL.generate_images("a star", seed=0))


def test_captions_answers_and_edits_follow_the_same_rule() -> None:
    captions = MODEL.caption([PICTURE, OTHER])
    assert [MODEL.caption(PICTURE), MODEL.caption(OTHER)] == captions and MODEL.caption((PICTURE,)) == captions[:1]
    assert MODEL.caption(np.stack([np.asarray(OTHER)] * 2)) == [captions[1]] * 2  # pyright: ignore
    assert MODEL.caption([]) == []
    answer = MODEL.ask(PICTURE, "how many?")
    assert isinstance(answer, str) and MODEL.ask([PICTURE], "how many?") == [answer]
    answers = MODEL.ask(PICTURE, ["how many?", "which"])
    assert answers == [answer, MODEL.ask(PICTURE, "which")] == MODEL.ask_many([PICTURE] * 2, ["how many?", "which"])
    assert MODEL.ask([PICTURE, OTHER], ["how many?", "which"]) == [answer, MODEL.ask(OTHER, "which")]
    edit = MODEL.edit(PICTURE, "x", seed=2)
    assert isinstance(edit, Image.Image)
    assert all_same(MODEL.edit(PICTURE, ["x", "y"], seed=2), [edit, MODEL.edit(PICTURE, "y", seed=3)])
    assert all_same(MODEL.edit([PICTURE, OTHER], "x", seed=2), MODEL.edit_many([PICTURE, OTHER], ["x", "x"], seed=2))
    with pytest.raises(ConfigError, match="2 pictures and 1 texts, each an instruction"):
        MODEL.edit_many([PICTURE, OTHER], ["x"])


def test_names_of_diffusers_are_ours() -> None:
    ours = MODEL.generate_images("a star", steps=2, guidance=1.5, seed=7)
    assert same(MODEL.generate_images("a star", num_inference_steps=2, guidance_scale=1.5, seed=7), ours)
    assert same(MODEL.generate_images("a star", steps=2, num_inference_steps=2, guidance=1.5, seed=7), ours)
    generator = torch.Generator().manual_seed(7)
    for seed in ({"generator": generator}, {"generator": generator, "seed": 7}, {"generator": [generator]}):
        assert same(MODEL.generate_images("a star", steps=2, guidance=1.5, **seed), ours)
    several = [torch.Generator().manual_seed(seed) for seed in (7, 1)]
    pictures = MODEL.generate_images(["a star", "a star"], steps=2, guidance=1.5, generator=several)
    assert same(pictures[0], ours) and same(pictures[1], MODEL.generate_images("a star", steps=2, guidance=1.5, seed=1))
    assert same(MODEL.generate_images("a star", steps=2, guidance=1.5, seed=np.int64(7)), ours)  # pyright: ignore


def test_several_pictures_of_each_prompt_come_in_one_flat_list() -> None:
    found = MODEL.generate_images(["a star", "a circle"], steps=1, num_images_per_prompt=2, seed=5)
    wanted = [MODEL.generate_images(p, steps=1, seed=5 + i) for i, p in enumerate(["a star"] * 2 + ["a circle"] * 2)]
    assert all_same(found, wanted)
    assert all_same(MODEL.generate_images("a star", steps=1, num_images_per_prompt=2, seed=5), wanted[:2])
    one = MODEL.generate_images("a star", steps=1, num_images_per_prompt=1, seed=5)
    assert isinstance(one, Image.Image) and same(one, wanted[0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 2, "num_inference_steps": 3}, "steps=2 and num_inference_steps=3 are names of one thing"),
        ({"guidance": 2.0, "guidance_scale": 3.0}, r"guidance=2\.0 and guidance_scale=3\.0"),
        ({"seed": 1, "generator": torch.Generator().manual_seed(2)}, r"seed=1 and generator\.initial_seed\(\)=2"),
        ({"generator": [torch.Generator()] * 2}, "2 generators for 1 pictures"),
        ({"generator": [torch.Generator()], "seed": 1}, "and a seed"),
        ({"generator": [1]}, "generator is 1; expected a torch.Generator"),
        ({"seed": "x"}, "seed is 'x'; expected a whole number"),
        ({"num_images_per_prompt": 0}, "num_images_per_prompt is 0"),
        ({"num_images_per_prompt": 1.5}, "num_images_per_prompt is 1.5"),
        ({"num_inference_steps": 0}, "num_steps"),
        ({"guidance_scale": -1.0}, "scale"),
        ({"negative_prompt": "blur", "guidance_scale": 1.0}, "negative_prompt reaches nothing at a guidance of 1"),
        ({"negative_prompt": ["a", "b"]}, "2 negative prompts and 1 prompts"),
        ({"negative_prompt": 7}, "a negative prompt; got int"),
    ],
)
def test_what_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MODEL.generate_images("a star", **settings)
    with pytest.raises(TypeError, match="num_inferense_steps"):
        MODEL.generate_images("a star", num_inferense_steps=1)  # pyright: ignore


def test_guidance_leads_away_from_the_negative_prompt() -> None:
    plain = MODEL.generate_images("a star", seed=1)
    away = MODEL.generate_images("a star", seed=1, negative_prompt="a circle")
    assert not same(plain, away)
    assert same(plain, MODEL.generate_images("a star", seed=1, negative_prompt=""))
    both = MODEL.generate_images(["a star", "a star"], seed=1, negative_prompt=["a circle", ""])
    assert same(both[0], away) and same(both[1], MODEL.generate_images("a star", seed=2))
    shared = MODEL.generate_images(["a star"] * 2, seed=1, negative_prompt="a circle", num_images_per_prompt=2)
    assert len(shared) == 4 and same(shared[0], away)


def test_a_prompt_that_is_its_own_negative_is_not_guided_at_all() -> None:
    guided = MODEL.generate_images("a star", seed=1, guidance=4.0, negative_prompt="a star")
    unguided = MODEL.generate_images("a star", seed=1, guidance=1.0)
    assert same(guided, unguided)  # u + w (c - u) with c = u


def test_the_second_branch_sees_latents_and_the_negative_text() -> None:
    model = make_model()
    latent = Latent(torch.zeros(2, 4, 4), "image")
    prompt = Document((latent, Text((1, 2, 3))), is_complete=False)
    slots = dict[tuple[int, ...], int]()
    for negative in ((), (5,), (5, 6)):
        options = MODEL.options().model_copy(update={"negative": negative, "shapes": {"image": (2, 4, 4)}})
        row = Row(0, prompt, options, model.vocabulary, Track(prompt, model.vocabulary, 0))
        row.open_latent(1)
        row.open_twin(1)
        assert row.twin is not None
        told = row.twin.writer.columns().tokens.tolist()
        assert told[-1 - len(negative) : -1] == list(negative) and len(row.twin.spans) == 1
        slots[negative] = len(told)
    assert slots[(5, 6)] == slots[()] + 2


@pytest.mark.parametrize(("sampler", "steps"), [("euler", 3), ("heun", 3), ("heun", 1), ("ddpm", 2)])
def test_a_callback_is_told_every_step_of_every_picture(sampler: str, steps: int) -> None:
    told: list[tuple[object, int, float, int, int]] = []
    last: dict[int, Image.Image] = {}

    def watch(model: object, step: int, t: float, preview: Any) -> None:
        told.append((model, step, t, preview["index"], preview["num_steps"]))
        last[preview["index"]] = preview["picture"]

    prompts = ["a star", "a circle"]
    pictures = MODEL.generate_images(prompts, sampler=sampler, steps=steps, callback_on_step_end=watch)
    assert all_same(pictures, MODEL.generate_images(prompts, sampler=sampler, steps=steps))
    assert all_same([last[0], last[1]], pictures)
    for place in (0, 1):
        mine = [row for row in told if row[3] == place]
        assert [row[1] for row in mine] == list(range(steps)) and all(row[0] is MODEL for row in mine)
        times = [row[2] for row in mine]
        assert times[0] == 1.0 and times == sorted(times, reverse=True) and mine[0][4] == steps


def test_what_is_drawn_apart_is_drawn_by_itself() -> None:
    rows = list[int]()
    hook = MODEL.model.trunk.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    try:
        together = MODEL.generate_images(["a star", "a circle"], guidance=1.0)
        assert max(rows) == 2
        rows.clear()
        apart = MODEL.generate_images(["a star", "a circle"], guidance=1.0, is_apart=True)
        assert set(rows) == {1} and all_same(apart, together)
    finally:
        hook.remove()


def test_what_is_not_looked_at_is_not_decoded() -> None:
    class Counting(Blocks):
        num_decoded: ClassVar[int] = 0

        def decode(self, latent: torch.Tensor) -> Picture:
            Counting.num_decoded += 1
            return super().decode(latent)

    settings = ("model.modalities.0.patch_size=[2,2]", "model.modalities.0.max_grid=[2,2]")
    model = replace(small(*settings), space=Counting(2))
    seen: list[Image.Image] = []

    def look(_: object, step: int, __: float, preview: Any) -> None:
        if step == 2:  # the last
            seen.append(preview["picture"])

    pictures = model.generate_images(["a star", "a circle"], steps=3, callback_on_step_end=look)
    assert Counting.num_decoded == 2 and all_same(seen, pictures)


def test_what_a_callback_raises_comes_out_and_breaks_nothing() -> None:
    def stop(*_: object) -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        MODEL.generate_images(["a star"], steps=3, callback_on_step_end=stop)
    assert MODEL.generate_images([], callback_on_step_end=stop) == []
    assert MODEL.denoising(guidance=2.0).guidance == Guidance(scale=2.0)


def test_a_negative_prompt_longer_than_a_row_is_refused() -> None:
    with pytest.raises(ConfigError, match="the prompt takes"):
        small("train.row_length=128").generate_images("a star", negative_prompt="x" * 128)
    for bad in ({"seed": 1.5}, {"seed": None}):
        with pytest.raises(ConfigError, match="expected a whole number"):
            MODEL.edit(PICTURE, "x", **bad)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="expected a torch.Generator"):
        MODEL.generate_images("a star", generator=np.random.default_rng())  # pyright: ignore[reportArgumentType]
