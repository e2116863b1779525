"""What a latent space itself loses: pictures beside what encoding and decoding makes of them. It must not judge."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch

from transfusion.autoencoder.measures import shown_psnr
from transfusion.autoencoder.space import LatentSpace, Picture, SpaceError

WHITE = 255.0


class Reconstruction(NamedTuple):
    """A picture, what became of it, (H, W, 3) uint8 both, and how near that is in dB."""

    picture: Picture
    reconstruction: Picture
    psnr: float


def psnr(picture: Picture, other: Picture) -> float:
    """Measure the peak signal-to-noise ratio of two pictures of uint8 in dB; equal ones have infinity.

    Raises:
        SpaceError: They differ in size.
    """
    if picture.shape != other.shape:
        raise SpaceError(f"pictures of {picture.shape} and {other.shape} cannot be compared; give two of one size")
    made, shown = (torch.tensor(each / WHITE)[None] for each in (picture, other))  # (1, H, W, 3) float64
    return float(shown_psnr(made, shown))


def mean_psnr(found: Sequence[float]) -> float:
    """Average PSNRs over the pictures that are not equal, since infinity would hide them; infinity if all are equal."""
    finite = [value for value in found if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.inf


def reconstruct(space: LatentSpace, pictures: Iterable[Picture]) -> list[Reconstruction]:
    """Encode pictures (H, W, 3) uint8, each of its own size, and decode the means of their latents.

    Raises:
        SpaceError: The space holds no pictures of such a size, or has no decoder.
    """
    return [
        Reconstruction(picture, decoded, psnr(picture, decoded))
        for picture in pictures
        for decoded in [space.decode(space.moments(picture).mean)]
    ]
