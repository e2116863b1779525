"""Samples of a run: what the model draws, or writes where it knows text alone, saved every so many steps.

    samples/step_00000250.png     a sheet of pictures, each with its prompt under it
    samples/step_00000250.txt     a few texts; a model of text alone
    samples/prompts.json          the prompts of the sheets, in their order
    samples/reconstructions.png   pictures of the data, and below each what its autoencoder makes of it

It must not know the loop.
"""

import json
import logging
import re
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple, Protocol

from PIL import Image

from transfusion.autoencoder.reconstruction import Reconstruction, reconstruct
from transfusion.autoencoder.space import LatentSpace, Picture
from transfusion.config import ConfigError
from transfusion.data.loader import Source
from transfusion.files import write_whole
from transfusion.generate.options import TokenOptions
from transfusion.pictures import encoded, sheet
from transfusion.pretrained import Transfusion
from transfusion.segments import Document, Text

SAMPLES_FOLDER, PROMPTS_FILE = "samples", "prompts.json"
RECONSTRUCTIONS = "reconstructions.png"
SAMPLES = r"step_\d+\.(png|txt)|prompts\.json|reconstructions\.png"  # names of what is written there
SHEET_COLUMNS = 8
NUM_SHOWN = 2 * SHEET_COLUMNS
FIRST_STEP, FIRST_SECONDS = 50, 60.0
MAX_SHARE, GRACE_SECONDS = 0.1, 60.0  # of the training, that samples may take beside their first minute
NUM_TEXTS, NUM_BEGUN, NUM_WRITTEN, TEMPERATURE = 4, 8, 128, 0.8
_log = logging.getLogger(__name__)
_SAMPLE = re.compile(r"step_(\d+)\.(?:png|txt)")


class Sample(NamedTuple):
    """A file of samples."""

    step: int
    file: Path


def list_samples(run: Path) -> list[Sample]:
    """List the samples of a run, oldest first."""
    folder = run / SAMPLES_FOLDER
    named = [(_SAMPLE.fullmatch(file.name), file) for file in (folder.iterdir() if folder.is_dir() else ())]
    return sorted(Sample(int(found[1]), file) for found, file in named if found)


class Previewed(Protocol):
    """How long a training is, and how often it is looked at."""

    @property
    def steps(self) -> int:
        """All steps of the run."""
        ...

    @property
    def preview_every(self) -> int:
        """Steps between samples; 0: none."""
        ...


