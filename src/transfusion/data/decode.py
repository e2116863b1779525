"""One picture file → pixels: any size and mode becomes RGB of one size. It must not know folders or captions.

    file ──read, tried again──▶ bytes ──format and size, by its header──▶ decoder ──▶ upright, on white, cropped

Files come from anywhere. What the file system raises says nothing about a picture (``UnreadableFile``); whatever a
decoder raises for bytes in memory is damage (``BrokenPicture``).
"""

import errno
import logging
import stat
import threading
import time
import warnings
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

from transfusion.data.augment import kept_size
from transfusion.data.errors import BrokenPicture, UnreadableFile
from transfusion.data.formats import INTERPRETED, NUM_TOLD, names, readable, refusal

MAX_PIXELS = 2**26  # 67 million: phones take 50 and 64; a decoder needs 4 to 16 bytes for each
BYTES_PER_PIXEL = 16  # of the largest file: four floats
BAND_PIXELS = 2**20
NUM_TRIES = 3
RETRY_SECONDS = 0.1
WHITE = (255, 255, 255, 255)
WRONG_NAME = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
TILE_WIDTH, TILE_LENGTH = 322, 323  # TIFF 6.0, section 15
_log = logging.getLogger(__name__)


class Slice(NamedTuple):
    """A picture within a larger file.

    Attributes:
        path: The file.
        begin: Its first byte.
        size: Its bytes.
        name: What it is called there.
    """

    path: Path
    begin: int
    size: int
    name: str

    def __str__(self) -> str:
        """Name it for a person."""
        return f"{self.path}, {self.name}"


class Held(NamedTuple):
    """A picture whose bytes are in memory.

    Attributes:
        data: The bytes.
        name: What it is called.
    """

    data: bytes
    name: str

    def __str__(self) -> str:
        """Name it for a person."""
        return self.name


class Pixels(NamedTuple):
    """A picture that is pixels already.

    Attributes:
        values: (H, W) or (H, W, 3) uint8.
        name: What it is called.
    """

    values: NDArray[np.uint8]
    name: str

    def __str__(self) -> str:
        """Name it for a person."""
        return self.name


PictureSource = Path | Slice | Held | Pixels


def open_picture(
    source: PictureSource | Image.Image, size: int | tuple[int, int], *, max_pixels: int = MAX_PIXELS, crop: float = 1.0
) -> NDArray[np.uint8]:
    """Decode a picture of any size and mode, and bring it to a size.

    Transparency is laid over white, the EXIF rotation applied (a picture whose EXIF alone is broken is taken as it
    lies), of an animation the first frame taken, the centre cropped to the aspect and resized with antialiasing.

    Args:
        source: Where it lies, or a picture that is open already.
        size: Side of the result in pixels, or its height and width.
        max_pixels: Most pixels that its header may name; Pillow's own limit stands beside it.
        crop: Least side of the crops that will be taken of it, as a share; see ``augment.kept_size``.

    Returns:
        (height, width, 3) uint8; of the same aspect and larger where crops are taken of it.

    Raises:
        BrokenPicture: The file is missing, no picture of a format that is read, too large, or not whole.
        UnreadableFile: The file system fails, time and again.
    """
    if isinstance(source, Pixels):
        name, data, source = source.name, None, Image.fromarray(source.values)
    elif isinstance(source, Image.Image):
        name, data = f"a picture of mode {source.mode} in memory", None
        if source.format in INTERPRETED:
            raise BrokenPicture(f"{name}: {source.format} is not read; expected {names()}")
    else:
        name, data = str(source), _read(source, max_pixels * BYTES_PER_PIXEL)
        if (reason := refusal(data[:NUM_TOLD])) is not None:
            raise BrokenPicture(f"{name}: {reason}")
    try:
        with _QUIET:
            picture = source if isinstance(source, Image.Image) else _opened(data or b"")
            if (reason := _oversize(picture, max_pixels)) is not None:
                raise BrokenPicture(f"{name}: {reason}")
            picture.load()  # a truncated file fails here
            upright, wanted = _on_white(_upright(picture)), (size, size) if isinstance(size, int) else size
            height, width = kept_size((upright.height, upright.width), wanted, crop)
            cropped = ImageOps.fit(upright, (width, height), Image.Resampling.LANCZOS)
            return np.asarray(cropped.convert("RGB"))
    except BrokenPicture:
        raise
    except Image.DecompressionBombError as error:
        raise BrokenPicture(f"{name}: far more than the {max_pixels} pixels that are read; make it smaller") from error
    except UnidentifiedImageError as error:
        raise BrokenPicture(f"{name}: damaged, or no picture; expected {names()}") from error
    except Exception as error:  # of damaged data a decoder may raise anything
        if isinstance(error, OSError) and error.errno is not None:  # a picture opened by the caller reads its file here
            raise _unreadable(name, error) from error
        raise BrokenPicture(f"{name}: not a whole picture ({type(error).__name__}: {error})") from error


def _read(source: Path | Slice | Held, max_bytes: int) -> bytes:
    """Read a picture whole; where the file system fails, try again."""
    if isinstance(source, Held):
        return source.data
    for _ in range(NUM_TRIES - 1):
        try:
            return _read_once(source, max_bytes)
        except OSError as error:
            _log.debug("%s: %s; trying again", source, error)
            time.sleep(RETRY_SECONDS)
    try:
        return _read_once(source, max_bytes)
    except OSError as error:
        raise _unreadable(str(source), error) from error


