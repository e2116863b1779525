"""Opening a run: from settings and a folder to a state and a source that the loop can work on."""

from contextlib import ExitStack
from pathlib import Path

from transfusion.config import ConfigError, RunConfig
from transfusion.data.encode import Encoder
from transfusion.data.errors import DataError
from transfusion.data.fit import FittedSource
from transfusion.data.layouts import layout_of
from transfusion.data.limit import Limit
from transfusion.data.loader import Source
from transfusion.data.sources import FolderConfig, open_source
from transfusion.devices import find_device
from transfusion.train.checkpoint import sweep
from transfusion.train.lock import RunLock, hold_run
from transfusion.train.saved import check_no_model
from transfusion.train.state import TrainState, begin, resume, seen


def open_run(
    config: RunConfig,
    directory: Path,
    *,
    is_resumed: bool,
    device: str = "auto",
    lock: RunLock | None = None,
    goes_on_from: Path | None = None,
    is_change_wanted: bool = False,
) -> tuple[TrainState, Source]:
    """Begin a run, or resume it from its newest whole checkpoint where there is one.

    Args:
        config: Settings; when resuming they must be those of the checkpoint.
        directory: Folder of the run.
        is_resumed: Whether to look for a checkpoint.
        device: Where to train: see ``devices.find_device``.
        lock: The lock of the folder, where the caller holds it; else it is held while this runs.
        goes_on_from: A checkpoint, or another run, to go on from where the folder has no checkpoint yet.
        is_change_wanted: Whether a resumed run may take other rates, steps and whatever leaves its state its meaning.

    Returns:
        The state, and the source of its documents.

    Raises:
        ConfigError: Settings or data differ from the checkpoint's, documents do not fit, or the device cannot do it.
        BusyError: Another training is at work in the folder.
    """
    where = find_device(device)
    if config.objective.attention == "flex" and where.type != "cuda":
        raise ConfigError(f"objective.attention=flex needs a CUDA device, this is {device!r}; leave it at dense")
    check_no_model(directory)
    _check_apart(config, directory)
    with ExitStack() as stack:
        if lock is None and directory.is_dir():
            stack.enter_context(hold_run(directory))
        sweep(directory)
        state = None
        if is_resumed:
            state = resume(config, directory, where, goes_on_from=goes_on_from, is_change_wanted=is_change_wanted)
        if state is None:
            state = begin(config, where)
            state.seen = seen(directory)
        encoder = Encoder(state.tokenizer, state.config.encode, state.config.train.seed)
        source = open_source(state.config.data, encoder, state.config.train.row_length - 1)
        state.check_data(source.digest())
        return state, _fitted(state, source)


def _check_apart(config: RunConfig, directory: Path) -> None:
    """Refuse a run within a folder of classes: its samples would be one more class, and the data change by training.

    So is one that is the folder of texts or pairs itself. A table of captions names its pictures, and of texts and
    pairs no reader goes into the folder of a run.
    """
    if not isinstance(config.data, FolderConfig) or not config.data.path.is_dir():
        return
    data, run = config.data.path.resolve(), directory.resolve()
    if not run.is_relative_to(data):
        return
    try:
        layout = layout_of(config.data.path, config.data.layout)
    except DataError:
        return  # who reads the data says so, unless the run that goes on has settled it
    if layout == "classes" or (layout in ("pairs", "text") and run == data):
        raise ConfigError(f"the run's folder {directory} lies within the data {config.data.path}; name another (--run)")


def _fitted(state: TrainState, source: Source) -> Source:
    """Leave out what does not fit into a row, or say so: now and not hours later."""
    train = state.config.train
    limit = Limit(state.model.vocabulary, train.row_length, train.too_long)
    try:
        return FittedSource(source, limit, train.max_dropped)
    except DataError as error:
        raise ConfigError(str(error)) from error
