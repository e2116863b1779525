"""The state of a run: what a checkpoint holds, how it begins and how it is resumed to the same bits.

Data order, times and noise are functions of (seed, step), so the state is weights, averages, optimizer moments and
the step. It must not know the loop.
"""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch.optim import Optimizer

from transfusion.autoencoder.pixels import PixelConfig, measure_pixels
from transfusion.config import ConfigError, RunConfig, override, with_free_settings
from transfusion.data.sources import corpus_of, sample_pictures
from transfusion.devices import choose_precision
from transfusion.model.transfusion import TransfusionModel
from transfusion.tokenizer import Tokenizer, build_tokenizer, check_tokenizer
from transfusion.train.best import read_best
from transfusion.train.changes import CHANGEABLE, Change, changed_since, differences, may_change
from transfusion.train.checkpoint import (
    CHECKPOINTS,
    checkpoints,
    make_room,
    newest,
    prune,
    publish,
    set_aside,
    step_directory,
)
from transfusion.train.ema import Ema
from transfusion.train.lock import BusyError
from transfusion.train.manifest import (
    EMA_FILE,
    MANIFEST,
    MODEL_FILE,
    OPTIMIZER_FILE,
    RESUMED_FILES,
    STATE_FILE,
    CheckpointError,
    reading,
)
from transfusion.train.optimizer import build_optimizers, load_optimizer_tensors, optimizer_tensors, set_lr
from transfusion.train.saved import load_settings, made_model, write_pretrained
from transfusion.train.tensors import load_tensors, load_weights, save_tensors

LOWER = 10  # a rate that is too high by far is found in a few tries
_log = logging.getLogger(__name__)


class Seen(NamedTuple):
    """What tells a checkpoint from one that took its place: its name, and when it was written."""

    name: str
    written_ns: int


def seen(run: Path) -> frozenset[Seen]:
    """List the checkpoints that a run's folder holds now."""
    with reading(run / CHECKPOINTS):
        manifests = [folder / MANIFEST for folder in checkpoints(run)]
        return frozenset(Seen(file.parent.name, file.stat().st_mtime_ns) for file in manifests if file.exists())


class NotFiniteError(FloatingPointError):
    """A loss, the gradient or the weights are not finite; the message says what to do."""


