"""The state of a run: what a checkpoint holds, how it begins and how it is resumed to the same bits.

Data order, times and noise are functions of (seed, step), so the state is weights, averages, optimizer moments and
the step. It must not know the loop.
"""

import logging
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch.optim import Optimizer

from transfusion.autoencoder.pixels import PixelConfig, measure_pixels
from transfusion.config import ConfigError, RunConfig, with_free_settings
from transfusion.data.sources import Reader, open_reader, settled_like
from transfusion.devices import choose_precision
from transfusion.model.grow import Part
from transfusion.model.transfusion import TransfusionModel
from transfusion.tokenizer import Tokenizer, build_tokenizer, check_tokenizer
from transfusion.train.best import read_best
from transfusion.train.changes import Change, accepted, differences, with_taken
from transfusion.train.checkpoint import (
    CHECKPOINTS,
    checkpoints,
    make_room,
    newest,
    newest_step,
    prune,
    publish,
    set_aside,
    step_directory,
)
from transfusion.train.ema import Ema
from transfusion.train.endings import NotFiniteError, not_finite
from transfusion.train.facts import Facts, Origin, read_facts, write_facts
from transfusion.train.init import check_agreement, fill, load_trained, tokenizer_from
from transfusion.train.lock import BusyError
from transfusion.train.manifest import (
    EMA_FILE,
    MANIFEST,
    MODEL_FILE,
    OPTIMIZER_FILE,
    RESUMED_FILES,
    CheckpointError,
    read_manifest,
    reading,
    verify,
)
from transfusion.train.optimizer import (
    Pace,
    build_optimizers,
    freeze,
    load_optimizer_tensors,
    optimizer_tensors,
    set_lr,
    steps_before_cooldown,
    told_rates,
)
from transfusion.train.saved import check_no_model, find_checkpoint, load_settings, made_model, write_pretrained
from transfusion.train.sizes import sized
from transfusion.train.tensors import load_tensors, load_weights, save_tensors

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


def check_untouched(run: Path, before: frozenset[Seen] | None) -> None:
    """Check that no checkpoint came into a run's folder since those ``before`` were seen; None: no one looked.

    Raises:
        BusyError: One did.
    """
    others = set[Seen]() if before is None else seen(run) - before
    if others:
        raise BusyError(
            f"{run} was trained in since this was opened ({', '.join(sorted(o.name for o in others))} came); "
            "open the run again, or name another folder"
        )


@dataclass
class TrainState:
    """Everything that a step changes, with the settings and the tokenizer.

    Attributes:
        is_whole: Whether weights, averages and moments are those after ``step`` steps, and not in between.
        saved_step: Steps after which the newest checkpoint was taken; None while there is none.
        changes: Settings that a resume took and that the run has not told of yet.
        origin: The checkpoint that the run began from, if it did not begin from nothing.
        parts: Parameters that a run that began from trained weights has not from there; told once.
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
    origin: Origin | None = None
    parts: tuple[Part, ...] = ()
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
            ConfigError: The folder holds a model.
        """
        check_no_model(run)
        check_untouched(run, self.seen)

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
            write_facts(folder, Facts(self.step, self.train_seconds, self.data, self.origin))

        directory = step_directory(run, self.step)
        if self.saved_step is None:
            set_aside(run)
        make_room(directory)
        published = publish(directory, write)
        self.saved_step = self.step
        self.seen = (self.seen or frozenset()) | seen(run)
        prune(published, self.config.train.num_checkpoints, spared=self._spared(run))
        return published

    def begin_facts(self) -> dict[str, object] | None:
        """Return what the run's folder is told of what it begins from; None where it begins from nothing."""
        if self.origin is None:
            return None
        parts = [{"name": name, "shape": shape, "what": what} for name, shape, what in self.parts]
        return {"from": self.origin._asdict(), **({"parts": parts} if parts else {})}

    def _spared(self, run: Path) -> tuple[int, ...]:
        """Return steps whose checkpoints stay: the best one's, and the newest before the cool-down, from which a longer
        run goes on without a jump.
        """
        best = read_best(run)
        most = steps_before_cooldown(self.config.train.optimizer, self.config.train.steps)
        level = None if most is None else newest_step(run, most)
        return tuple(step for step in (None if best is None else best.step, level) if step is not None)

    def not_finite(self, what: str, run: Path, *, facts: str = "") -> NotFiniteError:
        """Make the error that says ``what`` is not finite at the present step, with what is known, and how to go on."""
        return not_finite(self, what, run, self.config.train.optimizer.lr, facts=facts)


