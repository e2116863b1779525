"""Drawing, by prompts and by edits, under the names that a user of diffusers knows, beside our own.

It must not know the engine.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import index
from typing import Any, overload

import torch
from PIL import Image

from transfusion.asking import Asked, Shown, Watch, agreed
from transfusion.config import ConfigError
from transfusion.diffusion.schedule import sampling_times
from transfusion.generate.options import DenoisingOptions
from transfusion.prompts import PictureLike, Pictures, Texts, check_said, paired, several_texts


class StepPreview(Mapping[str, Any]):
    """What a callback is told of a picture that is under way, by these keys.

    ``"index"``: which of the pictures that will be returned. ``"num_steps"``: steps of each picture. ``"picture"``:
    what it is so far, after the last step the picture itself; it is decoded when it is asked for.
    """

    def __init__(self, index: int, num_steps: int, shown: Shown) -> None:
        """Bind what is told."""
        self._told: dict[str, Callable[[], Any]] = {
            "index": lambda: index,
            "num_steps": lambda: num_steps,
            "picture": shown,
        }

    def __getitem__(self, key: str) -> Any:  # noqa: ANN401  # numbers and a picture
        return self._told[key]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._told)

    def __len__(self) -> int:
        return len(self._told)


StepCallback = Callable[[object, int, float, StepPreview], object]
Generators = torch.Generator | Sequence[torch.Generator]


@overload
def generate_images(  # pyright: ignore[reportOverlappingOverload]
    self: Asked,
    prompts: str,
    *,
    guidance: float | None = None,
    steps: int | None = None,
    sampler: str | None = None,
    seed: int | None = None,
    guidance_scale: float | None = None,
    num_inference_steps: int | None = None,
    negative_prompt: str | None = None,
    num_images_per_prompt: None = None,
    generator: Generators | None = None,
    callback_on_step_end: StepCallback | None = None,
    is_apart: bool = False,
) -> Image.Image: ...
@overload
def generate_images(
    self: Asked,
    prompts: str | Sequence[str],
    *,
    guidance: float | None = None,
    steps: int | None = None,
    sampler: str | None = None,
    seed: int | None = None,
    guidance_scale: float | None = None,
    num_inference_steps: int | None = None,
    negative_prompt: str | Sequence[str] | None = None,
    num_images_per_prompt: int | None = None,
    generator: Generators | None = None,
    callback_on_step_end: StepCallback | None = None,
    is_apart: bool = False,
) -> list[Image.Image]: ...
def generate_images(  # noqa: D417
    self: Asked,
    prompts: str | Sequence[str],
    *,
    guidance: float | None = None,
    steps: int | None = None,
    sampler: str | None = None,
    seed: int | None = None,
    guidance_scale: float | None = None,
    num_inference_steps: int | None = None,
    negative_prompt: str | Sequence[str] | None = None,
    num_images_per_prompt: int | None = None,
    generator: Generators | None = None,
    callback_on_step_end: StepCallback | None = None,
    is_apart: bool = False,
) -> Image.Image | list[Image.Image]:
    """Draw prompts: one picture for one prompt, a list for a list. What is None is as the model's settings say.

    Args:
        prompts: A caption, or several.
        guidance: Scale of classifier-free guidance; 1 is none. Or ``guidance_scale``.
        steps: Steps of the sampler. Or ``num_inference_steps``.
        sampler: ``"ddpm"``, ``"ddim"``, ``"euler"``, ``"heun"`` or ``"dpm_solver_2m"``.
        seed: Picture i is a function of (seed + i, prompt) alone; 0 where neither it nor ``generator`` is given.
        guidance_scale: Another name of ``guidance``.
        num_inference_steps: Another name of ``steps``.
        negative_prompt: What guidance leads away from, for all prompts or one for each.
        num_images_per_prompt: So many pictures of each prompt, side by side in one flat list; 1 of one prompt is that
            picture.
        generator: Its ``initial_seed()`` is the seed; or one for each picture.
        callback_on_step_end: Is called as ``(model, step, t, preview)`` after each step of each picture: the step from
            0, the time from 1 (noise) to 0 at which it began, and a ``StepPreview``. What it returns is ignored.
        is_apart: Draw each by itself: slower, and in bf16, too, the same to the bit in any company.

    Raises:
        ConfigError: A number is out of range, two names of one thing differ, or a setting reaches nothing.
    """
    told, is_list = several_texts(prompts, "a prompt")
    check_said(told, "a prompt")
    self.warn_untold("draw")
    count = _count(num_images_per_prompt)
    scale = agreed("guidance", guidance, "guidance_scale", guidance_scale)
    num_steps = agreed("steps", steps, "num_inference_steps", num_inference_steps)
    denoising = self.asking.denoising(guidance=scale, steps=num_steps, sampler=sampler)
    negatives = _negatives(negative_prompt, len(told), denoising)
    encoder = self.asking.prompts.encoder
    for text in set(negatives):
        self.asking.checked(encoder.draw_prompt(text))  # guidance's other branch has to fit, too
    seeds = _seeds(seed, generator, len(told) * count)
    rows = [pair for pair in zip(told, negatives, strict=True) for _ in range(count)]
    requests = [
        (
            encoder.draw_prompt(text),
            self.asking.drawing(seed=number, denoising=denoising, negative=negative, is_apart=is_apart),
        )
        for (text, negative), number in zip(rows, seeds, strict=True)
    ]
    watch = None if callback_on_step_end is None else _watch(self, denoising, callback_on_step_end)
    pictures = self.asking.pictures(requests, watch)
    return pictures if is_list or count > 1 else pictures[0]


@overload  # a string is a sequence of strings to the checker, and never to us
def edit(  # pyright: ignore[reportOverlappingOverload]
    self: Asked,
    image: PictureLike,
    instruction: str,
    *,
    guidance: float | None = None,
    steps: int | None = None,
    sampler: str | None = None,
    seed: int = 0,
) -> Image.Image: ...
@overload
def edit(
    self: Asked,
    image: Pictures,
    instruction: Texts,
    *,
    guidance: float | None = None,
    steps: int | None = None,
    sampler: str | None = None,
    seed: int = 0,
) -> list[Image.Image]: ...
def edit(
    self: Asked,
    image: Pictures,
    instruction: Texts,
    *,
    guidance: float | None = None,
    steps: int | None = None,
    sampler: str | None = None,
    seed: int = 0,
) -> Image.Image | list[Image.Image]:
    """Change a picture as an instruction says; or each as its own says, one in several ways, or several in one way.

    Args:
        self: The model.
        image: One, or several.
        instruction: One, or several.
        guidance: Scale of guidance; None, as for the next two: as the model's settings say.
        steps: Steps of the sampler.
        sampler: Its name.
        seed: Picture i is drawn by seed + i.

    Raises:
        ConfigError: The sampler is unknown or a number is out of range.
    """
    pictures, instructions, is_many = paired(image, instruction, "an instruction")
    check_said(instructions, "an instruction")
    self.warn_untold("edit")
    asking, first = self.asking, _whole(seed)
    denoising = asking.denoising(guidance=guidance, steps=steps, sampler=sampler)
    encoder, found = asking.prompts.encoder, asking.prompts.pictures(pictures)
    requests = [
        (encoder.edit_prompt(picture, told), asking.drawing(seed=first + i, denoising=denoising))
        for i, (picture, told) in enumerate(zip(found, instructions, strict=True))
    ]
    edited = asking.pictures(requests)
    return edited if is_many else edited[0]


def edit_many(
    self: Asked, images: Sequence[PictureLike], instructions: Sequence[str], *, seed: int = 0
) -> list[Image.Image]:
    """Change each picture as its instruction says."""
    return edit(self, list(images), list(instructions), seed=seed)


def _count(count: int | None) -> int:
    if count is not None and (not isinstance(count, int) or count < 1):
        raise ConfigError(f"num_images_per_prompt is {count!r}; expected a whole number of at least 1")
    return 1 if count is None else count


def _negatives(given: str | Sequence[str] | None, count: int, denoising: DenoisingOptions) -> list[str]:
    if given is None:
        return [""] * count
    found, is_list = several_texts(given, "a negative prompt")
    if is_list and len(found) != count:
        raise ConfigError(f"{len(found)} negative prompts and {count} prompts; give as many, or one for all")
    if any(found) and denoising.guidance.scale == 1:
        raise ConfigError(
            "negative_prompt reaches nothing at a guidance of 1, which is none; give guidance_scale=3 (--guidance 3)"
        )
    return found if is_list else found * count


def _seeds(seed: int | None, generator: Generators | None, count: int) -> list[int]:
    """Return a seed for each picture."""
    if isinstance(generator, torch.Generator) or generator is None or not isinstance(generator, Sequence):
        first = None if generator is None else _initial_seed(generator)
        given = None if seed is None else _whole(seed)
        chosen = agreed("seed", given, "generator.initial_seed()", first) or 0
        return [chosen + place for place in range(count)]
    seeds = [_initial_seed(each) for each in generator]
    if seed is not None or len(seeds) != count:
        raise ConfigError(
            f"{len(seeds)} generators for {count} pictures{'' if seed is None else ' and a seed'}; give one for each "
            "picture, or a single one, or a seed"
        )
    return seeds


def _whole(seed: int) -> int:
    try:
        return index(seed)
    except TypeError as error:
        raise ConfigError(f"seed is {seed!r}; expected a whole number") from error


def _initial_seed(generator: object) -> int:
    if not isinstance(generator, torch.Generator):
        raise ConfigError(f"generator is {generator!r:.80}; expected a torch.Generator, or give seed=0")
    return generator.initial_seed()


def _watch(model: object, denoising: DenoisingOptions, callback: StepCallback) -> Watch:
    times = sampling_times(denoising.num_steps, denoising.shift).tolist()

    def watch(place: int, step: int, shown: Shown) -> None:
        callback(model, step, times[step], StepPreview(place, denoising.num_steps, shown))

    return watch
