"""``Transfusion``: a trained model with its tokenizer and settings, and what one does with it from Python.

Responsible for turning captions, questions and pictures into requests to the engine and the results back. It must
not know training; the format of a checkpoint is ``train.checkpoint``'s.
"""

import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from pydantic import ValidationError

from transfusion.autoencoder.pixels import decode_pixels, pixel_range
from transfusion.batch import collate
from transfusion.config import ConfigError, RunConfig, described
from transfusion.data.encode import IMAGE, Encoder, Picture, told_question
from transfusion.data.readers import open_picture
from transfusion.data.tasks import told_tasks
from transfusion.devices import PRECISIONS
from transfusion.diffusion.process import make_process
from transfusion.generate.engine import Engine
from transfusion.generate.options import DenoisingOptions, Event, GenerationOptions, TokenOptions
from transfusion.layout import num_slots
from transfusion.model.transfusion import TransfusionModel
from transfusion.objective import KeyedDraw, TransfusionObjective
from transfusion.segments import Document, Latent, Segment, Text
from transfusion.tokenizer import Tokenizer
from transfusion.train.checkpoint import publish
from transfusion.train.manifest import EMA_FILE, MODEL_FILE
from transfusion.train.saved import find_checkpoint, load_settings, made_model, write_pretrained
from transfusion.train.tensors import load_weights

