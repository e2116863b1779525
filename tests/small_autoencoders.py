"""Small random autoencoders of each of diffusers' classes, for tests: made in milliseconds.

A codebook is spread wider than diffusers draws it, and so is what it quantises, so that many of its codes are used.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

FACTOR = {"AutoencoderKL": 2, "VQModel": 2, "AutoencoderTiny": 4, "AutoencoderDC": 2}
CLASSES = tuple(FACTOR)


def small_module(name: str, *, channels: int = 4, num_codes: int = 16, seed: int = 0) -> Any:
    """Make a small random network of a class of diffusers."""
    import diffusers

    blocks: dict[str, Any] = {
        "block_out_channels": (8, 8),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "norm_num_groups": 4,
        "latent_channels": channels,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if name == "AutoencoderKL":
            made = diffusers.AutoencoderKL(**blocks)
        elif name == "VQModel":
            made = diffusers.VQModel(**blocks, num_vq_embeddings=num_codes)
            made.quant_conv.weight.data.mul_(8)
            made.quantize.embedding.weight.data.normal_()
        elif name == "AutoencoderTiny":
            made = diffusers.AutoencoderTiny(
                encoder_block_out_channels=(8, 8, 8),
                decoder_block_out_channels=(8, 8, 8),
                num_encoder_blocks=(1, 1, 1),
                num_decoder_blocks=(1, 1, 1),
                latent_channels=channels,
            )
        elif name == "AutoencoderDC":
            made = diffusers.AutoencoderDC(
                latent_channels=channels,
                attention_head_dim=4,
                encoder_block_types=("ResBlock", "EfficientViTBlock"),
                decoder_block_types=("ResBlock", "EfficientViTBlock"),
                encoder_block_out_channels=(8, 32),
                decoder_block_out_channels=(8, 32),
                encoder_layers_per_block=(1, 1),
                decoder_layers_per_block=(1, 1),
                encoder_qkv_multiscales=((), (3,)),
                decoder_qkv_multiscales=((), (3,)),
            )
        else:
            raise AssertionError(name)
    return made.eval()


def save_small(folder: Path, name: str, *, channels: int = 4, num_codes: int = 16, seed: int = 0) -> Path:
    """Save a small random network as diffusers does, and return its folder."""
    small_module(name, channels=channels, num_codes=num_codes, seed=seed).save_pretrained(folder)
    return folder


def made_pictures(count: int = 3, height: int = 16, width: int = 24) -> NDArray[np.uint8]:
    """Make pictures (count, H, W, 3) uint8 of smooth colours and some grain."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    found = []
    for _ in range(count):
        waves = [np.sin(6 * (rng.normal() * y + rng.normal() * x) + 6 * rng.random()) for _ in range(3)]
        found.append(128 + 90 * np.stack(waves, axis=-1) + rng.normal(0, 8, (height, width, 3)))
    return np.stack(found).clip(0, 255).astype(np.uint8)
