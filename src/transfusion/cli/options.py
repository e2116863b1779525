"""Options that many verbs have, and how they print what they found."""

from typing import Annotated

import typer

from transfusion.cli.json_text import json_text

AsJson = Annotated[bool, typer.Option("--json", help="Write one JSON value to standard output")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps; auto is the first of cuda, mps, cpu")]


def say(value: object, *, as_json: bool, text: str) -> None:
    """Print a result, for a program or for a person."""
    print(json_text(value) if as_json else text)
