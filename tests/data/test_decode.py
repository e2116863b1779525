"""Pictures from anywhere: what is read, what is refused by name, what is damage and what is the disk's fault."""

import os
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile, features

from transfusion.data import decode
from transfusion.data.decode import MAX_PIXELS, open_picture
from transfusion.data.errors import BrokenPicture, DataError, UnreadableFile
from transfusion.data.formats import FORMATS, SUFFIXES, readable, refusal
from transfusion.data.readers import ImageFolder, read_captions, sample_folder

READ = Path.read_bytes
RED, BLUE = (255, 0, 0), (0, 0, 255)
NO_BYTES = Path("/proc/self/mem")  # a file that is there and cannot be read: its first page is mapped to nothing


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again without a pause."""
    monkeypatch.setattr(decode, "RETRY_SECONDS", 0.0)


def halves(size: tuple[int, int] = (32, 16)) -> Image.Image:
    """Make a picture, red above and blue below."""
    picture = Image.new("RGB", size, RED)
    picture.paste(BLUE, (0, size[1] // 2, *size))
    return picture


def encoded(picture: Image.Image, plugin: str, **options: object) -> bytes:
    """Return the file of a picture."""
    stream = BytesIO()
    picture.save(stream, plugin, **options)  # type: ignore[arg-type]
    return stream.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """Make a chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(width: int, height: int) -> bytes:
    """Make a PNG that says how large it is and goes no further."""
    facts = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", facts) + chunk(b"IDAT", zlib.compress(b"\0" * 100))


@pytest.mark.parametrize("each", FORMATS, ids=[each.name for each in FORMATS])
def test_every_format_is_read_or_refused_by_name(tmp_path: Path, each: object) -> None:
    assert isinstance(each, type(FORMATS[0]))
    file = tmp_path / f"a{each.suffixes[0]}"
    if each.plugin == "HEIF":
        file.write_bytes(b"\x00\x00\x00\x1cftypheic\x00\x00\x00\x00mif1heicmiaf" + bytes(64))
    elif each in readable():
        file.write_bytes(encoded(halves((16, 16)), each.plugin))
        picture = open_picture(file, 8)
        assert picture[0, 4, 0] > 200 > picture[7, 4, 0] or each.plugin == "GIF"
    if each not in readable():
        with pytest.raises(BrokenPicture, match=rf"a\{each.suffixes[0]}: {each.name} needs a decoder: .*, or convert"):
            open_picture(file, 8)


def test_endings_follow_the_table() -> None:
    assert {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".avif", ".heic"} <= SUFFIXES
    assert not SUFFIXES & {".eps", ".pdf", ".ps", ".wmf", ".icns"}
    assert features.check("avif") == any(each.name == "AVIF" for each in readable())


@pytest.mark.parametrize(
    ("beginning", "name"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript"),
        (b"\xc5\xd0\xd3\xc6" + bytes(28), "PostScript"),
        (b"%PDF-1.7\n", "PDF"),
        (b"\xd7\xcd\xc6\x9a" + bytes(40), "WMF"),
        (b"icns" + bytes(20), "ICNS"),
        (b"SIMPLE  =                    T", "FITS"),
        (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"\x00\x00\x00\x18ftypmp42" + bytes(12), "a video"),
        (b"\n<!DOCTYPE HTML><html>404</html>", "a web page"),
        (b"\xef\xbb\xbf<svg xmlns=''/>", "SVG"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"", "the file is empty"),
        (b"nothing that anyone knows", "damaged, or no picture; expected PNG, JPEG"),
    ],
)
def test_what_is_known_and_not_read_is_named_whatever_its_ending(tmp_path: Path, beginning: bytes, name: str) -> None:
    (tmp_path / "a.png").write_bytes(beginning)
    with pytest.raises(BrokenPicture, match=rf"a\.png: .*{name}"):
        open_picture(tmp_path / "a.png", 8)


