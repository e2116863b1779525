"""Augmentation: what a visit sees of a picture, a keyed crop and flip of it. It must not know files or captions.

The same view is taken of a picture whatever it becomes, pixels or latents; held-out losses, prompts and samples see
pictures whole (``settings.unaugmented``).
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from transfusion.autoencoder.space import Picture, Size

FLIPPED = 0.5  # share of the visits, where pictures are flipped at all


@dataclass(frozen=True)
class View:
    """What is seen of a picture.

    Attributes:
        box: Left, top, right and bottom of a crop, as shares of the picture's sides; None: the whole.
        is_flipped: Whether left and right change places.
    """

    box: tuple[float, float, float, float] | None = None
    is_flipped: bool = False


WHOLE = View()


def draw_view(rng: np.random.Generator, *, flip: bool, crop: float) -> View:
    """Draw what a visit sees of a picture. The flip depends on nothing but the generator, the crop neither.

    Args:
        rng: The visit's.
        flip: Whether half of the visits see pictures flipped.
        crop: Least side of the crop as a share of the picture's, 0 < crop <= 1; sides are uniform from it to 1, places
            uniform in the picture.
    """
    chance, scale, left, top = rng.random(4).tolist()
    side = crop + (1.0 - crop) * scale
    left, top = left * (1.0 - side), top * (1.0 - side)
    box = None if crop == 1 else (left, top, min(left + side, 1.0), min(top + side, 1.0))
    return View(box, flip and chance < FLIPPED)


def seen(picture: Picture, view: View, size: Size) -> Picture:
    """Return what a view shows of a picture.

    Args:
        picture: (H, W, 3) uint8, of the aspect of ``size``; of that size where the view is no crop.
        view: What is seen.
        size: To which a crop is resized, with antialiasing.

    Returns:
        (*size, 3) uint8.
    """
    if view.box is not None:
        height, width = picture.shape[:2]
        sides = (width, height, width, height)
        box = tuple(min(share * side, side) for share, side in zip(view.box, sides, strict=True))
        resized = Image.fromarray(picture).resize((size[1], size[0]), Image.Resampling.LANCZOS, box=box)  # pyright: ignore[reportArgumentType]
        picture = np.asarray(resized)
    return np.ascontiguousarray(picture[:, ::-1]) if view.is_flipped else picture


def kept_size(own: Size, size: Size, crop: float) -> Size:
    """Return the size at which a picture is kept so that the smallest crop of it has full detail.

    Args:
        own: The picture's own size; it is never made larger than the largest part of its aspect.
        size: The model's.
        crop: See ``draw_view``; at 1 pictures are kept at the model's size.

    >>> kept_size((600, 800), (128, 128), 0.5), kept_size((200, 300), (128, 128), 0.5), kept_size((9, 9), (64, 32), 1)
    ((256, 256), (200, 200), (64, 32))
    """
    if crop == 1:
        return size
    scale = min(1.0 / crop, own[0] / size[0], own[1] / size[1])
    return max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)
