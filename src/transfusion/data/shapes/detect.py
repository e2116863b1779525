"""The exact detector: pixels → objects, without learning.

Every pixel's direction from the white ground names its colour; connected pixels of one colour are an object; its
shape and size are those whose rendering at the object's centre overlaps best. What overlaps with nothing well is
reported as unclear, so that garbage is an object too many and never a right one.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from transfusion.data.shapes.render import BACKGROUND, TRIANGLE_BASE, TRIANGLE_TOP, Floats, coverage
from transfusion.data.shapes.scene import COLOUR_NAMES, COLOURS, SHAPES, SIZES, SceneObject
from transfusion.data.shapes.tasks import Edit

UNCLEAR = "unclear"
MIN_OVERLAP = 0.72  # soft intersection over union below which a shape is unclear
MIN_COVER = 0.35  # cover from which a pixel belongs to an object
MIN_AREA = 0.004  # of the picture; less is a speck
MAX_COLOUR_ERROR = 0.3  # distance of an object's fully covered pixels from their colour, over the ground's distance
SAME_PLACE = 0.07  # how far an object that an edit leaves alone may move

_DIRECTIONS = np.array([[BACKGROUND - channel for channel in COLOURS[name]] for name in COLOUR_NAMES], np.float32)
_LENGTHS = np.linalg.norm(_DIRECTIONS, axis=1)


@dataclass(frozen=True)
class Detection:
    """A detected object; the fields of a ``SceneObject`` and how well its shape fits, in [0, 1]."""

    shape: str
    colour: str
    size: str
    x: float
    y: float
    confidence: float


def detect(picture: NDArray[np.uint8]) -> list[Detection]:
    """Find all objects of an (H, W, 3) uint8 picture, unclear ones included."""
    away = BACKGROUND - picture.astype(np.float32)  # (H, W, 3)
    nearest = (away @ (_DIRECTIONS / _LENGTHS[:, None]).T).argmax(-1)  # (H, W)
    cover = np.linalg.norm(away, axis=-1) / _LENGTHS[nearest]
    labels = np.where(cover > MIN_COVER, nearest, -1)
    found: list[Detection] = []
    for region in _regions(labels):
        if len(region) >= MIN_AREA * labels.size:
            found.append(_detection(region, int(labels[region[0][0], region[0][1]]), away, cover))
    return found


def _regions(labels: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """Split pixels with a label >= 0 into 4-connected regions of one label, each (count, 2)."""
    rest = {(int(y), int(x)): int(labels[y, x]) for y, x in np.argwhere(labels >= 0)}
    regions: list[NDArray[np.intp]] = []
    while rest:
        start, label = rest.popitem()
        region, front = [start], [start]
        while front:
            y, x = front.pop()
            for pixel in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if rest.get(pixel) == label:
                    del rest[pixel]
                    region.append(pixel)
                    front.append(pixel)
        regions.append(np.array(region))
    return regions


def _detection(region: NDArray[np.intp], colour: int, away: Floats, cover: Floats) -> Detection:
    alpha = _soft_mask(region, cover)
    centre_y, centre_x = _centroid(alpha)
    best, shape, size, x, y = max(
        (_overlap(alpha, shape, centre_x, centre_y - _drop(shape) * radius, radius), shape, size, centre_x,
         centre_y - _drop(shape) * radius)
        for shape in SHAPES
        for size, radius in SIZES.items()
    )  # fmt: skip
    core = region[cover[region[:, 0], region[:, 1]] > 0.8]
    pixels = away[core[:, 0], core[:, 1]] if len(core) else away[region[:, 0], region[:, 1]]
    error = np.abs(pixels - _DIRECTIONS[colour]).mean() / (BACKGROUND / 2)
    is_clear = best >= MIN_OVERLAP and error <= MAX_COLOUR_ERROR
    return Detection(shape if is_clear else UNCLEAR, COLOUR_NAMES[colour], size, x, y, best)


def _soft_mask(region: NDArray[np.intp], cover: Floats) -> Floats:
    """Return the cover of a region and of the faint pixels beside it, 0 elsewhere."""
    near = np.zeros(cover.shape, dtype=bool)
    near[region[:, 0], region[:, 1]] = True
    grown = near.copy()
    grown[1:] |= near[:-1]
    grown[:-1] |= near[1:]
    grown[:, 1:] |= near[:, :-1]
    grown[:, :-1] |= near[:, 1:]
    is_taken = grown & (near | (cover <= MIN_COVER))
    return np.where(is_taken, np.clip(cover, 0, 1), 0).astype(np.float32)


def _centroid(alpha: Floats) -> tuple[float, float]:
    places = (np.arange(alpha.shape[0]) + 0.5) / alpha.shape[0]
    total = alpha.sum()
    return float((alpha.sum(1) * places).sum() / total), float((alpha.sum(0) * places).sum() / total)


def _drop(shape: str) -> float:
    """How far below its centre a shape's centroid lies, in radii."""
    return {"triangle": (2 * TRIANGLE_BASE + TRIANGLE_TOP) / 3}.get(shape, 0.0)


def _overlap(alpha: Floats, shape: str, x: float, y: float, radius: float) -> float:
    """Soft intersection over union of a mask with a rendered shape."""
    template, rows, columns = coverage(shape, x, y, radius, alpha.shape[0])
    window = alpha[rows, columns]
    both = float(np.minimum(window, template).sum())
    either = float(np.maximum(window, template).sum()) + float(alpha.sum()) - float(window.sum())
    return both / either


def edit_is_right(picture: NDArray[np.uint8], change: Edit) -> bool:
    """Return whether a picture shows an edit: the changed thing as told, all else where and as it was."""
    found = detect(picture)
    if len(found) != len(change.after.objects):
        return False
    left = list(found)
    for thing in sorted(change.after.objects, key=lambda thing: thing not in change.before.objects):
        match = next((seen for seen in left if _is_same(seen, thing)), None)
        if match is None:
            return False
        left.remove(match)
    return True


def _is_same(seen: Detection, thing: SceneObject) -> bool:
    is_alike = (seen.shape, seen.colour, seen.size) == (thing.shape, thing.colour, thing.size)
    return is_alike and max(abs(seen.x - thing.x), abs(seen.y - thing.y)) <= SAME_PLACE
