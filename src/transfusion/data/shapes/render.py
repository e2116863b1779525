"""Scenes → pixels, antialiased by supersampling."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from transfusion.data.shapes.scene import COLOURS, EXTENT, Scene

BACKGROUND = 255.0
TRIANGLE_TOP, TRIANGLE_BASE = -1.05, 0.68
OVERSAMPLING = 4
Floats = NDArray[np.float32]


@lru_cache(maxsize=8)
def _grid(resolution: int) -> Floats:
    count = resolution * OVERSAMPLING
    return ((np.arange(count, dtype=np.float32) + 0.5) / count).astype(np.float32)


def coverage(shape: str, x: float, y: float, radius: float, resolution: int) -> tuple[Floats, slice, slice]:
    """Compute how much of each pixel a shape covers.

    Args:
        shape: One of SHAPES.
        x: Centre from the left, in [0, 1].
        y: Centre from the top, in [0, 1].
        radius: Over the side of the picture.
        resolution: Side in pixels.

    Returns:
        Coverage in [0, 1] of a window around the shape, and the window's rows and columns in the picture.
    """
    rows, columns = _window(y, radius, resolution), _window(x, radius, resolution)
    grid = _grid(resolution)
    down = (grid[rows.start * OVERSAMPLING : rows.stop * OVERSAMPLING, None] - y) / radius
    across = (grid[None, columns.start * OVERSAMPLING : columns.stop * OVERSAMPLING] - x) / radius
    inside = _inside(shape, across, down)
    fine = inside.reshape(rows.stop - rows.start, OVERSAMPLING, columns.stop - columns.start, OVERSAMPLING)
    return fine.mean((1, 3), dtype=np.float32), rows, columns


_known_coverage = lru_cache(maxsize=1024)(coverage)  # objects have nine places, so the same few come again and again


def _window(centre: float, radius: float, resolution: int) -> slice:
    low = int(np.floor((centre - EXTENT * radius) * resolution))
    high = int(np.ceil((centre + EXTENT * radius) * resolution))
    return slice(max(low, 0), min(max(high, 1), resolution))


def _inside(shape: str, across: Floats, down: Floats) -> NDArray[np.bool_]:
    """Say which points, in units of the radius from the centre, lie in a shape."""
    if shape == "circle":
        return across**2 + down**2 <= 1
    if shape == "square":
        return (np.abs(across) <= 0.81) & (np.abs(down) <= 0.81)
    if shape == "triangle":
        return (down <= TRIANGLE_BASE) & (down >= 1.85 * np.abs(across) + TRIANGLE_TOP)
    if shape == "cross":
        width, height = np.abs(across), np.abs(down)
        return ((width <= 0.34) & (height <= 1.05)) | ((height <= 0.34) & (width <= 1.05))
    return _in_star(across, down)


def _in_star(across: Floats, down: Floats) -> NDArray[np.bool_]:
    """A five-pointed star: in polar form, the border runs straight from a tip (EXTENT) to a notch (0.45)."""
    tip, notch, half = EXTENT, 0.45, np.pi / 5
    angle = np.abs((np.arctan2(across, -down) + half) % (2 * half) - half)  # 0 at a tip, half at a notch
    distance = np.hypot(across, down)
    border = tip * notch * np.sin(half) / (notch * np.sin(half - angle) + tip * np.sin(angle))
    return distance <= border


def render(scene: Scene, resolution: int = 32) -> NDArray[np.uint8]:
    """Draw a scene.

    Returns:
        (resolution, resolution, 3) uint8.
    """
    picture = np.full((resolution, resolution, 3), BACKGROUND, dtype=np.float32)
    for thing in scene.objects:
        cover, rows, columns = _known_coverage(thing.shape, thing.x, thing.y, thing.radius, resolution)
        colour = np.asarray(COLOURS[thing.colour], dtype=np.float32)
        picture[rows, columns] += cover[..., None] * (colour - picture[rows, columns])
    return picture.round().astype(np.uint8)
