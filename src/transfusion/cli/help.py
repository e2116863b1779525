"""Help that fits the terminal, however narrow: names of options stay whole, and no word is cut."""

import re
import shutil
import textwrap
from collections.abc import Sequence
from typing import Any, TypeVar

NARROWEST, WIDEST = 20, 100  # columns of help
UNWRAPPED = 100_000  # columns in which typer tells every entry on one line
TEXT_COLUMNS = 40  # as many must be left for two columns; else what an option does stands below its name
Command = TypeVar("Command")
ENTRY = re.compile(r"  (\S+(?: \S+)*)  +(\S.*)")


def fitted(command: Command) -> Command:
    """Make a command of typer, and all below it, tell help that fits; return it. Run it with ``UNWRAPPED`` columns."""
    changed: Any = command  # typer has no public name for its commands
    tell = changed.get_help
    changed.get_help = lambda context: laid_out(tell(context), shutil.get_terminal_size().columns)
    for below in getattr(command, "commands", {}).values():
        fitted(below)
    return command


def laid_out(text: str, columns: int) -> str:
    """Lay out help that has every entry on one line.

    Args:
        text: Paragraphs, headings, and entries ``  NAME  what it is``.
        columns: Of the terminal.
    """
    wide = min(max(columns, NARROWEST), WIDEST)
    lines = re.sub(r"\n {12,}(?=\S)", "  ", text).split("\n")  # a long name has its text below it
    entries = [ENTRY.fullmatch(line) for line in lines]
    told: list[str] = []
    for number, (line, entry) in enumerate(zip(lines, entries, strict=True)):
        if entry is None:
            indent = line[: len(line) - len(line.lstrip())]
            told += _wrapped(line.strip(), wide, indent, indent + "    " * line.startswith("Usage:"))
            continue
        column = _column(entries, number)
        if wide - column >= TEXT_COLUMNS:
            told += _wrapped(entry[2], wide, f"  {entry[1]}".ljust(column), " " * column)
        else:
            told += [*_wrapped(entry[1], wide, "  ", "    "), *_wrapped(entry[2], wide, "      ", "      ")]
    return "\n".join(told)


def _column(entries: Sequence[re.Match[str] | None], number: int) -> int:
    """Return where the texts of a block of entries begin."""
    first = last = number
    while first > 0 and entries[first - 1]:
        first -= 1
    while last < len(entries) and entries[last]:
        last += 1
    return 4 + max(len(entry[1]) for entry in entries[first:last] if entry)


def _wrapped(text: str, columns: int, indent: str, below: str) -> list[str]:
    """Wrap between words alone."""
    wrapper = textwrap.TextWrapper(
        columns, initial_indent=indent, subsequent_indent=below, break_long_words=False, break_on_hyphens=False
    )
    return wrapper.wrap(re.sub(r" +", " ", text)) or [""]
