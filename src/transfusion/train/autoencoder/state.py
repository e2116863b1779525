"""The state of an autoencoder's training: what a checkpoint holds, how it begins and is resumed to the same bits.

    step_00000500/  config.json  model.safetensors                  the network, with how codes were used
                    autoencoder.json  autoencoder.safetensors       what others load: the averages, as diffusers' own
                    [discriminator.safetensors]  optimizer.safetensors  state.json  manifest.json

It must not know the loop.
"""

import json
import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from transfusion.autoencoder.architecture import (
    KLNetwork,
    Network,
    Passed,
    VQNetwork,
    build_network,
    diffusers_config,
    initialise,
)
from transfusion.autoencoder.discriminator import Discriminator
from transfusion.autoencoder.quantise import find_revival, revive
from transfusion.autoencoder.space import CARRIED_FILES
from transfusion.config import CONFIG_FILE, ConfigError, tree_from_json
from transfusion.data.settings import settled_like
from transfusion.devices import choose_precision
from transfusion.train.autoencoder.judges import settled_backbones
from transfusion.train.autoencoder.settings import AutoencoderRun, with_free_settings
from transfusion.train.changes import Change, Said, accepted, as_said, differences, taken_again
from transfusion.train.checkpoint import (
    checkpoints,
    make_room,
    newest,
    prune,
    publish,
    set_aside,
    step_directory,
)
from transfusion.train.elsewhere import check_origin, find_elsewhere, origin_of
from transfusion.train.ema import Ema
from transfusion.train.endings import NotFiniteError, not_finite
from transfusion.train.facts import Facts, Origin, check_same, read_facts, write_facts
from transfusion.train.folder import Seen, seen
from transfusion.train.manifest import (
    DISCRIMINATOR_FILE,
    MODEL_FILE,
    OPTIMIZER_FILE,
    RESUMED_FILES,
    CheckpointError,
    reading,
)
from transfusion.train.optimizer import OptimizerConfig, load_optimizer_tensors, optimizer_tensors, set_lr
from transfusion.train.saved import is_of_autoencoder
from transfusion.train.tensors import load_tensors, load_weights, save_tensors

LACKING = "restore it, or go on from another checkpoint"
MOMENTS = ("exp_avg", "exp_avg_sq")
AUTOENCODER_CONFIG_FILE, AUTOENCODER_FILE = CARRIED_FILES
_log = logging.getLogger(__name__)


