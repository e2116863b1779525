"""Signals, wherever they come."""

import array
import fcntl
import os
import signal
import subprocess
import sys
import termios
from pathlib import Path
from types import ModuleType

import pytest
from test_cli import SMALL
from test_write import mixed as mixed  # a fixture

from transfusion.cli import main
from transfusion.cli.signals import stop_on_signals

# Streams with their buffers, whatever the caller wishes.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
FULL = 65536

WRITE = f"""
import sys
from transfusion.cli.signals import stop_on_signals
with stop_on_signals() as stop:
    sys.stderr.write("x" * {4 * FULL})
    sys.stderr.flush()
    print("asked to stop:", stop.is_set())
"""

SAMPLING = """
import signal, sys
import transfusion.generate.engine as engine
from transfusion.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # who runs the tests in the background ignores it
def interrupted(self, rows):
    signal.raise_signal(signal.SIGINT)
engine.Forwards.evaluate = interrupted
sys.argv = sys.argv[:1] + sys.argv[2:]
main()
"""
LATE = """
import signal, sys
import transfusion.asking as asking
from transfusion.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)
events, drawn = asking._events, []
def interrupted(engine):
    for event in events(engine):
        if isinstance(event, asking.LatentEvent):
            if len(drawn) == 2:
                signal.raise_signal(signal.SIGINT)
            drawn.append(event)
        yield event
asking._events = interrupted
sys.argv = sys.argv[:1] + sys.argv[2:]
main()
"""
HURRIED = """
import signal, sys
import transfusion.train.loop as loop
from transfusion.cli import main
accumulate = loop._accumulate
counted = []
def interrupted(*arguments):
    counted.append(1)
    if len(counted) == 4:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    return accumulate(*arguments)
loop._accumulate = interrupted
sys.argv = sys.argv[:1] + sys.argv[2:]
main()
"""


def run_script(script: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a changed command line."""
    return subprocess.run(
        [sys.executable, "-c", script, "-", *map(str, arguments)], capture_output=True, text=True, check=False
    )


def test_an_interrupt_of_sampling_is_one_line_and_leaves_nothing(mixed: Path, tmp_path: Path) -> None:
    done = run_script(SAMPLING, "generate", mixed, "a star", "-o", tmp_path / "out" / "o.png")
    assert done.returncode == 130 and done.stdout == "" and done.stderr == "cpu, fp32\nstopped\n"
    assert list((tmp_path / "out").iterdir()) == []


def test_what_is_drawn_stays(mixed: Path, tmp_path: Path) -> None:
    """The third picture of three is interrupted."""
    done = run_script(LATE, "generate", mixed, "a", "b", "c", "-o", tmp_path / "x-{}.png", "--steps", "1")
    assert done.returncode == 130 and sorted(file.name for file in tmp_path.glob("x-*")) == ["x-1.png", "x-2.png"]


def test_the_second_interrupt_says_what_is_saved(tmp_path: Path) -> None:
    run = tmp_path / "r"
    settings = [setting for setting in SMALL if "preview" not in setting]
    done = run_script(HURRIED, "train", "tiny", *settings, "train.preview_every=0", "--run", run)
    assert done.returncode == 130 and "Traceback" not in done.stderr
    last = f"the last checkpoint is {run / 'checkpoints' / 'step_00000002'}"
    told = done.stderr.splitlines()
    assert "what is not saved is lost" in told[-4] and told[-2:] == [
        "ending at once ...",
        f"stopped: step 3 is not saved; {last}",
    ]
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step_00000002"]


def test_a_signal_in_the_middle_of_a_write_to_stderr_only_asks_to_stop() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITE], env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    waiting = array.array("i", [0])
    while waiting[0] < FULL:  # until the pipe is full and the writer waits in the middle of its write
        assert process.poll() is None
        fcntl.ioctl(process.stderr, termios.FIONREAD, waiting)
    process.send_signal(signal.SIGINT)
    told, noise = process.communicate()
    assert told == "asked to stop: True\n" and process.returncode == 0, noise.replace("x", "")
    assert noise.count("x") == 4 * FULL and "stopping after this step" in noise


def test_a_hang_up_that_is_ignored_stays_so() -> None:
    """As ``nohup`` has it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_on_signals() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop.is_set()
            signal.raise_signal(signal.SIGTERM)
            assert stop.is_set()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_an_interrupt_while_the_program_is_loaded_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    class Loading(ModuleType):
        def __getattr__(self, name: str) -> object:
            raise KeyboardInterrupt if name == "main" else AttributeError(name)

    monkeypatch.setitem(sys.modules, "transfusion.cli.app", Loading("transfusion.cli.app"))
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130 and ended.value.__suppress_context__
