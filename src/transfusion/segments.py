"""The nouns that all else uses: text, latents, documents, modalities and the special tokens.

Responsible for what a document is. It must not know how a document becomes slots (``layout``), how latents are
noised (``diffusion``) or how text becomes tokens (``tokenizer``).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from torch import Tensor

from transfusion.keyed import Key


@dataclass(frozen=True)
class Text:
    """A run of text tokens.

    Attributes:
        tokens: Token ids of the tokenizer, without special tokens.
        is_target: Whether the model is trained to predict these tokens; False for prompts and questions.
    """

    tokens: tuple[int, ...]
    is_target: bool = True


@dataclass(frozen=True, eq=False)
class Latent:
    """One continuous element: an image, a clip, a signal, in the space that the transformer denoises.

    Attributes:
        values: (C, *axes) float32, clean (x_0).
        modality: Name of its modality.
        is_target: Whether the model is trained to denoise it; False for a picture that is only looked at.
        is_announced: Whether the token that begins it is a target of the text before it.
        max_t: Largest diffusion time it is noised to in training, in [0, 1]; 0 keeps it clean. The paper's
            noise limit for images before their caption is 0.5 (Table 8).
        is_private: Whether slots after its own span must not see it: a noised copy beside a clean one.
    """

    values: Tensor
    modality: str
    is_target: bool = True
    is_announced: bool = True
    max_t: float = 1.0
    is_private: bool = False


Segment = Text | Latent


@dataclass(frozen=True)
class Document:
    """A sequence of segments that is trained on or continued as one.

    Attributes:
        segments: Text and latents in reading order.
        key: What tells this sample and visit from all others; draws of its times and noise depend on it alone.
        is_complete: Whether the document ends here, so that its last slot learns to predict the end.
        next_token: The token that follows where the document was cut: the target of its last slot in place of the
            end. It takes no slot itself.
        next_latent: The modality of the latent that follows where the document was cut: what begins it is that target.
    """

    segments: tuple[Segment, ...]
    key: tuple[Key, ...] = ()
    is_complete: bool = True
    next_token: int | None = None
    next_latent: str | None = None


def unforetold(text: Text) -> tuple[Text, Text]:
    """Split a text so that its first token is no target: what comes before it could not foretell it."""
    return Text(text.tokens[:1], is_target=False), replace(text, tokens=text.tokens[1:])


def null_prompt(document: Document) -> Document:
    """Take all text out of a document: what the unconditional branch of guidance sees.

    Training drops captions, and sampling builds its second branch, by this one function. Latents stay, so guidance
    of an edit strengthens the instruction and not the picture that is edited. What begins a latent is no target
    any more: without its text nothing could foretell it.
    """
    kept = tuple(replace(part, is_announced=False) for part in document.segments if isinstance(part, Latent))
    return replace(document, segments=kept, next_token=None, next_latent=None)


@dataclass(frozen=True)
class Modality:
    """A kind of continuous data.

    Attributes:
        name: Unique name, such as ``"image"``.
        channels: C of its latents.
        patch_size: Elements of one patch along each axis; its length is the number of axes (1, 2 or 3).
        max_grid: Most patches along each axis that the model has positions for; None where it needs none.
    """

    name: str
    channels: int
    patch_size: tuple[int, ...]
    max_grid: tuple[int, ...] | None = None

    def grid(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Count the patches along each axis of a latent of a given shape (C, *axes).

        Raises:
            ValueError: The shape does not fit the modality.
        """
        if len(shape) != len(self.patch_size) + 1 or shape[0] != self.channels:
            axes = ", ".join(f"axis_{i}" for i in range(len(self.patch_size)))
            raise ValueError(
                f"latent of modality {self.name!r} has shape {tuple(shape)}; expected ({self.channels}, {axes})"
            )
        for size, patch in zip(shape[1:], self.patch_size, strict=True):
            if size % patch or size <= 0:
                raise ValueError(
                    f"latent of modality {self.name!r} has axes {tuple(shape[1:])}, not positive multiples of its "
                    f"patch_size {self.patch_size}; resize or pad it to a multiple"
                )
        grid = tuple(size // patch for size, patch in zip(shape[1:], self.patch_size, strict=True))
        if self.max_grid is not None and any(size > most for size, most in zip(grid, self.max_grid, strict=True)):
            raise ValueError(
                f"latent of modality {self.name!r} has axes {tuple(shape[1:])}, a grid of {grid} patches; the model "
                f"has positions for {self.max_grid}: use a smaller resolution, or train with a larger max_grid (from "
                "trained weights with train.new_parts=true, which interpolates)"
            )
        return grid

    def num_patches(self, shape: Sequence[int]) -> int:
        """Count the patches, hence slots, of a latent of shape (C, *axes)."""
        return prod(self.grid(shape))


NUM_FIXED_SPECIALS = 2


@dataclass(frozen=True)
class Vocabulary:
    """The token ids of a model: the tokenizer's, then bos, eos, and a begin and an end for every modality.

    Attributes:
        text_size: Number of ids of the tokenizer.
        modalities: The continuous modalities. Modality index 0 is text, index k is ``modalities[k - 1]``.
    """

    text_size: int
    modalities: tuple[Modality, ...]

    @property
    def size(self) -> int:
        """Number of ids in all (V)."""
        return self.text_size + NUM_FIXED_SPECIALS + 2 * len(self.modalities)

    @property
    def bos(self) -> int:
        """Id that begins every document."""
        return self.text_size

    @property
    def eos(self) -> int:
        """Id that ends every document; a target only, it takes no slot."""
        return self.text_size + 1

    @property
    def specials(self) -> tuple[str, ...]:
        """What the ids behind the tokenizer's mean, in their order."""
        pairs = ((f"begin {modality.name}", f"end {modality.name}") for modality in self.modalities)
        return ("bos", "eos", *(name for pair in pairs for name in pair))

    def begin_token(self, modality: int) -> int:
        """Id that begins a latent (BOI for images) of modality index ``modality`` >= 1."""
        return self.text_size + NUM_FIXED_SPECIALS + 2 * (modality - 1)

    def end_token(self, modality: int) -> int:
        """Id that ends a latent (EOI for images) of modality index ``modality`` >= 1."""
        return self.begin_token(modality) + 1

    def begun_by(self, token: int) -> int:
        """Return the modality index that a token begins, or 0 if it begins none."""
        offset = token - self.text_size - NUM_FIXED_SPECIALS
        is_begin = 0 <= offset < 2 * len(self.modalities) and offset % 2 == 0
        return offset // 2 + 1 if is_begin else 0

    def index(self, name: str) -> int:
        """Return the index (>= 1) of a modality.

        Raises:
            KeyError: There is no modality of this name.
        """
        for position, modality in enumerate(self.modalities):
            if modality.name == name:
                return position + 1
        known = ", ".join(modality.name for modality in self.modalities) or "none"
        raise KeyError(f"no modality {name!r}; this model has: {known}")

    def modality(self, index: int) -> Modality:
        """Return the modality of an index >= 1."""
        return self.modalities[index - 1]
