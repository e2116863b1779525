"""Exporting a model: the files that loading needs, and none that only a training needs to go on."""

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from transfusion.autoencoder.space import CARRIED_FILES
from transfusion.config import CONFIG_FILE, ConfigError
from transfusion.tokenizer import TOKENIZER_FILE
from transfusion.train.best import BEST
from transfusion.train.checkpoint import CHECKPOINTS, publish
from transfusion.train.manifest import EMA_FILE, MODEL_FILE, read_manifest
from transfusion.train.saved import find_checkpoint
from transfusion.train.tensors import load_tensors, save_tensors, utf8_name

AVERAGED, TRAINED = "averaged", "trained"
WEIGHTS = {AVERAGED: EMA_FILE, TRAINED: MODEL_FILE}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def export(path: Path, folder: Path, *, weights: str | None, dtype: str) -> dict[str, Any]:
    """Write a model into a folder that ``from_pretrained`` loads, and safetensors alone: it appears whole or not.

    Args:
        path: A checkpoint, or the folder of a run. What only a training needs may be gone from it.
        folder: Is made; what is there already is replaced if it is an exported model and nothing else.
        weights: ``"averaged"`` or ``"trained"``; None: the averaged ones where there are some.
        dtype: ``"fp32"``, as they are, to the byte; ``"bf16"``: half the size, rounded to 8 bits of precision.

    Returns:
        What was written, as a JSON value.

    Raises:
        ConfigError: There are no such weights, or no such dtype.
        CheckpointError: There is no checkpoint, or something else lies in ``folder``.
    """
    if dtype not in DTYPES:
        raise ConfigError(f"--dtype {dtype!r} is unknown; expected {' or '.join(DTYPES)}")
    if weights not in (None, *WEIGHTS):
        raise ConfigError(f"--weights {weights!r} is unknown; expected {' or '.join(WEIGHTS)}")
    if folder.name == BEST and (folder.parent / CHECKPOINTS).is_dir():
        raise ConfigError(f"{folder} is the name of the run's best checkpoint; name another folder")
    source = find_checkpoint(path)
    has_average = EMA_FILE in read_manifest(source)
    chosen = weights or (AVERAGED if has_average else TRAINED)
    if chosen == AVERAGED and not has_average:
        raise ConfigError(
            f"{source} has no averaged weights beside its own (train.ema_decay was null, or it is an export); take "
            f"--weights {TRAINED}"
        )

    def write(new: Path) -> None:
        for name in (CONFIG_FILE, TOKENIZER_FILE, *CARRIED_FILES):
            if (source / name).exists():  # bytes need no tokenizer.json, pixels no autoencoder
                shutil.copyfile(source / name, new / name)
        if dtype == "fp32":
            shutil.copyfile(source / WEIGHTS[chosen], new / MODEL_FILE)
        else:
            tensors = load_tensors(source / WEIGHTS[chosen])
            save_tensors({name: value.to(DTYPES[dtype]) for name, value in tensors.items()}, new / MODEL_FILE)

    publish(folder, write)
    facts = read_manifest(folder)[MODEL_FILE]
    told = {"folder": str(folder), "from": str(source), "weights": chosen, "dtype": _dtype(folder / MODEL_FILE)}
    return {**told, "bytes": facts.bytes, "sha256": facts.sha256}


def _dtype(file: Path) -> str:
    """Return in which precision a file has its matrices: what was exported in bf16 stays that, to the byte."""
    with utf8_name(file) as path, safe_open(path, framework="pt") as tensors:
        found = {tensors.get_slice(name).get_dtype() for name in sorted(tensors.keys())}
    return "bf16" if "BF16" in found else "fp32"
