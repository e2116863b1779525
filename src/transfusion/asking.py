"""Asking the engine: which options a model's settings make, requests in one batch, and what comes of them.

It must not know how a user's pictures and words become prompts (``prompts``), nor files.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import NamedTuple, Protocol, TypeVar

import torch
from PIL import Image
from pydantic import ValidationError

from transfusion.batch import collate
from transfusion.config import ConfigError, described
from transfusion.data.encode import CHAT, IMAGE
from transfusion.data.tasks import told_tasks
from transfusion.data.turns import spoken
from transfusion.diffusion.process import make_process
from transfusion.generate.engine import Engine
from transfusion.generate.options import (
    DenoisingOptions,
    Event,
    FailedEvent,
    GenerationOptions,
    LatentEvent,
    PreviewEvent,
    TokenEvent,
    TokenOptions,
)
from transfusion.layout import num_slots
from transfusion.model.transfusion import TransfusionModel
from transfusion.objective import KeyedDraw, TransfusionObjective
from transfusion.prompts import Prompts
from transfusion.segments import Document, Latent, Segment, Text
from transfusion.tokenizer import Tokenizer

MAX_CAPTION_TOKENS = 64
MAX_ANSWER_TOKENS = 16
MAX_SPOKEN_TOKENS = 256
DOINGS = {
    "draw": "draw pictures",
    "caption": "describe pictures",
    "ask": "answer questions about pictures",
    "edit": "change pictures",
}
HELD_TOKENS, CONTEXT_TOKENS = 64, 8
BROKEN = "\N{REPLACEMENT CHARACTER}"
Request = tuple[Document, GenerationOptions]
Shown = Callable[[], Image.Image]  # a picture that is decoded when it is asked for, once
Watch = Callable[[int, int, Shown], None]  # which picture, after which step from 0, what it is so far
Value = TypeVar("Value")
_log = logging.getLogger(__name__)


class Score(NamedTuple):
    """How well a model foretells a document.

    Attributes:
        log_likelihood: Sum over target tokens, in nats.
        num_tokens: How many target tokens there are.
        denoising: Mean squared error of each modality's latents at the document's keyed times.
    """

    log_likelihood: float
    num_tokens: int
    denoising: dict[str, float]


@dataclass(frozen=True)
class Asking:
    """A model that can be asked; nothing is kept from one question to the next.

    Attributes:
        model: The network.
        prompts: Makes its prompts.
        dtype: In which it computes.
    """

    model: TransfusionModel
    prompts: Prompts
    dtype: torch.dtype

    def engine(self, *, max_rows: int = 128) -> Engine:
        """Make an engine over the model; it keeps clean estimates within the range of standardised pixels."""
        process, ranges = make_process(self.prompts.config.diffusion), self.prompts.ranges
        return Engine(self.model, process, precision=self.dtype, max_rows=max_rows, ranges=ranges)

    def options(self, *, max_tokens: int, max_images: int, begins_with_image: bool = False) -> GenerationOptions:
        """Make options in which pictures have the size and the sampling that the model was trained for.

        Raises:
            ConfigError: A number is out of range.
        """
        shapes, config = self.prompts.shapes, self.prompts.config
        try:
            return GenerationOptions(
                max_tokens=max_tokens,
                max_latents=max_images if shapes else 0,
                begin_with=IMAGE if begins_with_image else None,
                shapes=shapes,
                denoising=config.denoising,
                stop_tokens=self.prompts.encoder.stop_tokens(told_tasks(config.data, config.encode)),
            )
        except ValidationError as error:
            raise ConfigError(f"bad options: {described(error)}") from error

    def drawing(
        self, *, seed: int, denoising: DenoisingOptions, negative: str = "", is_apart: bool = False
    ) -> GenerationOptions:
        """Make options that draw one picture at once."""
        made = self.options(max_tokens=0, max_images=1, begins_with_image=True)
        told = self.prompts.tokenizer.encode(negative)
        return made.model_copy(update={"seed": seed, "denoising": denoising, "negative": told, "is_apart": is_apart})

    def denoising(self, *, guidance: float | None, steps: int | None, sampler: str | None) -> DenoisingOptions:
        """Return the model's sampling with some of it changed.

        Raises:
            ConfigError: The sampler is unknown or a number is out of range.
        """
        tree = self.prompts.config.denoising.model_dump()
        tree |= {name: value for name, value in (("num_steps", steps), ("sampler", sampler)) if value is not None}
        if guidance is not None:
            tree["guidance"] |= {"scale": guidance}
        try:
            return DenoisingOptions.model_validate(tree)
        except ValidationError as error:
            raise ConfigError(f"bad sampling options: {described(error)}") from error

    def checked(self, prompt: Document) -> Document:
        """Refuse a prompt that the model has no place for.

        Raises:
            ConfigError: A latent is of no modality or size that the model knows, or there are more slots than in a
                row of training.
        """
        longest = self.prompts.config.train.row_length
        try:
            count = num_slots(prompt, self.model.vocabulary)
        except (KeyError, ValueError) as error:
            raise ConfigError(f"the prompt does not fit the model: {error.args[0]}") from error
        if 0 < longest < count:  # 0: settings that no run has settled
            raise ConfigError(
                f"the prompt takes {count} slots, and the model was trained on rows of {longest} (train.row_length): "
                "shorten it, or train with longer rows"
            )
        return prompt

    def untold(self, task: str) -> str | None:
        """Return a warning where a task was never told to the model, which then answers with noise.

        Raises:
            ConfigError: The model knows no pictures at all.
        """
        config = self.prompts.config
        if not self.prompts.shapes:
            names = [modality.name for modality in config.model.modalities]
            missing = f"it has no modality {IMAGE!r} (model.modalities: {', '.join(names) or 'none'})"
            why = "it was trained on text alone" if IMAGE in names else missing
            raise ConfigError(f"this model cannot {DOINGS[task]}: {why}; it writes, with generate and stream_text")
        told = told_tasks(config.data, config.encode)
        if task in told:
            return None
        return f"this model never learnt to {DOINGS[task]} (it was told: {', '.join(told)}): what comes is noise"

    def continued(self, prompt: Document, options: GenerationOptions) -> Document:
        """Continue a document."""
        return self.engine(max_rows=1).run([(self.checked(prompt), options)])[0].document

    def texts(self, prompts: Sequence[Document], max_tokens: int) -> list[str]:
        """Write a text after each prompt."""
        options = self.options(max_tokens=max_tokens, max_images=0)
        results = self.engine().run([(self.checked(prompt), options) for prompt in prompts])
        texts = [[part.tokens for part in result.generated if isinstance(part, Text)] for result in results]
        told = [self.prompts.tokenizer.decode([token for run in runs for token in run]) for runs in texts]
        return [spoken(self.prompts.encoder.template, text) for text in told]

    @property
    def answer_tokens(self) -> int:
        """How long an answer may be: short where questions of the built-in world were told."""
        config = self.prompts.config
        return MAX_SPOKEN_TOKENS if CHAT in told_tasks(config.data, config.encode) else MAX_ANSWER_TOKENS

    def pictures(self, requests: Sequence[Request], watch: Watch | None = None) -> list[Image.Image]:
        """Draw a picture after each prompt."""
        for prompt, _ in requests:
            self.checked(prompt)
        if watch is not None:
            return self._watched(requests, watch)
        results = self.engine().run(requests)
        latents = [next(part for part in result.generated if isinstance(part, Latent)) for result in results]
        return [self.prompts.image(latent) for latent in latents]

    def _watched(self, requests: Sequence[Request], watch: Watch) -> list[Image.Image]:
        """Draw, and show every picture after each of its steps; all share one sampling."""
        denoising = requests[0][1].denoising if requests else DenoisingOptions()
        every = 2 if denoising.sampler == "heun" else 1  # evaluations in a step
        engine, drawn = self.engine(), dict[int, Shown]()
        shown = [(prompt, options.model_copy(update={"preview_every": every})) for prompt, options in requests]
        places = {engine.submit(*request): place for place, request in enumerate(shown)}
        for event in _events(engine):
            place = places[event.ticket]
            if isinstance(event, PreviewEvent):
                shown = self._shown(Latent(event.estimate, event.modality))
                watch(place, event.num_evaluations // every - 1, shown)
            elif isinstance(event, LatentEvent):
                drawn[place] = self._shown(Latent(event.values, event.modality))
                watch(place, denoising.num_steps - 1, drawn[place])
        return [drawn[place]() for place in range(len(requests))]

    def _shown(self, latent: Latent) -> Shown:
        return cache(partial(self.prompts.image, latent))

    @torch.inference_mode()
    def score(self, document: Document) -> Score:
        """Measure how well the model foretells the targets of a document."""
        config = self.prompts.config
        vocabulary = self.model.vocabulary
        draw = KeyedDraw(config.diffusion, config.train.seed)
        batch = collate([[document]], vocabulary, draw, num_slots(document, vocabulary)).to(self.model.device)
        objective = TransfusionObjective(config.diffusion, config.objective, vocabulary)
        is_low = self.dtype is not torch.float32
        with torch.autocast(self.model.device.type, self.dtype) if is_low else nullcontext():
            losses = objective(self.model, batch)
        text = losses.pop("text")
        denoising = {name: float(loss.sum) / loss.count for name, loss in losses.items() if loss.count}
        return Score(-float(text.sum), text.count, denoising)

    def chosen(self, options: GenerationOptions | None, max_new_tokens: int | None) -> GenerationOptions:
        """Return options, or else such for so many tokens.

        Raises:
            ConfigError: Both are given, and differ.
        """
        given = None if options is None else options.max_tokens
        count = agreed("options.max_tokens", given, "max_new_tokens", max_new_tokens)
        if options is not None:
            return options
        if count is not None and count < 0:
            raise ConfigError(f"max_new_tokens is {count}; expected 0 or more")
        return self.options(max_tokens=MAX_CAPTION_TOKENS if count is None else count, max_images=1)

    def pieces(self, prompt: Document, options: GenerationOptions) -> Iterator[str | Image.Image]:
        """Continue a document and yield its text in pieces of whole letters, and its pictures, as they come."""
        engine, letters = self.engine(max_rows=1), Letters(self.prompts.tokenizer)
        engine.submit(prompt, options)
        for event in _events(engine):
            if isinstance(event, TokenEvent) and event.token < self.model.vocabulary.text_size:
                yield from letters.add(event.token)
            elif isinstance(event, LatentEvent):
                yield from letters.end()
                yield self.prompts.image(Latent(event.values, event.modality))
        yield from letters.end()


def _events(engine: Engine) -> Iterator[Event]:
    while not engine.is_idle:
        for event in engine.step():
            if isinstance(event, FailedEvent):
                raise event.error
            yield event


class Asked(Protocol):
    """Whom one asks: ``Transfusion`` is one."""

    @property
    def asking(self) -> Asking:
        """Ask the engine."""
        ...

    def warn_untold(self, task: str) -> None:
        """Warn, once, of a task that the model was never told."""
        ...


class Letters:
    """Tokens → pieces of text that never break a letter: bytes of one that is not whole are held back.

    Decoding needs the tokens before, so some are kept as context. What the pieces are put together is what the
    tokens are decoded together.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Begin a text."""
        self._tokenizer = tokenizer
        self._tokens: list[int] = []
        self._told = ""

    def add(self, token: int) -> Iterator[str]:
        """Take a token, and yield the text that is whole now, if any."""
        self._tokens.append(token)
        text = self._tokenizer.decode(self._tokens)
        yield from self._tell(text.rstrip(BROKEN))
        if len(self._tokens) > HELD_TOKENS and not text.endswith(BROKEN):
            self._shorten(text)

    def _shorten(self, text: str) -> None:
        """Keep the fewest last tokens that are whole letters by themselves and decode to the end of the text."""
        for count in range(CONTEXT_TOKENS, len(self._tokens)):
            told = self._tokenizer.decode(self._tokens[-count:])
            if BROKEN not in told and text.endswith(told):
                self._tokens, self._told = self._tokens[-count:], told
                return

    def end(self) -> Iterator[str]:
        """Yield what was held back, and begin anew."""
        yield from self._tell(self._tokenizer.decode(self._tokens))
        self._tokens, self._told = [], ""

    def _tell(self, text: str) -> Iterator[str]:
        if len(text) > len(self._told):
            yield text[len(self._told) :]
            self._told = text


def all_targets(document: Document) -> Document:
    """Return a document of which everything is a target."""
    return replace(document, segments=tuple(_as_target(part) for part in document.segments))


def _as_target(part: Segment) -> Segment:
    return replace(part, is_target=True, max_t=1.0) if isinstance(part, Latent) else replace(part, is_target=True)


def agreed(name: str, one: Value | None, other_name: str, other: Value | None) -> Value | None:
    """Return what is given under either of two names of one thing.

    Raises:
        ConfigError: It is given under both, and differs.
    """
    if one is not None and other is not None and one != other:
        raise ConfigError(f"{name}={one!r} and {other_name}={other!r} are names of one thing; give one of them")
    return other if one is None else one


def with_tokens(
    options: GenerationOptions, *, temperature: float, top_k: int | None, top_p: float
) -> GenerationOptions:
    """Return options with another draw of tokens.

    Raises:
        ConfigError: A number is out of range.
    """
    try:
        tokens = TokenOptions(temperature=temperature, top_k=top_k, top_p=top_p)
    except ValidationError as error:
        raise ConfigError(f"bad options of tokens: {described(error)}") from error
    return options.model_copy(update={"tokens": tokens})
