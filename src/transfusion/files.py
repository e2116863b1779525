"""Files that are whole or not there, and rows of JSON in files that a kill may have cut.

It must not know what they say.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

PARTIAL = "partial"
NUM_SHOWN = 40  # characters of a file's name in that of its making: the file system limits both
_MAKING = re.compile(rf"\..*\.[0-9a-f]{{16}}\.{PARTIAL}", re.DOTALL)


def beside(path: Path, ending: str) -> Path:
    """Return the hidden name beside a path under which its making is kept, ``.NAME.ending``."""
    return path.with_name(f".{path.name}.{ending}")


def write_whole(file: Path, content: str | bytes) -> Path:
    """Write a file so that whoever reads it finds the old or the new content, whole, whatever fails and whoever else
    writes it at the same time.

    Args:
        file: Is made or replaced; a link stays one, and what it points to is replaced.
        content: Bytes, or text that is written as UTF-8.

    Returns:
        ``file``.
    """
    target = file.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary, stream = _begun(target)
    try:
        with stream:
            stream.write(content.encode() if isinstance(content, str) else content)
            stream.flush()
            os.fsync(stream.fileno())
            temporary.replace(target)  # while it is locked: nobody takes it for one that a kill left
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(target.parent)
    return file


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
    """Read one line of a file of JSON objects, or return None where it is none: cut, or not ours."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):  # ValueError: neither JSON nor UTF-8
        return None
    return row if isinstance(row, dict) else None


def read_rows(file: Path) -> list[dict[str, Any]]:
    """Read a file of JSON objects, one a line; lines that are none are left out, and no file has no rows."""
    lines = file.read_bytes().split(b"\n") if file.exists() else []
    return [row for line in lines if (row := row_of(line)) is not None]


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
