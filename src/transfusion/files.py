"""Files that are whole or not there, and rows of JSON in files that a kill may have cut.

It must not know what they say.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PARTIAL = "partial"


def beside(path: Path, ending: str) -> Path:
    """Return the hidden name beside a path under which its making is kept, ``.NAME.ending``."""
    return path.with_name(f".{path.name}.{ending}")


def write_whole(file: Path, content: str | bytes) -> Path:
    """Write a file so that whoever reads it finds the old or the new content, whole, whatever fails.

    Args:
        file: Is made or replaced; a link stays one, and what it points to is replaced.
        content: Bytes, or text that is written as UTF-8.

    Returns:
        ``file``.
    """
    target = file.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = beside(target, PARTIAL)
    try:
        with temporary.open("wb") as stream:
            stream.write(content.encode() if isinstance(content, str) else content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(target.parent)
    return file


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
