"""Files that are whole or not there, and rows of JSON in files that a kill may have cut.

It must not know what they say.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import re
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

PARTIAL = "partial"
MAX_DEPTH = 32  # of JSON within JSON
NUM_SHOWN = 40  # characters of a file's name in that of its making: the file system limits both
_log = logging.getLogger(__name__)
_MAKING = re.compile(rf"\..*\.[0-9a-f]{{16}}\.{PARTIAL}", re.DOTALL)


def beside(path: Path, ending: str) -> Path:
    """Return the hidden name beside a path under which its making is kept, ``.NAME.ending``."""
    return path.with_name(f".{path.name}.{ending}")


def write_whole(file: Path, content: str | bytes) -> Path:
    """Write a file so that whoever reads it finds the old or the new content, whole, whatever fails and whoever else
    writes it at the same time.

    Args:
        file: Is made or replaced, and is for whom it was; a link stays one, and what it points to is replaced. What is
            no file on a disk, such as a pipe or ``/dev/stdout``, stays, and takes the content as it comes.
        content: Bytes, or text that is written as UTF-8.

    Returns:
        ``file``.
    """
    data = content.encode() if isinstance(content, str) else content
    if is_stream(file):
        with file.open("ab") as stream:
            stream.write(data)
        return file
    target = file.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary, stream = _begun(target)
    try:
        with stream:
            if target.exists():
                _keep_access(target, stream)
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
            temporary.replace(target)  # while it is locked: nobody takes it for one that a kill left
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(target.parent)
    return file


def is_stream(file: Path) -> bool:
    """Return whether a path leads to something that cannot be replaced: a pipe, a device, or what a process has open,
    which may be a file, too, as where a shell sends its output.
    """
    if not file.exists() or file.is_dir():
        return False
    parent = file.parent.resolve()
    return not file.is_file() or parent == Path("/dev") or parent.is_relative_to("/proc")


def _keep_access(old: Path, stream: BinaryIO) -> None:
    """Let a file that takes another's place be its owner's, and open to the same others."""
    before = old.stat()
    with contextlib.suppress(OSError):  # only who may give a file away keeps it another's
        os.fchown(stream.fileno(), before.st_uid, before.st_gid)
    with contextlib.suppress(OSError):  # a file system without modes
        os.fchmod(stream.fileno(), stat.S_IMODE(before.st_mode))


class _Making(NamedTuple):
    file: Path
    stream: BinaryIO


def _begun(target: Path) -> _Making:
    """Open a file of its own beside a target, locked for as long as it is open."""
    while True:
        file = target.with_name(f".{target.name[:NUM_SHOWN]}.{secrets.token_hex(8)}.{PARTIAL}")
        stream = file.open("xb")
        with contextlib.suppress(OSError):  # a file system without locks: nothing is swept there either
            fcntl.flock(stream, fcntl.LOCK_EX)
        if file.exists():
            return _Making(file, stream)
        stream.close()  # swept between the two calls


def sweep_unfinished(folder: Path) -> None:
    """Delete from a folder the parts of files that a kill left; one that is being written stays."""
    for file in list(folder.iterdir()) if folder.is_dir() else []:
        if not _MAKING.fullmatch(file.name) or file.is_symlink() or not file.is_file():
            continue
        with contextlib.suppress(OSError), file.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.unlink()


def sha256_of(file: Path) -> str:
    """Hash what a file holds."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Bring a file or the names of a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def row_of(line: bytes) -> dict[str, Any] | None:
    """Read one line of a file of JSON objects, or return None where it is none: cut, or not ours, as what is nested
    deeper than anything that we write.
    """
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):  # ValueError: neither JSON nor UTF-8
        return None
    return row if isinstance(row, dict) and not _is_deep(row, line) else None


def _is_deep(row: object, line: bytes) -> bool:
    """Return whether an object is nested so deep that who goes through it might not come back."""
    if line.count(b"[") + line.count(b"{") <= MAX_DEPTH:
        return False
    level, depth = [row], 0
    while level and depth <= MAX_DEPTH:
        parts = (each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list))
        level, depth = [part for each in parts for part in each], depth + 1
    return depth > MAX_DEPTH


def read_rows(file: Path) -> list[dict[str, Any]]:
    """Read a file of JSON objects, one a line; no file has no rows. Lines that are none are left out, and that is said,
    but for a last one that has no end: somebody may be writing it, and who writes the next row ends it.
    """
    lines = file.read_bytes().split(b"\n") if file.exists() else []
    rows = [row_of(line) for line in lines]
    bad = [number for number, (line, row) in enumerate(zip(lines, rows, strict=True), 1) if line and row is None]
    if bad and bad[0] < len(lines):
        num_bad = sum(number < len(lines) for number in bad)
        _log.warning("%s: %d lines are no rows, and left out; the first is line %d", file, num_bad, bad[0])
    return [row for row in rows if row is not None]


def append_row(file: Path, row: Mapping[str, object]) -> None:
    """Add a JSON object to a file, on a line of its own also where the last one was cut, and bring it to the disk."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("ab+") as stream:
        if stream.tell():
            stream.seek(-1, os.SEEK_END)
            is_cut = stream.read(1) != b"\n"
        else:
            is_cut = False
        stream.write((b"\n" if is_cut else b"") + json.dumps(row).encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())
