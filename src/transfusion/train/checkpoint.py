"""Checkpoints: directories published by rename, verified by a manifest; nothing is ever unpickled.

    step_00000500/  config.json  model.safetensors  [ema.safetensors]  [tokenizer.json]     what a user loads
                    [optimizer.safetensors  state.json]                                     what a resume needs
                    manifest.json                                                           sizes and SHA-256, last

Training and ``save_pretrained`` write this one format. It must not know the loop.
"""

import contextlib
import itertools
import logging
import os
import re
import shutil
from collections.abc import Callable, Collection
from pathlib import Path

from transfusion.files import PARTIAL, beside, sync
from transfusion.train.lock import hold
from transfusion.train.manifest import (
    MANIFEST,
    OWN_FILES,
    RESUMED_FILES,
    CheckpointError,
    read_manifest,
    reading,
    seal,
    verify,
)

CHECKPOINTS = "checkpoints"
STEP_PREFIX = "step_"
KEPT_PREFIX = "kept_"
LOCK, REPLACED, RETIRED = "lock", "replaced", "retired"
NUM_NAMED = 5
_STEP = re.compile(rf"{STEP_PREFIX}\d+")
_LEFT_OVER = re.compile(rf"\.(?P<name>{STEP_PREFIX}\d+)\.(?P<ending>{PARTIAL}|{REPLACED}|{LOCK})")
_KEPT = re.compile(rf"{KEPT_PREFIX}{STEP_PREFIX}\d+(_\d+)?")
_log = logging.getLogger(__name__)