def begin(config: RunConfig, device: torch.device) -> TrainState:
    """Begin a run: settle what the config leaves open, make the tokenizer, the weights and the optimizers.

    Raises:
        ConfigError: The settings do not go with the weights that the run begins from (``init.begun_from`` makes some
            that do), or nothing is left to train.
        CheckpointError: There are no such weights.
    """
    reader = open_reader(config.data, config.train.seed)
    config = config.model_copy(update={"data": reader.config})
    train = config.train
    trained = None if train.init is None else load_trained(train.init, train.init_weights)
    if trained is None:
        tokenizer = build_tokenizer(config.tokenizer, reader.texts())
        if config.tokenizer.kind == "file":
            check_tokenizer(tokenizer, reader.texts())
    else:
        check_agreement(config, trained.config)
        tokenizer = tokenizer_from(trained, config, reader.texts)
        encode = config.encode.model_copy(update={"pixels": config.encode.pixels or trained.config.encode.pixels})
        config = config.model_copy(update={"encode": encode})
    resolved = _resolved(config, tokenizer, choose_precision(train.precision, device), _pixels(config, reader))
    model = TransfusionModel(resolved.model)
    model.initialise_weights(resolved.train.seed)
    parts = [] if trained is None else fill(model, tokenizer, trained, resolved)
    state = _assembled(resolved, tokenizer, model.to(device))
    state.origin, state.parts = None if trained is None else trained.origin, tuple(parts)
    return state


def resume(
    config: RunConfig,
    run: Path,
    device: torch.device,
    *,
    goes_on_from: Path | None = None,
    is_change_wanted: bool = False,
) -> TrainState | None:
    """Return the state of a run's newest whole checkpoint, or None where there is none; damaged ones are renamed.

    Rates and whatever else the run took since then is taken again, also where ``config`` has the checkpoint's.

    Args:
        config: The settings to go on with.
        run: The run's folder.
        device: Where to train.
        goes_on_from: The checkpoint, or another run, to go on from where ``run`` has no checkpoint yet.
        is_change_wanted: Whether settings may differ that leave the state its meaning (``changes.CHANGEABLE``).

    Raises:
        ConfigError: The settings are not those of the checkpoint, but for those that move no bit, or may be changed.
        CheckpointError: There are checkpoints, and all are damaged, or ``goes_on_from`` is none.
    """
    averages = set[str]() if config.train.ema_decay is None else {EMA_FILE}
    elsewhere = None if checkpoints(run) else goes_on_from
    needed = RESUMED_FILES | averages
    folder = newest(run, needed=needed) if elsewhere is None else _found(elsewhere, needed)
    if folder is None and checkpoints(run):
        raise CheckpointError(
            f"no checkpoint of {run} is whole (see above); restore one, begin a new run from the weights of one (a "
            "recipe with train.init=CHECKPOINT), or begin anew with --anew"
        )
    if folder is None:
        return None
    facts = read_facts(folder)
    loaded, tokenizer = load_settings(folder)
    config = config.model_copy(update={"data": settled_like(config.data, loaded.data)})
    config = with_taken(config, loaded, run, facts.step)
    saved = with_free_settings(with_taken(loaded, loaded, run, facts.step), config)
    is_open = config.train.precision == "auto"
    precision = saved.train.precision if is_open else config.train.precision
    resolved = _resolved(config, tokenizer, precision, config.encode.pixels or saved.encode.pixels)
    found = differences(saved, resolved)
    changes = accepted(found, folder, run, facts.step, is_change_wanted=is_change_wanted)
    state = _loaded(resolved, tokenizer, folder, device)
    state.step, state.train_seconds, state.data, state.origin = facts
    state.changes = changes
    if elsewhere is None:
        state.saved_step = state.step
        set_aside(run, beyond=folder)
    else:
        sha256 = read_manifest(folder)[MODEL_FILE].sha256
        state.origin = Origin(str(elsewhere), str(folder), facts.step, "trained", sha256)
    state.seen = seen(run)
    _log.info("resumed %s at step %d%s", folder, state.step, "".join(f"; {change}" for change in changes))
    paces = [Pace(settings.train.optimizer, settings.train.steps) for settings in (saved, resolved)]
    if rates := told_rates(paces[0], paces[1], state.step):
        _log.info("%s", rates)
    return state


