"""The identity autoencoder: pixels are the latents (paper footnote 3 says that raw pixels work)."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

HALF_RANGE = 127.5


def encode_pixels(picture: NDArray[np.uint8]) -> Tensor:
    """Turn an (H, W, 3) uint8 picture into (3, H, W) float32 in [-1, 1]."""
    return torch.from_numpy(picture.astype(np.float32) / HALF_RANGE - 1.0).permute(2, 0, 1).contiguous()


def decode_pixels(latent: Tensor) -> NDArray[np.uint8]:
    """Turn (3, H, W) values back into an (H, W, 3) uint8 picture, clipping what lies outside [-1, 1]."""
    scaled = ((latent.detach().float().cpu() + 1.0) * HALF_RANGE).round().clamp(0, 255)
    return scaled.to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
