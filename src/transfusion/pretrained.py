"""``Transfusion``: a trained model with its tokenizer and settings, and what one does with it from Python.

Responsible for loading and saving it; what becomes a prompt is ``prompts``' and asking the engine is ``asking``'s. It
must not know training; the format of a checkpoint is ``train.checkpoint``'s.
"""

import logging
import os
import tempfile
from collections.abc import AsyncGenerator, Collection, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image

from transfusion import describing, drawing, hub
from transfusion.asking import MAX_CAPTION_TOKENS, Asking, Score, all_targets, with_tokens
from transfusion.autoencoder.space import LatentSpace
from transfusion.config import ConfigError, RunConfig
from transfusion.data.encode import Picture
from transfusion.devices import AUTO, PRECISIONS, choose_precision, find_device
from transfusion.files import write_whole
from transfusion.generate.engine import Engine
from transfusion.generate.options import DenoisingOptions, Event, GenerationOptions
from transfusion.model.held import hold_matrices
from transfusion.model.transfusion import TransfusionModel
from transfusion.prompts import Content, PictureLike, Prompts
from transfusion.segments import Document, Latent
from transfusion.tokenizer import Tokenizer
from transfusion.train.checkpoint import publish
from transfusion.train.facts import step_of
from transfusion.train.manifest import EMA_FILE, MODEL_FILE, CheckpointError, read_manifest
from transfusion.train.saved import find_checkpoint, load_settings, load_space, made_model, unrounded, write_pretrained
from transfusion.train.tensors import load_weights

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Transfusion:
    """A model, its tokenizer and the settings it was trained with.

    One rule for one and for many: one picture or text in, one out; a list in, a list out.

    Attributes:
        model: The network.
        tokenizer: Text ↔ tokens.
        config: Settings of its training.
        precision: ``"fp32"`` or ``"bf16"``, in which it computes; None: as it was trained.
        weights_file: Where the weights were read, if they were.
        space: What pictures become, the latents that are denoised; None: pixels.
    """

    model: TransfusionModel
    tokenizer: Tokenizer
    config: RunConfig
    precision: str | None = None
    weights_file: Path | None = field(default=None, compare=False)
    space: LatentSpace | None = None
    _warned: set[str] = field(default_factory=set[str], init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the precision.

        Raises:
            ConfigError: It is unknown.
        """
        if self.precision not in (None, *PRECISIONS):
            raise ConfigError(f"precision {self.precision!r} is unknown; expected {' or '.join(PRECISIONS)}")

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        device: str | torch.device = AUTO,
        precision: str = AUTO,
        use_ema: bool = True,
        revision: str | None = None,
        token: str | None = None,
        space: LatentSpace | None = None,
    ) -> "Transfusion":
        """Load a checkpoint, the newest one of a run's folder, or a model of the Hugging Face hub.

        Args:
            path: A checkpoint, or the folder of a run; what lies nowhere here and is a string ``"organisation/name"``
                is fetched from the hub, but where the first part is a folder here: that is a path that is mistyped.
            device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``; auto takes the fastest there is.
            precision: ``"fp32"``, ``"bf16"``, which halves the memory of the weights, or ``"auto"``: bf16 where the
                device multiplies it faster.
            use_ema: Take the averaged weights where there are some.
            revision: Branch, tag or commit on the hub.
            token: Key to the hub; None: the one that the library knows.
            space: The latent space, where it is one of your own.

        Raises:
            CheckpointError: There is no checkpoint, or it is damaged.
            ConfigError: The device or the precision is unknown, or a revision is asked of a local path.
        """
        where = find_device(str(device))
        chosen = choose_precision(precision, where)
        folder = find_model(path, revision, token)
        is_averaged = use_ema and EMA_FILE in read_manifest(folder)
        file = folder / (EMA_FILE if is_averaged else MODEL_FILE)
        config, tokenizer = load_settings(folder)
        model = made_model(config.model, folder)
        load_weights(model, file)
        hold_matrices(model, PRECISIONS[chosen])
        latents = load_space(folder, config, space)
        return cls(model.to(where).eval(), tokenizer, config, chosen, file, latents.to(where))

    def save_pretrained(self, path: str | Path) -> Path:
        """Write the model as a checkpoint that ``from_pretrained`` reads; it appears whole or not at all.

        Weights are float32 always: those of a model that computes in bf16 are read once more where they were.

        Raises:
            CheckpointError: Something lies there that is no checkpoint, or more than one; or weights held in bf16 are
                nowhere whole. Nothing was written.
        """
        model = unrounded(self.model, self.weights_file)
        return publish(
            Path(path), lambda folder: write_pretrained(folder, model, self.tokenizer, self.config, self.space)
        )

    def push_to_hub(
        self, repo_id: str, *, private: bool | None = None, revision: str | None = None, token: str | None = None
    ) -> str:
        """Save the model on the Hugging Face hub, from where ``from_pretrained(repo_id)`` loads it; with a card where
        there is none.

        Args:
            repo_id: ``"organisation/name"``; is made where it is not there.
            private: Whether a new one is.
            revision: Branch; None: the main one.
            token: Key to the hub; None: the one that the library knows.

        Returns:
            The address of the commit.

        Raises:
            CheckpointError: The hub does not take it.
        """
        with tempfile.TemporaryDirectory() as folder:
            saved = self.save_pretrained(Path(folder) / "model")
            card = hub.card(repo_id, self.config, self.model.num_parameters, self._num_steps())
            write_whole(saved / hub.CARD, card)
            return hub.push(saved, repo_id, private=private, revision=revision, token=token)

    def _num_steps(self) -> int | None:
        """Return for how many steps the weights were trained, where what they were read from says so."""
        try:
            return None if self.weights_file is None else step_of(self.weights_file.parent)
        except CheckpointError:  # damage of what use does without
            return None

    def to(self, device: str | torch.device) -> "Transfusion":
        """Move the model, this one, and return it; it keeps its precision.

        Raises:
            ConfigError: There is no such device here.
        """
        where = self.model.to(find_device(str(device))).device
        self.prompts.latents.to(where)
        return self

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """In which it computes: ``torch.float32`` or ``torch.bfloat16``."""
        return PRECISIONS.get(self.precision or self.config.train.precision, torch.float32)

    @property
    def resolution(self) -> int | tuple[int, int]:
        """Side of the model's pictures, in pixels; or their height and width where these differ."""
        return self.prompts.resolution

    @property
    def prompts(self) -> Prompts:
        """What makes its prompts."""
        return Prompts(self.tokenizer, self.config, self.space)

    @property
    def asking(self) -> Asking:
        """What asks the engine."""
        return Asking(self.model, self.prompts, self.dtype)

    def warn_untold(self, task: str) -> None:
        """Warn, once, of a task that the model was never told: ``"draw"``, ``"caption"``, ``"ask"`` or ``"edit"``.

        Raises:
            ConfigError: The model knows no pictures at all.
        """
        warning = self.asking.untold(task)
        if warning is not None and task not in self._warned:
            self._warned.add(task)
            _log.warning("%s", warning)

    def engine(self, *, max_rows: int = 128) -> Engine:
        """Make an engine over the model; it keeps clean estimates within the range that latents have, if any."""
        return self.asking.engine(max_rows=max_rows)

    def options(
        self,
        *,
        max_tokens: int = MAX_CAPTION_TOKENS,
        max_images: int = 1,
        begins_with_image: bool = False,
        temperature: float = 0.0,
        seed: int = 0,
        denoising: DenoisingOptions | None = None,
        top_k: int | None = None,
        top_p: float = 1.0,
    ) -> GenerationOptions:
        """Make options in which pictures have the size and the sampling that the model was trained for."""
        made = self.asking.options(max_tokens=max_tokens, max_images=max_images, begins_with_image=begins_with_image)
        made = with_tokens(made, temperature=temperature, top_k=top_k, top_p=top_p)
        return made.model_copy(update={"seed": seed, "denoising": denoising or self.config.denoising})

    def denoising(
        self, *, guidance: float | None = None, steps: int | None = None, sampler: str | None = None
    ) -> DenoisingOptions:
        """Return the model's sampling with some of it changed; a bad number is a ``ConfigError``."""
        return self.asking.denoising(guidance=guidance, steps=steps, sampler=sampler)

    def document(self, content: Content) -> Document:
        """Turn a text, a picture, or a list of texts, pictures and segments into a prompt document."""
        return self.prompts.document(content)

    def picture(self, image: PictureLike) -> Picture:
        """Turn a picture, an array or a file into (height, width, 3) uint8."""
        return self.prompts.picture(image)

    def image(self, latent: Latent) -> Image.Image:
        """Turn a generated latent into an RGB picture."""
        return self.prompts.image(latent)

    def generate(
        self, content: Content, options: GenerationOptions | None = None, *, max_new_tokens: int | None = None
    ) -> Document:
        """Continue a document with text and pictures, interleaved as the model chooses.

        Args:
            content: A text, a picture, or a list of texts, pictures and segments: the parts of one document.
            options: Budget and sampling; the default draws up to one picture.
            max_new_tokens: Most tokens to write, in place of options.

        Returns:
            The whole document, prompt first.
        """
        return self.asking.continued(self.document(content), self.asking.chosen(options, max_new_tokens))

    async def stream(
        self, content: Content, options: GenerationOptions | None = None, *, max_new_tokens: int | None = None
    ) -> AsyncGenerator[Event, None]:
        """Continue a document and yield tokens, previews and latents as they come."""
        prompt, chosen = self.asking.checked(self.document(content)), self.asking.chosen(options, max_new_tokens)
        async with aclosing(self.engine(max_rows=1).stream(prompt, chosen)) as events:
            async for event in events:
                yield event

    def stream_text(
        self, content: Content, options: GenerationOptions | None = None, *, max_new_tokens: int | None = None
    ) -> Iterator[str | Image.Image]:
        """Continue a document as ``generate``, and yield what is new as it comes: pieces of text, and pictures."""
        return self.asking.pieces(
            self.asking.checked(self.document(content)), self.asking.chosen(options, max_new_tokens)
        )

    generate_images = drawing.generate_images
    edit = drawing.edit
    edit_many = drawing.edit_many
    caption = describing.caption
    ask = describing.ask
    ask_many = describing.ask_many

    def score(self, content: Content) -> Score:
        """Measure the log-likelihood of a document's text and the denoising loss of its latents.

        Args:
            content: A document, of which the targets are measured; or a text, a picture, or a list of texts, pictures
                and segments, all of which are.
        """
        document = self.document(content)
        return self.asking.score(document if isinstance(content, Document) else all_targets(document))


def find_model(
    path: str | Path, revision: str | None = None, token: str | None = None, *, hashed: Collection[str] | None = None
) -> Path:
    """Return the folder of a checkpoint: what lies here always comes first, and then what the hub has.

    Args:
        path: As for ``Transfusion.from_pretrained``.
        revision: Branch, tag or commit on the hub.
        token: Key to the hub.
        hashed: Files of which the content is checked, as for ``find_checkpoint``.

    Raises:
        CheckpointError: There is none, or it is damaged.
        ConfigError: A revision is asked of a local path.
    """
    try:
        folder = find_checkpoint(Path(path), hashed=hashed)
    except CheckpointError as error:
        if not isinstance(path, str) or os.path.lexists(path) or not hub.is_name(path):
            raise
        if hub.is_mistyped(path):
            raise CheckpointError(f"{error}; it is taken for a path here, so that the hub is not asked") from error
        try:
            return find_checkpoint(hub.fetch(path, revision=revision, token=token), hashed=hashed)
        except CheckpointError as other:
            raise CheckpointError(f"{error}; nor is it a model to be had from the hub: {other}") from other
    if revision is not None:
        raise ConfigError(f"revision={revision!r} is of the hub, and {path} lies here; leave it out, or rename that")
    return folder
