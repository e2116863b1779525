"""PSNR by hand, and a space's own loss."""

import math

import numpy as np
import pytest
import torch

from transfusion.autoencoder import measures
from transfusion.autoencoder.pixels import PixelConfig, PixelSpace
from transfusion.autoencoder.reconstruction import mean_psnr, psnr, reconstruct
from transfusion.autoencoder.space import SpaceError

GREY = np.full((4, 6, 3), 100, dtype=np.uint8)


@pytest.mark.parametrize(("value", "expected"), [(101, 48.1308), (90, 28.1308), (110, 28.1308)])
def test_psnr_by_hand(value: int, expected: float) -> None:
    assert psnr(GREY, np.full_like(GREY, value)) == pytest.approx(expected, abs=1e-4)  # 20 log10(255 / difference)


def test_black_and_white_differ_by_all_there_is() -> None:
    assert psnr(np.zeros_like(GREY), np.full_like(GREY, 255)) == 0


def test_equal_pictures_have_infinity_and_do_not_hide_the_others() -> None:
    assert psnr(GREY, GREY) == math.inf
    rng = np.random.default_rng(0)
    some, other = rng.integers(0, 256, (2, 4, 6, 3), dtype=np.uint8)
    values = [torch.tensor(each).permute(2, 0, 1)[None] / 127.5 - 1 for each in (some, other)]
    assert psnr(some, other) == pytest.approx(float(measures.psnr(values[0], values[1])), abs=1e-5)
    assert mean_psnr([20.0, math.inf, 30.0]) == 25
    assert mean_psnr([math.inf]) == mean_psnr([]) == math.inf


def test_pictures_of_two_sizes_are_refused() -> None:
    with pytest.raises(SpaceError, match=r"pictures of \(4, 6, 3\) and \(6, 4, 3\) cannot be compared"):
        psnr(GREY, GREY.transpose(1, 0, 2))


def test_pixels_lose_nothing() -> None:
    pictures = [np.random.default_rng(0).integers(0, 256, (size, 5, 3), dtype=np.uint8) for size in (4, 7)]
    found = reconstruct(PixelSpace(PixelConfig(mean=0.3, std=0.7)), pictures)
    assert [each.psnr for each in found] == [math.inf, math.inf]
    assert all(np.array_equal(each.picture, each.reconstruction) for each in found)
