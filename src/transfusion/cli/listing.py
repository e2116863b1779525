"""How the recipes are listed: a question and a command each, in lines that a narrow terminal holds."""

import inspect
import re
import shutil
import textwrap
from collections.abc import Callable
from typing import NamedTuple

MIN_WIDTH, MAX_WIDTH = 40, 100
INDENT = "  "
_COMMAND = re.compile(r"``(transfusion [^`]+)``")


class Listed(NamedTuple):
    """A recipe as it is listed."""

    name: str
    question: str
    command: str


def listed(name: str, recipe: Callable[[], object]) -> Listed:
    """Take the question, which is the first line, and the first command from a recipe's docstring."""
    text = inspect.getdoc(recipe) or ""
    found = _COMMAND.search(" ".join(text.split()))
    return Listed(name, text.partition("\n")[0], found[1] if found else f"transfusion train {name}")


def width() -> int:
    """Return how wide lines for a person may be, in characters."""
    return min(max(shutil.get_terminal_size().columns, MIN_WIDTH), MAX_WIDTH)


def laid_out(rows: list[Listed], columns: int) -> str:
    """Lay recipes out; commands are never broken, so that they can be copied."""
    lines: list[str] = []
    for row in rows:
        asked = textwrap.wrap(row.question, columns, initial_indent=INDENT, subsequent_indent=INDENT)
        lines += [row.name, *asked, f"{INDENT}{row.command}"]
    return "\n".join(lines)
