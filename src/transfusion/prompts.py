"""What becomes a prompt, and what becomes of a latent: strings, pictures and segments → documents; latents → pictures.

Outside of the encoder, the one place of a model's use that knows of which shape and range the latent of a picture is,
and how it becomes a picture again: what another latent space changes stands here. And the one rule for one and for
many: one in, one out; a list in, a list out. It must not know the network, nor how requests are done.
"""

import os
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from transfusion.autoencoder.pixels import PixelSpace
from transfusion.autoencoder.settings import draws_posterior
from transfusion.autoencoder.space import LatentSpace, SpaceError
from transfusion.config import ConfigError, RunConfig
from transfusion.data.encode import IMAGE, Encoder, Picture
from transfusion.data.errors import DataError
from transfusion.data.readers import open_picture
from transfusion.data.tasks import is_text_alone
from transfusion.segments import Document, Latent, Segment, Text
from transfusion.tokenizer import Tokenizer

PictureLike = Image.Image | Picture | Path | str
Part = Segment | PictureLike  # a string is text here
Content = Document | Part | Sequence[Part]
Pictures = PictureLike | Sequence[PictureLike]
Texts = str | Sequence[str]
NUM_NAMED = 5


class Pairs(NamedTuple):
    """Pictures with a text for each, and whether a list of them was given."""

    pictures: list[PictureLike]
    texts: list[str]
    is_many: bool


