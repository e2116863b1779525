"""Ctrl-C, SIGTERM and SIGHUP as a wish to stop. It must not know what is stopped."""

import os
import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from types import FrameType

STDERR = 2
TOLD = (
    b"\nstopping after this step; its state will be saved "
    b"(Ctrl-C again: ends at once, and what is not saved is lost) ...\n"
)
TOLD_AGAIN = b"\nending at once ...\n"
ASKED = (signal.SIGINT, signal.SIGTERM)
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


def _tell(text: bytes) -> None:
    """Write past Python's streams: one that a signal came in the middle of refuses to be entered again."""
    with suppress(OSError):
        os.write(STDERR, text)


@contextmanager
def stop_on_signals() -> Generator[threading.Event]:
    """Set an event at the first Ctrl-C, SIGTERM or hang-up of the terminal; a second Ctrl-C aborts at once."""
    stop = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        del frame
        if stop.is_set():
            if number == signal.SIGINT:
                _tell(TOLD_AGAIN)
                raise KeyboardInterrupt
            return
        stop.set()
        _tell(TOLD)

    # A hang-up that who started us ignores, as nohup does, is none of ours.
    heard = [number for number in SIGNALS if number in ASKED or signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, handle) for number in heard}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
