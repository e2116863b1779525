"""Pixels as latents: standardised by what is measured, and back to the same bytes."""

import numpy as np

from transfusion.autoencoder.pixels import PixelConfig, decode_pixels, encode_pixels, measure_pixels, pixel_range

PICTURES = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)


def test_measured_pixels_have_mean_zero_and_spread_one() -> None:
    config = measure_pixels(PICTURES)
    latents = np.stack([encode_pixels(picture, config).numpy() for picture in PICTURES])
    assert abs(latents.mean()) < 1e-3 and abs(latents.std() - 1) < 1e-3  # settings are rounded to 0.001
    assert latents.shape == (20, 3, 8, 8)


def test_every_byte_returns() -> None:
    every = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    for config in (PixelConfig(), PixelConfig(mean=0.9, std=0.35)):
        np.testing.assert_array_equal(decode_pixels(encode_pixels(every, config), config), every)


def test_values_outside_the_range_are_clipped() -> None:
    config = PixelConfig(mean=0.5, std=2.0)
    wild = encode_pixels(PICTURES[0], config) * 1000
    assert set(np.unique(decode_pixels(wild, config))) <= {0, 255}


def test_the_range_is_from_black_to_white() -> None:
    for config in (PixelConfig(), PixelConfig(mean=0.9, std=0.1)):
        ends = [float(encode_pixels(np.full((1, 1, 3), byte, dtype=np.uint8), config)[0, 0, 0]) for byte in (0, 255)]
        np.testing.assert_allclose(pixel_range(config), ends, rtol=1e-5)
    assert pixel_range(PixelConfig(mean=0.9, std=0.1))[0] < -18.9  # mostly white pictures reach far to one side


def test_one_colour_has_no_spread_to_divide_by() -> None:
    assert measure_pixels(np.full((2, 4, 4, 3), 255, dtype=np.uint8)) == PixelConfig()
