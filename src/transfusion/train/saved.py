"""A model with its tokenizer and settings in a folder: written, read back, found in a run.

It must not know what is done with a model.
"""

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from transfusion.config import CONFIG_FILE, RunConfig, from_json
from transfusion.model.transfusion import ModelConfig, TransfusionModel
from transfusion.tokenizer import Tokenizer, load_tokenizer
from transfusion.train.checkpoint import CHECKPOINTS, newest, verified
from transfusion.train.manifest import MANIFEST, MODEL_FILE, RESUMED_FILES, CheckpointError, reading
from transfusion.train.tensors import save_tensors


def write_pretrained(folder: Path, model: TransfusionModel, tokenizer: Tokenizer, config: RunConfig) -> None:
    """Write what ``from_pretrained`` needs into a folder."""
    (folder / CONFIG_FILE).write_text(config.to_json())
    save_tensors(model.state_dict(), folder / MODEL_FILE)
    tokenizer.save(folder)


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
        config = from_json((folder / CONFIG_FILE).read_bytes().decode(), str(folder / CONFIG_FILE))
    with reading(folder):
        return Settings(config, load_tokenizer(folder))


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


def find_checkpoint(path: Path, *, hashed: Collection[str] | None = None) -> Path:
    """Return the checkpoint that a path means, checked: itself, or the newest whole one of a run's folder.

    For use: what only a training needs to go on may be gone, and is not read.

    Args:
        path: A checkpoint, or the folder of a run.
        hashed: Files of which the content is checked, where not all of them will be read.

    Raises:
        CheckpointError: There is none, or it is damaged.
    """
    is_checkpoint = any((path / name).exists() for name in (MANIFEST, MODEL_FILE))
    is_run = path.is_dir() and ((path / CHECKPOINTS).is_dir() or not is_checkpoint)
    if not is_run:
        return verified(path, hashed=hashed, unneeded=RESUMED_FILES)
    found = newest(path, hashed=hashed, unneeded=RESUMED_FILES)
    if found is None:
        raise CheckpointError(f"no checkpoint at {path}; expected a checkpoint's folder or a run's, such as runs/demo")
    return found