def _read_once(source: Path | Slice, max_bytes: int) -> bytes:
    file = source.path if isinstance(source, Slice) else Path(source)
    try:
        facts = file.stat()
    except ValueError as error:  # a null, or half a surrogate pair
        raise BrokenPicture(f"{str(file)!r} is no name of a file ({error})") from error
    except OSError as error:
        if error.errno in WRONG_NAME:
            raise BrokenPicture(f"{file}: there is no such file") from error
        raise
    if not stat.S_ISREG(facts.st_mode):
        raise BrokenPicture(f"{file}: a folder, pipe or device; expected the file of a picture")
    size = source.size if isinstance(source, Slice) else facts.st_size
    if size > max_bytes:
        raise BrokenPicture(f"{source}: {size} bytes, more than the {max_bytes} of the largest picture")
    if not isinstance(source, Slice):
        return file.read_bytes()
    with file.open("rb") as stream:
        stream.seek(source.begin)
        data = stream.read(size)
    if len(data) < size:
        raise BrokenPicture(f"{source}: the file ends within it; it was cut short")
    return data


def _unreadable(name: str, error: OSError) -> UnreadableFile:
    return UnreadableFile(
        f"{name}: cannot be read now ({error.strerror}); it is not put into quarantine: mend the disk, the network "
        "or the permissions and start again"
    )


def _opened(data: bytes) -> Image.Image:
    """Read a picture's header with the decoders of the formats that are read, and no others."""
    return Image.open(BytesIO(data), formats=[each.plugin for each in readable()])


def _oversize(picture: Image.Image, max_pixels: int) -> str | None:
    """Say why a picture's header asks for too much, before it is decoded; None if it does not."""
    width, height = picture.size
    if not 0 < width * height <= max_pixels:
        return f"{width} x {height} pixels; expected 1 to {max_pixels}: scale it down, or raise max_pixels"
    tags = picture.tag_v2 if isinstance(picture, TiffImagePlugin.TiffImageFile) else {}
    tile = int(tags.get(TILE_WIDTH, 0)) * int(tags.get(TILE_LENGTH, 0))
    return f"TIFF tiles of {tile} pixels, more than {max_pixels}; the file is damaged" if tile > max_pixels else None


def _upright(picture: Image.Image) -> Image.Image:
    """Turn a picture as its EXIF says."""
    try:
        turn = TURNS.get(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception as error:  # a parser of damaged EXIF may raise anything, and the picture beside it is whole
        _log.debug("broken EXIF, picture taken as it lies (%s: %s)", type(error).__name__, error)
        turn = None
    return picture if turn is None else picture.transpose(turn)


def _on_white(picture: Image.Image) -> Image.Image:
    """Bring a picture of any mode to RGB, transparency over white; greys stay greys, a quarter as large."""
    if picture.mode.startswith("I;16") or picture.mode in ("I", "F"):
        picture = _eight_bits(picture)
    has_alpha = picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info
    has_alpha |= picture.mode == "P" and picture.palette is not None and picture.palette.mode.endswith("A")
    if not has_alpha:
        return picture if picture.mode in ("RGB", "L") else picture.convert("RGB")
    result = Image.new("RGB", picture.size)
    for top, bottom in _bands(picture):
        box = (0, top, picture.width, bottom)
        colour = picture.crop(box).convert("RGBA")
        result.paste(Image.alpha_composite(Image.new("RGBA", colour.size, WHITE), colour).convert("RGB"), box)
    return result


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Scale 16-bit, 32-bit and float greys to 8 bits: by the 16-bit range where they exceed 8 bits."""
    maxima = [np.fmax.reduce(_values(picture, *rows), axis=None) for rows in _bands(picture)]
    largest = np.fmax.reduce(maxima)  # what is not a number is black
    top = 1.0 if picture.mode == "F" and largest <= 1 else 255.0 if largest <= 255 else 65535.0
    grey = np.empty((picture.height, picture.width), dtype=np.uint8)
    for first, last in _bands(picture):
        band = np.nan_to_num(_values(picture, first, last).astype(np.float64) / top * 255, nan=0.0)
        grey[first:last] = band.clip(0, 255).round()
    return Image.fromarray(grey)


def _values(picture: Image.Image, top: int, bottom: int) -> NDArray[Any]:
    """Return the values of some rows, (bottom - top, W): Pillow copies what it gives twice."""
    return np.asarray(picture.crop((0, top, picture.width, bottom)))


def _bands(picture: Image.Image) -> Iterator[tuple[int, int]]:
    """Yield rows [top, bottom) of a picture, few enough that copies of them weigh little beside the whole."""
    rows = max(1, BAND_PIXELS // picture.width)
    return ((top, min(top + rows, picture.height)) for top in range(0, picture.height, rows))


class _Quiet:
    """Keeps what Pillow warns of (odd EXIF, many pixels) from standard error while any thread decodes.

    ``warnings.catch_warnings`` alone is no one's but the process's: the first thread in sets it, the last one out
    takes it back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._depth = 0
        self._saved = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            self._depth += 1
            if self._depth == 1:
                self._saved = warnings.catch_warnings()
                self._saved.__enter__()
                warnings.filterwarnings("ignore", module=r"(PIL|pillow_heif)\b")

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._depth -= 1
            if not self._depth:
                self._saved.__exit__(None, None, None)


_QUIET = _Quiet()
