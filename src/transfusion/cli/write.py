"""Writing on from a text: streamed as it comes, with the pictures that the model begins on the way."""

import sys
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from transfusion.cli.chat import save_numbered
from transfusion.cli.output import check_file
from transfusion.cli.signed import signer_of
from transfusion.cli.verbs import Use, load
from transfusion.layout import num_slots
from transfusion.pretrained import Transfusion
from transfusion.segments import Document

MAX_TOKENS = 256  # where nobody says how many


class Wanted(NamedTuple):
    """How much to write, and how.

    Attributes:
        tokens: Most tokens; None: what a row of training has room for.
        images: Most pictures.
        temperature: See ``TokenOptions``.
        top_k: See there.
        top_p: See there.
        seed: Key of all draws.
    """

    tokens: int | None
    images: int
    temperature: float
    top_k: int | None
    top_p: float
    seed: int


class Written(NamedTuple):
    """What was written.

    Attributes:
        prompt: What it goes on from.
        text: What was written behind it.
        images: Files of the pictures in it, in order.
        seed: Key of all draws.
    """

    prompt: str
    text: str
    images: list[str]
    seed: int


def go_on(use: Use, prompt: str, wanted: Wanted, folder: Path, *, is_shown: bool) -> Written:
    """Write on from a prompt until the model ends it, or the budget.

    Args:
        use: The model.
        prompt: What stands before.
        wanted: How much, and how.
        folder: Where pictures are saved.
        is_shown: Whether the text goes to standard output as it comes.

    Raises:
        ConfigError: A number is out of range, the prompt is longer than a row, or the folder cannot be written to.
    """
    model = load(use)
    signer = signer_of(model)
    document = model.document([prompt])
    options = model.options(
        max_tokens=_budget(model, document, wanted.tokens),
        max_images=wanted.images,
        temperature=wanted.temperature,
        top_k=wanted.top_k,
        top_p=wanted.top_p,
        seed=wanted.seed,
    )
    is_new = options.max_latents > 0 and not folder.exists()
    if options.max_latents:
        check_file(folder / "001.png")
    texts: list[str] = []
    files: list[str] = []
    try:
        for piece in model.stream_text(document, options):
            if isinstance(piece, str):
                texts.append(piece)
                if is_shown:
                    print(piece, end="", flush=True)
            else:
                note = signer.note("write", [prompt + "".join(texts)], seed=wanted.seed)
                files.append(str(save_numbered(piece, folder, note)))
                print(f"[drew {files[-1]}]", file=sys.stderr)
    finally:
        if is_new:
            with suppress(OSError):  # it holds pictures
                folder.rmdir()
    text = "".join(texts)
    if is_shown and not text.endswith("\n"):
        print(flush=True)
    return Written(prompt, text, files, wanted.seed)


def _budget(model: Transfusion, prompt: Document, tokens: int | None) -> int:
    """Return how many tokens to write, and say where that goes beyond what the model was trained on."""
    longest = model.config.train.row_length
    room = longest - num_slots(prompt, model.model.vocabulary)
    if tokens is None:
        return min(max(room, 1), MAX_TOKENS)
    if tokens > room >= 0:
        told = f"the model was trained on rows of {longest} slots (train.row_length)"
        print(f"note: {told}; what it writes beyond {room} tokens may make less sense", file=sys.stderr)
    return tokens