def _found(source: Path, needed: Collection[str]) -> Path:
    """Return the checkpoint to go on from in another folder.

    Raises:
        CheckpointError: There is none, it lacks what a training needs to go on, or that is damaged.
    """
    folder = find_checkpoint(source)
    named = read_manifest(folder)
    if lacking := sorted(name for name in needed if name not in named or not (folder / name).is_file()):
        raise CheckpointError(
            f"{folder} lacks {', '.join(lacking)}, which a training needs to go on; begin a new run from its weights: "
            f"transfusion train RECIPE train.init={source}"
        )
    verify(folder, hashed=RESUMED_FILES)  # which who only uses a model does without
    return folder


def _loaded(config: RunConfig, tokenizer: Tokenizer, folder: Path, device: torch.device) -> TrainState:
    """Make the state of a checkpoint: weights, averages and moments.

    Raises:
        CheckpointError: They are damaged.
    """
    model = made_model(config.model, folder)
    load_weights(model, folder / MODEL_FILE)
    state = _assembled(config, tokenizer, model.to(device))
    if state.ema is not None:
        load_weights(state.ema.model, folder / EMA_FILE)
    tensors = load_tensors(folder / OPTIMIZER_FILE)
    with reading(folder / OPTIMIZER_FILE):
        load_optimizer_tensors(state.optimizers, tensors)
    return state


def _assembled(config: RunConfig, tokenizer: Tokenizer, model: TransfusionModel) -> TrainState:
    decay = config.train.ema_decay
    try:
        freeze(model, config.train.freeze)
    except ValueError as error:
        raise ConfigError(f"train.freeze: {error}") from error
    ema = None if decay is None else Ema(model, decay)
    return TrainState(config, tokenizer, model, ema, build_optimizers(model, config.train.optimizer))


def _resolved(config: RunConfig, tokenizer: Tokenizer, precision: str, pixels: PixelConfig | None) -> RunConfig:
    """Fill in what only a run can know: sizes, the tokenizer's among them, the precision and the spread of the pixels.

    Raises:
        ConfigError: The settings name another size than the tokenizer's.
    """
    if config.model.text_vocab_size not in (None, tokenizer.size):
        raise ConfigError(
            f"model.text_vocab_size is {config.model.text_vocab_size}; the tokenizer has {tokenizer.size} ids: leave "
            "it out (model.text_vocab_size=null)"
        )
    config = sized(config)
    return config.model_copy(
        update={
            "model": config.model.model_copy(update={"text_vocab_size": tokenizer.size}),
            "encode": config.encode.model_copy(update={"pixels": pixels}),
            "train": config.train.model_copy(update={"precision": precision}),
        }
    )


def _pixels(config: RunConfig, reader: Reader) -> PixelConfig | None:
    """Measure the data's pixels where the settings leave them open."""
    if config.encode.pixels is not None:
        return config.encode.pixels
    pictures = reader.sample_pictures()
    return None if pictures is None else measure_pixels(pictures)
