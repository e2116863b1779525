"""Pictures for people to look at: contact sheets, and files of pictures. It must not know models."""

from collections.abc import Sequence
from functools import cache
from io import BytesIO
from unicodedata import combining, normalize

from PIL import Image, ImageDraw, ImageFont

GAP = 4
SMALL_SIDE = 96
CAPTION_SIZE, CAPTION_LINES = 11, 5
LINE_HEIGHT = 13
MAX_CAPTION = 400  # more characters than the lines hold
CUT = " ..."


def encoded(picture: Image.Image, form: str = "PNG") -> bytes:
    """Return the bytes of a picture's file in a format, by Pillow's name of it."""
    data = BytesIO()
    picture.save(data, format=form)
    return data.getvalue()


def sheet(pictures: Sequence[Image.Image], *, num_columns: int, captions: Sequence[str] = ()) -> Image.Image:
    """Put pictures side by side, small ones enlarged by a whole factor.

    Args:
        pictures: RGB pictures of one size.
        num_columns: Pictures in a line.
        captions: What to write under each picture, in a few lines; none: nothing.

    Returns:
        One RGB picture, white between the pictures.
    """
    width, height = pictures[0].size
    factor = max(1, SMALL_SIDE // width)
    width, height = width * factor, height * factor
    told = [_wrapped(caption, width) for caption in captions]
    below = max(map(len, told), default=0) * LINE_HEIGHT
    num_lines = -(-len(pictures) // num_columns)
    size = (num_columns * (width + GAP) + GAP, num_lines * (height + below + GAP) + GAP)
    result = Image.new("RGB", size, "white")
    for i, picture in enumerate(pictures):
        line, column = divmod(i, num_columns)
        x, y = GAP + column * (width + GAP), GAP + line * (height + below + GAP)
        result.paste(picture.resize((width, height), Image.Resampling.NEAREST), (x, y))
        if i < len(told) and told[i]:
            result.paste(_written(told[i], (width, below)), (x, y + height))
    return result


def _wrapped(caption: str, width: int) -> list[str]:
    """Break a caption into lines of at most ``width`` pixels, a word that is longer too; what is left over is cut."""
    lines, line = list[str](), ""
    for word in _drawable(caption).split():
        joined = f"{line} {word}" if line else word
        if _length(joined) <= width:
            line = joined
            continue
        lines += [line] if line else []
        while (count := _fitting(word, width)) < len(word):
            lines.append(word[:count])
            word = word[count:]
        line = word
    lines += [line] if line else []
    if len(lines) <= CAPTION_LINES:
        return lines
    last = lines[CAPTION_LINES - 1]
    return [*lines[: CAPTION_LINES - 1], last[: _fitting(last, width - _length(CUT))] + CUT]


def _fitting(word: str, width: float) -> int:
    """Return how many of a word's characters fit into ``width`` pixels, one at least."""
    return next((count for count in range(len(word), 1, -1) if _length(word[:count]) <= width), 1)


def _drawable(text: str) -> str:
    """Return a text as near as the font can be asked for it: letters without their accents, which it lacks, and no half
    of a surrogate pair.
    """
    encoding = "utf-8" if isinstance(_font(), ImageFont.FreeTypeFont) else "latin-1"
    plain = "".join(sign for sign in normalize("NFKD", text[:MAX_CAPTION]) if not combining(sign))
    return plain.encode(encoding, "replace").decode(encoding)


def _length(text: str) -> float:
    return _font().getlength(text)


def _written(lines: Sequence[str], size: tuple[int, int]) -> Image.Image:
    """Write lines of text below each other."""
    picture = Image.new("RGB", size, "white")
    for number, line in enumerate(lines):
        ImageDraw.Draw(picture).text((0, number * LINE_HEIGHT), line, fill="black", font=_font())
    return picture


@cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return Pillow's own font; it has no sign for many scripts and draws a box there."""
    return ImageFont.load_default(CAPTION_SIZE)
