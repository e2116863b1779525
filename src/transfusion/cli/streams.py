"""The three standard streams, whatever the caller has made of them, and what is logged to them.

A stream that is closed becomes an empty one: its number would else be given to the next file that is opened, and what
is meant for a terminal be written there. What a stream's encoding cannot tell is written as an escape.
"""

import logging
import os
import sys
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from io import TextIOWrapper
from typing import Literal, TextIO


def prepare_streams() -> None:
    """Open what is closed and make every character writable."""
    sys.stdin = sys.stdin or _nothing("r")
    sys.stdout = sys.stdout or _nothing("w")
    sys.stderr = sys.stderr or _nothing("w")
    for stream, errors in (
        (sys.stdin, "surrogateescape"),
        (sys.stdout, "backslashreplace"),
        (sys.stderr, "backslashreplace"),
    ):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors=errors)


def _nothing(mode: Literal["r", "w"]) -> TextIO:
    return open(os.devnull, mode)  # it stays open as long as the process


@contextmanager
def telling() -> Generator[None]:
    """Bring what is logged and warned of to standard error meanwhile, each warning once and on a line of its own."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_Once().filter)
    root, before, form = logging.getLogger(), logging.getLogger().level, warnings.formatwarning
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    warnings.formatwarning = lambda message, category, *_, **__: f"{category.__name__}: {message}"
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(before)
        logging.captureWarnings(False)
        warnings.formatwarning = form


class _Once:
    """Passes a warning on the first time it is given."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        is_new = record.levelno < logging.WARNING or text not in self._told
        self._told.add(text)
        return is_new
