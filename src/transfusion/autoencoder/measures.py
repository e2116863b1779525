"""How good reconstructions are: PSNR, SSIM, a kernel distance of features, and how many codes are in use.

Pictures are (B, 3, H, W) in [-1, 1]. It must not know networks.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

WINDOW, SPREAD = 11, 1.5  # of SSIM's gaussian, in pixels
C1, C2 = 0.01**2, 0.03**2


def as_shown(pictures: Tensor) -> Tensor:
    """Round pictures in [-1, 1] to what a file of 8 bits holds, as values in [0, 1]."""
    return ((pictures.float() + 1.0) * 127.5).round().clamp(0, 255) / 255.0


def psnr(made: Tensor, pictures: Tensor) -> Tensor:
    """Return the ratio of peak to error of each picture as a file shows it, (B,) in dB; infinite where they agree."""
    return shown_psnr(as_shown(made), as_shown(pictures))


def shown_psnr(made: Tensor, pictures: Tensor) -> Tensor:
    """Return the ratio of peak to error of each picture, values 0 to 1, (B,) in dB; infinite where they agree."""
    return -10.0 * (made - pictures).square().flatten(1).mean(1).log10()


def ssim(made: Tensor, pictures: Tensor) -> Tensor:
    """Return the structural similarity of each picture as a file shows it, (B,) at most 1 (Wang et al. 2004).

    A gaussian of 11 pixels and spread 1.5, or as many pixels as the smaller side has; no padding; each colour apart.
    """
    x, y = as_shown(made), as_shown(pictures)
    side = min(WINDOW, *x.shape[-2:])
    places = torch.arange(side, device=x.device) - (side - 1) / 2
    line = (-0.5 * (places / SPREAD).square()).exp()
    line = line / line.sum()
    kernel = (line[:, None] * line[None]).expand(x.shape[1], 1, side, side)

    def mean(values: Tensor) -> Tensor:
        return functional.conv2d(values, kernel, groups=x.shape[1])

    mean_x, mean_y = mean(x), mean(y)
    var_x, var_y = mean(x * x) - mean_x.square(), mean(y * y) - mean_y.square()
    cov = mean(x * y) - mean_x * mean_y
    light = (2 * mean_x * mean_y + C1) / (mean_x.square() + mean_y.square() + C1)
    return (light * (2 * cov + C2) / (var_x + var_y + C2)).flatten(1).mean(1)


def kernel_distance(one: Tensor, other: Tensor) -> float:
    """Return the squared distance of two sets of features under a cubic kernel, without bias (arXiv 1801.01401).

    It is not the KID of papers, whose features are Inception's. About zero for two sets of one distribution.

    Args:
        one: (N, F), N at least 2.
        other: (M, F), M at least 2.
    """
    x, y = one.double(), other.double()

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1.0) ** 3

    def apart(a: Tensor) -> float:
        values, count = kernel(a, a), len(a)
        return float((values.sum() - values.trace()) / (count * (count - 1)))

    return apart(x) + apart(y) - 2.0 * float(kernel(x, y).mean())


def perplexity(counts: Tensor) -> float:
    """Return how many codes used alike would be as uncertain as codes of such counts (K,) are."""
    shares = counts.double() / counts.sum()
    return math.exp(float(-(shares * shares.clamp(min=1e-300).log()).sum()))


def share_in_use(counts: Tensor) -> float:
    """Return which share of the codes was used at all."""
    return float((counts > 0).double().mean())
