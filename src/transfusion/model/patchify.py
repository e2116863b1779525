"""Patch encoders and decoders: latents ↔ one vector per patch (paper section 2).

Two pairs, for latents of 1, 2 or 3 axes and any width: linear with a D-wide time embedding, and the down and up
blocks of a U-Net with skips and time on both sides. They know one modality's latents and time, and nothing of
slots, text or the trunk.

    latent (I, C, *axes), t ──encode──▶ (I, L, D) ──trunk──▶ (I, L, D) ──decode──▶ (I, C, *axes)
                                └──────────── skips (U-Net) ──────────────┘

Letters: I spans, C channels, L patches per span, D width.
"""

import math
from collections.abc import Sequence
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, model_validator
from torch import Tensor, nn

from transfusion.model.transformer import is_autocast
from transfusion.segments import Modality

TIME_SCALE = 1000.0  # t in [0, 1] is embedded as the paper's step number in [0, T = 1000]
TIME_FREQUENCIES = 256
MAX_PERIOD = 10_000.0
USUAL_SIDE, USUAL_CHANNELS = 32, 3  # of pictures in pixels


class LinearPatchConfig(BaseModel):
    """The linear pair: h = W patch + b + MLP(t)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["linear"] = "linear"


class UNetPatchConfig(BaseModel):
    """The U-Net pair. Each level but those beyond the patch's powers of two halves the latent."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["unet"] = "unet"
    channels: tuple[int, ...] = Field(default=(64, 128), min_length=1, description="Width of each level, finest first")
    blocks_per_level: int = Field(default=1, ge=1, description="Residual blocks on each side of each level")
    use_attention: bool = Field(default=True, description="Bidirectional attention among the patches of a span")
    use_direct: bool = Field(
        default=False, description="Add the linear pair around the blocks: small U-Nets learn sooner"
    )


class ModalityConfig(BaseModel):
    """One continuous modality and the pair that carries it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field(default="image", min_length=1, description="Unique name")
    channels: int = Field(
        default=3, ge=0, description="Channels C of a latent; 0: as the latent space has, settled when a run begins"
    )
    patch_size: tuple[int, ...] = Field(default=(8, 8), description="Elements of a patch along each axis; 1 to 3 axes")
    max_grid: tuple[NonNegativeInt, ...] | None = Field(
        default=None,
        description="Most patches along each axis for learned axis positions; 0: as many as the data's pictures have, "
        "settled when a run begins; None: no axis positions",
    )
    patches: LinearPatchConfig | UNetPatchConfig = Field(
        default=LinearPatchConfig(), discriminator="kind", description="Patch encoder and decoder"
    )

    @model_validator(mode="after")
    def _check(self) -> "ModalityConfig":
        if not 1 <= len(self.patch_size) <= 3 or min(self.patch_size) < 1:
            raise ValueError(f"patch_size {self.patch_size} of {self.name!r} must hold 1 to 3 positive sizes")
        if self.max_grid is not None and len(self.max_grid) != len(self.patch_size):
            raise ValueError(f"max_grid {self.max_grid} of {self.name!r} must have {len(self.patch_size)} axes")
        return self

    @property
    def width(self) -> int:
        """Channels of a latent; where they are open, before a run has begun, those of a picture's pixels."""
        return self.channels or USUAL_CHANNELS

    @property
    def positions(self) -> tuple[int, ...] | None:
        """Positions along each axis; where they are open, before a run has begun, those of a picture of 32 pixels."""
        if self.max_grid is None:
            return None
        sides = (math.ceil(USUAL_SIDE / patch) for patch in self.patch_size)
        return tuple(given or usual for given, usual in zip(self.max_grid, sides, strict=True))

    def record(self) -> Modality:
        """Return the noun that the layout uses."""
        return Modality(self.name, self.width, self.patch_size, self.positions)


