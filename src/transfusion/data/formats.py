"""Which formats of pictures are read, and which are known and refused by name. It must not decode.

One table for the endings that a folder is searched for, the decoders that Pillow may start and what is said where a
decoder is missing. A file's content tells its format, never its ending.
"""

import importlib
import importlib.util
from functools import cache
from typing import NamedTuple

from PIL import Image, features


class Format(NamedTuple):
    """A format that is read where a decoder for it is installed.

    Attributes:
        name: What people call it.
        suffixes: Endings of its files.
        plugin: What Pillow calls it.
        feature: What Pillow must be built with; empty where every Pillow can.
        remedy: What brings a decoder where there is none.
    """

    name: str
    suffixes: tuple[str, ...]
    plugin: str
    feature: str = ""
    remedy: str = ""


FORMATS = (
    Format("PNG", (".png",), "PNG"),
    Format("JPEG", (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"), "JPEG"),  # an MPO is a JPEG with more pictures behind it
    Format("WebP", (".webp",), "WEBP", feature="webp", remedy="install a Pillow built with WebP"),
    Format("GIF", (".gif",), "GIF"),
    Format("BMP", (".bmp",), "BMP"),
    Format("TIFF", (".tif", ".tiff"), "TIFF"),
    Format("PPM", (".ppm", ".pgm", ".pbm", ".pnm"), "PPM"),
    Format("AVIF", (".avif",), "AVIF", feature="avif", remedy="pip install 'pillow>=11.3'"),
    Format("HEIC", (".heic", ".heif"), "HEIF", remedy="pip install pillow-heif"),
)
SUFFIXES = frozenset(suffix for each in FORMATS for suffix in each.suffixes)

NUM_TOLD = 256  # bytes from a file's beginning that tell its format
AVIF_BRANDS = (b"avif", b"avis")
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")
SHARED_BRANDS = (b"mif1", b"msf1")  # of either: the compatible brands behind them decide
INTERPRETED = ("EPS", "WMF")  # what Pillow calls formats for which it starts another program
BEGINNINGS = (b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*")  # of pictures without a box
BLANK = b"\xef\xbb\xbf \t\r\n"
# Beginnings of what is known and not read. PostScript foremost: Pillow would start Ghostscript, an interpreter.
SIGNATURES = (
    (b"%!PS", "PostScript"),
    (b"\xc5\xd0\xd3\xc6", "PostScript"),
    (b"%PDF", "PDF"),
    (b"\xd7\xcd\xc6\x9a", "WMF"),
    (b"\x01\x00\x00\x00", "EMF"),
    (b"icns", "ICNS"),
    (b"SIMPLE  =", "FITS"),
    (b"8BPS", "PSD"),
    (b"gimp xcf", "XCF"),
    (b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\x00\x00\x01\x00", "ICO"),
    (b"\x00\x00\x02\x00", "CUR"),
    (b"DDS ", "DDS"),
    (b"qoif", "QOI"),
    (b"\x01\xda", "SGI"),
    (b"\x89HDF", "HDF5"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"version https://git-lfs", "a Git LFS pointer (git lfs pull)"),
    (b"<svg", "SVG"),
    (b"<?xml", "XML"),
    (b"<html", "a web page"),
    (b"<!doctype html", "a web page"),
)


@cache
def readable() -> tuple[Format, ...]:
    """Return the formats that have a decoder here."""
    Image.init()
    if _has_heif():
        importlib.import_module("pillow_heif").register_heif_opener()
    return tuple(
        each for each in FORMATS if each.plugin in Image.OPEN and (not each.feature or features.check(each.feature))
    )


def refusal(beginning: bytes) -> str | None:
    """Say why a file is not read that begins so, or None where a decoder has to find out.

    Args:
        beginning: The first ``NUM_TOLD`` bytes of a file, or all of a shorter one.
    """
    if not beginning:
        return "the file is empty"
    missing = [each for each in FORMATS if each not in readable()]
    for each in missing:
        if each.name in (_in_a_box(beginning), _riff(beginning)):
            return f"{each.name} needs a decoder: {each.remedy}, or convert it to JPEG"
    text = beginning.lstrip(BLANK).lower()
    known = next((name for start, name in SIGNATURES if beginning.startswith(start) or text.startswith(start)), None)
    if known is None and _in_a_box(beginning) == "":
        known = "a video"
    return None if known is None else f"{known} is not read; expected {names()}"


def begins_picture(beginning: bytes) -> bool:
    """Return whether a file that begins so is a picture, of a format that is read somewhere."""
    is_boxed = _in_a_box(beginning) or _riff(beginning)
    return bool(is_boxed) or beginning.startswith(BEGINNINGS)


def names() -> str:
    """List the formats that are read here."""
    return ", ".join(each.name for each in readable())


def _in_a_box(beginning: bytes) -> str | None:
    """Name the picture format of an ISO media file; empty for other media, None for no such file."""
    if beginning[4:8] != b"ftyp":
        return None
    end = min(int.from_bytes(beginning[:4], "big"), len(beginning))
    brands = {beginning[8:12], *(beginning[start : start + 4] for start in range(16, end, 4))}
    if beginning[8:12] in (*AVIF_BRANDS, *SHARED_BRANDS) and brands & {*AVIF_BRANDS}:
        return "AVIF"
    return "HEIC" if brands & {*HEIC_BRANDS, *SHARED_BRANDS} else ""


def _riff(beginning: bytes) -> str | None:
    return "WebP" if beginning[:4] == b"RIFF" and beginning[8:12] == b"WEBP" else None


def _has_heif() -> bool:
    try:
        return importlib.util.find_spec("pillow_heif") is not None
    except (ImportError, ValueError):
        return False
