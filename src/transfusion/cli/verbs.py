"""What the verbs on a trained model do."""

import json
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from time import perf_counter

from PIL.Image import Image, registered_extensions
from rich.console import Console

from transfusion.cli.output import check_picture
from transfusion.cli.signed import signer_of
from transfusion.config import ConfigError, override
from transfusion.data.encode import Encoder
from transfusion.data.errors import DataError
from transfusion.data.shapes import CATEGORIES, prompts
from transfusion.data.sources import FolderConfig, ShapesConfig, is_text, open_source
from transfusion.evaluate.losses import evaluate_losses
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


def load(path: Path) -> Transfusion:
    """Load a checkpoint or a run."""
    return Transfusion.from_pretrained(path)


def load_for_pictures(path: Path) -> Transfusion:
    """Load a checkpoint or a run that knows pictures.

    Raises:
        ConfigError: It was trained on text alone.
    """
    model = load(path)
    data = model.config.data
    if isinstance(data, FolderConfig) and is_text(data.path):
        raise ConfigError(f"{path} was trained on text alone ({data.path}); talk to it: transfusion chat {path}")
    return model


def change(path: Path, image: Path, instruction: str, file: Path, *, seed: int) -> Path:
    """Edit a picture into a file."""
    check_picture(file)
    model = load_for_pictures(path)
    note = signer_of(model).note("edit", [instruction], seed=seed, picture=image)
    return save([model.edit(image, instruction, seed=seed)], file, note)


def save(pictures: Sequence[Image], file: Path, note: Note | None = None) -> Path:
    """Write one picture, or several as a sheet, with a note on where they come from."""
    single = pictures[0] if len(pictures) == 1 else sheet(pictures, num_columns=min(len(pictures), SHEET_COLUMNS))
    return write_whole(file, noted(single, registered_extensions()[file.suffix.lower()], note))


def draw(
    path: Path,
    prompts: Sequence[str],
    file: Path,
    *,
    seed: int,
    steps: int | None,
    sampler: str | None,
    guidance: float | None,
) -> Path:
    """Draw prompts into a file.

    Raises:
        ConfigError: The sampler is unknown or a number is out of range.
    """
    check_picture(file)
    model = load_for_pictures(path)
    denoising = model.denoising(guidance=guidance, steps=steps, sampler=sampler)
    note = signer_of(model).note("generate", prompts, seed=seed, denoising=denoising)
    pictures = model.generate_images(prompts, guidance=guidance, steps=steps, sampler=sampler, seed=seed)
    return save(pictures, file, note)


def score(path: Path, overrides: Sequence[str], *, num_prompts: int, seed: int) -> tuple[str, str]:
    """Evaluate a model and return the scores as JSON and as a text for a terminal.

    Raises:
        ConfigError: An override is bad, or is none of the data; or there are not so many prompts.
    """
    if other := [text for text in overrides if not text.startswith(DATA_PREFIX)]:
        raise ConfigError(f"{other[0]!r} is no setting of the data; evaluate takes those alone, as data.split=test")
    model, begun = load(path), perf_counter()
    data = override(model.config, overrides).data
    if isinstance(data, ShapesConfig):
        if overrides and isinstance(model.config.data, ShapesConfig):
            raise ConfigError(f"{overrides[0]!r} reaches nothing: the built-in world is scored as the model knows it")
        check_num_prompts(num_prompts, seed)
        items = evaluate_shapes(model, model.resolution, num_prompts=num_prompts, seed=seed)
        seconds, parameters = perf_counter() - begun, model.model.num_parameters
        scores = summarise(items, train_seconds=0.0, total_seconds=seconds, parameters=parameters)
        return scores.to_json(), _rendered(scores_table(scores))
    _check_hold_out(data, model.config.data)
    encoder = Encoder(model.tokenizer, model.config.encode, seed)
    source = open_source(data, encoder, model.config.train.row_length - 1)
    try:
        num_slots(source.outline(0), model.model.vocabulary)  # all are of one shape
    except (ValueError, KeyError) as error:
        raise DataError(f"{data.path} does not fit the model: {error}") from error
    objective = TransfusionObjective(model.config.diffusion, model.config.objective, model.model.vocabulary)
    losses = evaluate_losses(model.model, objective, source, num_documents=NUM_LOSS_DOCUMENTS, seed=seed)
    facts = {"path": str(data.path), "split": data.split, "records": source.size, "losses": losses}
    told = f"{source.size} records of {data.path}" + (f", split {data.split!r}" if data.split else "")
    return json.dumps(facts), "\n".join([told, *(f"{name}: {value:.4f}" for name, value in losses.items())])


def _check_hold_out(data: FolderConfig, trained: object) -> None:
    """Refuse to call held out what the model was trained on.

    Raises:
        ConfigError: The data are the run's own, and another share of them was held out.
    """
    if not isinstance(trained, FolderConfig) or trained.path.resolve() != data.path.resolve():
        return
    if data.hold_out != trained.hold_out:
        raise ConfigError(
            f"data.hold_out is {data.hold_out}, but the model was trained on {data.path} with {trained.hold_out}: it "
            "has seen what this would hold out; train with data.hold_out, or evaluate on other data"
        )


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