MAX_CAPTION_TOKENS = 64
MAX_ANSWER_TOKENS = 16
_log = logging.getLogger(__name__)
PictureLike = Image.Image | Picture | Path | str


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
class Transfusion:
    """A model, its tokenizer, the settings it was trained with, and where its weights were read, if they were."""

    model: TransfusionModel
    tokenizer: Tokenizer
    config: RunConfig
    weights_file: Path | None = field(default=None, compare=False)

    @classmethod
    def from_pretrained(cls, path: str | Path, *, device: str = "cpu", use_ema: bool = True) -> "Transfusion":
        """Load a checkpoint, or the newest one of a run's folder.

        Args:
            path: A checkpoint, or the folder of a run.
            device: Where the model shall be.
            use_ema: Take the averaged weights where there are some.

        Raises:
            CheckpointError: There is no checkpoint, or it is damaged.
        """
        folder = find_checkpoint(Path(path))
        config, tokenizer = load_settings(folder)
        is_averaged = use_ema and (folder / EMA_FILE).exists()
        file = folder / (EMA_FILE if is_averaged else MODEL_FILE)
        load_weights(model := made_model(config.model, folder), file)
        return cls(model.to(device).eval(), tokenizer, config, file)

    def save_pretrained(self, path: str | Path) -> Path:
        """Write the model as a checkpoint that ``from_pretrained`` reads; it appears whole or not at all.

        Raises:
            CheckpointError: Something lies there that is no checkpoint, or more than one; nothing was written.
        """
        return publish(Path(path), lambda folder: write_pretrained(folder, self.model, self.tokenizer, self.config))

    @property
    def dtype(self) -> torch.dtype:
        """In which it computes: ``torch.float32`` or ``torch.bfloat16``."""
        return PRECISIONS.get(self.config.train.precision, torch.float32)

    @property
    def resolution(self) -> int:
        """Side of the model's pictures, in pixels."""
        return self.config.data.resolution

    def engine(self, *, max_rows: int = 128) -> Engine:
        """Make an engine over the model; it keeps clean estimates within the range of standardised pixels."""
        ranges, process = {IMAGE: pixel_range(self.config.encode.standardisation)}, make_process(self.config.diffusion)
        return Engine(self.model, process, precision=self.dtype, max_rows=max_rows, ranges=ranges)

    def options(
        self,
        *,
        max_tokens: int = MAX_CAPTION_TOKENS,
        max_images: int = 1,
        begins_with_image: bool = False,
        temperature: float = 0.0,
        seed: int = 0,
        denoising: DenoisingOptions | None = None,
    ) -> GenerationOptions:
        """Make options in which pictures have the size and the sampling that the model was trained for."""
        has_images = any(modality.name == IMAGE for modality in self.config.model.modalities)
        shape = (3, self.resolution, self.resolution)
        return GenerationOptions(
            max_tokens=max_tokens,
            max_latents=max_images if has_images else 0,
            begin_with=IMAGE if begins_with_image else None,
            shapes={IMAGE: shape} if has_images else {},
            tokens=TokenOptions(temperature=temperature),
            denoising=denoising or self.config.denoising,
            stop_tokens=self._encoder.stop_tokens,
            seed=seed,
        )

    def document(self, content: Document | Sequence[Segment | str | PictureLike]) -> Document:
        """Turn a list of strings, pictures and segments into a prompt document."""
        if isinstance(content, Document):
            return content
        return Document(tuple(self._segment(part) for part in content), is_complete=False)

    def _segment(self, part: Segment | str | PictureLike) -> Segment:
        if isinstance(part, Text | Latent):
            return part
        if isinstance(part, str):
            return Text(self.tokenizer.encode(part))
        return self._encoder.caption_prompt(self.picture(part)).segments[0]

    def generate(
        self,
        content: Document | Sequence[Segment | str | PictureLike],
        options: GenerationOptions | None = None,
    ) -> Document:
        """Continue a document with text and pictures, interleaved as the model chooses.

        Args:
            content: A document, or a list of strings (text), pictures and segments.
            options: Budget and sampling; the default draws up to one picture.

        Returns:
            The whole document, prompt first.
        """
        prompt = self.document(content)
        return self.engine(max_rows=1).run([(prompt, options or self.options())])[0].document

    async def stream(
        self,
        content: Document | Sequence[Segment | str | PictureLike],
        options: GenerationOptions | None = None,
    ) -> AsyncGenerator[Event, None]:
        """Continue a document and yield tokens, previews and latents as they come."""
        prompt = self.document(content)
        async with aclosing(self.engine(max_rows=1).stream(prompt, options or self.options())) as events:
            async for event in events:
                yield event

    def generate_images(
        self,
        prompts: Sequence[str],
        *,
        guidance: float | None = None,
        steps: int | None = None,
        sampler: str | None = None,
        seed: int = 0,
    ) -> list[Image.Image]:
        """Draw one picture per prompt; what is None is as the model's settings say.

        Args:
            prompts: Captions.
            guidance: Scale of classifier-free guidance; 1 is none.
            steps: Steps of the sampler.
            sampler: ``"ddpm"``, ``"ddim"``, ``"euler"``, ``"heun"`` or ``"dpm_solver_2m"``.
            seed: Picture i is a function of (seed + i, prompt) alone.

        Returns:
            RGB pictures.
        """
        denoising = self.denoising(guidance=guidance, steps=steps, sampler=sampler)
        _warn_untold(self.config, "draw")
        _check_several(prompts, "prompts")
        _check_said(prompts, "a prompt")
        requests = [
            (
                self._encoder.draw_prompt(prompt),
                self.options(max_tokens=0, begins_with_image=True, seed=seed + i, denoising=denoising),
            )
            for i, prompt in enumerate(prompts)
        ]
        return self._pictures(requests)

    def denoising(
        self, *, guidance: float | None = None, steps: int | None = None, sampler: str | None = None
    ) -> DenoisingOptions:
        """Return the model's sampling with some of it changed.

        Raises:
            ConfigError: The sampler is unknown or a number is out of range.
        """
        tree = self.config.denoising.model_dump()
        tree |= {name: value for name, value in (("num_steps", steps), ("sampler", sampler)) if value is not None}
        if guidance is not None:
            tree["guidance"] |= {"scale": guidance}
        try:
            return DenoisingOptions.model_validate(tree)
        except ValidationError as error:
            raise ConfigError(f"bad sampling options: {described(error)}") from error

    def caption(self, images: Sequence[PictureLike]) -> list[str]:
        """Describe pictures."""
        _warn_untold(self.config, "caption")
        _check_several(images, "pictures")
        prompts = [self._encoder.caption_prompt(self.picture(image)) for image in images]
        return self._texts(prompts, MAX_CAPTION_TOKENS)

    def ask(self, image: PictureLike, question: str) -> str:
        """Answer a question about a picture."""
        return self.ask_many([image], [question])[0]

    def ask_many(self, images: Sequence[PictureLike], questions: Sequence[str]) -> list[str]:
        """Answer one question about each picture."""
        _warn_untold(self.config, "ask")
        _check_said([told_question(asked) for asked in questions], "a question")
        prompts = [
            self._encoder.question_prompt(self.picture(image), asked)
            for image, asked in zip(images, questions, strict=True)
        ]
        return self._texts(prompts, MAX_ANSWER_TOKENS)

    def edit(self, image: PictureLike, instruction: str, *, seed: int = 0) -> Image.Image:
        """Change a picture as an instruction says."""
        return self.edit_many([image], [instruction], seed=seed)[0]

    def edit_many(
        self, images: Sequence[PictureLike], instructions: Sequence[str], *, seed: int = 0
    ) -> list[Image.Image]:
        """Change each picture as its instruction says."""
        _warn_untold(self.config, "edit")
        _check_said(instructions, "an instruction")
        requests = [
            (
                self._encoder.edit_prompt(self.picture(image), instruction),
                self.options(max_tokens=0, begins_with_image=True, seed=seed + i),
            )
            for i, (image, instruction) in enumerate(zip(images, instructions, strict=True))
        ]
        return self._pictures(requests)

    @torch.inference_mode()
    def score(self, content: Document | Sequence[Segment | str | PictureLike]) -> Score:
        """Measure the log-likelihood of a document's text and the denoising loss of its latents.

        Args:
            content: A document, of which the targets are measured; or a list of strings and pictures, all of which are.
        """
        document = self.document(content)
        if not isinstance(content, Document):
            document = replace(document, segments=tuple(_as_target(part) for part in document.segments))
        vocabulary = self.model.vocabulary
        draw = KeyedDraw(self.config.diffusion, self.config.train.seed)
        batch = collate([[document]], vocabulary, draw, num_slots(document, vocabulary)).to(self.model.device)
        objective = TransfusionObjective(self.config.diffusion, self.config.objective, vocabulary)
        losses = objective(self.model, batch)
        text = losses.pop("text")
        denoising = {name: float(loss.sum) / loss.count for name, loss in losses.items() if loss.count}
        return Score(-float(text.sum), text.count, denoising)

    def picture(self, image: PictureLike) -> Picture:
        """Turn a picture, an array or a file into (resolution, resolution, 3) uint8."""
        if isinstance(image, Image.Image):
            return open_picture(image, self.resolution)
        source = Image.fromarray(image) if isinstance(image, np.ndarray) else Path(image)
        return open_picture(source, self.resolution)

    def image(self, latent: Latent) -> Image.Image:
        """Turn a generated latent into an RGB picture."""
        return Image.fromarray(decode_pixels(latent.values, self.config.encode.standardisation))

    @property
    def _encoder(self) -> Encoder:
        return Encoder(self.tokenizer, self.config.encode, self.config.train.seed)

    def _texts(self, prompts: Sequence[Document], max_tokens: int) -> list[str]:
        options = self.options(max_tokens=max_tokens, max_images=0)
        results = self.engine().run([(prompt, options) for prompt in prompts])
        texts = [[part.tokens for part in result.generated if isinstance(part, Text)] for result in results]
        return [self.tokenizer.decode([token for run in runs for token in run]).strip() for runs in texts]

    def _pictures(self, requests: Sequence[tuple[Document, GenerationOptions]]) -> list[Image.Image]:
        results = self.engine().run(requests)
        latents = [next(part for part in result.generated if isinstance(part, Latent)) for result in results]
        return [self.image(latent) for latent in latents]


def _as_target(part: Segment) -> Segment:
    return replace(part, is_target=True, max_t=1.0) if isinstance(part, Latent) else replace(part, is_target=True)


def _warn_untold(config: RunConfig, task: str) -> None:
    told = told_tasks(config.data, config.encode)
    known = ", ".join(told) or "nothing"
    if task not in told:
        _log.warning("this model never learnt to %s (it was told: %s): what comes is noise", task, known)


def _check_several(content: object, what: str) -> None:
    if isinstance(content, str | Path):
        raise ConfigError(f"expected a list of {what}, got {str(content)!r:.80}; write [{str(content)!r:.80}]")


def _check_said(texts: Sequence[str], what: str) -> None:
    if any(not text.strip() for text in texts):
        raise ConfigError(f"{what} is empty; say what is wanted")