def is_due(train: Previewed, step: int) -> bool:
    """Return whether samples are drawn after a step: after every ``preview_every`` and the last, and before the first
    of those at 50, 100, 200 and so on, where most is learnt and one looks first.
    """
    every = train.preview_every
    if not every:
        return False
    early = step < every and step % FIRST_STEP == 0 and (step // FIRST_STEP).bit_count() == 1
    return early or step % every == 0 or step == train.steps


class SampleTimes:
    """When samples are drawn: when they are due, and first after a minute of training; but no more than take their
    share of its time, except after the last step.
    """

    def __init__(self, train: Previewed, run: Path, *, step: int, train_seconds: float) -> None:
        """Begin where a training stands.

        Args:
            train: The training's settings.
            run: Its folder: what was drawn there before is not drawn first again.
            step: Steps that are done.
            train_seconds: How long they took.
        """
        self._train, self._begun_seconds = train, train_seconds
        self._has_samples = step > 0 and bool(list_samples(run))
        self._seconds, self._is_told = 0.0, False

    def is_now(self, step: int, train_seconds: float) -> bool:
        """Return whether samples are drawn after a step."""
        every = self._train.preview_every
        is_first = not self._has_samples and train_seconds >= FIRST_SECONDS and every > 0
        if step < self._train.steps and self._is_held_up(train_seconds):
            return False
        return is_first or is_due(self._train, step)

    def _is_held_up(self, train_seconds: float) -> bool:
        """Return whether samples took more than their share of the training so far, and say so once."""
        is_held_up = self._seconds > max(GRACE_SECONDS, MAX_SHARE * (train_seconds - self._begun_seconds))
        if is_held_up and not self._is_told:
            self._is_told = True
            _log.info(
                "samples took %.0f s so far, more than %.0f %% of training; some are left out (train.preview_every)",
                *(self._seconds, 100 * MAX_SHARE),
            )
        return is_held_up

    @contextmanager
    def drawing(self) -> Generator[None]:
        """Measure how long samples take, also where they fail."""
        self._has_samples = True
        begun = time.perf_counter()
        try:
            yield
        finally:
            self._seconds += time.perf_counter() - begun


def draw_samples(model: Transfusion, source: Source, run: Path, step: int) -> Path | None:
    """Draw the source's preview prompts, or write a few texts where it has none, and save them.

    Args:
        model: Draws and writes.
        source: Has the prompts; texts begin as its documents do.
        run: Folder of the run.
        step: Steps that the model has learnt.

    Returns:
        The file; None where there is nothing to begin with.
    """
    prompts = [prompt for prompt in source.preview_prompts() if prompt.strip() and _fits(model, prompt)]
    stem = run / SAMPLES_FOLDER / f"step_{step:08d}"
    if prompts:
        pictures = model.generate_images(prompts, seed=0)
        drawn = sheet(pictures, num_columns=min(len(pictures), SHEET_COLUMNS), captions=prompts)
        write_whole(run / SAMPLES_FOLDER / PROMPTS_FILE, json.dumps(prompts) + "\n")
        return write_whole(stem.with_suffix(".png"), encoded(drawn))
    beginnings = list(_beginnings(source))
    return write_whole(stem.with_suffix(".txt"), _written(model, beginnings, step)) if beginnings else None


def draw_reconstructions(space: LatentSpace, pictures: Sequence[Picture], run: Path) -> tuple[list[float], Path]:
    """Show what an autoencoder itself loses: each picture, and below it what becomes of it.

    Args:
        space: The latent space.
        pictures: Some of the data's, (H, W, 3) uint8.
        run: Folder of the run.

    Returns:
        The PSNR of each picture in dB, and the sheet of the first.
    """
    found = reconstruct(space, pictures)
    file = write_whole(run / SAMPLES_FOLDER / RECONSTRUCTIONS, reconstruction_sheet(found))
    return [each.psnr for each in found], file


def reconstruction_sheet(found: Sequence[Reconstruction]) -> bytes:
    """Draw the first of some pictures, and below each what becomes of it: a file of PNG."""
    rows = [found[first : first + SHEET_COLUMNS] for first in range(0, min(len(found), NUM_SHOWN), SHEET_COLUMNS)]
    shown = [
        each
        for row in rows
        for each in (
            *((one.picture, "") for one in row),
            *((one.reconstruction, f"{one.psnr:.1f} dB") for one in row),
        )
    ]
    drawn = sheet(
        [Image.fromarray(picture) for picture, _ in shown],
        num_columns=min(len(found), SHEET_COLUMNS),
        captions=[text for _, text in shown],
    )
    return encoded(drawn)


def _fits(model: Transfusion, prompt: str) -> bool:
    """Return whether a caption fits into a row: what the data hold may be longer, and is left out or cut there."""
    try:
        model.asking.checked(model.prompts.encoder.draw_prompt(prompt))
    except ConfigError:
        return False
    return True


def read_prompts(run: Path) -> list[str]:
    """Return the prompts of a run's sheets; none where it says none."""
    file = run / SAMPLES_FOLDER / PROMPTS_FILE
    try:
        prompts = json.loads(file.read_bytes()) if file.is_file() else []
    except (ValueError, RecursionError) as error:
        _log.warning("%s is damaged, and passed over (%s)", file, error)
        return []
    return [text for text in prompts if isinstance(text, str)] if isinstance(prompts, list) else []


def _beginnings(source: Source) -> Iterator[Text]:
    """Yield the first tokens of documents that begin with text, spread over the source."""
    size = source.size
    places = range(NUM_TEXTS) if size is None else sorted({number * size // NUM_TEXTS for number in range(NUM_TEXTS)})
    for place in places:
        parts = takewhile(lambda part: isinstance(part, Text), source.outline(place).segments)
        tokens = tuple(token for part in parts if isinstance(part, Text) for token in part.tokens)[:NUM_BEGUN]
        if tokens:
            yield Text(tokens)


def _written(model: Transfusion, beginnings: Sequence[Text], step: int) -> str:
    """Let a model go on from beginnings, and tell both."""
    options = model.options(max_tokens=NUM_WRITTEN, max_images=0).model_copy(
        update={"tokens": TokenOptions(temperature=TEMPERATURE), "stop_tokens": ()}
    )
    requests = [(Document((text,), is_complete=False), options) for text in beginnings]
    told = [f"step {step}, temperature {TEMPERATURE}; what stands before | was given, the rest is written"]
    for text, result in zip(beginnings, model.engine().run(requests), strict=True):
        tokens = [token for part in result.generated if isinstance(part, Text) for token in part.tokens]
        told.append(f"{_decoded(model, text.tokens)}|{_decoded(model, tokens)}")
    return "\n\n---\n\n".join(told) + "\n"


def _decoded(model: Transfusion, tokens: Sequence[int]) -> str:
    return model.tokenizer.decode(list(tokens)).encode("utf-8", "replace").decode()
