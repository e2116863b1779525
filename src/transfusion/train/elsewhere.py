"""Going on in a folder of its own from a checkpoint of another run, or one that lies alone.

It must not know settings.
"""

from collections.abc import Collection
from pathlib import Path

from transfusion.config import ConfigError
from transfusion.train.checkpoint import checkpoints
from transfusion.train.facts import Origin
from transfusion.train.manifest import MODEL_FILE, RESUMED_FILES, CheckpointError, read_manifest, verify
from transfusion.train.saved import find_checkpoint


def find_elsewhere(source: Path, needed: Collection[str], otherwise: str) -> Path:
    """Return the checkpoint to go on from in another folder.

    Args:
        source: What ``find_checkpoint`` takes.
        needed: Files that it must have.
        otherwise: What to do where it lacks one.

    Raises:
        CheckpointError: There is none, it lacks what a training needs to go on, or that is damaged.
    """
    folder = find_checkpoint(source)
    named = read_manifest(folder)
    if lacking := sorted(name for name in needed if name not in named or not (folder / name).is_file()):
        raise CheckpointError(f"{folder} lacks {', '.join(lacking)}, which a training needs to go on; {otherwise}")
    verify(folder, hashed=RESUMED_FILES)  # which who only uses a model does without
    return folder


def origin_of(source: Path, folder: Path, step: int) -> Origin:
    """Say where a run goes on from: what was named, and the checkpoint that was found there."""
    return Origin(str(source), str(folder), step, "trained", read_manifest(folder)[MODEL_FILE].sha256)


def check_origin(origin: Origin | None, source: Path | None, run: Path) -> None:
    """Check that a run that has checkpoints of its own went on from what is named: then the same command goes on.

    Args:
        origin: What the run began from, if not from nothing.
        source: The checkpoint or the run that is named, if any.
        run: The run's folder.

    Raises:
        ConfigError: It is another run.
    """
    if source is None:
        return
    if origin is not None:
        checkpoint = Path(origin.checkpoint).resolve()
        if source.resolve() in (Path(origin.path).resolve(), checkpoint, *checkpoint.parents[:2]):
            return
        if any(_has_weights(folder, origin.sha256) for folder in (source, *checkpoints(source))):
            return
    began = "from nothing" if origin is None else f"from {origin.path}"
    raise ConfigError(
        f"{run} has checkpoints already, and began {began}, not from {source}; go on with it (transfusion train {run}),"
        f" or go on from {source} in another folder (--run runs/NEW)"
    )


def _has_weights(folder: Path, sha256: str) -> bool:
    try:
        return read_manifest(folder)[MODEL_FILE].sha256 == sha256
    except (CheckpointError, KeyError):
        return False
