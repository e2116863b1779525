"""Frozen feature networks that judge pictures: known by the names of their tensors. It must not read files.

MobileNetV2, batch norms folded: conv00.weight .. conv52.weight, inputs (x - 128) / 128, TensorFlow's padding
VGG16: features.0.weight .. features.28.weight, as model zoos name them, inputs by ImageNet's mean and spread
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

STAGES = ((2, 2), (3, 2), (4, 2), (3, 1), (3, 2), (1, 1))  # blocks and first stride of MobileNetV2's stages
VGG_BLOCKS = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))  # places of its convolutions
VGG_MEAN, VGG_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class FeatureError(ValueError):
    """Tensors are of no network that is known; the message says what was expected."""


class Features(NamedTuple):
    """What a network sees: maps (B, C, h, w) of its layers, the coarsest last, and (B, F) of the whole picture."""

    layers: list[Tensor]
    pooled: Tensor


class MobileNetV2(nn.Module):
    """MobileNetV2 without its classes; a layer before each halving of the side, and the last."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the weights, in any dtype."""
        super().__init__()
        self.convolutions = nn.ModuleList(
            [_convolution(tensors[f"conv{n:02}.weight"], tensors[f"conv{n:02}.bias"]) for n in range(52)]
        )
        ends = [2]
        for count, _ in STAGES:
            ends.append(ends[-1] + 3 * count)
        self._blocks = [range(first + 1, last + 1, 3) for first, last in pairwise(ends)]
        strides = [stride for _, stride in STAGES]
        kept = [number for number, stride in enumerate(strides) if stride == 2]  # the stage before, by its number
        self._kept = {*kept, len(STAGES)}
        self.layer_channels = [len(tensors[f"conv{ends[stage]:02}.weight"]) for stage in sorted(self._kept)]

    def forward(self, pictures: Tensor) -> Features:
        """Look at pictures (B, 3, H, W) in [-1, 1]."""
        x = ((pictures + 1.0) * 127.5 - 128.0) / 128.0
        x = functional.relu6(self._convolved(x, 0, 2))
        x = self._convolved(functional.relu6(self._convolved(x, 1, 1)), 2, 1)
        layers = [x]
        for stage, (blocks, (_, stride)) in enumerate(zip(self._blocks, STAGES, strict=True), start=1):
            for place, first in enumerate(blocks):
                inner = functional.relu6(self._convolved(x, first, 1))
                inner = functional.relu6(self._convolved(inner, first + 1, stride if place == 0 else 1))
                inner = self._convolved(inner, first + 2, 1)
                x = x + inner if place or (stride == 1 and x.shape == inner.shape) else inner
            if stage in self._kept:
                layers.append(x)
        return Features(layers, functional.relu6(self._convolved(x, 51, 1)).mean((2, 3)))

    def _convolved(self, x: Tensor, number: int, stride: int) -> Tensor:
        """Convolve with the padding of TensorFlow: one more at the bottom and the right."""
        layer = self.convolutions[number]
        assert isinstance(layer, nn.Conv2d)
        side = layer.kernel_size[0]
        sides = [max((-(-size // stride) - 1) * stride + side - size, 0) for size in reversed(x.shape[-2:])]
        padded = functional.pad(x, [part for total in sides for part in (total // 2, total - total // 2)])
        return functional.conv2d(padded, layer.weight, layer.bias, stride, groups=layer.groups)


class VGG16(nn.Module):
    """The convolutions of VGG16; a layer before each pooling, as LPIPS takes them."""

    mean: Tensor
    std: Tensor

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the weights, in any dtype."""
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.ModuleList(_convolution(tensors[f"features.{n}.weight"], tensors[f"features.{n}.bias"]) for n in places)
            for places in VGG_BLOCKS
        )
        self.layer_channels = [len(tensors[f"features.{places[-1]}.weight"]) for places in VGG_BLOCKS]
        self.register_buffer("mean", torch.tensor(VGG_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(VGG_STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, pictures: Tensor) -> Features:
        """Look at pictures (B, 3, H, W) in [-1, 1]."""
        x = ((pictures + 1.0) / 2.0 - self.mean) / self.std
        layers: list[Tensor] = []
        for block in self.blocks:
            assert isinstance(block, nn.ModuleList)
            x = functional.max_pool2d(x, 2) if layers else x
            for layer in block:
                assert isinstance(layer, nn.Conv2d)
                x = functional.relu(functional.conv2d(x, layer.weight, layer.bias, padding=1))
            layers.append(x)
        return Features(layers, x.mean((2, 3)))


FeatureNetwork = MobileNetV2 | VGG16


def feature_network(tensors: Mapping[str, Tensor]) -> FeatureNetwork:
    """Make the network that tensors belong to by their names.

    Raises:
        FeatureError: They are of none that is known, or some are missing.
    """
    for kind, first in ((MobileNetV2, "conv00.weight"), (VGG16, "features.0.weight")):
        if first in tensors:
            try:
                return kind(tensors).eval().requires_grad_(False)
            except KeyError as error:
                raise FeatureError(f"a {kind.__name__} without {error.args[0]}; the file is not whole") from error
    named = ", ".join(sorted(tensors)[:3])
    raise FeatureError(
        f"tensors {named} ... are of no network that is known; expected MobileNetV2 (conv00.weight ...) or VGG16 "
        "(features.0.weight ...)"
    )


def _convolution(weight: Tensor, bias: Tensor) -> nn.Conv2d:
    """Hold a convolution's weights (out, in / groups, k, k) in float32."""
    is_depthwise = weight.shape[1] == 1 and len(weight) > 1
    groups = len(weight) if is_depthwise else 1
    layer = nn.Conv2d(weight.shape[1] * groups, len(weight), weight.shape[-1], groups=groups, device="meta")
    layer.weight, layer.bias = nn.Parameter(weight.float()), nn.Parameter(bias.float())
    return layer