@dataclass
class TrainState:
    """Everything that a step changes, with the settings and the tokenizer.

    Attributes:
        is_whole: Whether weights, averages and moments are those after ``step`` steps, and not in between.
        saved_step: Steps after which the newest checkpoint was taken; None while there is none.
        changes: Settings that a resume took and that the run has not told of yet.
        seen: Checkpoints that the run's folder held when the state was opened, and its own; None where no folder was
            looked at.
    """

    config: RunConfig
    tokenizer: Tokenizer
    model: TransfusionModel
    ema: Ema | None
    optimizers: list[Optimizer]
    step: int = 0
    train_seconds: float = 0.0
    data: str | None = None
    is_whole: bool = True
    saved_step: int | None = None
    changes: tuple[Change, ...] = ()
    seen: frozenset[Seen] | None = None

    @property
    def best_model(self) -> TransfusionModel:
        """The averaged model if there is one, else the model."""
        if self.ema is None:
            return self.model
        assert isinstance(self.ema.model, TransfusionModel)
        return self.ema.model

    def check_data(self, digest: str) -> None:
        """Bind the state to the data that it is trained on.

        Raises:
            ConfigError: A resumed run was trained on other data.
        """
        if self.data not in (None, digest):
            raise ConfigError(
                "the data changed since the checkpoint was written (files, captions or their order); begin anew in "
                "another folder, or restore the data"
            )
        self.data = digest

    def update(self, factor: float) -> None:
        """Take a step along the gradients that the weights hold, at rates of ``factor`` times their peaks."""
        self.is_whole = False
        set_lr(self.optimizers, factor)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.update(self.model, self.step)
        self.step += 1
        self.is_whole = True

    def check_folder(self, run: Path) -> None:
        """Check that nobody trained in a run's folder since this state was opened. The run's lock must be held.

        Raises:
            BusyError: Somebody did; nothing was written.
        """
        others = set[Seen]() if self.seen is None else seen(run) - self.seen
        if others:
            raise BusyError(
                f"{run} was trained in since this was opened ({', '.join(sorted(o.name for o in others))} came); "
                "open the run again, or name another folder"
            )

    def save(self, run: Path) -> Path:
        """Publish a checkpoint of the present step and delete old ones, all but the newest and the best; those of a
        training before are renamed.

        Raises:
            NotFiniteError: The weights are not finite; the checkpoints stay as they are.
        """
        assert self.is_whole, f"an update after step {self.step} is under way"
        models = [self.model] if self.ema is None else [self.model, self.ema.model]
        if not all(bool(value.isfinite().all()) for model in models for value in model.parameters()):
            raise self.not_finite("the weights are", run)

        def write(folder: Path) -> None:
            write_pretrained(folder, self.model, self.tokenizer, self.config)
            if self.ema is not None:
                save_tensors(self.ema.model.state_dict(), folder / EMA_FILE)
            save_tensors(optimizer_tensors(self.optimizers), folder / OPTIMIZER_FILE)
            state = {"step": self.step, "data": self.data, "train_seconds": self.train_seconds}
            (folder / STATE_FILE).write_text(json.dumps(state, indent=1))

        directory = step_directory(run, self.step)
        if self.saved_step is None:
            set_aside(run)
        make_room(directory)
        published = publish(directory, write)
        self.saved_step = self.step
        self.seen = (self.seen or frozenset()) | seen(run)
        best = read_best(run)
        prune(published, self.config.train.num_checkpoints, spared=() if best is None else (best.step,))
        return published

    def not_finite(self, what: str, run: Path, *, facts: str = "") -> NotFiniteError:
        """Make the error that says ``what`` is not finite at the present step, with what is known, and how to go on."""
        lower = f"train.optimizer.lr={self.config.train.optimizer.lr / LOWER:.2g}"
        advice = "lower the rates (train.optimizer.lr, muon_lr, clip) or take train.precision=fp32, as in"
        if self.saved_step is None:
            return NotFiniteError(
                f"{what} not finite at step {self.step}{facts}; there is no checkpoint yet, so begin again by the same "
                f"command: {advice} `{lower}`"
            )
        begun = f"{advice} `transfusion train {run} {lower}`"
        where = f"{self.last_checkpoint(run)}, and from there the run takes other rates: {begun}"
        if self.saved_step == self.step:
            where += "; if it stops at this step again, move that checkpoint away to go on from the one before"
        return NotFiniteError(f"{what} not finite at step {self.step}{facts}; {where}")

    def last_checkpoint(self, run: Path) -> str:
        """Say which checkpoint a run would go on from."""
        if self.saved_step is None:
            return "there is no checkpoint"
        return f"the last checkpoint is {step_directory(run, self.saved_step)}"


def begin(config: RunConfig, device: torch.device) -> TrainState:
    """Begin a run: settle what the config leaves open, make the tokenizer, the weights and the optimizers."""
    tokenizer = build_tokenizer(config.tokenizer, corpus_of(config.data, config.train.seed))
    if config.tokenizer.kind == "file":
        check_tokenizer(tokenizer, corpus_of(config.data, config.train.seed))
    resolved = _resolved(config, tokenizer, choose_precision(config.train.precision, device), _pixels(config))
    model = TransfusionModel(resolved.model)
    model.initialise_weights(resolved.train.seed)
    return _assembled(resolved, tokenizer, model.to(device))


