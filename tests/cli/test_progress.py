"""Progress is for terminals."""

import os
import pty
import subprocess
from pathlib import Path

import pytest
from test_cli import call, command
from test_write import mixed as mixed  # a fixture

from transfusion.cli.progress import drawing


def test_nothing_is_shown_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    with drawing(3) as follow:
        assert follow is None
    assert capsys.readouterr() == ("", "")


def test_a_terminal_sees_a_bar_and_standard_output_nothing_of_it(mixed: Path, tmp_path: Path) -> None:
    seen, terminal = pty.openpty()
    arguments = command("generate", mixed, "a star", "-o", tmp_path / "o.png", "--json")
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=terminal, env=environment) as process:
        os.close(terminal)
        told = b""
        try:
            while part := os.read(seen, 4096):
                told += part
        except OSError:  # the end of a terminal, on Linux
            pass
        assert process.stdout is not None
        out = process.stdout.read()
    os.close(seen)
    assert b"cpu, fp32" in told and b"drawing" in told and b"100%" in told
    assert out.startswith(b'{"file"') and out.count(b"\n") == 1


def test_a_pipe_sees_the_device_alone(mixed: Path, tmp_path: Path) -> None:
    for verb in (("generate", mixed, "a star", "-o", tmp_path / "o.png"), ("evaluate", mixed, "--prompts", "1")):
        assert call(*verb).stderr == "cpu, fp32\n"
