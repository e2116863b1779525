"""Latent spaces of one's own that the gates share: of one, two and three axes, and of many channels."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from transfusion.autoencoder.space import Moments, Picture, Size, SpaceError

BLOCK = 8


@dataclass(frozen=True)
class Blocks:
    """Means of blocks of 8 x 8 pixels in [-1, 1], arranged along one, two or three axes, copied to more channels.

    One axis: (3 copies, h w). Two: (3 copies, h, w). Three: (copies, 3, h, w).
    """

    axes: int
    copies: int = 1
    name: str = "blocks"
    is_network: bool = False

    @property
    def channels(self) -> int:
        return self.copies if self.axes == 3 else 3 * self.copies

    @property
    def range(self) -> None:
        return None

    def shape(self, size: Size) -> tuple[int, ...]:
        height, width = (side // BLOCK for side in size)
        if any(side % BLOCK for side in size):
            raise SpaceError(f"{size} is no multiple of {BLOCK}")
        axes = {1: (height * width,), 2: (height, width), 3: (3, height, width)}[self.axes]
        return (self.channels, *axes)

    def moments(self, picture: Picture) -> Moments:
        values = torch.from_numpy(picture.copy()).permute(2, 0, 1).float() / 127.5 - 1  # (3, H, W)
        small = torch.nn.functional.avg_pool2d(values, BLOCK)
        shape = self.shape((picture.shape[0], picture.shape[1]))
        return Moments(small[None].expand(self.copies, *small.shape).reshape(shape).contiguous())

    def decode(self, latent: Tensor) -> Picture:
        values = latent.float().cpu().reshape(self.copies, 3, -1).mean(0)
        width = latent.shape[-1] if self.axes > 1 else values.shape[1] // 2  # one axis: two rows
        small = values.reshape(3, -1, width)
        large = small.repeat_interleave(BLOCK, 1).repeat_interleave(BLOCK, 2)
        return ((large + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous().numpy()

    def to(self, device: torch.device) -> "Blocks":
        return self

    def save(self, folder: Path) -> None:
        return None
