"""The members of a tar by place, from their headers alone; damage is told where it stands.

It must not know what members hold. The headers' own sums are checked. Long names are read as GNU tar and as pax write
them.
"""

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from transfusion.data.errors import DataError, plain

BLOCK = 512
LONGEST = 2**20  # bytes of a name, or of what a pax header says
SPARSE = "GNU.sparse."
COMPRESSIONS = {  # what compressed files begin with
    b"\x1f\x8b": ("gzip", "gunzip"),
    b"BZh": ("bzip2", "bunzip2"),
    b"\xfd7zXZ": ("xz", "unxz"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unzstd"),
}


class Member(NamedTuple):
    """A plain file in a tar.

    Attributes:
        name: What it is called there.
        begin: Its first byte in the tar.
        size: Its bytes.
    """

    name: str
    begin: int
    size: int


def check_plain(file: Path) -> None:
    """Refuse a tar that is compressed.

    Raises:
        DataError: It is; says what to do.
    """
    with file.open("rb") as stream:
        beginning = stream.read(BLOCK)
    for start, (name, command) in COMPRESSIONS.items():
        if beginning.startswith(start):
            raise DataError(
                f"{file} is compressed ({name}), so that no member can be read by its place; unpack the tar itself, "
                f"which is then read as it is: {command} {file} (pictures in it are compressed already)"
            )


def members(file: Path) -> Iterator[Member]:
    """Yield the plain files of a tar, in order; links, folders and devices are passed over.

    Raises:
        DataError: The tar is damaged, or ends without the mark of its end; what stands before that was yielded.
    """
    with file.open("rb") as stream:
        end, begin = os.fstat(stream.fileno()).st_size, 0
        before, extra = "", dict[str, str]()  # the member before; what an own header says of the next one
        while True:
            stream.seek(begin)
            head = stream.read(BLOCK)
            behind = f"behind {plain(before)!r}" if before else "at its beginning"
            if len(head) < BLOCK:
                raise DataError(f"{file}: the tar ends {behind}, at byte {end}, without its mark; it was cut short")
            if not any(head):
                return
            told = _header(head, extra, f"{file}, {behind}, byte {begin}")
            name, size = extra.get("path", told.name), told.size
            if told.kind in _WITHOUT_DATA or (told.kind in tarfile.REGULAR_TYPES and not told.is_file):
                size = 0  # of a link, a folder or a device, whatever it says
            begin += BLOCK
            if begin + size > end:
                raise DataError(f"{file}: the tar ends within {plain(name)!r}, at byte {end}; it was cut short")
            if told.kind in (tarfile.GNUTYPE_LONGNAME, *_EXTENSIONS):
                extra |= _said(stream, told.kind, size, f"{file}, {behind}, byte {begin}")
            elif told.kind not in (tarfile.GNUTYPE_LONGLINK, tarfile.XGLTYPE):
                if told.is_file:
                    yield Member(name, begin, size)
                before, extra = name, {}
            begin += -(-size // BLOCK) * BLOCK


_EXTENSIONS = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_WITHOUT_DATA = (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE)
_POSIX = b"ustar\0"


class _Header(NamedTuple):
    """What is read of a header: five times as fast as ``tarfile`` reads all of it."""

    name: str
    kind: bytes
    size: int

    @property
    def is_file(self) -> bool:
        """Whether a plain file follows."""
        return self.kind in tarfile.REGULAR_TYPES and not (self.kind == tarfile.AREGTYPE and self.name.endswith("/"))


def _header(head: bytes, extra: dict[str, str], where: str) -> _Header:
    """Read a header; the one before it may name the size."""
    name, kind = head[:100].split(b"\0", 1)[0], head[156:157]
    if head[257:263] == _POSIX and (prefix := head[345:500].split(b"\0", 1)[0]):
        name = prefix + b"/" + name
    try:
        told = _Header(_text(name), kind, _number(head[124:136]))
        if _number(head[148:156]) not in _sums(head):
            raise ValueError("its sum is another")
        if told.is_file and "size" in extra:
            told = told._replace(size=int(extra["size"]))
    except ValueError as error:
        raise DataError(f"{where}: expected the header of a member ({error}); the tar is damaged") from error
    if told.size < 0 or kind == tarfile.GNUTYPE_SPARSE or any(key.startswith(SPARSE) for key in extra):
        raise DataError(f"{where}: a member that is sparse or of no size; write the tar anew, without --sparse")
    return told


def _number(field: bytes) -> int:
    """Read a number, in octal digits, or in binary behind a first byte of 128 (GNU)."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    return int(field.split(b"\0", 1)[0].strip() or b"0", 8)


def _sums(head: bytes) -> tuple[int, int]:
    """Return the sum of a header's bytes, blanks in its own place; and as some old tars sum them, with signs."""
    blank = sum(head) - sum(head[148:156]) + 8 * ord(" ")
    return blank, blank - 256 * sum(byte > 127 for byte in (*head[:148], *head[156:])) if not head.isascii() else blank


def _said(stream: BinaryIO, kind: bytes, size: int, where: str) -> dict[str, str]:
    """Return what a header that has data of its own says of the next member."""
    if size > LONGEST:
        raise DataError(f"{where}: a name of {size} bytes, more than {LONGEST}; the tar is damaged")
    data = stream.read(size)
    if kind == tarfile.GNUTYPE_LONGNAME:
        return {"path": _text(data.split(b"\0")[0])}
    found: dict[str, str] = {}
    while data.strip(b"\0"):
        number = data.split(b" ", 1)[0]
        if not number.isdigit() or not len(number) < int(number[:8]) <= len(data):
            raise DataError(f"{where}: expected what pax says of a member; got {data[:40]!r}; the tar is damaged")
        key, _, value = data[len(number) + 1 : int(number) - 1].partition(b"=")
        found[_text(key)] = _text(value)
        data = data[int(number) :]
    return found


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
