"""A conversation in the terminal with a model that can draw: one document that grows turn by turn."""

import sys
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.text import Text as RichText

from transfusion.data.encode import told_question
from transfusion.data.errors import DataError
from transfusion.generate.options import Generated
from transfusion.pretrained import Transfusion
from transfusion.segments import Document, Latent, Text

HELP = "write a caption and it draws; /image FILE shows it a picture, then ask or tell it what to change; /new /quit"
MAX_TOKENS = 48
HALF_BLOCK = "▀"


def converse(model: Transfusion, folder: Path, *, seed: int) -> None:
    """Read turns from standard input until it ends or /quit."""
    console = Console()
    console.print(HELP, style="dim")
    document, number = model.document([]), 0
    engine = model.engine(max_rows=1)
    while (line := _read()) is not None:
        if line == "/quit":
            return
        if line == "/new":
            document = model.document([])
        elif line.startswith("/image "):
            name = line.removeprefix("/image ").strip().strip("'\"")
            document = _shown(model, document, Path(name).expanduser(), console)
        elif line.startswith("/"):
            console.print(f"there is no {line.split()[0]}; {HELP}", style="red", markup=False)
        elif told := _told(line, document):
            number += 1
            prompt = Document((*document.segments, *model.document([told]).segments), is_complete=False)
            options = model.options(max_tokens=MAX_TOKENS, max_images=1, seed=seed + number)
            result = engine.run([(prompt, options)])[0]
            document = result.document
            _tell(model, result, folder / f"{number:03d}.png", console)


def _read() -> str | None:
    try:
        line = input("> " if sys.stdin.isatty() else "")
    except EOFError:
        return None
    return line.encode("utf-8", "replace").decode().strip()


def _told(line: str, document: Document) -> str:
    """Tell a question about a picture as training does: without its mark."""
    is_about_picture = any(isinstance(part, Latent) for part in document.segments)
    return told_question(line) if is_about_picture and line.endswith("?") else line


def _shown(model: Transfusion, document: Document, file: Path, console: Console) -> Document:
    try:
        segments = model.document([file]).segments
    except DataError as error:
        console.print(f"error: {error}", style="red", markup=False)
        return document
    return Document((*document.segments, *segments), is_complete=False)


def _tell(model: Transfusion, result: Generated, file: Path, console: Console) -> None:
    if not any(isinstance(part, Latent) or model.tokenizer.decode(part.tokens).strip() for part in result.generated):
        console.print("(no answer; /new begins anew)", style="dim")
    for part in result.generated:
        if isinstance(part, Text):
            console.print(model.tokenizer.decode(part.tokens).strip(), highlight=False)
        elif isinstance(part, Latent):
            picture = model.image(part)
            file.parent.mkdir(parents=True, exist_ok=True)
            picture.save(file)
            if console.is_terminal:
                console.print(half_blocks(picture))
            console.print(f"[drew {file}]", markup=False, style="dim")


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
