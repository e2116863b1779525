"""Names of folders on the command line: an empty one would be the present folder. It must stay light."""

from pathlib import Path

import typer


def folder(name: str) -> Path:
    """Return the folder that a name means.

    Raises:
        typer.BadParameter: It is empty, as where a variable of a shell is.
    """
    return Path(text(name))


def text(name: str) -> str:
    """Return a name that is one.

    Raises:
        typer.BadParameter: It is empty.
    """
    if not name:
        raise typer.BadParameter("expected the name of a folder, given ''; the present folder is .")
    return name
