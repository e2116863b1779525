"""Training autoencoders from the command line: settings found by name, progress, signals, resuming."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from rich.console import Console

from transfusion.autoencoder_run import AutoencoderRunReport, OpenedAutoencoder, open_autoencoder, train_autoencoder
from transfusion.cli.anew import check_run, clear
from transfusion.cli.places import Asked, place_of, said_paths
from transfusion.cli.signals import stop_on_signals
from transfusion.cli.stepping import Shown, say_stopped, say_where_it_stands, show_steps
from transfusion.config import CONFIG_FILE, ConfigError, tree_from_json
from transfusion.data.readers import QUARANTINE_FILE
from transfusion.devices import find_device
from transfusion.recipes import AUTOENCODERS
from transfusion.train.autoencoder.settings import AutoencoderRun, overridden
from transfusion.train.autoencoder.state import load_autoencoder_settings
from transfusion.train.best import meant
from transfusion.train.changes import Said, with_taken
from transfusion.train.checkpoint import checkpoints
from transfusion.train.facts import step_of
from transfusion.train.lock import RunLock, hold_run
from transfusion.train.manifest import CheckpointError
from transfusion.train.saved import check_no_model, find_checkpoint, is_of_autoencoder

DONE, STOPPED = 0, 130


def is_autoencoder(name: str) -> bool:
    """Return whether a name means an autoencoder's training: its recipe, its saved settings, a run or a checkpoint."""
    path = Path(name)
    if name in AUTOENCODERS:
        return True
    try:
        file = find_checkpoint(path, hashed=()) / CONFIG_FILE if path.is_dir() else path
        return file.is_file() and is_of_autoencoder(file.read_text())
    except (CheckpointError, OSError, ValueError):  # who opens it says what is wrong with it
        return False


def check_kind(run: Path, *, is_wanted: bool) -> None:
    """Check that a run's folder has none of the other kind: an autoencoder's, or, where that ``is_wanted``, a model's.

    Raises:
        ConfigError: It has.
    """
    if checkpoints(run) and is_autoencoder(str(run)) != is_wanted:
        held = "a model's training" if is_wanted else "an autoencoder's training"
        raise ConfigError(f"{run} holds {held}; name another folder (--run), or begin anew there (--anew)")


def find_autoencoder(name: str, overrides: Sequence[str]) -> AutoencoderRun:
    """Return the settings that a recipe's name, a file of settings or a run's folder means, with overrides.

    Raises:
        ConfigError: A setting is bad.
        CheckpointError: The run's newest checkpoint cannot be read.
    """
    path = Path(name)
    if name in AUTOENCODERS:
        base = AUTOENCODERS[name]()
    elif path.is_dir():
        found = find_checkpoint(path, hashed={CONFIG_FILE})
        base = load_autoencoder_settings(found)
        base = base if (step := step_of(found)) is None else with_taken(base, base, path, step)
    else:
        base = tree_from_json(path.read_text(), name, AutoencoderRun)
    return overridden(base, overrides)


def run_autoencoder(
    name: str, overrides: Sequence[str], run: Path | None, *, is_anew: bool, device: str, is_change_wanted: bool = False
) -> int:
    """Train to the end or to Ctrl-C; return the exit code."""
    wanted, directory, goes_on_from = _asked(name, overrides, run, is_anew=is_anew)
    if is_anew:
        check_run(directory)
    else:
        check_kind(directory, is_wanted=True)
    console = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)
    with hold_run(directory) as lock:
        console.print(f"{find_device(device)}, run {directory}")
        opened = open_autoencoder(
            wanted,
            directory,
            is_resumed=not is_anew,
            device=device,
            lock=lock,
            goes_on_from=goes_on_from,
            is_change_wanted=is_change_wanted,
        )
        if is_anew:
            clear(directory)
        _tell(opened, directory, console)
        is_done = _train(opened, lock, console)
    state = opened.state
    if not is_done:
        say_stopped(directory, state.step, f"transfusion train {directory}", console)
        return STOPPED
    console.print(f"done: {directory} is an autoencoder now, by path")
    return DONE


def _asked(name: str, overrides: Sequence[str], run: Path | None, *, is_anew: bool) -> Asked[AutoencoderRun]:
    """Settle what to train and where.

    Raises:
        ConfigError: A checkpoint is named that its run does not go on from.
    """
    is_folder = name not in AUTOENCODERS and meant(Path(name)).is_dir()
    is_file = name not in AUTOENCODERS and not is_folder
    wanted = Said(find_autoencoder(name, overrides), said_paths(overrides, is_file=is_file))
    if is_folder:
        return Asked(wanted, *place_of(Path(name), run, is_anew=is_anew))
    directory = run or Path("runs") / wanted.config.name
    check_no_model(directory)
    return Asked(wanted, directory)


def _tell(opened: OpenedAutoencoder, run: Path, console: Console) -> None:
    """Say what was opened, and which losses there are not."""
    state, pictures = opened.state, opened.pictures
    config, total = state.config, state.config.train.steps
    count = sum(parameter.numel() for parameter in state.network.network.parameters())
    seen = f", crops of {config.side}" if config.side != config.resolution else ""
    side = config.resolution
    console.print(f"{count / 1e6:.1f} M parameters, {config.train.precision}, pictures of {side} x {side}{seen}")
    say_where_it_stands(run, state.step, total, console)
    lacking = [name for name in ("perceptual", "identity") if getattr(config.backbones, name).path is None]
    if lacking and state.step < total:
        paths = " and ".join(f"backbones.{name}.path" for name in lacking)
        console.print(f"without the losses {' and '.join(lacking)}: no weights are given for them ({paths})")
    console.print(pictures.found.line())
    if pictures.quarantine:
        file = run / QUARANTINE_FILE  # the run writes it
        console.print(f"{len(pictures.quarantine)} broken are left out; see {file}")


def _train(opened: OpenedAutoencoder, lock: RunLock, console: Console) -> bool:
    """Train with progress; return whether the run reached its end."""
    state = opened.state
    with stop_on_signals() as stop, closing(train_autoencoder(opened, lock.run, stop, lock=lock)) as reports:
        show_steps(map(_shown, reports), state.step, state.config.train.steps, console)
    return state.step >= state.config.train.steps and not stop.is_set()


def _shown(report: AutoencoderRunReport) -> Shown:
    """Take what is shown of a report."""
    step = report.step
    return Shown(step.step, {**step.losses, "pictures/s": step.num_pictures / step.seconds}, report.held_out)
