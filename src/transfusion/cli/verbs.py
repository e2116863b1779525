"""What the verbs on a trained model do."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from io import StringIO
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

from PIL.Image import Image, registered_extensions
from rich.console import Console

from transfusion.autoencoder.settings import PretrainedConfig
from transfusion.cli.json_text import json_text
from transfusion.cli.output import check_picture
from transfusion.cli.progress import drawing, working
from transfusion.cli.signed import signer_of
from transfusion.cli.targets import claim, is_folder, targets
from transfusion.cli.texts import plain
from transfusion.config import ConfigError, override
from transfusion.data.errors import DataError
from transfusion.data.latents import agreed_space
from transfusion.data.settings import AUGMENTATION, MixtureConfig, OneData, data_of, unaugmented
from transfusion.data.shapes import CATEGORIES, prompts
from transfusion.data.sources import (
    DataConfig,
    FolderConfig,
    LatentReader,
    ShapesConfig,
    of_other_data,
    open_reader,
    settled_like,
)
from transfusion.data.splits import TRAIN
from transfusion.data.tasks import is_text_alone
from transfusion.devices import AUTO, choose_precision, find_device
from transfusion.evaluate.losses import bits_per_byte, evaluate_losses
from transfusion.evaluate.suite import evaluate_shapes, scores_table, summarise
from transfusion.files import write_whole
from transfusion.layout import num_slots
from transfusion.notes import Note, noted
from transfusion.objective import TransfusionObjective
from transfusion.pictures import sheet
from transfusion.pretrained import Transfusion

SHEET_COLUMNS = 4
NUM_LOSS_DOCUMENTS = 200
DATA_PREFIX = "data."


class Use(NamedTuple):
    """Which model a verb uses, and how.

    Attributes:
        path: A checkpoint or a run.
        device: See ``devices.find_device``.
        precision: See ``devices.choose_precision``.
    """

    path: Path
    device: str = AUTO
    precision: str = AUTO


class Sampling(NamedTuple):
    """How pictures are drawn; what is None is as the model's settings say.

    Attributes:
        steps: Steps of the sampler.
        sampler: Its name.
        guidance: Scale of guidance.
        negative: What guidance leads away from.
        is_apart: Whether each is drawn by itself, so that in bf16 too it is the same to the bit in any company.
    """

    steps: int | None = None
    sampler: str | None = None
    guidance: float | None = None
    negative: str | None = None
    is_apart: bool = False


PLAIN = Sampling()


def load(use: Use) -> Transfusion:
    """Load a checkpoint or a run, and say where it computes, and how precisely.

    Raises:
        ConfigError: The device or the precision is unknown, or not here.
    """
    device = find_device(use.device)
    precision = choose_precision(use.precision, device)
    model = Transfusion.from_pretrained(use.path, device=str(device), precision=precision)
    print(f"{device}, {precision}", file=sys.stderr)
    return model


def load_for_pictures(use: Use) -> Transfusion:
    """Load a checkpoint or a run that knows pictures.

    Raises:
        ConfigError: It was trained on text alone.
    """
    model = load(use)
    data = model.config.data
    if is_text_alone(data, model.config.encode):
        paths = ", ".join(str(each.path) for each in data_of(data) if isinstance(each, FolderConfig))
        raise ConfigError(
            f"{use.path} was trained on text alone ({paths}); let it write: transfusion write {use.path} TEXT"
        )
    return model


def change(use: Use, image: Path, instruction: str, file: Path, *, seed: int, sampling: Sampling = PLAIN) -> Path:
    """Edit a picture into a file."""
    told = plain(instruction, "the instruction")
    check_picture(file)
    model = load_for_pictures(use)
    guidance, steps, sampler = sampling.guidance, sampling.steps, sampling.sampler
    denoising = model.denoising(guidance=guidance, steps=steps, sampler=sampler)
    note = signer_of(model).note("edit", [told], seed=seed, picture=image, denoising=denoising)
    with working("editing"):
        edited = model.edit(image, told, guidance=guidance, steps=steps, sampler=sampler, seed=seed)
    return save([edited], file, note)


def save(pictures: Sequence[Image], file: Path, note: Note | None = None) -> Path:
    """Write one picture, or several as a sheet, with a note on where they come from."""
    single = pictures[0] if len(pictures) == 1 else sheet(pictures, num_columns=min(len(pictures), SHEET_COLUMNS))
    try:
        data = noted(single, registered_extensions()[file.suffix.lower()], note)
    except (ValueError, OverflowError, OSError) as error:  # a format has a largest side; what is drawn is not lost
        print(f"{file}: {error}; it is written as PNG", file=sys.stderr)
        file, data = file.with_name(f"{file.name}.png"), noted(single, "PNG", note)
    return write_whole(file, data)


def draw(
    use: Use,
    prompts: Sequence[str],
    output: str,
    *,
    num: int,
    seed: int,
    sampling: Sampling,
) -> list[Path]:
    """Draw prompts, ``num`` pictures of each, into a sheet or a file each; return the files.

    Raises:
        ConfigError: The sampler is unknown, a number is out of range, or a file cannot be written.
    """
    texts = [plain(prompt, "a prompt") for prompt in prompts for _ in range(num)]
    if sampling.negative is not None:
        plain(sampling.negative, "the negative prompt")
    files, is_numbered = targets(output, len(texts)), is_folder(output)
    model = load_for_pictures(use)
    denoising = model.denoising(guidance=sampling.guidance, steps=sampling.steps, sampler=sampling.sampler)
    sign = partial(
        signer_of(model).note,
        "generate",
        denoising=denoising,
        negative=sampling.negative,
        is_apart=sampling.is_apart,
    )
    beside = 0 if sampling.is_apart else len(files) - 1
    saved: dict[int, Path] = {}

    def finished(place: int, picture: Image) -> None:
        """Save a picture as soon as it is drawn: what ends the others does not cost it."""
        note = sign([texts[place]], seed=seed + place, beside=beside)
        saved[place] = save([picture], claim(files[place]) if is_numbered else files[place], note)

    with drawing(len(texts), finished if len(files) > 1 else None) as follow:
        pictures = model.generate_images(
            texts,
            guidance=sampling.guidance,
            steps=sampling.steps,
            sampler=sampling.sampler,
            seed=seed,
            negative_prompt=sampling.negative,
            callback_on_step_end=follow,
            is_apart=sampling.is_apart,
        )
    if len(files) == 1:
        return [save(pictures, claim(files[0]) if is_numbered else files[0], sign(texts, seed=seed))]
    return [saved[place] for place in range(len(files))]


def score(use: Use, overrides: Sequence[str], *, num_prompts: int, seed: int) -> tuple[str, str]:
    """Evaluate a model and return the scores as JSON and as a text for a terminal.

    Raises:
        ConfigError: An override is bad, or is none of the data; or there are not so many prompts.
    """
    if other := [text for text in overrides if not text.startswith(DATA_PREFIX)]:
        raise ConfigError(f"{other[0]!r} is no setting of the data; evaluate takes those alone, as data.split=test")
    augmented = [text for text in overrides if text.partition("=")[0].removeprefix(DATA_PREFIX) in AUGMENTATION]
    if augmented:
        raise ConfigError(
            f"{augmented[0]!r} reaches nothing: what is evaluated is seen whole and as it is; leave it out"
        )
    model, begun = load(use), perf_counter()
    data = override(model.config, overrides).data
    if isinstance(data, ShapesConfig):
        if overrides and isinstance(model.config.data, ShapesConfig):
            raise ConfigError(f"{overrides[0]!r} reaches nothing: the built-in world is scored as the model knows it")
        check_num_prompts(num_prompts, seed)
        with working("evaluating"):
            items = evaluate_shapes(model, model.prompts.size[0], num_prompts=num_prompts, seed=seed)
        seconds, parameters = perf_counter() - begun, model.model.num_parameters
        scores = summarise(items, train_seconds=0.0, total_seconds=seconds, parameters=parameters)
        return scores.to_json(), _rendered(scores_table(scores))
    if isinstance(data, MixtureConfig):
        each = [(f"{s.name}: ", s.name, _scored(model, s.data, seed)) for s in _held_out(use, data, overrides).sources]
        facts: dict[str, object] = {"sources": {name: scored.facts for _, name, scored in each}}
        return json_text(facts), "\n".join(f"{prefix}{line}" for prefix, _, scored in each for line in scored.lines)
    scored = _scored(model, unaugmented(_settled(data, model.config.data, overrides)), seed)
    return json_text(scored.facts), "\n".join(scored.lines)


class _Scored(NamedTuple):
    """Losses on a source of data: as facts, and as lines for a terminal."""

    facts: dict[str, object]
    lines: list[str]


def _held_out(use: Use, data: MixtureConfig, overrides: Sequence[str]) -> MixtureConfig:
    """Return what is held out of each source of the mixture that a model was trained on.

    Raises:
        ConfigError: Nothing is; or other settings are given.
    """
    if overrides:
        raise ConfigError(
            f"{overrides[0]!r}: the model was trained on a mixture, of which is measured what is held out of each "
            f"source; of one alone: transfusion evaluate {use.path} data.kind=folder data.path=PATH data.split=test"
        )
    held_out = open_reader(data).held_out
    if not isinstance(held_out, MixtureConfig):
        raise ConfigError(
            f"nothing is held out of the sources of {use.path}; of others: transfusion evaluate {use.path} "
            "data.kind=folder data.path=PATH"
        )
    return held_out


def _scored(model: Transfusion, data: OneData, seed: int) -> _Scored:
    """Take losses on data as their settings name them."""
    where = str(data.path) if isinstance(data, FolderConfig) else "the built-in world"
    encoder = replace(model.prompts.encoder, seed=seed)
    reader = open_reader(data, seed)
    if isinstance(reader, LatentReader):
        _check_space(model, reader.config.path)
    source = reader.source(encoder, model.config.train.row_length - 1)
    try:
        num_slots(source.outline(0), model.model.vocabulary)  # all are of one shape
    except (ValueError, KeyError) as error:
        raise DataError(f"{where} does not fit the model: {error}") from error
    objective = TransfusionObjective(model.config.diffusion, model.config.objective, model.model.vocabulary)
    with working("evaluating"):
        losses = evaluate_losses(model.model, objective, source, num_documents=NUM_LOSS_DOCUMENTS, seed=seed)
        measured = bits_per_byte(
            model.model, objective, source, model.tokenizer, num_documents=NUM_LOSS_DOCUMENTS, seed=seed
        )
    split = data.split if isinstance(data, FolderConfig) else None
    split = split or (TRAIN if source.left_for_others else None)
    facts: dict[str, object] = {"path": where, "split": split, "records": source.size, "losses": losses}
    if measured is not None:
        facts["bits_per_byte"] = measured
        losses = {**losses, "bits per byte": measured}
    told = f"{source.size or 'endless'} records of {where}" + (f", split {split!r}" if split else "")
    if _own(model.config.data, data) is not None and split in (None, TRAIN):
        held_out = reader.held_out
        also = f"; data.split={held_out.split} takes those held out" if isinstance(held_out, FolderConfig) else ""
        told = f"{told}, which the model was trained on{also}"
        facts["trained_on"] = True
    return _Scored(facts, [told, *(f"{name}: {value:.4f}" for name, value in losses.items())])


def _check_space(model: Transfusion, latents: Path) -> None:
    """Refuse latents that are not of the model's space.

    Raises:
        ConfigError: The model is of pixels, or of a space of one's own.
        DataError: They are of another autoencoder, or normalised otherwise.
    """
    space = model.config.autoencoder
    if not isinstance(space, PretrainedConfig):
        raise ConfigError(f"{latents} holds latents of an autoencoder, and the model has autoencoder.kind={space.kind}")
    agreed_space(latents, space)


def _own(trained: DataConfig, data: OneData) -> FolderConfig | None:
    """Return the settings of the folder that a model was trained on, where data are that."""
    if not isinstance(data, FolderConfig):
        return None
    folders = (each for each in data_of(trained) if isinstance(each, FolderConfig))
    return next((each for each in folders if each.path.resolve() == data.path.resolve()), None)


def _settled(data: FolderConfig, trained: DataConfig, overrides: Sequence[str]) -> FolderConfig:
    """Return the data to evaluate on as the run had them settled, if they are its own; else settled anew.

    Raises:
        ConfigError: The data are the run's own, and another share of them was held out: the model has seen these.
    """
    own = _own(trained, data)
    if own is None:
        given = {text.partition("=")[0].removeprefix(DATA_PREFIX) for text in overrides}
        return of_other_data(data, given) if isinstance(trained, FolderConfig) else data
    data = settled_like(data, own)
    if data.hold_out != own.hold_out:
        raise ConfigError(
            f"data.hold_out is {data.hold_out}, but the model was trained on {data.path} with {own.hold_out}: it "
            "has seen what this would hold out; train with data.hold_out, or evaluate on other data"
        )
    return data


def check_num_prompts(count: int, seed: int = 0) -> None:
    """Refuse more prompts per category than the built-in world has.

    Raises:
        ConfigError: Says how many there are.
    """
    try:
        for category in CATEGORIES:
            prompts(category, count, seed)
    except ValueError as error:
        raise ConfigError(f"--prompts {count} is too many: {error}; ask for fewer") from error


def _rendered(table: object) -> str:
    text = StringIO()
    Console(file=text, width=80).print(table)
    return text.getvalue()
