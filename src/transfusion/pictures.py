"""Pictures for people to look at: contact sheets. It must not know models."""

from collections.abc import Sequence

from PIL import Image

GAP = 4
SMALL_SIDE = 96


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
