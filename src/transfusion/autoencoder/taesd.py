"""The network of the TAESD family, with the names that its original files give to its weights.

    picture in [0, 1] ──encoder──▶ latent, at an eighth of the side ──decoder──▶ picture in [0, 1]

diffusers' AutoencoderTiny is the same network but for TAEF2, whose three blocks at the lowest resolution hold a pool
with group normalisation that it cannot express; hence one of our own, which needs no diffusers. Architecture:
``taesd.py`` of https://github.com/madebyollin/taesd. It must not read files.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

WIDTH, COLOURS, NUM_BLOCKS, NUM_LEVELS, NUM_GROUPS = 64, 3, 3, 3, 4
BOUND = 3.0  # the decoder takes latents no larger, bent smoothly
_POOL = ".pool.0.weight"


class Taesd(nn.Module):
    """Encoder and decoder of one of the family.

    Args:
        latent_channels: Channels of its latents: 4, 16 or 32.
        has_pool: Whether blocks at the lowest resolution pool, as TAEF2's do.
    """

    def __init__(self, latent_channels: int, has_pool: bool) -> None:
        super().__init__()
        self.settings: dict[str, object] = {"latent_channels": latent_channels, "has_pool": has_pool}
        down: list[nn.Module] = [_conv(COLOURS, WIDTH), Block(has_pool=False)]
        for level in range(NUM_LEVELS):
            down.append(nn.Conv2d(WIDTH, WIDTH, 3, padding=1, stride=2, bias=False))
            down += [Block(has_pool=has_pool and level == NUM_LEVELS - 1) for _ in range(NUM_BLOCKS)]
        self.encoder = nn.Sequential(*down, _conv(WIDTH, latent_channels))
        up: list[nn.Module] = [Bent(), _conv(latent_channels, WIDTH), nn.ReLU()]
        for level in range(NUM_LEVELS):
            up += [Block(has_pool=has_pool and level == 0) for _ in range(NUM_BLOCKS)]
            up += [nn.Upsample(scale_factor=2), nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False)]
        self.decoder = nn.Sequential(*up, Block(has_pool=False), _conv(WIDTH, COLOURS))


class Block(nn.Module):
    """Three convolutions beside the identity, after a pool if there is one."""

    def __init__(self, *, has_pool: bool) -> None:
        super().__init__()
        self.conv = nn.Sequential(_conv(WIDTH, WIDTH), nn.ReLU(), _conv(WIDTH, WIDTH), nn.ReLU(), _conv(WIDTH, WIDTH))
        wide = NUM_GROUPS * WIDTH
        self.pool = (
            nn.Sequential(
                nn.Conv2d(WIDTH, wide, 1, bias=False),
                nn.GroupNorm(NUM_GROUPS, wide),
                nn.ReLU(),
                nn.Conv2d(wide, WIDTH, 1, bias=False),
            )
            if has_pool
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """Transform (B, 64, H, W)."""
        if self.pool is not None:
            x = x + self.pool(x)
        return torch.relu(self.conv(x) + x)


class Bent(nn.Module):
    """Bends values smoothly into [-3, 3]."""

    def forward(self, x: Tensor) -> Tensor:
        """Bend values of any shape."""
        return torch.tanh(x / BOUND) * BOUND


def settings_of(encoder: Mapping[str, Tensor]) -> dict[str, object]:
    """Tell the arguments of a network from the weights of its encoder; those of another are told wrongly."""
    last = max((name for name in encoder if name.endswith(".bias") and name.count(".") == 1), key=_index, default=None)
    channels = len(encoder[last]) if last is not None and encoder[last].ndim else 0
    return {"latent_channels": channels, "has_pool": any(name.endswith(_POOL) for name in encoder)}


def _index(name: str) -> int:
    first = name.split(".")[0]
    return int(first) if first.isdecimal() else -1


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)
