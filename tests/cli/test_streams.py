"""Standard streams that are closed or know few letters, and warnings."""

import logging
import os
import subprocess
import warnings
from pathlib import Path

import pytest
from test_cli import call, command
from test_write import mixed as mixed  # a fixture

from transfusion.cli.streams import telling


def shell(line: str, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run ``"$@"`` within a line of the shell."""
    return subprocess.run(
        ["bash", "-c", line, "-", *command(*arguments)],
        capture_output=True,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize("line", ['"$@" <&-', '"$@" >&- </dev/null', "printf 'caf\\303\\251\\n/caf\\351\\n' | \"$@\""])
def test_chat_whatever_the_streams(mixed: Path, tmp_path: Path, line: str) -> None:
    done = shell(line, "chat", mixed, "--folder", tmp_path / "c", PYTHONIOENCODING="ascii", COLUMNS="20")
    assert done.returncode == 0 and b"Traceback" not in done.stderr, done.stderr


def test_letters_that_standard_output_cannot_tell_are_escaped() -> None:
    done = shell('"$@"', "recipes", PYTHONIOENCODING="ascii")
    assert done.returncode == 0 and b"\\u03bb = 5" in done.stdout


def test_a_prompt_that_only_the_locale_cannot_read_is_read(mixed: Path) -> None:
    told = call("write", mixed, "caf\udcc3\udca9", "--tokens", "1", "--json").stdout
    assert '"prompt": "caf\\u00e9"' in told


def test_a_warning_is_told_once_and_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("transfusion.some.module")
    with telling():
        for _ in range(2):
            log.warning("broken: %s", "x.png")
            log.info("step")
            warnings.warn_explicit("odd", UserWarning, f"file{_}.py", 1)
        log.warning("broken: %s", "y.png")
    assert capsys.readouterr().err.splitlines() == [
        "broken: x.png",
        "step",
        "UserWarning: odd",
        "step",
        "broken: y.png",
    ]
    log.warning("after")
    assert "after" not in capsys.readouterr().out
