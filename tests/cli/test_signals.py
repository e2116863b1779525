"""Signals, wherever they come."""

import array
import fcntl
import os
import signal
import subprocess
import sys
import termios

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
