"""Where a command trains, and from where it goes on: what ``train`` has in common whatever is trained."""

from collections.abc import Sequence
from pathlib import Path
from typing import Generic, NamedTuple

from transfusion.config import ConfigError, Tree
from transfusion.train.best import meant
from transfusion.train.changes import WHOLE, Said
from transfusion.train.checkpoint import CHECKPOINTS, newest
from transfusion.train.saved import check_no_model


class Asked(NamedTuple, Generic[Tree]):
    """What a command line asks for: settings, the run's folder, and what to go on from where that has no checkpoint."""

    wanted: Said[Tree]
    directory: Path
    goes_on_from: Path | None = None


class Place(NamedTuple):
    """The run's folder, and the checkpoint or the other run to go on from where it has no checkpoint yet."""

    directory: Path
    goes_on_from: Path | None = None


def run_of(folder: Path) -> Path:
    """Return the run that a folder means: itself, or the run whose checkpoint it is."""
    return folder.parents[1] if folder.parent.name == CHECKPOINTS else folder


def place_of(named: Path, run: Path | None, *, is_anew: bool) -> Place:
    """Settle where to train where a run or a checkpoint is named, so that no weights that are named are ignored.

    Args:
        named: The folder.
        run: The folder to train in, where one is given.
        is_anew: Whether to begin anew.

    Raises:
        ConfigError: They would be.
    """
    folder = meant(named)
    home = run_of(folder)
    if run is not None and run.resolve() != home.resolve():
        check_no_model(run)
        if is_anew:
            raise ConfigError(
                f"{folder} is gone on from in {run}, so not from nothing: leave --anew out, or "
                f"take its settings alone: transfusion config {folder} > new.json; transfusion train new.json "
                f"--run {run} --anew"
            )
        return Place(run, named)
    check_no_model(home)
    if folder != home and not is_anew and (last := newest(home, hashed=())) and last.resolve() != folder.resolve():
        raise ConfigError(
            f"{folder} is not the newest checkpoint of {home}, which goes on from {last.name}: transfusion train {home}"
            f"   To go on from this one: transfusion train {folder} --run runs/NEW"
        )
    return Place(home)


def said_paths(overrides: Sequence[str], *, is_file: bool) -> tuple[str, ...]:
    """Return the paths of the settings that a command line says, and ``WHOLE`` where a file of settings says all."""
    said = (text.partition("=")[0].strip() for text in overrides)
    return (*((WHOLE,) if is_file else ()), *said)
