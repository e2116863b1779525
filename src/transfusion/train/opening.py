"""How the state of a run comes to be: begun from nothing or from trained weights, or resumed to the same bits.

It must not know the loop.
"""

import logging
from collections.abc import Collection
from pathlib import Path

import torch

from transfusion.autoencoder.settings import filled
from transfusion.autoencoder.space import LatentSpace, SpaceError
from transfusion.config import ConfigError, RunConfig, with_free_settings
from transfusion.data.encode import settled_encode, with_template
from transfusion.data.sources import OpenedData, settled_like
from transfusion.devices import choose_precision
from transfusion.model.transfusion import TransfusionModel
from transfusion.tokenizer import Tokenizer, build_tokenizer, check_tokenizer
from transfusion.train.changes import Said, accepted, as_said, differences, taken_again
from transfusion.train.checkpoint import (
    checkpoints,
    newest,
    set_aside,
)
from transfusion.train.elsewhere import check_origin, find_elsewhere, origin_of
from transfusion.train.ema import Ema
from transfusion.train.facts import Facts, read_facts
from transfusion.train.folder import seen
from transfusion.train.init import check_agreement, fill, load_trained, tokenizer_from
from transfusion.train.manifest import (
    EMA_FILE,
    MODEL_FILE,
    OPTIMIZER_FILE,
    RESUMED_FILES,
    CheckpointError,
    reading,
)
from transfusion.train.optimizer import (
    Pace,
    build_optimizers,
    freeze,
    load_optimizer_tensors,
    told_rates,
)
from transfusion.train.saved import (
    load_settings,
    load_space,
    made_model,
)
from transfusion.train.sizes import sized
from transfusion.train.spaces import check_path, findable, of_given, remembering, settle_space
from transfusion.train.state import TrainState
from transfusion.train.tensors import load_tensors, load_weights

_log = logging.getLogger(__name__)


def begin(config: RunConfig, device: torch.device, *, space: LatentSpace | None = None) -> TrainState:
    """Begin a run: settle what the config leaves open, make the tokenizer, the weights and the optimizers.

    Args:
        config: The settings.
        device: Where to train.
        space: A latent space of one's own, for ``autoencoder.kind=given``.

    Raises:
        ConfigError: The settings do not go with the weights that the run begins from (``init.begun_from`` makes some
            that do), or nothing is left to train.
        CheckpointError: There are no such weights.
    """
    opened = OpenedData(config.data, config.train.seed)
    reader = opened.reader
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
        encode = settled_encode(config.encode, trained.config.encode)
        autoencoder = config.autoencoder
        if not train.new_parts:
            autoencoder = findable(filled(autoencoder, trained.config.autoencoder))
            check_path(autoencoder, trained.config.autoencoder)
        config = config.model_copy(update={"encode": encode, "autoencoder": autoencoder})
    config = config.model_copy(update={"encode": with_template(config.encode, config.tokenizer.path)})
    carrier = None if trained is None else trained.folder
    config, latents = settle_space(config, reader, device, folder=carrier, given=space)
    resolved = _resolved(config, tokenizer, choose_precision(train.precision, device), latents)
    model = TransfusionModel(resolved.model)
    model.initialise_weights(resolved.train.seed)
    parts = [] if trained is None else fill(model, tokenizer, trained, resolved)
    state = _assembled(resolved, tokenizer, model.to(device))
    state.space, state.opened = latents, opened
    state.origin, state.parts = None if trained is None else trained.origin, tuple(parts)
    return state