@dataclass
class AutoencoderState:
    """Everything that a step changes, with the settings.

    Attributes:
        optimizers: The network's, then the discriminator's.
        is_whole: Whether all of it is after ``step`` steps, and not in between.
        saved_step: Steps after which the newest checkpoint was taken; None while there is none.
        changes: Settings that a resume took and that the run has not told of yet.
        seen: Checkpoints that the run's folder held when the state was opened, and its own; None: none was looked at.
        origin: The checkpoint that the run goes on from, if it did not begin from nothing.
        taken: The folder that is this training's; None: none yet.
    """

    config: AutoencoderRun
    network: Network
    ema: Ema | None
    discriminator: Discriminator | None
    optimizers: list[Optimizer]
    step: int = 0
    train_seconds: float = 0.0
    data: str | None = None
    is_whole: bool = True
    saved_step: int | None = None
    changes: tuple[Change, ...] = ()
    seen: frozenset[Seen] | None = None
    origin: Origin | None = None
    taken: Path | None = None

    @property
    def best_network(self) -> Network:
        """The averaged network if there is one, else the network."""
        if self.ema is None:
            return self.network
        assert isinstance(self.ema.model, KLNetwork | VQNetwork)
        return self.ema.model

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.network.parameters()).device

    @property
    def is_judged(self) -> bool:
        """Whether the next step is one with the discriminator."""
        return self.discriminator is not None and self.step + 1 >= self.config.losses.gan_start

    def check_data(self, digest: str) -> None:
        """Bind the state to the pictures that it is trained on.

        Raises:
            ConfigError: A resumed run was trained on others.
        """
        told = (
            "(files or their order), or this version reads them otherwise than the one that began the run; begin anew "
            "in another folder, or restore them"
        )
        check_same("pictures", self.data, digest, told)
        self.data = digest

    def update(self, factor: float, passed: Passed) -> int:
        """Take a step along the gradients that the weights hold; return how many codes were revived.

        Args:
            factor: Rates over their peaks.
            passed: What the network made of the step's pictures.
        """
        self.is_whole = False
        set_lr(self.optimizers, factor)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if isinstance(self.network, VQNetwork):
            self._average_codes(self.network, passed)
        if self.ema is not None:
            self.ema.update(self.network, self.step)
        num_revived = self._revive(self.network, passed) if isinstance(self.network, VQNetwork) else 0
        self.step += 1
        self.is_whole = True
        return num_revived

    def _average_codes(self, network: VQNetwork, passed: Passed) -> None:
        assert passed.codes is not None and passed.vectors is not None
        network.use.note(passed.codes)
        if network.config.codebook == "average":
            network.use.average(network.codebook.data, passed.vectors, passed.codes, network.config.codebook_decay)

    def _revive(self, network: VQNetwork, passed: Passed) -> int:
        """Revive dead codes: in the codebook, in its average, and in the optimizer's moments."""
        assert passed.vectors is not None
        config = network.config
        revival = find_revival(network.use, passed.vectors, config.revive_after, self.config.train.seed, self.step)
        if not len(revival.codes):
            return 0
        tables = [network.codebook.data]
        if self.ema is not None:
            assert isinstance(self.ema.model, VQNetwork)
            tables.append(self.ema.model.codebook.data)
        entries: dict[str, Tensor] = self.optimizers[0].state.get(network.codebook, {})
        revive(revival, network.use, tables, [entries[name] for name in MOMENTS if name in entries])
        return len(revival.codes)

    def save(self, run: Path) -> Path:
        """Publish a checkpoint of the present step and delete old ones.

        Raises:
            NotFiniteError: The weights are not finite; the checkpoints stay as they are.
        """
        assert self.is_whole, f"an update after step {self.step} is under way"
        models: list[nn.Module] = [self.network, self.best_network]
        models += [] if self.discriminator is None else [self.discriminator]
        if not all(bool(value.isfinite().all()) for model in models for value in model.parameters()):
            raise self.not_finite("the weights are", run)
        directory = step_directory(run, self.step)
        make_room(directory)
        published = publish(directory, self._write)
        self.saved_step = self.step
        self.seen = (self.seen or frozenset()) | seen(run)
        prune(published, self.config.train.num_checkpoints)
        return published

    def _write(self, folder: Path) -> None:
        (folder / CONFIG_FILE).write_text(self.config.model_dump_json(indent=2))
        save_tensors(self.network.state_dict(), folder / MODEL_FILE)
        settings = diffusers_config(self.config.network, self.config.resolution)
        told = {"class": settings.pop("_class_name"), "settings": settings}
        (folder / AUTOENCODER_CONFIG_FILE).write_text(json.dumps(told, indent=1) + "\n")
        save_tensors(self.best_network.network.state_dict(), folder / AUTOENCODER_FILE)
        if self.discriminator is not None:
            save_tensors(self.discriminator.state_dict(), folder / DISCRIMINATOR_FILE)
        save_tensors(optimizer_tensors(self.optimizers), folder / OPTIMIZER_FILE)
        write_facts(folder, Facts(self.step, self.train_seconds, self.data, self.origin))

    def begin_facts(self) -> dict[str, object] | None:
        """Return what the run's folder is told of what it begins from; None where it begins from nothing."""
        return None if self.origin is None else {"from": self.origin._asdict()}

    def not_finite(self, what: str, run: Path, *, facts: str = "") -> NotFiniteError:
        """Make the error that says ``what`` is not finite at the present step, with what is known, and how to go on."""
        return not_finite(self, what, run, self.config.train.optimizer.lr, facts=facts)


def begin(config: AutoencoderRun, device: torch.device) -> AutoencoderState:
    """Begin a run: settle what the settings leave open, and make weights and optimizers.

    Raises:
        ConfigError: A backbone's file is not there.
    """
    resolved = _resolved(config, choose_precision(config.train.precision, device))
    return _assembled(resolved, device)