def publish(directory: Path, write: Callable[[Path], None]) -> Path:
    """Write a directory so that, whatever fails, who loads it finds the old or the new one, whole.

    Args:
        directory: Where it shall be. What is there already is replaced if it is a checkpoint and nothing else; a link
            stays one, and what it points to is replaced.
        write: Fills the empty folder that it is given.

    Returns:
        ``directory``.

    Raises:
        CheckpointError: Something else lies there, or a training checkpoint where a model would take its place.
        BusyError: Another process is writing there.
    """
    target = Path(os.path.abspath(directory.resolve() if directory.is_symlink() else directory))
    check_replaceable(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    what, remedy = f"{directory} is being written", "wait for it, or name another folder"
    with hold(beside(target, LOCK), what, remedy, is_ours=_STEP.fullmatch(target.name) is not None):
        _check_left_over(target)
        _recover(target)
        temporary, replaced = beside(target, PARTIAL), beside(target, REPLACED)
        try:
            temporary.mkdir()
            write(temporary)
            _check_training_stays(target, temporary)
            seal(temporary)
            check_replaceable(target)
            if target.exists():
                target.rename(replaced)
            temporary.rename(target)
        except BaseException:
            if not target.exists() and replaced.exists():
                replaced.rename(target)
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync(target.parent)
        shutil.rmtree(replaced, ignore_errors=True)
    return directory


def check_replaceable(directory: Path) -> None:
    """Check that nothing would be lost if a checkpoint took the place of what lies somewhere.

    Raises:
        CheckpointError: It is no empty folder, and not one that holds what its manifest names and nothing else.
    """
    if not os.path.lexists(directory):
        return
    if not directory.is_dir():
        raise CheckpointError(f"{directory} is a file and not a checkpoint; name a folder, or move the file away")
    try:
        known = {MANIFEST, *read_manifest(directory)}
    except CheckpointError:
        known = set[str]()
    foreign = sorted(path.name for path in directory.iterdir() if path.name not in known or not path.is_file())
    if foreign:
        listed = ", ".join(foreign[:NUM_NAMED]) + (
            f" and {len(foreign) - NUM_NAMED} more" if foreign[NUM_NAMED:] else ""
        )
        raise CheckpointError(
            f"{directory} is not replaced: it holds what no manifest of a checkpoint names ({listed}); "
            "name another folder, or move that away"
        )


def _check_training_stays(directory: Path, new: Path) -> None:
    """Check that a run's checkpoint does not lose what its resume needs to a model that takes its place.

    Raises:
        CheckpointError: It would.
    """
    lost = sorted(name for name in RESUMED_FILES if (directory / name).exists() and not (new / name).exists())
    if lost:
        raise CheckpointError(
            f"{directory} is not replaced: it is a training checkpoint, and {' and '.join(lost)} would be lost; "
            "save the model in another folder"
        )


def make_room(directory: Path) -> None:
    """Rename what must not be replaced where a run is to save: a damaged checkpoint, or one with a user's files."""
    try:
        check_replaceable(directory)
    except CheckpointError as error:
        _keep(directory, str(error))


def set_aside(run: Path, *, beyond: Path | None = None) -> None:
    """Rename the checkpoints of a run that came ``beyond`` one, or all of them: damaged, or not of this training."""
    for directory in checkpoints(run):
        if beyond is None or _step(directory) > _step(beyond):
            _keep(directory, f"{directory} is damaged, lacks what a training goes on from, or is of one before")


def retire(run: Path) -> None:
    """Set aside all checkpoints of a run at once: until then the run is whole, from then on it has none."""
    if not checkpoints(run):
        return
    folder = (run / CHECKPOINTS).resolve()
    try:
        folder.rename(beside(folder, RETIRED))
    except OSError:  # a mounted one stays where it is
        set_aside(run)
    _finish_retiring(run)


def _finish_retiring(run: Path) -> None:
    """Bring what lies in a folder of checkpoints that were set aside back under other names, also after a kill."""
    folder = (run / CHECKPOINTS).resolve()
    retired = beside(folder, RETIRED)
    if retired.is_symlink() or not retired.is_dir():
        return
    folder.mkdir(exist_ok=True)
    for path in sorted(retired.iterdir()):
        if _STEP.fullmatch(path.name) and path.is_dir():
            _keep(path, f"{folder / path.name} is of a training before", folder)
        elif not os.path.lexists(folder / path.name):
            path.rename(folder / path.name)
    with contextlib.suppress(OSError):
        retired.rmdir()


def _keep(directory: Path, why: str, folder: Path | None = None) -> None:
    """Rename a checkpoint within its folder, or into another, so that nobody goes on from it."""
    folder = folder or directory.parent
    names = (f"{KEPT_PREFIX}{directory.name}" + (f"_{number}" if number else "") for number in itertools.count())
    kept = next(path for name in names if not os.path.lexists(path := folder / name))
    directory.rename(kept)
    _log.warning("%s; it is %s now, and a new run may begin from its weights: train.init=%s", why, kept, kept)


def _check_left_over(directory: Path) -> None:
    """Check that what lies beside a directory under the names of its making was left by a kill.

    Raises:
        CheckpointError: It is a user's.
    """
    for path in (beside(directory, ending) for ending in (PARTIAL, REPLACED)):
        if os.path.lexists(path) and not _is_left_over(path):
            raise CheckpointError(f"{path} is no checkpoint that a kill left; move it away, or name another folder")


def _is_left_over(path: Path) -> bool:
    if path.is_symlink() or not path.is_dir():
        return False
    if all(file.name in {MANIFEST, *OWN_FILES} and file.is_file() for file in path.iterdir()):
        return True
    try:
        check_replaceable(path)
    except CheckpointError:
        return False
    return True


def _left(directory: Path) -> list[Path]:
    """List where the content of a directory may be: there; or, after a kill between two renames, beside it."""
    if os.path.lexists(directory):
        return [directory]
    beside_it = [beside(directory, ending) for ending in (PARTIAL, REPLACED)]
    return [path for path in beside_it if (path / MANIFEST).exists() and not path.is_symlink()]


def _recover(directory: Path) -> None:
    """Put back under its name what a kill left beside it, and delete the rest. Its lock, or the run's, must be held."""
    if not os.path.lexists(directory):
        for path in _left(directory):
            if path == beside(directory, REPLACED) or _is_whole(path):
                path.rename(directory)
                break
    for ending in (PARTIAL, REPLACED):
        path = beside(directory, ending)
        if path.is_symlink() or path.is_file():
            path.unlink()
        elif path.exists():
            shutil.rmtree(path)


def sweep(run: Path) -> None:
    """Bring the checkpoints of a run in order after a kill: what is whole gets its name, what is not goes."""
    _finish_retiring(run)
    folder = run / CHECKPOINTS
    for path in list(folder.iterdir()) if folder.is_dir() else []:
        found = _LEFT_OVER.fullmatch(path.name)
        if found is None:
            continue
        if found["ending"] == LOCK:
            path.unlink(missing_ok=True)
        else:
            _recover(folder / found["name"])


def _is_whole(directory: Path, *, hashed: Collection[str] | None = None) -> bool:
    try:
        verify(directory, hashed=hashed)
    except CheckpointError:
        return False
    return True


def verified(directory: Path, *, hashed: Collection[str] | None = None, unneeded: Collection[str] = ()) -> Path:
    """Return where the checkpoint of a name is whole: there, or beside it after a kill between two renames.

    Raises:
        CheckpointError: It is nowhere whole.
    """
    faults: list[CheckpointError] = []
    for path in _left(directory):
        try:
            verify(path, hashed=hashed, unneeded=unneeded)
        except CheckpointError as error:
            faults.append(error)
        else:
            return path
    raise (
        faults[0]
        if faults
        else CheckpointError(
            f"no checkpoint at {directory}; expected a checkpoint's folder or a run's, such as runs/demo"
        )
    )


def step_directory(run: Path, step: int) -> Path:
    """Return where a run keeps the checkpoint taken after ``step`` steps."""
    return run / CHECKPOINTS / f"{STEP_PREFIX}{step:08d}"


def checkpoints(run: Path) -> list[Path]:
    """List the checkpoints of a run, whole or damaged, oldest first."""
    return sorted((path for path in _entries(run) if _STEP.fullmatch(path.name) and path.is_dir()), key=_step)


def newest_step(run: Path, most: int) -> int | None:
    """Return the number of the newest checkpoint of a run that was taken after ``most`` steps or fewer, if any."""
    return max((step for path in checkpoints(run) if (step := _step(path)) <= most), default=None)


def _entries(run: Path) -> list[Path]:
    folder = run / CHECKPOINTS
    with reading(folder):
        return list(folder.iterdir()) if folder.is_dir() else []


def has_any(run: Path) -> bool:
    """Return whether a folder has a checkpoint, damaged, kept or unfinished ones among them."""
    patterns = (_STEP, _KEPT, _LEFT_OVER)
    return any(path.is_dir() and any(each.fullmatch(path.name) for each in patterns) for path in _entries(run))


def _step(directory: Path) -> int:
    left_over = _LEFT_OVER.fullmatch(directory.name)
    return int((left_over["name"] if left_over else directory.name).removeprefix(STEP_PREFIX))


def newest(
    run: Path,
    *,
    hashed: Collection[str] | None = None,
    needed: Collection[str] = (),
    unneeded: Collection[str] = (),
) -> Path | None:
    """Return the newest checkpoint of a run that verifies, or None; damaged ones are named in the log.

    Args:
        run: The run's folder.
        hashed: As for ``verify``.
        needed: Files without which a checkpoint is skipped, too.
        unneeded: As for ``verify``.
    """
    left = (_LEFT_OVER.fullmatch(path.name) for path in _entries(run))
    beside_them = {run / CHECKPOINTS / found["name"] for found in left if found}
    named = {*checkpoints(run), *(path for path in beside_them if _left(path))}
    for directory in sorted(named, key=_step, reverse=True):
        try:
            found = verified(directory, hashed=hashed, unneeded=unneeded)
            if lacking := sorted(set(needed) - read_manifest(found).keys()):
                raise CheckpointError(f"{found} lacks {', '.join(lacking)}, which a training needs to go on")
            return found
        except CheckpointError as error:
            _log.warning("skipping a checkpoint: %s", error)
    return None


def prune(published: Path, num_kept: int, *, spared: Collection[int] = ()) -> None:
    """Delete all checkpoints of a run but the ``num_kept`` newest up to the one just published, and those of the steps
    that are ``spared``.

    Later ones are left alone: a run that was resumed from before them found them damaged. So are links. What lacks a
    file is no checkpoint to keep: it counts for none, and goes with those older than the kept.
    """
    saved = [path for path in checkpoints(published.parents[1]) if not path.is_symlink()]
    earlier = [path for path in saved if _step(path) < _step(published)]
    kept = [*(path for path in earlier if _is_whole(path, hashed=())), published][-num_kept:]
    for directory in earlier:
        is_old = len(kept) == num_kept and _step(directory) < _step(kept[0])
        if is_old and _step(directory) not in spared:
            remove(directory)


def remove(directory: Path) -> None:
    """Delete what a checkpoint consists of, the manifest last; a folder with other files in it stays, with those."""
    try:
        named = set(read_manifest(directory))
    except CheckpointError:
        named = set[str]()
    for name in (*sorted(named | OWN_FILES), MANIFEST):
        if (directory / name).is_file() or (directory / name).is_symlink():
            (directory / name).unlink()
    with contextlib.suppress(OSError):
        directory.rmdir()


def remove_all(run: Path) -> None:
    """Delete all checkpoints of a run and what was left of unfinished ones, and nothing else; rename linked ones.

    The newest goes last: what a kill leaves is the run as it was, with fewer checkpoints, or none of which is whole.
    """
    sweep(run)
    for path in sorted(_entries(run), key=lambda path: (_STEP.fullmatch(path.name) is not None, path.name)):
        is_step, is_link = _STEP.fullmatch(path.name) is not None, path.is_symlink()
        if (is_step or _KEPT.fullmatch(path.name)) and path.is_dir() and not is_link:
            remove(path)
        elif is_step and (path / MANIFEST).exists():
            _keep(path, f"{path} is a link, and no checkpoint of the training that begins")
