"""Files whole or not there, and rows that a kill may have cut."""

import os
from pathlib import Path

import pytest

from transfusion.files import append_row, read_rows, write_whole


def test_a_file_is_the_old_or_the_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_whole(tmp_path / "new" / "a.txt", "old")
    assert write_whole(file, "ü").read_bytes() == "ü".encode()

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_whole(file, b"half")
    assert file.read_text() == "ü" and [path.name for path in file.parent.iterdir()] == ["a.txt"]


def test_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "here").symlink_to(tmp_path / "there")
    write_whole(tmp_path / "here", "content")
    assert (tmp_path / "here").is_symlink() and (tmp_path / "there").read_text() == "content"


def test_rows_are_read_past_what_is_none(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    assert read_rows(file) == []
    append_row(file, {"a": 1})
    file.write_bytes(file.read_bytes() + b'\xff\xfe\n[1]\n\n{"b": ' + b"[" * 100_000)
    append_row(file, {"c": 3})
    assert read_rows(file) == [{"a": 1}, {"c": 3}]
