"""Named tensors in safetensors files, and models filled from them; nothing is ever unpickled."""

import stat
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from transfusion.train.manifest import CheckpointError, reading


def save_tensors(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Write named tensors as safetensors, readable for whom any new file is: the library alone would hide it.

    Raises:
        OSError: The disk is full or fails, which the library tells by an error of its own.
    """
    file.touch()
    mode = stat.S_IMODE(file.stat().st_mode)
    try:
        save_file({name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}, str(file))
    except SafetensorError as error:
        raise OSError(f"{file} cannot be written: {error}") from error
    file.chmod(mode)


def load_tensors(file: Path) -> dict[str, Tensor]:
    """Read named tensors.

    Raises:
        CheckpointError: The file is missing or damaged.
    """
    if not file.exists():
        raise CheckpointError(f"{file} does not exist; is {file.parent} a checkpoint?")
    with reading(file), utf8_name(file) as name:
        return load_file(name)


@contextmanager
def utf8_name(file: Path) -> Generator[str]:
    """Yield a name for a file that is there by which the library reads it, which knows none but in UTF-8."""
    try:
        str(file).encode()
    except UnicodeEncodeError:
        with file.open("rb") as stream:
            yield f"/dev/fd/{stream.fileno()}"
    else:
        yield str(file)


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