@pytest.mark.parametrize("plugin", ["EPS", "PCX", "ICO", "TGA", "SGI", "JPEG2000", "ICNS", "PDF"])
def test_no_decoder_outside_the_list_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plugin: str) -> None:
    started = tmp_path / "started"
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {started}\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "a.png").write_bytes(encoded(halves((16, 16)), plugin))
    with pytest.raises(BrokenPicture, match=r"a\.png"):
        open_picture(tmp_path / "a.png", 8)
    if plugin == "EPS":
        with Image.open(tmp_path / "a.png") as opened, pytest.raises(BrokenPicture, match="EPS is not read"):
            open_picture(opened, 8)
    assert not started.exists()


def test_heic_and_avif_are_told_apart() -> None:
    assert refusal(b"\x00\x00\x00\x20ftypmif1\x00\x00\x00\x00mif1avifmiaf") is None or not features.check("avif")
    assert "a video" in (refusal(b"\x00\x00\x00\x14ftypqt  \x00\x00\x00\x00qt  ") or "")


@pytest.mark.parametrize(("width", "height"), [(13300, 13400), (8193, 8192), (2**31 - 1, 2**31 - 1), (70_000_000, 1)])
def test_pixels_are_limited_by_the_header(tmp_path: Path, width: int, height: int) -> None:
    (tmp_path / "a.png").write_bytes(png_header(width, height))
    with pytest.raises(BrokenPicture, match=r"a\.png.*pixels"):
        open_picture(tmp_path / "a.png", 8)


def test_the_limit_is_a_parameter_and_holds_in_memory(tmp_path: Path) -> None:
    picture = halves((20, 10))
    picture.save(tmp_path / "a.png")
    for source in (picture, tmp_path / "a.png"):
        assert open_picture(source, 8, max_pixels=200).shape == (8, 8, 3)
        with pytest.raises(BrokenPicture, match="20 x 10 pixels; expected 1 to 199"):
            open_picture(source, 8, max_pixels=199)
    assert 50_000_000 < 9248 * 6936 < MAX_PIXELS < 100_000_000  # a phone's "64 Mpx"
    with pytest.raises(BrokenPicture, match="0 x 5 pixels"):
        open_picture(Image.new("RGB", (0, 5)), 8)
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes() + bytes(5000))
    with pytest.raises(BrokenPicture, match=r"b\.png: .* bytes, more than the 3200"):
        open_picture(tmp_path / "b.png", 8, max_pixels=200)


def tiled(side: int) -> bytes:
    """Make a TIFF of 16 x 16 greys in one deflated tile of a given side."""
    data = zlib.compress(bytes(side * side))
    facts = {256: 16, 257: 16, 258: 8, 259: 8, 262: 1, 277: 1, 322: side, 323: side, 324: 134, 325: len(data)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in facts.items())
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(facts)) + entries + bytes(4) + data


