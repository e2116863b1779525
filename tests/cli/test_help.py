"""Help fits every terminal: of every verb there is."""

from collections.abc import Iterator
from typing import Any

import pytest
import typer
from test_cli import call

from transfusion.cli.app import app
from transfusion.cli.help import UNWRAPPED, laid_out

COMMANDS: Any = typer.main.get_command(app)


def told(verb: str, columns: int, patch: pytest.MonkeyPatch) -> str:
    """Return a verb's help in a terminal."""
    patch.setenv("COLUMNS", str(columns))
    return call(*([verb] if verb else []), "--help").stdout


def words(text: str) -> Iterator[str]:
    """Yield what must not be cut; numbers of spaces are free."""
    yield from text.split()


@pytest.mark.parametrize("verb", ["", *COMMANDS.commands])
def test_help_fits_and_cuts_no_word(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = list(words(told(verb, UNWRAPPED, monkeypatch)))
    for columns in (40, 60, 80, 200):
        text = told(verb, columns, monkeypatch)
        assert max(len(line) for line in text.splitlines()) <= columns
        assert list(words(text)) == whole
    assert "\u2026" not in " ".join(whole) and "..." not in " ".join(whole).replace("...", "", 3)
    command: Any = COMMANDS.commands[verb] if verb else COMMANDS
    for name in (name for parameter in command.params for name in parameter.opts if name.startswith("--")):
        assert name in whole or f"{name}," in whole


def test_two_columns_where_there_is_room_and_one_below_the_other_where_not() -> None:
    text = "Options:\n  -o, --output <path>  Picture to write\n  --json  One value"
    assert laid_out(text, 80) == "Options:\n  -o, --output <path>  Picture to write\n  --json               One value"
    assert laid_out("Options:\n  --long, --longer <path>\n                      One value", 80) == (
        "Options:\n  --long, --longer <path>  One value"
    )
    narrow = "Options:\n  -o, --output <path>\n      Picture to write\n  --json\n      One value"
    assert laid_out(text, 40) == narrow


def test_a_word_wider_than_the_terminal_stays_whole() -> None:
    long = "x" * 30 + "-" + "y" * 30
    assert laid_out(f"Options:\n  --one <path>  of {long} and", 40).splitlines()[2:] == [
        "      of", f"      {long}", "      and"
    ]  # fmt: skip
