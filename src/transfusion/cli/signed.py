"""The notes that verbs leave in the pictures they write: who drew them, from what."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transfusion.devices import PRECISIONS
from transfusion.files import sha256_of
from transfusion.generate.options import DenoisingOptions
from transfusion.notes import Note
from transfusion.pretrained import Transfusion
from transfusion.provenance import Origin, Provenance, Task
from transfusion.train.manifest import read_manifest


@dataclass(frozen=True)
class Signer:
    """Signs the pictures of one model. It is made when the model is loaded: a training may replace its checkpoint.

    Attributes:
        model: The checkpoint and the digest of its weights; None where they are of no file.
        denoising: How pictures are sampled unless told otherwise.
        device: Where they are drawn.
        precision: Compute dtype.
    """

    model: Origin | None
    denoising: DenoisingOptions
    device: str
    precision: str

    def note(
        self,
        task: Task,
        prompts: Sequence[str],
        *,
        seed: int,
        denoising: DenoisingOptions | None = None,
        picture: Path | None = None,
        negative: str | None = None,
        beside: int = 0,
        is_apart: bool = False,
    ) -> Note:
        """Make the note of a picture, or of a sheet of several.

        Args:
            task: The verb that draws it.
            prompts: What was asked for, in order.
            seed: Of the first picture; the others have the numbers behind it.
            denoising: How it is sampled, where that is not as the model's settings say.
            picture: The file that is edited, before anything is written over it.
            negative: What guidance led away from, if anything.
            beside: How many others were drawn in the same forwards, and are in files of their own.
            is_apart: Whether each was drawn by itself.
        """
        return Provenance(
            task=task,
            prompts=tuple(prompts),
            seed=seed,
            denoising=denoising or self.denoising,
            model=self.model,
            picture=None if picture is None else origin_of(picture),
            negative=negative or None,
            beside=beside,
            is_apart=is_apart,
            device=self.device,
            precision=self.precision,
        ).note()


def signer_of(model: Transfusion) -> Signer:
    """Make the signer of a model that was just loaded.

    Raises:
        CheckpointError: Its checkpoint is gone.
    """
    file = model.weights_file
    origin = None if file is None else Origin(str(file.parent.resolve()), read_manifest(file.parent)[file.name].sha256)
    precision = next(name for name, dtype in PRECISIONS.items() if dtype is model.dtype)
    return Signer(origin, model.config.denoising, str(model.model.device), precision)


def origin_of(picture: Path) -> Origin | None:
    """Name a picture's file and its digest; None where there is none, or a pipe, of which nothing is left."""
    try:
        if not picture.is_file():
            return None
        return Origin(str(picture.resolve()), sha256_of(picture))
    except (OSError, ValueError):  # ValueError: NUL in its name, which a note may hold
        return None
