"""That a run began, what was changed in it while it went on, and why it might be: ``changes.jsonl``, a row for each
event.

    {"step": 40, "stopped": "a loss or the gradient is not finite"}
    {"step": 40, "setting": "train.optimizer.lr", "old": 0.001, "new": 0.0003}
    {"step": 0, "begun": true}                      what stands above it is of another run
    {"step": 0, "begun": true, "from": {"path": ...}, "parts": [...]}    from trained weights, or another's checkpoint

It must not know how a run is resumed.
"""

import json
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Generic, NamedTuple

from pydantic import BaseModel

from transfusion.config import ConfigError, Tree, replaced
from transfusion.files import append_row, read_rows, write_whole

CHANGES_FILE = "changes.jsonl"
WHOLE = ""  # the path of a whole tree of settings
RECOVERY = ("train.optimizer.lr", "train.optimizer.muon_lr", "train.optimizer.clip", "train.precision")
CHANGEABLE = (
    *RECOVERY,
    "train.steps",
    *(
        f"train.optimizer.{name}"
        for name in (
            "muon_iterations",
            "betas",
            "eps",
            "weight_decay",
            "warmup_steps",
            "schedule",
            "cooldown",
            "final_ratio",
        )
    ),
    "train.ema_decay",
    "train.max_dropped",
    "train.accumulation",
    "train.use_compile",
    "objective.text_weight",
    "objective.diffusion_weight",
    "objective.attention",
)
OF_AUTOENCODERS = (
    "discriminator.lr",
    *(
        f"losses.{name}"
        for name in ("l1", "perceptual", "identity", "kl", "codebook", "commitment", "gan_start", "gan_balance")
    ),
)
FIXED = {  # why other settings stay as they were when the run began
    "train.batch_size": "which documents a step takes follows from it",
    "train.batch_unit": "which documents a step takes follows from it",
    "train.seed": "which documents a step takes follows from it",
    "train.row_length": "which documents fit follows from it",
    "train.too_long": "which documents fit follows from it",
    "train.optimizer.kind": "the optimizer's moments are of the other kind",
    "train.freeze": "the optimizer has moments of the parameters that it moved",
    "train.ema_decay": "averages are taken from the first step on, or never",
    "train.steps": "so many steps are done already",
    "train.": "weights are taken when a run begins",
    "model": "the weights are of that model",
    "network": "the weights are of that network",
    "discriminator": "the weights are of that discriminator",
    "tokenizer": "the weights know the ids of that tokenizer",
    "data": "the run goes through its data from the first step on",
    "encode": "the run tells its data so from the first step on",
    "diffusion": "the weights are trained in that process",
    "": "it is of the run from its first step on",
}
_log = logging.getLogger(__name__)


class Change(NamedTuple):
    """A setting that differs: its path, what it was and what it shall be."""

    setting: str
    old: object
    new: object

    def __str__(self) -> str:
        """Say it."""
        return f"{self.setting} is {self.new!r}, was {self.old!r}"


class Said(NamedTuple, Generic[Tree]):
    """The settings of a run, and which of them are said; the others follow from a recipe, or from the run itself.

    Attributes:
        config: All of them.
        paths: Of those that are said, or of groups with them; ``WHOLE`` among them: all are said, too, as in a file. If
            a change is wanted, all are then meant as they stand, else those that differ from the checkpoint's. None:
            only WHOLE.
    """

    config: Tree
    paths: Collection[str] | None = None


def as_said(config: Tree | Said[Tree]) -> Said[Tree]:
    """Return settings with what is said of them, which is unknown of a tree alone."""
    return config if isinstance(config, Said) else Said(config)


def differences(old: BaseModel, new: BaseModel) -> list[Change]:
    """List the settings in which two trees differ."""
    return list(_differences(old.model_dump(mode="json"), new.model_dump(mode="json"), ""))


def _differences(old: object, new: object, path: str) -> Iterable[Change]:
    if isinstance(old, dict) and isinstance(new, dict) and old.keys() == new.keys():
        for name in old:
            yield from _differences(old[name], new[name], f"{path}.{name}".lstrip("."))
    elif old != new:
        yield Change(path, old, new)


def accepted(
    changes: Sequence[Change], folder: Path, run: Path, step: int, *, is_change_wanted: bool
) -> tuple[Change, ...]:
    """Return the changes of settings if a run may take them: rates and precision, after a loss that is not finite; and
    all that leave the state its meaning, where that is said to be wanted.

    Args:
        changes: Settings that differ from the checkpoint's.
        folder: The checkpoint.
        run: The run's folder.
        step: Steps that are done.
        is_change_wanted: Whether it is said.

    Raises:
        ConfigError: It may not; says why, and what to do.
    """
    fixed = [f"{change} ({_reason(change)})" for change in changes if not _is_changeable(change, step)]
    own = f"go on with its own (transfusion train {run})"
    if fixed:
        raise ConfigError(
            f"{folder} was made with other settings: {'; '.join(fixed)}; {own}, begin a new run from its weights (a "
            f"recipe with train.init={run}), or begin anew in another folder (--run), or here (--anew)"
        )
    is_recovery = may_change(run, step) and all(change.setting in RECOVERY for change in changes)
    if changes and not is_change_wanted and not is_recovery:
        raise ConfigError(
            f"{folder} was made with other settings: {'; '.join(map(str, changes))}; {own}, say that the change is "
            "wanted (the same command with --change), begin anew in another folder (--run), or here (--anew)"
        )
    return tuple(changes)


