"""Pictures for people to look at: contact sheets, and files of pictures. It must not know models."""

from collections.abc import Sequence
from io import BytesIO

from PIL import Image

GAP = 4
SMALL_SIDE = 96


def encoded(picture: Image.Image, form: str = "PNG") -> bytes:
    """Return the bytes of a picture's file in a format, by Pillow's name of it."""
    data = BytesIO()
    picture.save(data, format=form)
    return data.getvalue()


def sheet(pictures: Sequence[Image.Image], *, num_columns: int) -> Image.Image:
    """Put pictures side by side, small ones enlarged by a whole factor.

    Args:
        pictures: RGB pictures of one size.
        num_columns: Pictures in a line.

    Returns:
        One RGB picture, white between the pictures.
    """
    width, height = pictures[0].size
    factor = max(1, SMALL_SIDE // width)
    width, height = width * factor, height * factor
    num_lines = -(-len(pictures) // num_columns)
    size = (num_columns * (width + GAP) + GAP, num_lines * (height + GAP) + GAP)
    result = Image.new("RGB", size, "white")
    for i, picture in enumerate(pictures):
        line, column = divmod(i, num_columns)
        place = (GAP + column * (width + GAP), GAP + line * (height + GAP))
        result.paste(picture.resize((width, height), Image.Resampling.NEAREST), place)
    return result
