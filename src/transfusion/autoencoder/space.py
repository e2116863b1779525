"""What stands between pictures and the latents that the transformer denoises: one protocol for all latent spaces.

    picture (H, W, 3) uint8 ──moments──▶ Moments of its latent (C, *axes) ──draw──▶ x_0 ──...──▶ x_0 ──decode──▶ picture

Latents have about mean 0 and spread 1 in every channel; what normalises them is inverted in the same file. A latent
need not be a map of the picture: its axes (1, 2 or 3) are the space's own. It must not know models, records or slots.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Picture = NDArray[np.uint8]
Size = tuple[int, int]  # height, width
STILL = 1e-5  # a spread of so much of the mean is rounding
CARRIED_FILES = ("autoencoder.json", "autoencoder.safetensors")  # of a checkpoint that carries its latent space


class SpaceError(ValueError):
    """A latent space cannot be had, or cannot hold what it is given; the message says what to do."""


class Moments(NamedTuple):
    """What an encoder knows of a picture's latent, normalised.

    Attributes:
        mean: (C, *axes) float32 on the CPU.
        std: Spread of the posterior about it, of the same shape; None where the encoder names a point.
    """

    mean: Tensor
    std: Tensor | None = None

    def draw(self, rng: np.random.Generator) -> Tensor:
        """Draw a latent of the posterior, (C, *axes) float32; the point itself where there is no spread."""
        if self.std is None:
            return self.mean
        noise = torch.from_numpy(rng.standard_normal(self.mean.shape, dtype=np.float32))
        return self.mean + self.std * noise


class LatentSpace(Protocol):
    """One latent space. It may hold a network, and is used by one process at a time."""

    @property
    def name(self) -> str:
        """What it is, for a person, such as ``"pixels"`` or ``"AutoencoderKL of PATH"``."""
        ...

    @property
    def channels(self) -> int:
        """Channels C of its latents."""
        ...

    @property
    def range(self) -> tuple[float, float] | None:
        """Least and largest value that a clean latent can have; None where there is no bound."""
        ...

    @property
    def is_network(self) -> bool:
        """Whether encoding and decoding take a network: worth to be done once, and on the model's device."""
        ...

    def shape(self, size: Size) -> tuple[int, ...]:
        """Return the shape (C, *axes) of the latent of a picture of a size (height, width) in pixels.

        Raises:
            SpaceError: It holds no pictures of that size; names the nearest sizes that it does.
        """
        ...

    def moments(self, picture: Picture) -> Moments:
        """Encode a picture, (H, W, 3) uint8: each by itself, so that company moves no bit.

        Raises:
            SpaceError: As ``shape``.
        """
        ...

    def decode(self, latent: Tensor) -> Picture:
        """Turn a latent (C, *axes) of any device and dtype into a picture, (H, W, 3) uint8.

        Raises:
            SpaceError: It has no decoder.
        """
        ...

    def to(self, device: torch.device) -> "LatentSpace":
        """Move its network, if it has one, and return it."""
        ...

    def save(self, folder: Path) -> None:
        """Write the files of a checkpoint that bring it back, if it carries any."""
        ...


@dataclass(frozen=True)
class Normalisation:
    """Per-channel statistics that bring latents to mean 0 and spread 1, and back.

    Attributes:
        mean: One number for each channel.
        std: One positive number for each channel.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def apply(self, latent: Tensor) -> Tensor:
        """Normalise (C, *axes) in float32."""
        return (latent.float() - shaped_numbers(self.mean, latent)) / shaped_numbers(self.std, latent)

    def scale(self, spread: Tensor) -> Tensor:
        """Normalise a spread (C, *axes) in float32: nothing is subtracted."""
        return spread.float() / shaped_numbers(self.std, spread)

    def invert(self, latent: Tensor) -> Tensor:
        """Bring normalised latents (C, *axes) back, in float32."""
        return latent.float() * shaped_numbers(self.std, latent) + shaped_numbers(self.mean, latent)


def shaped_numbers(numbers: Sequence[float], latent: Tensor) -> Tensor:
    """Return a number for each channel as float32, in the shape (C, 1, ...) and on the device of latents (C, *axes)."""
    shaped = torch.tensor(numbers, dtype=torch.float32, device="cpu").view(-1, *[1] * (latent.ndim - 1))
    return shaped.to(latent.device)


def renormalised(moments: Moments, held: Normalisation, wanted: Normalisation) -> Moments:
    """Bring moments that are normalised by some statistics to others: rounded once, and to the bit as they are where
    both are the same.
    """
    if held == wanted:
        return moments
    mean, std = moments
    m, s, to_m, to_s = (
        shaped_numbers(numbers, mean).double() for numbers in (held.mean, held.std, wanted.mean, wanted.std)
    )
    return Moments(((mean * s + (m - to_m)) / to_s).float(), None if std is None else (std * s / to_s).float())


def measure(latents: Sequence[Tensor]) -> Normalisation:
    """Measure the per-channel statistics of latents (C, *axes); a channel that changes by less than float32 tells apart
    keeps its scale.

    Sums are float64, so that the order of the latents hardly matters, and numbers have seven digits, so that it does
    not matter at all.
    """
    sums = [latent.double().flatten(1) for latent in latents]
    count = sum(each.shape[1] for each in sums)
    mean = torch.stack([each.sum(1) for each in sums]).sum(0) / count
    variance = torch.stack([(each - mean[:, None]).square().sum(1) for each in sums]).sum(0) / count
    pairs = list(zip(mean.tolist(), variance.sqrt().tolist(), strict=True))
    std = [float(f"{spread:.7g}") if spread > STILL * max(abs(centre), 1e-30) else 1.0 for centre, spread in pairs]
    return Normalisation(tuple(float(f"{centre:.7g}") for centre, _ in pairs), tuple(std))