def resume(
    config: AutoencoderRun | Said[AutoencoderRun],
    run: Path,
    device: torch.device,
    *,
    goes_on_from: Path | None = None,
    is_change_wanted: bool = False,
) -> AutoencoderState | None:
    """Return the state of a run's newest whole checkpoint, or None where there is none; damaged ones are renamed.

    What the run took since then is taken again, also where ``config`` has the checkpoint's, unless that is said.

    Args:
        config: The settings to go on with.
        run: The run's folder.
        device: Where to train.
        goes_on_from: The checkpoint, or another run, to go on from where ``run`` has no checkpoint yet.
        is_change_wanted: Whether settings may differ that leave the state its meaning (``changes.CHANGEABLE``).

    Raises:
        ConfigError: The settings are not those of the checkpoint, but for those that move no bit, or may be changed;
            or ``run`` has checkpoints that did not go on from ``goes_on_from``.
        CheckpointError: There are checkpoints, and all are damaged, or ``goes_on_from`` is none.
    """
    wanted, needed = as_said(config), {*RESUMED_FILES, AUTOENCODER_FILE}
    config, elsewhere = wanted.config, None if checkpoints(run) else goes_on_from
    folder = newest(run, needed=needed) if elsewhere is None else find_elsewhere(elsewhere, needed, LACKING)
    if folder is None and checkpoints(run):
        raise CheckpointError(f"no checkpoint of {run} is whole (see above); restore one, or begin anew with --anew")
    if folder is None:
        return None
    facts = read_facts(folder)
    loaded = load_autoencoder_settings(folder)
    if elsewhere is None:
        check_origin(facts.origin, goes_on_from, run)
    alike = config.model_copy(update={"data": settled_like(config.data, loaded.data)})
    config, last = taken_again(
        wanted._replace(config=alike), loaded, elsewhere or run, facts.step, is_change_wanted=is_change_wanted
    )
    saved = _settled(last, config)
    precision = saved.train.precision if config.train.precision == "auto" else config.train.precision
    resolved = _resolved(config, precision)
    changes = accepted(differences(saved, resolved), folder, run, facts.step, is_change_wanted=is_change_wanted)
    state = _assembled(resolved, device)
    _load(state, folder)
    state.step, state.train_seconds, state.data, state.origin = facts[:4]
    state.changes = changes
    if elsewhere is None:
        state.saved_step, state.taken = state.step, run.resolve()
        set_aside(run, beyond=folder)
    else:  # its folder tells of what it took last; this run's does not yet
        state.changes = tuple(differences(_settled(loaded, config), resolved))
        state.origin = origin_of(elsewhere, folder, facts.step)
    state.seen = seen(run)
    _log.info("resumed %s at step %d%s", folder, state.step, "".join(f"; {change}" for change in changes))
    return state


def _settled(saved: AutoencoderRun, given: AutoencoderRun) -> AutoencoderRun:
    """Return a run's settings with those of ``given`` that move no bit, and the backbones that lie there."""
    saved = with_free_settings(saved, given)
    return saved.model_copy(update={"backbones": settled_backbones(saved.backbones)})


def load_autoencoder_settings(folder: Path) -> AutoencoderRun:
    """Read the settings of a checkpoint.

    Raises:
        CheckpointError: They are damaged, or of another version.
    """
    with reading(folder / CONFIG_FILE):
        text = (folder / CONFIG_FILE).read_bytes().decode()
        if not is_of_autoencoder(text):
            raise CheckpointError(f"{folder} is no autoencoder's training; name another folder (--run)")
        return tree_from_json(text, str(folder / CONFIG_FILE), AutoencoderRun)


def _load(state: AutoencoderState, folder: Path) -> None:
    """Fill a state with weights, averages and moments.

    Raises:
        CheckpointError: They are damaged.
    """
    load_weights(state.network, folder / MODEL_FILE)
    if state.ema is not None:
        load_weights(state.best_network.network, folder / AUTOENCODER_FILE)
    if state.discriminator is not None:
        load_weights(state.discriminator, folder / DISCRIMINATOR_FILE)
    tensors = load_tensors(folder / OPTIMIZER_FILE)
    with reading(folder / OPTIMIZER_FILE):
        load_optimizer_tensors(state.optimizers, tensors)


def _resolved(config: AutoencoderRun, precision: str) -> AutoencoderRun:
    """Fill in what only a run can know."""
    train = config.train.model_copy(update={"precision": precision})
    return config.model_copy(update={"train": train, "backbones": settled_backbones(config.backbones)})


def _assembled(config: AutoencoderRun, device: torch.device) -> AutoencoderState:
    train = config.train
    try:
        network = build_network(config.network, config.resolution, train.seed).to(device)
    except ModuleNotFoundError as error:
        raise ConfigError(f"{error}; autoencoders need diffusers: pip install 'transfusion[autoencoder]'") from error
    discriminator = None
    optimizers = [_adamw(network, train.optimizer, train.optimizer.lr)]
    if config.losses.gan:
        discriminator = Discriminator(config.discriminator)
        initialise(discriminator, train.seed, "discriminator")
        discriminator.to(device)
        optimizers.append(_adamw(discriminator, train.optimizer, config.discriminator.lr))
        discriminator.requires_grad_(False)  # but for its own loss
    ema = None if train.ema_decay is None else Ema(network, train.ema_decay)
    return AutoencoderState(config, network, ema, discriminator, optimizers)


def _adamw(model: nn.Module, config: OptimizerConfig, lr: float) -> Optimizer:
    """Build the optimizer; codes and vectors are not decayed."""
    named = [parameter for parameter in model.parameters() if parameter.requires_grad]
    codebook = model.codebook if isinstance(model, VQNetwork) else None
    decayed = [parameter for parameter in named if parameter.ndim > 1 and parameter is not codebook]
    is_decayed = {id(parameter) for parameter in decayed}
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay, "peak_lr": lr},
        {"params": [p for p in named if id(p) not in is_decayed], "weight_decay": 0.0, "peak_lr": lr},
    ]
    return AdamW(groups, lr=lr, betas=config.betas, eps=config.eps, fused=True)
