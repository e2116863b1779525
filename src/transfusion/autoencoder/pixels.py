"""The identity autoencoder: pixels are the latents (paper footnote 3 says that raw pixels work).

Standardised latents matter: on pictures that are mostly white, pixels in [-1, 1] are a large constant with a small
signal on it, and a model learns them several times more slowly.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from transfusion.autoencoder.space import Moments, Picture, Size

HALF_RANGE = 127.5
COLOURS = 3


class PixelConfig(BaseModel):
    """Mean and standard deviation of the data's pixels in [-1, 1], so that latents have about 0 and 1."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    mean: float = Field(default=0.0, description="Subtracted from pixels in [-1, 1]")
    std: float = Field(default=0.5, gt=0, description="Divides them")


def measure_pixels(pictures: NDArray[np.uint8]) -> PixelConfig:
    """Measure (count, H, W, 3) uint8 pictures; a set of one colour counts as the default's spread."""
    scaled = pictures.astype(np.float64) / HALF_RANGE - 1.0
    std = round(float(scaled.std()), 3)
    return PixelConfig(mean=round(float(scaled.mean()), 3), std=std) if std else PixelConfig()


def pixel_range(config: PixelConfig) -> tuple[float, float]:
    """Return what black and white are as standardised values: no picture, nor any mean of pictures, lies outside."""
    return (-1.0 - config.mean) / config.std, (1.0 - config.mean) / config.std


def encode_pixels(picture: NDArray[np.uint8], config: PixelConfig) -> Tensor:
    """Turn an (H, W, 3) uint8 picture into (3, H, W) float32, standardised."""
    scaled = (picture.astype(np.float32) / HALF_RANGE - (1.0 + config.mean)) / config.std
    return torch.from_numpy(scaled).permute(2, 0, 1).contiguous()


def decode_pixels(latent: Tensor, config: PixelConfig) -> NDArray[np.uint8]:
    """Turn (3, H, W) values back into an (H, W, 3) uint8 picture, clipping what lies outside its range."""
    values = latent.detach().float().cpu() * config.std + (1.0 + config.mean)
    return (values * HALF_RANGE).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


@dataclass(frozen=True)
class PixelSpace:
    """Pixels, standardised: the latent of an (H, W) picture is (3, H, W)."""

    config: PixelConfig

    @property
    def name(self) -> str:
        """Its name."""
        return "pixels"

    @property
    def channels(self) -> int:
        """Red, green and blue."""
        return COLOURS

    @property
    def range(self) -> tuple[float, float]:
        """Black and white."""
        return pixel_range(self.config)

    @property
    def is_network(self) -> bool:
        """There is none."""
        return False

    def shape(self, size: Size) -> tuple[int, ...]:
        """Return (3, H, W)."""
        return (COLOURS, *size)

    def moments(self, picture: Picture) -> Moments:
        """Standardise a picture."""
        return Moments(encode_pixels(picture, self.config))

    def decode(self, latent: Tensor) -> Picture:
        """Turn it back, clipping what lies outside the range."""
        return decode_pixels(latent, self.config)

    def to(self, device: torch.device) -> "PixelSpace":
        """There is nothing to move."""
        del device
        return self

    def save(self, folder: Path) -> None:
        """The settings say all of it."""
        del folder