def _is_changeable(change: Change, step: int) -> bool:
    if change.setting == "train.steps":
        return isinstance(change.new, int) and change.new >= step
    if change.setting == "train.ema_decay":
        return change.old is not None and change.new is not None
    return _is_known(change.setting)


def _is_known(setting: object) -> bool:
    return setting in CHANGEABLE or setting in OF_AUTOENCODERS


def _reason(change: Change) -> str:
    return next(reason for prefix, reason in FIXED.items() if change.setting.startswith(prefix))


def record_begin(run: Path, step: int = 0, facts: Mapping[str, object] | None = None) -> None:
    """Say that a run begins: as a whole and at once, so that its folder is known for a run's from then on.

    Args:
        run: The run's folder.
        step: Steps that its state has done already, in another run.
        facts: What it begins from, if it does not begin from nothing.
    """
    file, row = run / CHANGES_FILE, {"step": step, "begun": True, **(facts or {})}
    if file.exists():
        append_row(file, row)
    else:
        write_whole(file, f"{json.dumps(row)}\n")


def record_stop(run: Path, step: int) -> None:
    """Say that a run stopped after ``step`` steps for numbers that are not finite."""
    try:
        append_row(run / CHANGES_FILE, {"step": step, "stopped": "a loss or the gradient is not finite"})
    except OSError as error:  # the stop itself is what must be told
        _log.warning("that the run stopped could not be recorded in %s: %s", run / CHANGES_FILE, error)


def record_changes(run: Path, step: int, changes: Iterable[Change]) -> None:
    """Say what is changed in a run that goes on after ``step`` steps."""
    for change in changes:
        append_row(run / CHANGES_FILE, {"step": step, **change._asdict()})


def changed_since(run: Path, step: int) -> dict[str, object]:
    """Return the settings that the run took since the checkpoint of a step was written, by their paths."""
    taken: dict[str, object] = {}
    for row in read_rows(run / CHANGES_FILE):
        if "begun" in row:
            taken.clear()
        elif _is_known(row.get("setting")) and isinstance(row.get("step"), int) and row["step"] >= step:
            taken[row["setting"]] = row.get("new")
    return taken


def with_taken(config: Tree, loaded: Tree, run: Path, step: int, *, said: Collection[str] = ()) -> Tree:
    """Return settings with the changes that the run took since a checkpoint, where they are the checkpoint's still, and
    not ``said``.

    They were accepted one after the other, so a later one may leave an earlier one nothing to reach.

    Raises:
        ConfigError: The file of changes names a value that no run can have.
    """
    given = {change.setting for change in differences(loaded, config)}
    changed = changed_since(run, step).items()
    taken = {path: value for path, value in changed if path not in given and not _is_said(path, said)}
    return replaced(config, taken, str(run / CHANGES_FILE))


def _is_said(path: str, said: Collection[str]) -> bool:
    """Return whether a setting is said: itself, with its group, or a part of it."""
    return any(f"{path}.".startswith(f"{each}.") or f"{each}.".startswith(f"{path}.") for each in said)


class TakenAgain(NamedTuple, Generic[Tree]):
    """What a run goes on with: the settings that are wanted now, and those that it had last."""

    config: Tree
    last: Tree


def taken_again(wanted: Said[Tree], loaded: Tree, run: Path, step: int, *, is_change_wanted: bool) -> TakenAgain[Tree]:
    """Settle what a run goes on with that took changes since its checkpoint: what is said wins over them.

    Args:
        wanted: The settings to go on with.
        loaded: The checkpoint's.
        run: The folder that tells of the changes.
        step: Steps that the checkpoint has done.
        is_change_wanted: Whether settings may differ from those that the run had last.

    Raises:
        ConfigError: As ``with_taken``.
    """
    last = with_taken(loaded, loaded, run, step)
    said = (WHOLE,) if wanted.paths is None else wanted.paths
    if WHOLE in said and is_change_wanted:
        return TakenAgain(wanted.config, last)
    return TakenAgain(with_taken(wanted.config, loaded, run, step, said=said), last)


def may_change(run: Path, step: int) -> bool:
    """Return whether rates and precision may change at a checkpoint: the run stopped there or later for numbers that
    are not finite, and has not got beyond since.
    """
    is_stopped = False
    for row in read_rows(run / CHANGES_FILE):
        if "begun" in row:
            is_stopped = False
        elif "stopped" in row and isinstance(row.get("step"), int):
            is_stopped = is_stopped or row["step"] >= step
    return is_stopped
