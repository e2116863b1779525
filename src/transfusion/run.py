"""Opening a run: from settings and a folder to a state and a source that the loop can work on."""

from pathlib import Path

import torch

from transfusion.config import ConfigError, RunConfig
from transfusion.data.encode import Encoder
from transfusion.data.loader import Source
from transfusion.data.pack import too_long
from transfusion.data.sources import open_source
from transfusion.layout import num_slots
from transfusion.train.checkpoint import sweep
from transfusion.train.lock import RunLock, hold_run
from transfusion.train.state import TrainState, begin, resume

NUM_TRIED = 64


def open_run(
    config: RunConfig, directory: Path, *, is_resumed: bool, device: str = "cpu", lock: RunLock | None = None
) -> tuple[TrainState, Source]:
    """Begin a run, or resume it from its newest whole checkpoint where there is one.

    Args:
        config: Settings; when resuming they must be those of the checkpoint.
        directory: Folder of the run.
        is_resumed: Whether to look for a checkpoint.
        device: Where to train.
        lock: The lock of the folder, where the caller holds it; else it is held while this runs.

    Returns:
        The state, and the source of its documents.

    Raises:
        ConfigError: Settings or data differ from the checkpoint's.
        BusyError: Another training is at work in the folder.
    """
    if lock is None and directory.is_dir():
        with hold_run(directory) as held:
            return open_run(config, directory, is_resumed=is_resumed, device=device, lock=held)
    sweep(directory)
    state = resume(config, directory, torch.device(device)) if is_resumed else None
    state = state or begin(config, torch.device(device))
    encoder = Encoder(state.tokenizer, state.config.encode, state.config.train.seed)
    source = open_source(state.config.data, encoder, state.config.train.row_length - 1)
    state.check_data(source.digest())
    _check_lengths(state, source)
    return state, source


def _check_lengths(state: TrainState, source: Source) -> None:
    """Lay out the documents that are likely to be the longest: what does not fit is told now and not hours later."""
    row_length = state.config.train.row_length
    for index in source.longest(NUM_TRIED):
        document = source.document(index, 0)
        try:
            length = num_slots(document, state.model.vocabulary)
        except ValueError as error:
            raise ConfigError(f"document {index} does not fit the model: {error}") from error
        if length > row_length:
            raise ConfigError(too_long(f"document {index} {document.key}", length, row_length))
