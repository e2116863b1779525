"""Checkpoints: directories published by rename, verified by a manifest; nothing is ever unpickled.

    step_00000500/  config.json  model.safetensors  [ema.safetensors]  [tokenizer.json]     what a user loads
                    [optimizer.safetensors  state.json]                                     what a resume needs
                    manifest.json                                                           sizes and SHA-256, last

Training and ``save_pretrained`` write this one format. It must not know the loop.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

MANIFEST = "manifest.json"
MODEL_FILE = "model.safetensors"
EMA_FILE = "ema.safetensors"

CHECKPOINTS = "checkpoints"
STEP_PREFIX = "step_"
_log = logging.getLogger(__name__)


class CheckpointError(Exception):
    """A checkpoint is missing, incomplete or damaged; the message says which file and why."""


def publish(directory: Path, write: Callable[[Path], None]) -> Path:
    """Write a directory so that it exists whole or not at all.

    Args:
        directory: Where it shall be; one that is there already is replaced.
        write: Fills the empty folder that it is given.

    Returns:
        ``directory``.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    temporary = directory.with_name(f".{directory.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    write(temporary)
    files = sorted(path for path in temporary.iterdir() if path.is_file())
    manifest = {path.name: {"bytes": path.stat().st_size, "sha256": _sha256(path)} for path in files}
    (temporary / MANIFEST).write_text(json.dumps(manifest, indent=1))
    for path in (*files, temporary / MANIFEST, temporary):
        _sync(path)
    replaced = directory.with_name(f".{directory.name}.replaced")
    if directory.exists():
        shutil.rmtree(replaced, ignore_errors=True)
        directory.rename(replaced)
    temporary.rename(directory)
    _sync(directory.parent)
    shutil.rmtree(replaced, ignore_errors=True)
    return directory


def verify(directory: Path) -> None:
    """Check every file of a checkpoint against its manifest.

    Raises:
        CheckpointError: The manifest or a file is missing, or differs in size or content.
    """
    manifest_file = directory / MANIFEST
    if not manifest_file.exists():
        raise CheckpointError(f"{directory} has no {MANIFEST}: it is no checkpoint, or was not written whole")
    try:
        manifest = json.loads(manifest_file.read_text())
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{manifest_file} is not JSON: {error}") from error
    if not isinstance(manifest, dict):
        raise CheckpointError(f"{manifest_file} holds no object of file names; the file is damaged")
    for name, expected in manifest.items():
        file = directory / name
        if not file.exists():
            raise CheckpointError(f"{directory} lacks {name}, which its manifest names")
        if file.stat().st_size != expected["bytes"]:
            raise CheckpointError(f"{file} has {file.stat().st_size} bytes; its manifest says {expected['bytes']}")
        if _sha256(file) != expected["sha256"]:
            raise CheckpointError(f"{file} differs from its manifest's SHA-256; the file is damaged")


def step_directory(run: Path, step: int) -> Path:
    """Return where a run keeps the checkpoint taken after ``step`` steps."""
    return run / CHECKPOINTS / f"{STEP_PREFIX}{step:08d}"


def checkpoints(run: Path) -> list[Path]:
    """List the checkpoints of a run, whole or damaged, oldest first."""
    return sorted((run / CHECKPOINTS).glob(f"{STEP_PREFIX}*"))


def newest(run: Path) -> Path | None:
    """Return the newest checkpoint of a run that verifies, or None; damaged ones are named in the log."""
    for directory in reversed(checkpoints(run)):
        try:
            verify(directory)
        except CheckpointError as error:
            _log.warning("skipping a checkpoint: %s", error)
        else:
            return directory
    return None


def prune(published: Path, num_kept: int) -> None:
    """Delete all checkpoints of a run but the ``num_kept`` newest up to the one just published.

    Later ones are left alone: a run that was resumed from before them found them damaged.
    """
    saved = checkpoints(published.parents[1])
    for directory in saved[: saved.index(published) + 1][:-num_kept]:
        shutil.rmtree(directory)


def save_tensors(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Write named tensors as safetensors."""
    save_file({name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}, str(file))


def load_tensors(file: Path) -> dict[str, Tensor]:
    """Read named tensors.

    Raises:
        CheckpointError: The file is missing.
    """
    if not file.exists():
        raise CheckpointError(f"{file} does not exist; is {file.parent} a checkpoint?")
    return load_file(str(file))


def load_weights(model: nn.Module, file: Path) -> None:
    """Fill a model from safetensors.

    Raises:
        CheckpointError: Names or shapes differ; says which.
    """
    tensors, wanted = load_tensors(file), model.state_dict()
    missing, extra = sorted(wanted.keys() - tensors.keys()), sorted(tensors.keys() - wanted.keys())
    if missing or extra:
        raise CheckpointError(f"{file} does not fit the model: it lacks {missing[:3]} and has {extra[:3]} too many")
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape:
            raise CheckpointError(
                f"{file}: {name} has shape {tuple(tensor.shape)}; the config makes {tuple(wanted[name].shape)}"
            )
    with torch.no_grad():
        model.load_state_dict(tensors)


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