def resume(config: RunConfig, run: Path, device: torch.device) -> TrainState | None:
    """Return the state of a run's newest whole checkpoint, or None where there is none; damaged ones are renamed.

    Rates and precision that the run took since then are taken again, also where ``config`` has the checkpoint's.

    Raises:
        ConfigError: The settings are not those of the checkpoint, but for those that move no bit.
        CheckpointError: There are checkpoints, and all are damaged.
    """
    averages = set[str]() if config.train.ema_decay is None else {EMA_FILE}
    folder = newest(run, needed=RESUMED_FILES | averages)
    if folder is None and checkpoints(run):
        raise CheckpointError(f"no checkpoint of {run} is whole (see above); restore one, or begin anew with --anew")
    if folder is None:
        return None
    facts = _facts(folder)
    loaded, tokenizer = load_settings(folder)
    config = _with_taken(config, loaded, run, facts.step)
    saved = with_free_settings(_with_taken(loaded, loaded, run, facts.step), config)
    is_open = config.train.precision == "auto"
    precision = saved.train.precision if is_open else config.train.precision
    resolved = _resolved(config, tokenizer, precision, config.encode.pixels or saved.encode.pixels)
    changes = _accepted(differences(saved, resolved), folder, run, facts.step)
    model = made_model(resolved.model, folder)
    load_weights(model, folder / MODEL_FILE)
    state = _assembled(resolved, tokenizer, model.to(device))
    if state.ema is not None:
        load_weights(state.ema.model, folder / EMA_FILE)
    tensors = load_tensors(folder / OPTIMIZER_FILE)
    with reading(folder / OPTIMIZER_FILE):
        load_optimizer_tensors(state.optimizers, tensors)
    state.step, state.train_seconds, state.data = facts
    state.saved_step, state.changes = state.step, changes
    set_aside(run, beyond=folder)
    state.seen = seen(run)
    _log.info("resumed %s at step %d%s", folder, state.step, "".join(f"; {change}" for change in changes))
    return state


def _with_taken(config: RunConfig, loaded: RunConfig, run: Path, step: int) -> RunConfig:
    """Return settings with the changes that the run took since a checkpoint, where they are the checkpoint's still."""
    given = {change.setting for change in differences(loaded, config)}
    taken = {path: value for path, value in changed_since(run, step).items() if path not in given}
    return override(config, [f"{path}={json.dumps(value)}" for path, value in taken.items()])


class _Facts(NamedTuple):
    step: int
    train_seconds: float
    data: str | None


def _facts(folder: Path) -> _Facts:
    """Read what a checkpoint says of its run.

    Raises:
        CheckpointError: It is not what ``TrainState.save`` wrote.
    """
    with reading(folder / STATE_FILE):
        told = json.loads((folder / STATE_FILE).read_bytes().decode())
        facts = _Facts(told["step"], told["train_seconds"], told["data"])
        if type(facts.step) is not int or facts.step < 0 or not isinstance(facts.train_seconds, int | float):
            raise ValueError(f"step {facts.step!r} and train_seconds {facts.train_seconds!r} are no counts")
        if not isinstance(facts.data, str | None):
            raise ValueError(f"data is {facts.data!r}; expected the name of the data")
    return facts


def _accepted(changes: list[Change], folder: Path, run: Path, step: int) -> tuple[Change, ...]:
    """Return the changes of settings if the run may take them: rates and precision, after a loss that is not finite.

    Raises:
        ConfigError: It may not.
    """
    refused = [change for change in changes if change.setting not in CHANGEABLE or not may_change(run, step)]
    if refused:
        raise ConfigError(
            f"{folder} was made with other settings: {'; '.join(map(str, refused))}; go on with its own "
            f"(transfusion train {run}), begin anew in another folder (--run), or here (--anew)"
        )
    return tuple(changes)


def _assembled(config: RunConfig, tokenizer: Tokenizer, model: TransfusionModel) -> TrainState:
    decay = config.train.ema_decay
    ema = None if decay is None else Ema(model, decay)
    return TrainState(config, tokenizer, model, ema, build_optimizers(model, config.train.optimizer))


def _resolved(config: RunConfig, tokenizer: Tokenizer, precision: str, pixels: PixelConfig | None) -> RunConfig:
    """Fill in what only a run can know: the tokenizer's size, the precision and the spread of the pixels.

    Raises:
        ConfigError: The settings name another size than the tokenizer's.
    """
    if config.model.text_vocab_size not in (None, tokenizer.size):
        raise ConfigError(
            f"model.text_vocab_size is {config.model.text_vocab_size}; the tokenizer has {tokenizer.size} ids: leave "
            "it out (model.text_vocab_size=null)"
        )
    return config.model_copy(
        update={
            "model": config.model.model_copy(update={"text_vocab_size": tokenizer.size}),
            "encode": config.encode.model_copy(update={"pixels": pixels}),
            "train": config.train.model_copy(update={"precision": precision}),
        }
    )


def _pixels(config: RunConfig) -> PixelConfig | None:
    """Measure the data's pixels where the settings leave them open."""
    if config.encode.pixels is not None:
        return config.encode.pixels
    pictures = sample_pictures(config.data, config.train.seed)
    return None if pictures is None else measure_pixels(pictures)
