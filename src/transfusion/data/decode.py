"""One picture file → pixels: any size and mode becomes an RGB square. It must not know folders or captions."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from transfusion.data.errors import BrokenPicture

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm"})
WHITE = (255, 255, 255, 255)


def open_picture(source: Path | Image.Image, resolution: int) -> NDArray[np.uint8]:
    """Decode a picture of any size and mode to a square.

    Transparency is laid over white, the EXIF rotation applied, of an animation the first frame taken, the centre
    cropped to a square and resized with antialiasing.

    Args:
        source: A file, or a picture that is open already.
        resolution: Side of the result in pixels.

    Returns:
        (resolution, resolution, 3) uint8.

    Raises:
        BrokenPicture: The file is missing, no picture, or not whole.
    """
    try:
        picture = source if isinstance(source, Image.Image) else Image.open(source)
        picture.load()  # a truncated file fails here
        side = (resolution, resolution)
        square = ImageOps.fit(_on_white(picture), side, Image.Resampling.LANCZOS)
    except FileNotFoundError as error:
        raise BrokenPicture(f"{source}: there is no such file") from error
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise BrokenPicture(f"{source}: {error}") from error
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, MemoryError) as error:
        raise BrokenPicture(f"{source}: not a whole picture ({type(error).__name__}: {error})") from error
    return np.asarray(square)


def _on_white(picture: Image.Image) -> Image.Image:
    """Bring a picture of any mode upright to RGB, transparency over white."""
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I;16") or picture.mode in ("I", "F"):
        picture = _eight_bits(picture)
    has_alpha = picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info
    if not has_alpha:
        return picture.convert("RGB")
    colour = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", colour.size, WHITE), colour).convert("RGB")


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Scale 16-bit, 32-bit and float greys to 8 bits: by the 16-bit range where they exceed 8 bits."""
    values = np.asarray(picture, dtype=np.float64)
    top = (
        1.0
        if picture.mode == "F" and values.max(initial=0) <= 1
        else 255.0
        if values.max(initial=0) <= 255
        else 65535.0
    )
    return Image.fromarray((values / top * 255).clip(0, 255).round().astype(np.uint8))