class PatchPair(Protocol):
    """What ``transfusion`` needs of a pair."""

    def encode(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Map (I, C, *axes) latents at (I,) times to (I, L, D) vectors and skips."""
        ...

    def decode(self, hidden: Tensor, t: Tensor, skips: tuple[Tensor, ...]) -> Tensor:
        """Map (I, L, D) hidden states back to (I, C, *axes)."""
        ...


class TimeEmbedding(nn.Module):
    """Sinusoid of t, then a two-layer perceptron; the size that reproduces the paper's Table 7 counts."""

    def __init__(self, dim: int) -> None:
        """Build 256 → D → D."""
        super().__init__()
        self.hidden = nn.Linear(TIME_FREQUENCIES, dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, t: Tensor) -> Tensor:
        """Map (I,) float32 times in [0, 1] to (I, D)."""
        half = TIME_FREQUENCIES // 2
        exponents = torch.arange(half, device=t.device, dtype=torch.float32) / half
        angles = TIME_SCALE * t.float()[:, None] * torch.exp(-math.log(MAX_PERIOD) * exponents)
        return self.out(F.silu(self.hidden(torch.cat((angles.cos(), angles.sin()), dim=-1))))


class AxisPositions(nn.Module):
    """Learned position of a patch along each axis, summed; the paper names none, see ``max_grid``."""

    def __init__(self, max_grid: tuple[int, ...], dim: int) -> None:
        """Build one (max, D) table per axis."""
        super().__init__()
        self.max_grid = max_grid
        self.tables = nn.ParameterList(nn.Parameter(torch.zeros(size, dim)) for size in max_grid)

    def forward(self, grid: tuple[int, ...]) -> Tensor:
        """Return the (L, D) positions of a grid of patches, in raster order; ``Modality.grid`` has checked it."""
        total = self.tables[0].new_zeros((*grid, self.tables[0].shape[1]))
        for axis, (table, size) in enumerate(zip(self.tables, grid, strict=True)):
            shape = [1] * len(grid) + [-1]
            shape[axis] = size
            total = total + table[:size].reshape(shape)
        return total.flatten(0, -2)


def split_patches(x: Tensor, patch_size: tuple[int, ...]) -> Tensor:
    """Cut (I, C, *axes) into (I, L, C * prod(patch_size)) patches, left to right, then top to bottom."""
    num_axes = len(patch_size)
    for axis, patch in enumerate(patch_size):
        x = x.unflatten(2 + 2 * axis, (-1, patch))  # (I, C, g0, p0, g1, p1, ...)
    grid_dims = [2 + 2 * axis for axis in range(num_axes)]
    patch_dims = [3 + 2 * axis for axis in range(num_axes)]
    x = x.permute(0, *grid_dims, 1, *patch_dims)
    return x.flatten(1 + num_axes).flatten(1, num_axes)


def join_patches(patches: Tensor, grid: tuple[int, ...], patch_size: tuple[int, ...]) -> Tensor:
    """Undo ``split_patches``: (I, L, C * prod(patch_size)) → (I, C, *axes)."""
    num_axes = len(grid)
    x = patches.unflatten(1, grid).unflatten(-1, (-1, *patch_size))  # (I, g..., C, p...)
    order = [0, 1 + num_axes]
    for axis in range(num_axes):
        order += [1 + axis, 2 + num_axes + axis]
    x = x.permute(order)
    for axis in range(num_axes):
        x = x.flatten(2 + axis, 3 + axis)
    return x


class LinearPatches(nn.Module):
    """One linear layer each way, with the time embedding added to every patch (paper footnote 6)."""

    def __init__(self, config: ModalityConfig, dim: int) -> None:
        """Build for one modality at trunk width D."""
        super().__init__()
        self.record = config.record()
        width = config.width * math.prod(config.patch_size)
        self.project_in = nn.Linear(width, dim)
        self.time = TimeEmbedding(dim)
        self.positions = AxisPositions(config.positions, dim) if config.positions else None
        self.project_out = nn.Linear(dim, width)

    def encode(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Map (I, C, *axes) latents at (I,) times to (I, L, D); no skips but the grid's shape."""
        hidden = self.project_in(split_patches(x_t, self.record.patch_size)) + self.time(t)[:, None]
        if self.positions is not None:
            hidden = hidden + self.positions(self.record.grid(x_t.shape[1:]))
        return hidden, (x_t.new_empty((0, *x_t.shape[1:])),)

    def decode(self, hidden: Tensor, t: Tensor, skips: tuple[Tensor, ...]) -> Tensor:
        """Map (I, L, D) back to (I, C, *axes).

        Where latents are drawn the product is float32, as that of logits is: guidance multiplies every rounding.
        """
        del t
        grid = self.record.grid(skips[0].shape[1:])
        if torch.is_grad_enabled() or not is_autocast(hidden):
            return join_patches(self.project_out(hidden), grid, self.record.patch_size)
        with torch.autocast(hidden.device.type, enabled=False):
            return join_patches(self.project_out(hidden.float()), grid, self.record.patch_size)


def convolution(num_axes: int, channels: tuple[int, int], kernel: Sequence[int], *, strided: bool) -> nn.Module:
    """Build a convolution over 1, 2 or 3 axes: strided by its kernel, or padded to keep the shape."""
    stride, padding = (kernel, [0] * num_axes) if strided else ([1] * num_axes, [size // 2 for size in kernel])
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    return kinds[num_axes - 1](*channels, tuple(kernel), tuple(stride), tuple(padding))  # pyright: ignore


def transposed(num_axes: int, channels: tuple[int, int], stride: Sequence[int]) -> nn.Module:
    """Build the transposed convolution over 1, 2 or 3 axes that enlarges by ``stride`` without overlap."""
    kinds = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    return kinds[num_axes - 1](*channels, tuple(stride), tuple(stride))  # pyright: ignore


class ChannelNorm(nn.Module):
    """Layer norm of a whole map (I, C, *axes) with a scale per channel: the paper's regular layer norm (footnote 7)."""

    def __init__(self, channels: int) -> None:
        """Build with a learned scale and shift."""
        super().__init__()
        self.norm = nn.GroupNorm(1, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape."""
        return self.norm(x)


class ResidualBlock(nn.Module):
    """Norm, SiLU, convolution, plus time, norm, SiLU, convolution, plus the input."""

    def __init__(self, channels_in: int, channels: int, num_axes: int, time_dim: int) -> None:
        """Build from ``channels_in`` to ``channels``."""
        super().__init__()
        kernel = [3] * num_axes
        self.norm_in = ChannelNorm(channels_in)
        self.conv_in = convolution(num_axes, (channels_in, channels), kernel, strided=False)
        self.time = nn.Linear(time_dim, channels)
        self.norm_out = ChannelNorm(channels)
        self.conv_out = convolution(num_axes, (channels, channels), kernel, strided=False)
        widths = (channels_in, channels)
        is_same = channels_in == channels
        self.shortcut = nn.Identity() if is_same else convolution(num_axes, widths, [1] * num_axes, strided=False)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Map (I, channels_in, *axes) and (I, time_dim) to (I, channels, *axes)."""
        hidden = self.conv_in(F.silu(self.norm_in(x)))
        shift = self.time(F.silu(time))
        hidden = hidden + shift.reshape(*shift.shape, *[1] * (x.dim() - 2))
        return self.shortcut(x) + self.conv_out(F.silu(self.norm_out(hidden)))


class SpanAttention(nn.Module):
    """Bidirectional single-head attention among the places of one latent."""

    def __init__(self, channels: int) -> None:
        """Build the projections."""
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (I, C, *axes) to the same shape."""
        query, key, value = self.qkv(self.norm(x).flatten(2).transpose(1, 2)).chunk(3, dim=-1)
        mixed = self.out(F.scaled_dot_product_attention(query, key, value))
        return x + mixed.transpose(1, 2).reshape(x.shape)


class UNetPatches(nn.Module):
    """Down blocks before the trunk, up blocks after it, joined by skips; time enters every block."""

    def __init__(self, config: ModalityConfig, unet: UNetPatchConfig, dim: int) -> None:
        """Build for one modality at trunk width D."""
        super().__init__()
        self.record = config.record()
        num_axes, widths = len(config.patch_size), unet.channels
        stem, strides = unet_strides(config.patch_size, len(widths))
        time_dim = 2 * max(widths)
        outer = (*widths[1:], widths[-1])  # width below each level

        def blocks(first_in: int, width: int) -> nn.ModuleList:
            sizes = [first_in] + [width] * (unet.blocks_per_level - 1)
            return nn.ModuleList(ResidualBlock(size, width, num_axes, time_dim) for size in sizes)

        self.time = TimeEmbedding(time_dim)
        self.stem = convolution(num_axes, (config.width, widths[0]), stem, strided=True)
        self.down_blocks = nn.ModuleList(blocks(width, width) for width in widths)
        self.down = nn.ModuleList(
            convolution(num_axes, (width, below), stride, strided=True)
            for width, below, stride in zip(widths, outer, strides, strict=True)
        )
        self.middle_in = SpanAttention(widths[-1]) if unet.use_attention else nn.Identity()
        self.project_in = nn.Linear(widths[-1], dim)
        pixels = config.width * math.prod(config.patch_size)
        self.direct_in = nn.Linear(pixels, dim) if unet.use_direct else None
        self.direct_out = nn.Linear(dim, pixels) if unet.use_direct else None
        self.positions = AxisPositions(config.positions, dim) if config.positions else None
        self.project_out = nn.Linear(dim, widths[-1])
        self.middle_block = ResidualBlock(2 * widths[-1], widths[-1], num_axes, time_dim)
        self.middle_out = SpanAttention(widths[-1]) if unet.use_attention else nn.Identity()
        self.up = nn.ModuleList(
            transposed(num_axes, (below, width), stride)
            for width, below, stride in zip(widths, outer, strides, strict=True)
        )
        self.up_blocks = nn.ModuleList(blocks(2 * width, width) for width in widths)
        self.norm = ChannelNorm(widths[0])
        self.head = transposed(num_axes, (widths[0], config.width), stem)

    def encode(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Map (I, C, *axes) latents at (I,) times to (I, L, D) and the skips, finest first."""
        time, x, skips = self.time(t), self.stem(x_t), []
        for level, down in zip(self.down_blocks, self.down, strict=True):
            for block in level.children():
                x = block(x, time)
            skips.append(x)
            x = down(x)
        x = self.middle_in(x)
        skips.append(x)
        hidden = self.project_in(x.flatten(2).transpose(1, 2))  # (I, L, D)
        if self.direct_in is not None:
            hidden = hidden + self.direct_in(split_patches(x_t, self.record.patch_size))
        if self.positions is not None:
            hidden = hidden + self.positions(self.record.grid(x_t.shape[1:]))
        return hidden, tuple(skips)

    def decode(self, hidden: Tensor, t: Tensor, skips: tuple[Tensor, ...]) -> Tensor:
        """Map (I, L, D) back to (I, C, *axes) through the skips."""
        time, lowest = self.time(t), skips[-1]
        x = self.project_out(hidden).transpose(1, 2).reshape(lowest.shape)
        x = self.middle_out(self.middle_block(torch.cat((x, lowest), dim=1), time))
        levels = list(zip(self.up, self.up_blocks, skips[:-1], strict=True))
        for up, level, skip in reversed(levels):
            x = torch.cat((up(x), skip), dim=1)
            for block in level.children():
                x = block(x, time)
        out = self.head(F.silu(self.norm(x)))
        if self.direct_out is None:
            return out
        return out + join_patches(self.direct_out(hidden), tuple(lowest.shape[2:]), self.record.patch_size)


def unet_strides(patch_size: tuple[int, ...], num_levels: int) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """Split a patch into the stem's stride and each level's: a level halves every axis that is still even.

    Example:
        >>> unet_strides((8, 8), 2)
        ((2, 2), [(2, 2), (2, 2)])
        >>> unet_strides((1, 6), 2)
        ((1, 3), [(1, 2), (1, 1)])
    """
    rest, strides = list(patch_size), []
    for _ in range(num_levels):
        stride = tuple(2 if size % 2 == 0 else 1 for size in rest)
        rest = [size // factor for size, factor in zip(rest, stride, strict=True)]
        strides.append(stride)
    return tuple(rest), strides


def build_patches(config: ModalityConfig, dim: int) -> LinearPatches | UNetPatches:
    """Build the pair that a modality's config names, for trunk width D."""
    if isinstance(config.patches, UNetPatchConfig):
        return UNetPatches(config, config.patches, dim)
    return LinearPatches(config, dim)
