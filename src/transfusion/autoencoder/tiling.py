"""Decoding a large latent in tiles that overlap, so that memory does not grow with the picture.

    ├──── tile ────┤            each tile weighs 1 inside, and falls to 0 over what it shares with the next;
            ├──── tile ────┤    at the edge of the picture it weighs 1

One rule for every network: diffusers' own tiling leaves slivers at the edges, is written for four channels in some
classes, and is not there in others. It must not know networks.
"""

from collections.abc import Callable

import torch
from torch import Tensor

SHARE = 4  # neighbours share a quarter of a tile, or more


def decode_tiled(decode: Callable[[Tensor], Tensor], latent: Tensor, *, tile: int, factor: int) -> Tensor:
    """Decode a latent in tiles.

    What a network sees beyond a tile is lost to it: a convolution the neighbours near the edge, which the weights hide;
    group normalisation and attention the rest of the picture, which they do not.

    Args:
        decode: Decodes (1, C, h, w) into (1, 3, h x factor, w x factor).
        latent: (1, C, h, w).
        tile: Side of a tile, in elements of the latent.
        factor: Pixels for each of them.

    Returns:
        (1, 3, h x factor, w x factor) float32 on the latent's device.
    """
    height, width = latent.shape[-2:]
    tops, lefts = _starts(height, tile), _starts(width, tile)
    total = torch.zeros(1, 3, height * factor, width * factor, device=latent.device)
    weight = torch.zeros(height * factor, width * factor, device=latent.device)
    for top in tops:
        for left in lefts:
            part = latent[..., top : top + tile, left : left + tile]
            rows = _weights(top, part.shape[-2], height, tile, factor).to(latent.device)
            columns = _weights(left, part.shape[-1], width, tile, factor).to(latent.device)
            share = rows[:, None] * columns
            place = (slice(top * factor, top * factor + len(rows)), slice(left * factor, left * factor + len(columns)))
            total[(..., *place)] += decode(part).float() * share
            weight[place] += share
    return total / weight


def _starts(length: int, tile: int) -> list[int]:
    """Return where tiles begin, as evenly as whole elements allow, the last one ending at the end."""
    if length <= tile:
        return [0]
    num_steps = -(-(length - tile) // max(tile - tile // SHARE, 1))
    return [round(index * (length - tile) / num_steps) for index in range(num_steps + 1)]


def _weights(start: int, size: int, length: int, tile: int, factor: int) -> Tensor:
    """Return what each row of a tile's pixels weighs: a ramp over the shared part, but at the edge of the picture."""
    ramp = max(tile // SHARE, 1) * factor
    place = torch.arange(size * factor) + 0.5
    before = place / ramp if start > 0 else torch.ones_like(place)
    after = (size * factor - place) / ramp if start + size < length else torch.ones_like(place)
    return torch.minimum(before, after).clamp(max=1)
