"""Locks: one holder, refused by name, released by any end."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from transfusion.train.lock import LOCK_FILE, BusyError, hold, hold_run

HOLD = """
import os, sys, time
from pathlib import Path
from transfusion.train.lock import hold_run
with hold_run(Path(sys.argv[1])):
    child = os.fork()
    if child == 0:  # as a data worker that outlives its parent
        sys.stdin.read()
        os._exit(0)
    print("held", flush=True)
    sys.stdin.read()
"""


def test_one_holds_and_the_next_is_told_who(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "one"
    with hold_run(run) as lock:
        assert lock.run == run
        told = rf"one is being trained in by another process \({os.getpid()} on .*--run"
        with pytest.raises(BusyError, match=told), hold_run(run):
            raise AssertionError
        assert (run / LOCK_FILE).exists()
    assert list(tmp_path.iterdir()) == []  # the folders were made for the lock alone


def test_what_was_written_stays(tmp_path: Path) -> None:
    with hold_run(tmp_path / "run"):
        (tmp_path / "run" / "metrics.jsonl").write_text("")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["metrics.jsonl"]


def test_a_kill_releases_it_though_a_forked_process_lives_on(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / "run"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None and process.stdout is not None
    assert process.stdout.readline() == "held\n"
    with pytest.raises(BusyError, match=str(process.pid)), hold_run(tmp_path / "run"):
        raise AssertionError
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (tmp_path / "run" / LOCK_FILE).exists()  # left behind, and no obstacle
    with hold_run(tmp_path / "run"):
        pass
    process.stdin.close()
    assert process.stdout.read() == ""


def test_a_lock_taken_on_a_deleted_file_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, opened = tmp_path / "lock", os.open

    def spy(path: Path, flags: int, mode: int) -> int:
        descriptor = opened(path, flags, mode)
        if not deleted:
            deleted.append(file)
            file.unlink()  # as its holder does between this one's open and lock
        return descriptor

    deleted: list[Path] = []
    monkeypatch.setattr(os, "open", spy)
    with hold(file, "it is held", "wait"):
        assert file.exists()
        with pytest.raises(BusyError), hold(file, "it is held", "wait"):
            raise AssertionError


@pytest.mark.parametrize("is_link", [False, True])
def test_a_users_file_is_no_lock(tmp_path: Path, is_link: bool) -> None:
    file = tmp_path / LOCK_FILE
    mine = tmp_path / "mine.txt" if is_link else file
    text = "12 eggs" if is_link else "12 eggs\nand flour"
    mine.write_text(text)
    if is_link:
        file.symlink_to(mine)
    with pytest.raises(BusyError, match=r"\.training\.lock .*move it away"), hold_run(tmp_path):
        raise AssertionError
    assert mine.read_text() == text and file.is_symlink() == is_link