def test_tiles_are_limited_by_the_header(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(tiled(32))
    assert open_picture(tmp_path / "a.tif", 8, max_pixels=1024).shape == (8, 8, 3)
    with pytest.raises(BrokenPicture, match=r"a\.tif: TIFF tiles of 1024 pixels, more than 1023"):
        open_picture(tmp_path / "a.tif", 8, max_pixels=1023)


PEAK = """
import re, resource, sys
from pathlib import Path
from transfusion.data.decode import open_picture
STATUS = Path("/proc/self/status")
def peak():  # in KiB; on Linux ru_maxrss begins at that of the process before, however large
    if STATUS.exists():
        return int(re.search(r"VmHWM:\\s+(\\d+)", STATUS.read_text())[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
open_picture(Path(sys.argv[1]), 16)
print(peak() - before)
"""


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "I;16"])
def test_a_picture_costs_few_bytes_a_pixel(tmp_path: Path, mode: str) -> None:
    side = 4000 if mode == "I;16" else 2500
    Image.new(mode, (side, side), 40000 if mode == "I;16" else (9, 9, 9, 99)[: len(mode)]).save(tmp_path / "a.png")
    done = subprocess.run([sys.executable, "-c", PEAK, str(tmp_path / "a.png")], capture_output=True, check=True)
    beside = 20e6  # bands, the decoders' code
    most = {"RGB": 4, "RGBA": 8, "I;16": 6}[mode]
    assert int(done.stdout) * 1024 < most * side**2 + beside


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "I;16", "I", "F"])
def test_bands_change_nothing(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    draw = np.random.default_rng(0)
    values = {"I;16": np.uint16, "I": np.int32, "F": np.float32}.get(mode)
    if values is None:
        picture = Image.fromarray(draw.integers(0, 256, (50, 37, 4), dtype=np.uint8)).convert("RGBA")
        picture = picture.convert("RGB").convert("P") if mode == "P" else picture.convert(mode)
        picture.info |= {"transparency": bytes(range(256))} if mode == "P" else {}
    else:
        picture = Image.fromarray(draw.integers(0, 60000, (50, 37)).astype(values))
    whole = open_picture(picture, 16)
    monkeypatch.setattr(decode, "BAND_PIXELS", 40)
    assert np.array_equal(whole, open_picture(picture, 16))


def test_greys_of_any_depth() -> None:
    for values, expected in (([0.0, 1.0], 255), ([0.0, 255.0], 255), ([0.0, 65535.0], 255), ([np.nan, 1.0], 255)):
        found = open_picture(Image.fromarray(np.full((4, 4), values[1], dtype=np.float32)), 4)
        assert (found == expected).all()
        two = np.array([[values[0]] * 8, [values[1]] * 8] * 4, dtype=np.float32)
        assert open_picture(Image.fromarray(two), 8)[0, 0].tolist() == [0, 0, 0]


def test_a_palette_with_alpha_lies_on_white() -> None:
    picture = Image.new("P", (8, 8), 0)
    picture.putpalette([0, 0, 255, 0], "RGBA")
    assert (open_picture(picture, 8) == 255).all()


ORIENTATION = b"\x12\x01\x03\x00\x01\x00\x00\x00"


def exif(*entries: bytes, tail: bytes = b"") -> bytes:
    """Make the EXIF of raw entries of twelve bytes."""
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4) + tail


def test_broken_exif_leaves_the_picture_as_it_lies(tmp_path: Path) -> None:
    for plugin in ("JPEG", "PNG", "WEBP"):
        (tmp_path / "whole").write_bytes(encoded(halves((16, 16)), plugin))
        for broken in (b"Exif\0\0XX", b"Exif\0\0II*\0\xff\xff\xff\xff", exif(ORIENTATION), b"Exif\0\0II*\0"):
            (tmp_path / "a").write_bytes(encoded(halves((16, 16)), plugin, exif=broken))
            assert np.array_equal(open_picture(tmp_path / "a", 8), open_picture(tmp_path / "whole", 8))


def test_exif_that_cannot_be_written_again_still_turns(tmp_path: Path) -> None:
    turn = ORIENTATION + struct.pack("<HH", 3, 0)
    described = b"\x0e\x01\x05\x00\x01\x00\x00\x00" + struct.pack("<I", 38)  # a description that is a fraction
    data = exif(described, turn, tail=struct.pack("<II", 1, 3))
    (tmp_path / "a.jpg").write_bytes(encoded(halves((16, 16)), "JPEG", quality=95, exif=data))
    picture = open_picture(tmp_path / "a.jpg", 8)
    assert picture[0, 4, 2] > 200 > picture[7, 4, 2]


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_a_turned_tiff_that_is_no_square(tmp_path: Path, compression: str) -> None:
    told = Image.Exif()
    told[0x0112] = 6  # its left side is up
    (tmp_path / "a.tif").write_bytes(encoded(halves((32, 16)), "TIFF", exif=told, compression=compression))
    picture = open_picture(tmp_path / "a.tif", 16)
    assert tuple(picture[8, 1]) == BLUE and tuple(picture[8, 14]) == RED


@pytest.mark.parametrize(
    "error",
    [struct.error, TypeError, AttributeError, OverflowError, RecursionError, ZeroDivisionError, MemoryError, KeyError],
)
def test_whatever_a_decoder_raises_is_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def fail(*_: object) -> None:
        raise error("from deep inside")

    halves().save(tmp_path / "a.png")
    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    with pytest.raises(BrokenPicture, match=rf"a\.png: not a whole picture \({error.__name__}"):
        open_picture(tmp_path / "a.png", 8)