def resume(
    config: RunConfig | Said[RunConfig],
    run: Path,
    device: torch.device,
    *,
    goes_on_from: Path | None = None,
    is_change_wanted: bool = False,
    space: LatentSpace | None = None,
) -> TrainState | None:
    """Return the state of a run's newest whole checkpoint, or None where there is none; damaged ones are renamed.

    Rates and whatever else the run took since then is taken again, also where ``config`` has the checkpoint's, unless
    that is said (``changes.Said``).

    Args:
        config: The settings to go on with.
        run: The run's folder.
        device: Where to train.
        goes_on_from: The checkpoint, or another run, to go on from where ``run`` has no checkpoint yet.
        is_change_wanted: Whether settings may differ that leave the state its meaning (``changes.CHANGEABLE``).
        space: As for ``begin``.

    Raises:
        ConfigError: The settings are not those of the checkpoint, but for those that move no bit, or may be changed;
            or ``run`` has checkpoints that did not go on from ``goes_on_from``.
        CheckpointError: There are checkpoints, and all are damaged, or ``goes_on_from`` is none.
    """
    wanted = as_said(config)
    config = wanted.config
    elsewhere = None if checkpoints(run) else goes_on_from
    needed = RESUMED_FILES | (set[str]() if config.train.ema_decay is None else {EMA_FILE})
    begin_anew = f"begin a new run from its weights: transfusion train RECIPE train.init={elsewhere}"
    folder = _newest(run, needed) if elsewhere is None else find_elsewhere(elsewhere, needed, begin_anew)
    if folder is None:
        return None
    facts = read_facts(folder)
    if elsewhere is None:
        check_origin(facts.origin, goes_on_from, run)
    loaded, tokenizer = load_settings(folder)
    wanted = wanted._replace(config=_alike(config, loaded, space))
    home = elsewhere or run  # what was tried in another folder is not this run's
    config, last = taken_again(wanted, loaded, home, facts.step, is_change_wanted=is_change_wanted)
    saved = with_free_settings(last, config)
    precision = saved.train.precision if config.train.precision == "auto" else config.train.precision
    latents = remembering(load_space(folder, config, space).to(device))
    resolved = _resolved(config, tokenizer, precision, latents, settled=saved)
    changes = accepted(differences(saved, resolved), folder, run, facts.step, is_change_wanted=is_change_wanted)
    state = _loaded(resolved, tokenizer, folder, device)
    _take(state, facts)
    state.changes, state.space = changes, latents
    if elsewhere is None:
        state.saved_step, state.taken = state.step, run.resolve()
        set_aside(run, beyond=folder)
    else:  # its folder tells of what it took last; this run's does not yet
        state.changes = tuple(differences(with_free_settings(loaded, config), resolved))
        state.origin = origin_of(elsewhere, folder, facts.step)
    state.seen = seen(run)
    _log.info("resumed %s at step %d%s", folder, state.step, "".join(f"; {change}" for change in changes))
    _say_rates(saved, resolved, state.step)
    return state


def _take(state: TrainState, facts: Facts) -> None:
    """Let a state stand where a checkpoint says."""
    state.step, state.train_seconds, state.data, state.origin, *_ = facts
    state.held_out, state.records, state.slots, state.planned = facts[4:]


def _newest(run: Path, needed: Collection[str]) -> Path | None:
    """Return a run's newest checkpoint that a training can go on from; None where it has none at all.

    Raises:
        CheckpointError: There are some, and none is whole.
    """
    folder = newest(run, needed=needed)
    if folder is None and checkpoints(run):
        raise CheckpointError(
            f"no checkpoint of {run} is whole (see above); restore one, begin a new run from the weights of one (a "
            "recipe with train.init=CHECKPOINT), or begin anew with --anew"
        )
    return folder


def _say_rates(saved: RunConfig, resolved: RunConfig, step: int) -> None:
    """Say what the rate does where settings that decide it changed."""
    paces = [Pace(settings.train.optimizer, settings.train.steps) for settings in (saved, resolved)]
    if rates := told_rates(paces[0], paces[1], step):
        _log.info("%s", rates)


def _alike(config: RunConfig, loaded: RunConfig, space: LatentSpace | None) -> RunConfig:
    """Fill in what settings leave open by those of the checkpoint from which a run goes on.

    Raises:
        ConfigError: They name another latent space.
    """
    config = of_given(config, space)
    autoencoder = findable(filled(config.autoencoder, loaded.autoencoder))
    check_path(autoencoder, loaded.autoencoder)
    alike = {
        "data": settled_like(config.data, loaded.data),
        "autoencoder": autoencoder,
        "encode": settled_encode(config.encode, loaded.encode),
    }
    return config.model_copy(update=alike)


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


def _resolved(
    config: RunConfig, tokenizer: Tokenizer, precision: str, space: LatentSpace, *, settled: RunConfig | None = None
) -> RunConfig:
    """Fill in what only a run can know: sizes, the tokenizer's and the latents' among them, and the precision;
    ``settled`` are the settings of the run that goes on.

    Raises:
        ConfigError: The settings name another size than the tokenizer's, or than the latents'.
    """
    if config.model.text_vocab_size not in (None, tokenizer.size):
        raise ConfigError(
            f"model.text_vocab_size is {config.model.text_vocab_size}; the tokenizer has {tokenizer.size} ids: leave "
            "it out (model.text_vocab_size=null)"
        )
    try:
        config = sized(config, settled, shape=space.shape(config.data.size))
    except SpaceError as error:
        raise ConfigError(f"data.resolution={config.data.resolution}: {error}") from error
    return config.model_copy(
        update={
            "model": config.model.model_copy(update={"text_vocab_size": tokenizer.size}),
            "train": config.train.model_copy(update={"precision": precision}),
        }
    )
