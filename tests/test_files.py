"""Files whole or not there, and rows that a kill may have cut."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from transfusion.files import append_row, read_rows, row_of, sweep_unfinished, write_whole


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


def test_what_is_no_file_on_a_disk_takes_the_content_and_stays(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_whole(pipe, "content")
    assert os.read(reader, 99) == b"content" and pipe.is_fifo() and os.listdir(tmp_path) == ["pipe"]
    os.close(reader)
    code = "import pathlib, transfusion.files as files; files.write_whole(pathlib.Path('/dev/stdout'), 'and ')"
    with (tmp_path / "shell.txt").open("w") as output:  # as a shell does: it goes on writing there
        before = os.fstat(output.fileno()).st_ino
        for _ in range(2):
            subprocess.run([sys.executable, "-c", code], stdout=output, check=True)
    assert (tmp_path / "shell.txt").read_text() == "and and " and (tmp_path / "shell.txt").stat().st_ino == before


@pytest.mark.parametrize("is_link", [False, True], ids=["file", "link"])
def test_a_file_that_is_there_stays_for_whom_it_was(tmp_path: Path, *, is_link: bool) -> None:
    file = tmp_path / "a.txt"
    file.write_text("old")
    for mode in (0o600, 0o664, 0o444):
        file.chmod(mode)
        if is_link and mode == 0o600:
            (tmp_path / "link").symlink_to("a.txt")
        write_whole(tmp_path / "link" if is_link else file, "new")
        assert file.stat().st_mode & 0o7777 == mode and file.read_text() == "new"


def test_rows_are_read_past_what_is_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "rows.jsonl"
    assert read_rows(file) == []
    append_row(file, {"a": 1})
    file.write_bytes(file.read_bytes() + b'\xff\xfe\n[1]\n\n{"b": ' + b"[" * 100_000)
    append_row(file, {"c": 3})
    assert read_rows(file) == [{"a": 1}, {"c": 3}]
    assert f"{file}: 3 lines are no rows, and left out; the first is line 2" in caplog.text
    caplog.clear()
    file.write_text('{"a": 1}\n{"b": ')  # it is being written, or was when the process was killed
    assert read_rows(file) == [{"a": 1}] and not caplog.text
    append_row(file, {"c": 3})
    assert read_rows(file) == [{"a": 1}, {"c": 3}] and "1 lines are no rows" in caplog.text


def test_what_is_nested_deeper_than_ours_is_no_row() -> None:
    for depth, is_row in ((30, True), (40, False), (900, False), (100_000, False)):
        row = row_of(b'{"a": ' + b"[" * depth + b"]" * depth + b"}")
        assert (row is not None) == is_row
    assert row_of(b'{"a": [' + b"[], " * 99 + b"{}]}") is not None


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, begun = tmp_path / "a.txt", list[str]()
    sync = os.fsync

    def write_another(descriptor: int) -> None:
        sync(descriptor)
        if not begun:  # the first has written its part, and not put it in place yet
            begun.append("second")
            sweep_unfinished(tmp_path)
            assert write_whole(file, "second").read_text() == "second"

    monkeypatch.setattr(os, "fsync", write_another)
    write_whole(file, "first")
    assert file.read_text() == "first" and os.listdir(tmp_path) == ["a.txt"]


def test_what_a_kill_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    code = (
        "import os, sys; from transfusion.files import write_whole; os.fsync = lambda _: os._exit(9);"
        "write_whole(__import__('pathlib').Path(sys.argv[1]), 'half')"
    )
    for name in ("a.txt", "n" * 255):
        assert subprocess.run([sys.executable, "-c", code, tmp_path / name], check=False).returncode == 9
    mine = (".a.txt.partial", ".hidden", "a.0123456789abcdef.partial", ".a.0123456789abcdeg.partial")
    for name in mine:
        (tmp_path / name).touch()
    (tmp_path / ".folder.0123456789abcdef.partial").mkdir()
    (tmp_path / ".link.0123456789abcdef.partial").symlink_to(tmp_path / mine[0])
    assert len(os.listdir(tmp_path)) == 8
    sweep_unfinished(tmp_path)
    assert {*os.listdir(tmp_path)} == {
        *mine, ".folder.0123456789abcdef.partial", ".link.0123456789abcdef.partial"
    }  # fmt: skip
    sweep_unfinished(tmp_path / "nowhere")


def test_the_file_is_for_whom_the_mask_says(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        assert write_whole(tmp_path / "a", "x").stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(mask)
