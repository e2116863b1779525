"""A model with its tokenizer and settings in a folder: written, read back, found in a run.

It must not know what is done with a model.
"""

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import torch

from transfusion.autoencoder.space import LatentSpace, SpaceError
from transfusion.autoencoder.spaces import open_space
from transfusion.config import CONFIG_FILE, ConfigError, RunConfig, from_json
from transfusion.files import row_of
from transfusion.model.transfusion import ModelConfig, TransfusionModel
from transfusion.tokenizer import Tokenizer, load_tokenizer
from transfusion.train.best import meant
from transfusion.train.checkpoint import CHECKPOINTS, newest, verified
from transfusion.train.manifest import (
    EMA_FILE,
    MANIFEST,
    MODEL_FILE,
    RESUMED_FILES,
    CheckpointError,
    reading,
)
from transfusion.train.tensors import load_weights, save_tensors


def write_pretrained(
    folder: Path, model: TransfusionModel, tokenizer: Tokenizer, config: RunConfig, space: LatentSpace | None = None
) -> None:
    """Write what ``from_pretrained`` needs into a folder.

    Args:
        folder: Where.
        model: The network.
        tokenizer: Its tokenizer.
        config: Its settings.
        space: Its latent space, which may be carried; None: pixels.

    Raises:
        CheckpointError: The model holds matrices in a lower precision than a checkpoint has: weights would be lost.
    """
    if model.held_dtype is not torch.float32:
        raise CheckpointError(
            f"the model holds its matrices in {model.held_dtype}, which would lose weights; load it with precision "
            "'fp32' and save that"
        )
    (folder / CONFIG_FILE).write_text(config.to_json())
    save_tensors(model.state_dict(), folder / MODEL_FILE)
    tokenizer.save(folder)
    if space is not None:
        space.save(folder)


def unrounded(model: TransfusionModel, file: Path | None) -> TransfusionModel:
    """Return a model with every bit of its weights: itself, or, where it holds matrices rounded, read once more.

    Args:
        model: The model.
        file: Where its weights were read, if they were.

    Raises:
        CheckpointError: The file is gone, or its weights are not those that the model holds.
    """
    if model.held_dtype is torch.float32:
        return model
    remedy = "load it with precision='fp32' to save it"
    if file is None or not file.is_file():
        raise CheckpointError(
            f"the model holds its matrices in {model.held_dtype}, and {file}, where they were whole, is gone; {remedy}"
        )
    whole = made_model(model.config, file.parent)
    load_weights(whole, file)
    found = whole.state_dict()
    for name, held in model.state_dict().items():
        if not torch.equal(held.cpu(), found[name].to(held.dtype)):
            raise CheckpointError(
                f"{name} is not as {file} has it: it was changed while held in {held.dtype}; {remedy}"
            )
    return whole


class Settings(NamedTuple):
    """What a checkpoint says of its model without the weights."""

    config: RunConfig
    tokenizer: Tokenizer


def load_settings(folder: Path) -> Settings:
    """Read the settings and the tokenizer of a checkpoint.

    Raises:
        CheckpointError: One of the files is damaged, or of another version.
    """
    with reading(folder / CONFIG_FILE):
        text = (folder / CONFIG_FILE).read_bytes().decode()
        if is_of_autoencoder(text):
            raise CheckpointError(
                f"{folder} is an autoencoder's training, and no model that draws or writes; a recipe trains one on it, "
                "and transfusion train goes on with it"
            )
        config = from_json(text, str(folder / CONFIG_FILE))
    with reading(folder):
        return Settings(config, load_tokenizer(folder))


def load_space(folder: Path, config: RunConfig, given: LatentSpace | None = None) -> LatentSpace:
    """Open the latent space of a checkpoint.

    Args:
        folder: The checkpoint.
        config: Its settings.
        given: A space of one's own, where the settings name one.

    Raises:
        CheckpointError: It cannot be had.
    """
    try:
        return open_space(config.autoencoder, config.encode.standardisation, folder=folder, given=given)
    except SpaceError as error:
        raise CheckpointError(f"{folder}: {error}") from error


def is_of_autoencoder(text: str) -> bool:
    """Return whether the text of settings is that of an autoencoder's training."""
    tree = row_of(text.encode())
    return tree is not None and "network" in tree and "model" not in tree


def made_model(config: ModelConfig, folder: Path) -> TransfusionModel:
    """Make the model that a checkpoint's settings ask for, without its weights.

    Raises:
        CheckpointError: It cannot be made.
    """
    file = folder / CONFIG_FILE
    with reading(file):
        try:
            return TransfusionModel(config)
        except (RuntimeError, MemoryError, OverflowError) as error:
            raise CheckpointError(
                f"{file} asks for a model that cannot be made here; it is damaged, or memory is too small: {error}"
            ) from error


def is_model(folder: Path) -> bool:
    """Return whether a folder is a checkpoint or a saved model, whole or not, and no run's folder."""
    return any((folder / name).exists() for name in (MANIFEST, MODEL_FILE, EMA_FILE))


def check_no_model(folder: Path) -> None:
    """Refuse to train into a folder that holds a model: its weights would be ignored.

    Raises:
        ConfigError: It does; says how to begin from it.
    """
    if is_model(folder):
        told = (
            f"{folder} holds a model, which a run in that folder would ignore; to begin a new run from its weights: "
            f"transfusion train RECIPE train.init={folder} --run runs/NEW"
        )
        if all((folder / name).exists() for name in RESUMED_FILES):
            told += f"   To go on where its training stopped: transfusion train {folder} --run runs/NEW"
        raise ConfigError(told)


def find_checkpoint(path: Path, *, hashed: Collection[str] | None = None) -> Path:
    """Return the checkpoint that a path means, checked: itself, the newest whole one of a run's folder, or the one of
    ``RUN/best`` that foretells held-out documents best.

    For use: what only a training needs to go on may be gone, and is not read.

    Args:
        path: A checkpoint, the folder of a run, or ``best`` in it.
        hashed: Files of which the content is checked, where not all of them will be read.

    Raises:
        CheckpointError: There is none, or it is damaged.
    """
    path = meant(path)
    is_checkpoint = any((path / name).exists() for name in (MANIFEST, MODEL_FILE))
    is_run = path.is_dir() and ((path / CHECKPOINTS).is_dir() or not is_checkpoint)
    if not is_run:
        return verified(path, hashed=hashed, unneeded=RESUMED_FILES)
    found = newest(path, hashed=hashed, unneeded=RESUMED_FILES)
    if found is None:
        raise CheckpointError(f"no checkpoint at {path}; expected a checkpoint's folder or a run's, such as runs/demo")
    return found