@dataclass(frozen=True)
class Prompts:
    """Makes prompts of what a user has, and pictures of latents, as a model's settings say.

    Attributes:
        tokenizer: Text ↔ tokens.
        config: The settings.
        space: What pictures become; None: pixels, standardised as the settings say.
    """

    tokenizer: Tokenizer
    config: RunConfig
    space: LatentSpace | None = None

    @property
    def latents(self) -> LatentSpace:
        """What pictures become."""
        return self.space or PixelSpace(self.config.encode.standardisation)

    @property
    def resolution(self) -> int | tuple[int, int]:
        """Side of the model's pictures, in pixels; or their height and width where these differ."""
        height, width = self.size
        return height if height == width else (height, width)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the model's pictures, in pixels."""
        return self.config.data.size

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape (C, *axes) of the latent of a picture, by its modality; none where the model knows no pictures."""
        config = self.config
        has_pictures = any(modality.name == IMAGE for modality in config.model.modalities)
        has_pictures = has_pictures and not is_text_alone(config.data, config.encode)  # then they were never told
        return {IMAGE: self.latents.shape(self.size)} if has_pictures else {}

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """Least and largest value of the latent of a picture, where there is a bound."""
        bounds = self.latents.range
        return {} if bounds is None else {IMAGE: bounds}

    @property
    def encoder(self) -> Encoder:
        """Tells prompts as training told its records."""
        config, draws = self.config, draws_posterior(self.config.autoencoder)
        modality = config.model.modality(IMAGE)
        return Encoder(self.tokenizer, config.encode, config.train.seed, self.space, draws, modality)

    def picture(self, image: PictureLike) -> Picture:
        """Turn a picture, an array or a file into (height, width, 3) uint8.

        Raises:
            DataError: It is no whole picture.
        """
        if isinstance(image, Image.Image):
            return open_picture(image, self.size)
        if isinstance(image, np.ndarray):
            return open_picture(_opened(image), self.size)
        if isinstance(image, str | os.PathLike):
            return open_picture(Path(image), self.size)
        raise DataError(f"expected a picture, its file, or a uint8 array (H, W, 3); got {type(image).__name__}")

    def pictures(self, images: Sequence[PictureLike]) -> list[Picture]:
        """Turn several into pictures.

        Raises:
            DataError: Some are no whole pictures; names each by its place in the list.
        """
        if len(images) == 1:
            return [self.picture(images[0])]
        found: list[Picture] = []
        faults: list[str] = []
        for place, image in enumerate(images):
            try:
                found.append(self.picture(image))
            except DataError as error:
                faults.append(f"[{place}] {error}")
        if faults:
            more = f"; and {len(faults) - NUM_NAMED} more" if faults[NUM_NAMED:] else ""
            told = "; ".join(faults[:NUM_NAMED])
            raise DataError(f"{len(faults)} of {len(images)} pictures cannot be read, by their place: {told}{more}")
        return found

    def image(self, latent: Latent) -> Image.Image:
        """Turn a generated latent into an RGB picture.

        Raises:
            ConfigError: The latent space has no decoder.
        """
        try:
            return Image.fromarray(self.latents.decode(latent.values))
        except SpaceError as error:
            raise ConfigError(str(error)) from error

    def document(self, content: Content) -> Document:
        """Turn a text, a picture, or a list of texts, pictures and segments into one prompt.

        Raises:
            ConfigError: Something in it is none of these.
            DataError: A picture cannot be read.
        """
        if isinstance(content, Document):
            return content
        is_part = isinstance(content, str | Text | Latent) or _is_one_picture(content)
        parts = [content] if is_part else _listed(content, "texts, pictures and segments of one document")
        return Document(tuple(self._segment(part) for part in parts), is_complete=False)

    def _segment(self, part: object) -> Segment:
        if isinstance(part, Text | Latent):
            return part
        if isinstance(part, str):
            return Text(self.tokenizer.encode(part))
        if isinstance(part, Image.Image | np.ndarray | Path):
            return self.encoder.caption_prompt(self.picture(part)).segments[0]
        raise ConfigError(f"a document has texts, pictures and segments; got {type(part).__name__}: give one at a time")


def several_pictures(images: Pictures) -> tuple[list[PictureLike], bool]:
    """Return pictures as a list, and whether a list (or an array of pictures) was given.

    Raises:
        ConfigError: It is neither a picture nor a list.
    """
    if isinstance(images, str) or _is_one_picture(images):
        return [images], False  # pyright: ignore[reportReturnType]
    return list(_listed(images, "pictures")), True  # pyright: ignore[reportReturnType]


def several_texts(texts: Texts, what: str) -> tuple[list[str], bool]:
    """Return texts as a list, and whether a list was given.

    Args:
        texts: A text or several.
        what: What one of them is, such as ``"a prompt"``.

    Raises:
        ConfigError: It is neither, or one of them is no text.
    """
    if isinstance(texts, str):
        return [texts], False
    found = _listed(texts, f"texts, each {what}")
    for place, text in enumerate(found):
        if not isinstance(text, str):
            raise ConfigError(f"expected {what} as text; [{place}] is {type(text).__name__}: {str(text)!r:.80}")
    return found, True  # pyright: ignore[reportReturnType]


def paired(images: Pictures, texts: Texts, what: str) -> Pairs:
    """Put a text to each picture: several pictures may share one text, and several texts one picture.

    Raises:
        ConfigError: There are several of both, and not equally many.
    """
    (pictures, has_pictures), (told, has_texts) = several_pictures(images), several_texts(texts, what)
    if has_pictures and has_texts and len(pictures) != len(told):
        raise ConfigError(f"{len(pictures)} pictures and {len(told)} texts, each {what}; give as many, or one for all")
    if not has_pictures:
        pictures *= len(told)
    elif not has_texts:
        told *= len(pictures)
    return Pairs(pictures, told, has_pictures or has_texts)


def check_said(texts: Sequence[str], what: str) -> None:
    """Refuse a text that says nothing.

    Raises:
        ConfigError: One is empty.
    """
    if any(not text.strip() for text in texts):
        raise ConfigError(f"{what} is empty; say what is wanted")


def _is_one_picture(content: object) -> bool:
    return isinstance(content, Image.Image | os.PathLike) or (isinstance(content, np.ndarray) and content.ndim < 4)


def _listed(content: object, what: str) -> list[object]:
    if not isinstance(content, Iterable) or isinstance(content, str | bytes | Mapping | Set):
        raise ConfigError(f"expected one, or a list of {what}; got {type(content).__name__}: {str(content)!r:.80}")
    return list(content)


def _opened(array: Picture) -> Image.Image:
    is_known = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if array.dtype != np.uint8 or not is_known or not array.size:
        raise DataError(f"an array of {array.dtype} of shape {array.shape}; expected uint8, 0 to 255, of (H, W, 3)")
    return Image.fromarray(array)
