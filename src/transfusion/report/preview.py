"""A page of what a model will see: rows as they are packed, their tokens and targets, pictures, times and masks.

It shows a batch and not the data, so that what it says is what the loop gets.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import chain, islice

import numpy as np
from PIL import Image
from torch import Tensor

from transfusion.autoencoder.space import LatentSpace, SpaceError
from transfusion.batch import Batch
from transfusion.data.encode import IMAGE
from transfusion.data.found import counted
from transfusion.diffusion.process import Process
from transfusion.layout import IGNORE, NO_SPAN, PADDING, Columns
from transfusion.mask import dense_mask, slots_of
from transfusion.report.html import image, page, section, table
from transfusion.segments import Vocabulary
from transfusion.tokenizer import Tokenizer

TITLE = "Preview of training"
MASK_SIDE = 384  # pixels, at most
UNKNOWN, LINE_BREAK = "\N{REPLACEMENT CHARACTER}", "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}"
STYLE = """<style>
.row { line-height: 2 } .row span { padding: .1rem .15rem; border: 1px solid var(--line); white-space: pre-wrap }
.learnt { background: #1a8f4a33 } .given { background: #8882 } .special { font-size: .75rem; color: #888 }
.row figure { display: inline-block; vertical-align: middle; margin: .3rem; width: auto }
.row figure img { width: 6rem; height: auto } .document { border-left: 4px solid var(--line); padding-left: .8rem }
</style>"""


@dataclass(frozen=True)
class Reading:
    """What turns a batch back into what people read.

    Attributes:
        tokenizer: Of the model.
        vocabulary: Of the model.
        space: What latents are of.
        process: How they are noised.
    """

    tokenizer: Tokenizer
    vocabulary: Vocabulary
    space: LatentSpace
    process: Process


def preview_page(batches: Sequence[Batch], reading: Reading, facts: Sequence[tuple[str, str]], num_rows: int) -> str:
    """Lay out the first rows of a step.

    Args:
        batches: The step's micro-batches, on the CPU.
        reading: Of the model that they are for.
        facts: What is known beside, by name.
        num_rows: Rows to show, at most.

    Returns:
        HTML that needs no other file.
    """
    count = sum(len(batch.columns.tokens) for batch in batches)
    shown = islice(chain.from_iterable(_rows(batch, reading, num_rows) for batch in batches), num_rows)
    told = [*facts, *_counted(batches)]
    parts = [STYLE, f"<h1>{TITLE}</h1>", table([(name, escape(value)) for name, value in told]), _legend()]
    parts += [section(f"Row {number} of {count}", text) for number, text in enumerate(shown, 1)]
    return page(TITLE, parts)


def _legend() -> str:
    return (
        '<p class="row"><span class="learnt">learnt</span> is predicted from what is before it; <span class="given">'
        "given</span> is only read. A picture stands beside what the model gets of it at the time t that this step "
        "draws (0: clean, 1: noise). In a mask each line is a slot, and white is what it may look at.</p>"
    )


def _counted(batches: Sequence[Batch]) -> Iterator[tuple[str, str]]:
    tokens = [batch.columns.tokens for batch in batches]
    rows, slots, taken = sum(map(len, tokens)), sum(t.numel() for t in tokens), sum(b.num_slots for b in batches)
    documents = sum(batch.num_documents for batch in batches)
    widths = sorted({t.shape[1] for t in tokens})  # each micro-batch is as wide as it needs
    wide = str(widths[0]) if len(widths) == 1 else f"{widths[0]} to {widths[-1]}"
    yield (
        "rows",
        f"{rows} of {wide} slots, {taken / slots:.1%} full, {documents / rows:.1f} documents each",
    )
    targets = sum(batch.text_slots.numel() for batch in batches)
    denoised = sum(int(group.is_target.sum()) for batch in batches for group in batch.spans)
    latents = sum(batch.num_latents for batch in batches)
    yield "learnt", f"{targets} tokens; {denoised} of {latents} pictures are denoised"
    if dropped := batches[0].num_dropped:
        yield "left out", f"{counted(dropped, 'document')} of this step: too long, or nothing to learn"
    for name, reason in batches[0].broken.items():
        yield "left out", f"{name}: {reason}"


def _rows(batch: Batch, reading: Reading, num_rows: int) -> Iterator[str]:
    length = batch.columns.tokens.shape[1]
    latents = _latents(batch, reading, num_rows * length)
    for row, (tokens, *_) in enumerate(zip(*batch.columns, strict=True)):
        if row == num_rows:
            return
        columns = Columns(*(column[row] for column in batch.columns))
        parts: list[str] = []
        for document in range(int(columns.document_ids.max()) + 1):
            slots = (columns.document_ids == document).nonzero().flatten().tolist()
            told = _told(columns, slots, reading, {slot: latents.get(row * length + slot, "") for slot in slots})
            parts.append(f'<div class="document row">{"".join(told)}</div>')
        free = int((columns.document_ids == PADDING).sum())
        parts.append(f"<p>{len(tokens) - free} of {length} slots, {free} of padding</p>{_mask(columns)}")
        yield "".join(parts)


def _told(columns: Columns, slots: Sequence[int], reading: Reading, latents: Mapping[int, str]) -> Iterator[str]:
    """Tell a document slot by slot; a latent where its first patch is."""
    before: int | None = None
    for slot in slots:
        yield latents[slot]
        if int(columns.span_ids[slot]) == NO_SPAN:
            token = int(columns.tokens[slot])
            is_learnt = before is not None and int(columns.targets[before]) == token
            yield _chip(token, reading, is_learnt=is_learnt)
        before = slot
    if before is not None and (last := int(columns.targets[before])) != IGNORE:
        yield _chip(last, reading, is_learnt=True)


def _chip(token: int, reading: Reading, *, is_learnt: bool) -> str:
    kind, vocabulary = "learnt" if is_learnt else "given", reading.vocabulary
    if token >= vocabulary.text_size:
        return f'<span class="{kind} special">{escape(vocabulary.specials[token - vocabulary.text_size])}</span>'
    text = reading.tokenizer.decode([token])
    shown = f"#{token}" if not text or UNKNOWN in text else text.replace("\n", LINE_BREAK)
    return f'<span class="{kind}">{escape(shown)}</span>'


def _latents(batch: Batch, reading: Reading, end: int) -> dict[int, str]:
    """Return what is shown of each latent before the flat slot ``end``, by the flat index of its first slot."""
    found: dict[int, str] = {}
    for group in batch.spans:
        name = reading.vocabulary.modality(group.modality).name
        for number in (group.slots[:, 0] < end).nonzero().flatten().tolist():
            x_0, noise, t = group.x_0[number], group.noise[number], group.t[number]
            pictures = [_drawn(x_0, reading.space, name)]
            if float(t):
                pictures.append(_drawn(reading.process.noised(x_0[None], noise[None], t[None])[0], reading.space, name))
            does = (
                f"denoised from t = {float(t):.2f}" if bool(group.is_target[number]) else f"read at t = {float(t):.2f}"
            )
            words = escape(f"{name}, {group.slots.shape[1]} slots, {does}")
            found[int(group.slots[number, 0])] = f"<figure>{''.join(pictures)}<figcaption>{words}</figcaption></figure>"
    return found


def _drawn(latent: Tensor, space: LatentSpace, name: str) -> str:
    """Draw a latent of pictures; of another modality, or where nothing decodes it, nothing."""
    if name != IMAGE:
        return ""
    try:
        return image(space.decode(latent), name)
    except SpaceError:
        return ""


def _mask(columns: Columns) -> str:
    """Draw what each slot may look at."""
    slots = slots_of(Columns(*(column[None] for column in columns)))
    mask = dense_mask(slots, slots)[0, 0]
    mask &= (columns.document_ids != PADDING)[:, None] & (columns.document_ids != PADDING)[None, :]
    picture = Image.fromarray(mask.numpy().astype(np.uint8) * 255)
    side = min(MASK_SIDE, max(1, MASK_SIDE // len(mask)) * len(mask))
    resample = Image.Resampling.BOX if len(mask) > side else Image.Resampling.NEAREST
    return f'<figure class="wide">{image(picture.resize((side, side), resample), "attention mask")}</figure>'
