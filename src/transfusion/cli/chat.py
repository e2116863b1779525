"""A conversation in the terminal with a model that can draw: one document that grows turn by turn."""

import itertools
import sys
from contextlib import suppress
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.text import Text as RichText

from transfusion.cli.output import check_file
from transfusion.cli.signed import signer_of
from transfusion.data.encode import Encoder
from transfusion.data.errors import DataError
from transfusion.generate.options import Generated
from transfusion.layout import num_slots
from transfusion.notes import Note, noted
from transfusion.pretrained import Transfusion
from transfusion.segments import Document, Latent, Text

HELP = "write a caption and it draws; /image FILE shows it a picture, then ask or tell it what to change; /new /quit"
MAX_TOKENS = 48
HALF_BLOCK = "▀"


def converse(model: Transfusion, folder: Path, *, seed: int) -> None:
    """Read turns from standard input until it ends or /quit."""
    check_file(folder / "001.png")
    console = Console()
    console.print(HELP, style="dim")
    document, number = model.document([]), 0
    encoder = Encoder(model.tokenizer, model.config.encode, seed)
    engine, signer = model.engine(max_rows=1), signer_of(model)
    while (line := _read()) is not None:
        if line == "/quit":
            return
        if line == "/new":
            document = model.document([])
        elif line.startswith("/image "):
            name = line.removeprefix("/image ").strip().strip("'\"")
            document = _shown(model, encoder, document, Path(name), console)
        elif line.startswith("/"):
            console.print(f"there is no {line.split()[0]}; {HELP}", style="red", markup=False)
        elif line.strip("? "):
            number += 1
            prompt = encoder.said(document, line)
            options = model.options(max_tokens=MAX_TOKENS, max_images=1, seed=seed + number)
            result = engine.run([(prompt, options)])[0]
            document = result.document
            said = [model.tokenizer.decode(part.tokens).strip() for part in prompt.segments if isinstance(part, Text)]
            note = signer.note("chat", said, seed=options.seed, denoising=options.denoising)
            _tell(model, result, folder, console, note)


def _read() -> str | None:
    try:
        line = input("> " if sys.stdin.isatty() else "")
    except EOFError:
        return None
    return line.encode("utf-8", "replace").decode().strip()


def _shown(model: Transfusion, encoder: Encoder, document: Document, file: Path, console: Console) -> Document:
    try:
        shown = encoder.shown(document, model.picture(file.expanduser()))
        num_slots(shown, model.model.vocabulary)  # a model of text alone has no place for it
    except (DataError, RuntimeError, KeyError, ValueError) as error:  # RuntimeError: ~nobody has no home
        console.print(f"error: {error}", style="red", markup=False)
        return document
    return shown


def _tell(model: Transfusion, result: Generated, folder: Path, console: Console, note: Note) -> None:
    if not any(isinstance(part, Latent) or model.tokenizer.decode(part.tokens).strip() for part in result.generated):
        console.print("(no answer; /new begins anew)", style="dim")
    for part in result.generated:
        if isinstance(part, Text):
            console.print(model.tokenizer.decode(part.tokens).strip(), highlight=False)
        elif isinstance(part, Latent):
            picture = model.image(part)
            if console.is_terminal:
                console.print(half_blocks(picture))
            try:
                console.print(f"[drew {save_numbered(picture, folder, note)}]", markup=False, style="dim")
            except OSError as error:
                console.print(f"error: the picture is not saved: {error}", style="red", markup=False)


def save_numbered(picture: Image.Image, folder: Path, note: Note | None = None) -> Path:
    """Write a picture into a folder under the first free number behind those that are taken: none is written over."""
    data = noted(picture, "PNG", note)
    folder.mkdir(parents=True, exist_ok=True)
    taken = [int(file.stem) for file in folder.glob("*.png") if file.stem.isdecimal()]
    for number in itertools.count(max(taken, default=0) + 1):
        with suppress(FileExistsError), (folder / f"{number:03d}.png").open("xb") as stream:
            stream.write(data)
            return folder / f"{number:03d}.png"
    raise AssertionError("numbers have no end")


def half_blocks(picture: Image.Image) -> RichText:
    """Turn a picture into lines of coloured half blocks, two pixels in each character."""
    text = RichText()
    for y in range(0, picture.height - 1, 2):
        for x in range(picture.width):
            upper, lower = picture.getpixel((x, y)), picture.getpixel((x, y + 1))
            assert isinstance(upper, tuple) and isinstance(lower, tuple)
            text.append(HALF_BLOCK, style=f"rgb({','.join(map(str, upper))}) on rgb({','.join(map(str, lower))})")
        text.append("\n")
    return text
