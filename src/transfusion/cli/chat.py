"""A conversation in the terminal: one document that grows turn by turn."""

import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.text import Text as RichText

from transfusion.cli.defaults import TEMPERATURE
from transfusion.cli.output import check_file
from transfusion.cli.signed import signer_of
from transfusion.cli.targets import free_numbers
from transfusion.data.encode import TURN_END, Encoder
from transfusion.data.errors import DataError
from transfusion.data.tasks import is_text_alone
from transfusion.data.turns import spoken
from transfusion.generate.engine import Engine
from transfusion.generate.options import Generated
from transfusion.layout import num_slots
from transfusion.notes import Note, noted
from transfusion.pretrained import Transfusion
from transfusion.segments import Document, Latent, Text
from transfusion.tokenizer import Tokenizer

HELP = "write a caption and it draws; /image FILE shows it a picture, then ask or tell it what to change; /new /quit"
TEXT_HELP = "write a text and it goes on with it; /new /quit"
MAX_TOKENS, MAX_LINE_TOKENS = 48, 200
HALF_BLOCK = "▀"


def converse(model: Transfusion, folder: Path, *, seed: int) -> None:
    """Read turns from standard input until it ends or /quit."""
    is_text = is_text_alone(model.config.data, model.config.encode)
    if not is_text:
        check_file(folder / "001.png")
    console = Console()
    told = TEXT_HELP if is_text else HELP
    console.print(told, style="dim")
    document, number = model.document([]), 0
    encoder = replace(model.prompts.encoder, seed=seed)
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
            console.print(f"there is no {line.split()[0]}; {told}", style="red", markup=False)
        elif line.strip("? "):
            number += 1
            prompt = encoder.said(document, line)
            answer = _line if is_text else _turn
            result = answer(model, engine, prompt, seed + number)
            document = result.document
            said = [model.tokenizer.decode(part.tokens).strip() for part in prompt.segments if isinstance(part, Text)]
            note = signer.note("chat", said, seed=seed + number)
            _tell(model, result, folder, console, note)


def _read() -> str | None:
    try:
        line = input("> " if sys.stdin.isatty() else "")
    except EOFError:
        return None
    return line.encode("utf-8", "surrogateescape").decode(errors="replace").strip()


def _turn(model: Transfusion, engine: Engine, prompt: Document, seed: int) -> Generated:
    """Answer with text or with a picture."""
    return engine.run([(prompt, model.options(max_tokens=MAX_TOKENS, max_images=1, seed=seed))])[0]


def _line(model: Transfusion, engine: Engine, prompt: Document, seed: int) -> Generated:
    """Go on with plain text up to the first line break behind some text: nothing but a document's end has an end there,
    and a person wants to speak again.
    """
    options = model.options(max_tokens=MAX_LINE_TOKENS, max_images=0, temperature=TEMPERATURE, seed=seed)
    options = options.model_copy(update={"stop_tokens": _line_ends(model.tokenizer)})
    document, left, is_said, result = prompt, options.max_tokens, False, None
    while result is None or (result.is_ended and left > 0 and not is_said):
        result = engine.run([(document, options.model_copy(update={"max_tokens": left}))])[0]
        tokens = [token for part in result.generated if isinstance(part, Text) for token in part.tokens]
        if not tokens:  # the document has ended
            break
        document, left = result.document, left - len(tokens)
        is_said = bool(model.tokenizer.decode(tokens).strip())
    return Generated(document, document.segments[len(prompt.segments) :], result.is_ended)


def _line_ends(tokenizer: Tokenizer) -> tuple[int, ...]:
    """List the tokens that hold a line break, alone or with letters beside it."""
    return tuple(token for token in range(tokenizer.size) if TURN_END in tokenizer.decode([token]))


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
            if said := spoken(model.prompts.encoder.template, model.tokenizer.decode(part.tokens)):
                console.print(said, highlight=False, markup=False)
        elif isinstance(part, Latent):
            picture = model.image(part)
            if console.is_terminal:
                console.print(half_blocks(picture, console.width))
            try:
                console.print(f"[drew {save_numbered(picture, folder, note)}]", markup=False, style="dim")
            except OSError as error:
                console.print(f"error: the picture is not saved: {error}", style="red", markup=False)


def save_numbered(picture: Image.Image, folder: Path, note: Note | None = None) -> Path:
    """Write a picture into a folder under the first free number behind those that are taken: none is written over."""
    data = noted(picture, "PNG", note)
    folder.mkdir(parents=True, exist_ok=True)
    for file in free_numbers(folder):
        with suppress(FileExistsError), file.open("xb") as stream:
            stream.write(data)
            return file
    raise AssertionError("numbers have no end")


def half_blocks(picture: Image.Image, width: int) -> RichText:
    """Turn a picture into lines of coloured half blocks, two pixels in each character; one that is wider than ``width``
    is made smaller.
    """
    if picture.width > width:
        picture = picture.resize((width, max(2, round(picture.height * width / picture.width))))
    text = RichText()
    for y in range(0, picture.height - 1, 2):
        for x in range(picture.width):
            upper, lower = picture.getpixel((x, y)), picture.getpixel((x, y + 1))
            assert isinstance(upper, tuple) and isinstance(lower, tuple)
            text.append(HALF_BLOCK, style=f"rgb({','.join(map(str, upper))}) on rgb({','.join(map(str, lower))})")
        text.append("\n")
    return text
