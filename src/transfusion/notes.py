"""Notes in the files of pictures: what a file says of its picture, written and read. It must not know what they say."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

NOTE_KEY = "transfusion"  # the one name under which the record stands, whatever the format
DESCRIPTION_TAG, SOFTWARE_TAG, COMMENT_TAG, EXIF_TAGS = 0x010E, 0x0131, 0x9286, 0x8769  # of EXIF 2.3
ASCII_COMMENT = b"ASCII\0\0\0"  # how a UserComment says its encoding
MAX_EXIF_BYTES = 65_533  # one segment of a JPEG
EXIF_FORMS = ("JPEG", "WEBP", "TIFF")
SILENT_FORMS = ("BMP", "PPM")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Note:
    """What a file says of its picture.

    Attributes:
        record: A JSON object, in ASCII, for programs.
        lines: The same for people who look at a file's properties: short names and their texts.
    """

    record: str
    lines: Mapping[str, str]


def noted(picture: Image.Image, form: str, note: Note | None) -> bytes:
    """Return the bytes of a picture's file in a format, with a note in it.

    Args:
        picture: What is shown; a note changes no pixel.
        form: The format by Pillow's name of it.
        note: Goes into text chunks of PNG, the EXIF of JPEG, WebP and TIFF, the comment of GIF. BMP and PPM have no
            place for it: the file has none then, and the log says so. None: nothing is said.
    """
    data = BytesIO()
    if note is None:
        picture.save(data, format=form)
    elif form in SILENT_FORMS:
        _log.warning("a file of %s cannot say where its picture comes from; a .png can", form)
        picture.save(data, format=form)
    elif form == "PNG":
        picture.save(data, format=form, pnginfo=_chunks(note))
    elif form in EXIF_FORMS:
        _save_with_exif(picture, data, form, note)
    else:
        picture.save(data, format=form, comment=_comment(note))
    return data.getvalue()


def read_record(file: Path) -> object | None:
    """Return what the note in a picture's file says, as JSON gives it; None where there is no note of ours.

    Only the head of the file is read, and no pixel.

    Raises:
        OSError: There is no such file, or it is no picture.
        ValueError: The note is damaged.
    """
    with Image.open(file, formats=("PNG", "GIF", *EXIF_FORMS)) as picture:
        if picture.format == "PNG":
            text = picture.info.get(NOTE_KEY)
            return None if text is None else _parsed(str(text))
        comments = [picture.info.get("comment"), picture.getexif().get_ifd(EXIF_TAGS).get(COMMENT_TAG)]
    for comment in comments:
        text = comment.decode("ascii", "replace") if isinstance(comment, bytes) else str(comment)
        text = text.removeprefix(ASCII_COMMENT.decode())
        if text.startswith(f'{{"{NOTE_KEY}"'):
            told = _parsed(text)
            return told[NOTE_KEY] if isinstance(told, dict) else None
    return None


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _chunks(note: Note) -> PngInfo:
    """Make text chunks; those that are not Latin-1 become iTXt, which is UTF-8."""
    chunks = PngInfo()
    for name, text in {NOTE_KEY: note.record, **note.lines}.items():
        chunks.add_text(name, _unicode(text))
    return chunks


def _save_with_exif(picture: Image.Image, data: BytesIO, form: str, note: Note) -> None:
    exif = Image.Exif()
    software = note.lines.get("Software", NOTE_KEY)
    described = [f"{name}: {text}" for name, text in note.lines.items() if name != "Software"]
    exif[SOFTWARE_TAG] = software
    exif[DESCRIPTION_TAG] = _unicode("\n".join(described)).encode()
    exif.get_ifd(EXIF_TAGS)[COMMENT_TAG] = ASCII_COMMENT + _comment(note)
    raw = exif.tobytes()  # as bytes: of an Exif object TIFF drops the comment
    if form == "JPEG" and len(raw) > MAX_EXIF_BYTES:
        _log.warning("a JPEG has no room for %d bytes on where its picture comes from; a .png has", len(raw))
        picture.save(data, format=form)
        return
    picture.save(data, format=form, exif=raw)


def _comment(note: Note) -> bytes:
    return f'{{"{NOTE_KEY}": {note.record}}}'.encode("ascii")


def _unicode(text: str) -> str:
    """Return a text that any file can hold: half a surrogate pair and NUL become question marks."""
    return text.encode("utf-8", "replace").decode().replace("\0", "?")