def test_settings_of_pillow_are_left_alone() -> None:
    code = (
        "from PIL import Image, ImageFile; import transfusion.data.readers, warnings; n = len(warnings.filters)\n"
        "from transfusion.data.decode import open_picture; open_picture(Image.new('RGB', (9, 9)), 8)\n"
        "assert Image.MAX_IMAGE_PIXELS == 89478485 and not ImageFile.LOAD_TRUNCATED_IMAGES\n"
        "assert len(warnings.filters) == n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_warnings_of_pillow_do_not_reach_the_terminal(tmp_path: Path) -> None:
    odd = exif(b"\x0e\x01\x02\x00\xff\x00\x00\x00\xff\xff\x00\x00")  # text of 255 bytes behind the end
    (tmp_path / "odd.jpg").write_bytes(encoded(halves((16, 16)), "JPEG", exif=odd))
    (tmp_path / "large.png").write_bytes(png_header(10_000, 10_000))
    before = list(warnings.filters)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        open_picture(tmp_path / "odd.jpg", 8)
        with pytest.raises(BrokenPicture):
            open_picture(tmp_path / "large.png", 8)
        threads = [threading.Thread(target=open_picture, args=(tmp_path / "odd.jpg", 8)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == []
        warnings.warn("someone else's", stacklevel=1)
        assert len(found) == 1
    assert warnings.filters == before


def test_a_file_that_cannot_be_read_is_not_broken() -> None:
    with pytest.raises(UnreadableFile, match=r"/proc/self/mem: cannot be read now .*not put into quarantine") as caught:
        open_picture(NO_BYTES, 8)
    assert isinstance(caught.value, DataError) and not isinstance(caught.value, BrokenPicture)


def failing(times: int) -> Callable[[Path], bytes]:
    """Return a way to read files that fails so many times."""
    left = [times]

    def read_bytes(file: Path) -> bytes:
        if file.suffix == ".png" and left[0]:
            left[0] -= 1
            raise OSError(5, "Input/output error", str(file))
        return READ(file)

    return read_bytes


def test_an_error_of_the_disk_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    halves().save(tmp_path / "a.png")
    monkeypatch.setattr(Path, "read_bytes", failing(2))
    assert open_picture(tmp_path / "a.png", 8).shape == (8, 8, 3)
    monkeypatch.setattr(Path, "read_bytes", failing(3))
    with pytest.raises(UnreadableFile, match="Input/output error"):
        open_picture(tmp_path / "a.png", 8)


def test_a_folder_calls_nothing_broken_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(4):
        (tmp_path / "cat").mkdir(exist_ok=True)
        halves((16 + i, 16)).save(tmp_path / "cat" / f"{i}.png")
    digest = ImageFolder(tmp_path, 8).digest()
    monkeypatch.setattr(Path, "read_bytes", failing(100))
    with pytest.raises(UnreadableFile):
        ImageFolder(tmp_path, 8)
    with pytest.raises(UnreadableFile):
        sample_folder(read_captions(tmp_path), tmp_path, 8, 2)
    monkeypatch.setattr(Path, "read_bytes", failing(2))
    pictures = ImageFolder(tmp_path, 8)
    assert pictures.quarantine == {} and pictures.digest() == digest


def test_names_under_which_no_picture_can_lie(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "round.png").symlink_to("round.png")
    (tmp_path / "file.png").write_bytes(b"")
    for name in ("pipe.png", "folder.png", "round.png", "file.png/a.png", "x" * 300 + ".png", "missing.png"):
        with pytest.raises(BrokenPicture, match=name[:20]):
            open_picture(tmp_path / name, 8)
    for name in ("nu\0ll.png", "half\ud800.png"):
        with pytest.raises(BrokenPicture, match="no name of a file"):
            open_picture(tmp_path / name, 8)
    with pytest.raises(BrokenPicture, match="device"):
        open_picture(Path("/dev/zero"), 8)
