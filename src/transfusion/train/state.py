"""The state of a run: what a checkpoint holds, how it begins and how it is resumed to the same bits.

Data order, times and noise are functions of (seed, step), so the state is weights, averages, optimizer moments and
the step. It must not know the loop.
"""

import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.optim import Optimizer

from transfusion.autoencoder.pixels import PixelConfig, measure_pixels
from transfusion.config import CONFIG_FILE, ConfigError, RunConfig, from_json, with_free_settings
from transfusion.data.sources import corpus_of, sample_pictures
from transfusion.model.transfusion import TransfusionModel
from transfusion.pretrained import write_pretrained
from transfusion.tokenizer import Tokenizer, build_tokenizer, load_tokenizer
from transfusion.train.checkpoint import (
    EMA_FILE,
    MODEL_FILE,
    CheckpointError,
    checkpoints,
    load_tensors,
    load_weights,
    newest,
    prune,
    publish,
    save_tensors,
    step_directory,
)
from transfusion.train.ema import Ema
from transfusion.train.optimizer import build_optimizers, load_optimizer_tensors, optimizer_tensors

OPTIMIZER_FILE = "optimizer.safetensors"
STATE_FILE = "state.json"
MEASURED_ROUNDS = 12
_log = logging.getLogger(__name__)


@dataclass
class TrainState:
    """Everything that a step changes, with the settings and the tokenizer."""

    config: RunConfig
    tokenizer: Tokenizer
    model: TransfusionModel
    ema: Ema | None
    optimizers: list[Optimizer]
    step: int = 0
    train_seconds: float = 0.0
    data: str | None = None

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

    def save(self, run: Path) -> Path:
        """Publish a checkpoint of the present step and delete old ones."""

        def write(folder: Path) -> None:
            write_pretrained(folder, self.model, self.tokenizer, self.config)
            if self.ema is not None:
                save_tensors(self.ema.model.state_dict(), folder / EMA_FILE)
            save_tensors(optimizer_tensors(self.optimizers), folder / OPTIMIZER_FILE)
            state = {"step": self.step, "data": self.data, "train_seconds": self.train_seconds}
            (folder / STATE_FILE).write_text(json.dumps(state, indent=1))

        published = publish(step_directory(run, self.step), write)
        prune(published, self.config.train.num_checkpoints)
        return published


def begin(config: RunConfig, device: torch.device) -> TrainState:
    """Begin a run: settle what the config leaves open, make the tokenizer, the weights and the optimizers."""
    tokenizer = build_tokenizer(config.tokenizer, corpus_of(config.data, config.train.seed))
    resolved = _resolved(config, tokenizer, _precision(config, device), _pixels(config))
    model = TransfusionModel(resolved.model)
    model.initialise_weights(resolved.train.seed)
    return _assembled(resolved, tokenizer, model.to(device))


def resume(config: RunConfig, run: Path, device: torch.device) -> TrainState | None:
    """Return the state of a run's newest whole checkpoint, or None where there is none.

    Raises:
        ConfigError: The settings are not those of the checkpoint, but for those that move no bit.
        CheckpointError: There are checkpoints, and all are damaged.
    """
    folder = newest(run)
    if folder is None and checkpoints(run):
        raise CheckpointError(f"no checkpoint of {run} is whole (see above); restore one, or begin anew with --anew")
    if folder is None:
        return None
    tokenizer = load_tokenizer(folder)
    saved = with_free_settings(from_json((folder / CONFIG_FILE).read_text(), str(folder / CONFIG_FILE)), config)
    is_open = config.train.precision == "auto"
    precision = saved.train.precision if is_open else config.train.precision
    resolved = _resolved(config, tokenizer, precision, config.encode.pixels or saved.encode.pixels)
    if resolved != saved:
        raise ConfigError(
            f"{folder} was made with other settings: {_difference(resolved, saved)}; go on with its own "
            f"(transfusion train {run}), begin anew in another folder (--run), or here (--anew)"
        )
    facts = json.loads((folder / STATE_FILE).read_text())
    model = TransfusionModel(saved.model)
    load_weights(model, folder / MODEL_FILE)
    state = _assembled(saved, tokenizer, model.to(device))
    if state.ema is not None:
        load_weights(state.ema.model, folder / EMA_FILE)
    load_optimizer_tensors(state.optimizers, load_tensors(folder / OPTIMIZER_FILE))
    state.step, state.train_seconds, state.data = facts["step"], facts["train_seconds"], facts["data"]
    _log.info("resumed %s at step %d", folder, state.step)
    return state


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


def _precision(config: RunConfig, device: torch.device) -> str:
    """Decide what ``auto`` leaves open."""
    if config.train.precision != "auto":
        return config.train.precision
    return "bf16" if multiplies_bf16(device) else "fp32"


def multiplies_bf16(device: torch.device) -> bool:
    """Return whether bfloat16 pays on a device: a CPU that knows it may still multiply it at half the speed of float32,
    so there it is measured, in some hundredths of a second.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    is_known = device.type == "cpu" and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    if not is_known:
        return False
    bf16, fp32 = (torch.ones(1024, 1024, dtype=dtype) for dtype in (torch.bfloat16, torch.float32))
    rounds = [(_product_seconds(bf16), _product_seconds(fp32)) for _ in range(MEASURED_ROUNDS)]
    return min(one for one, _ in rounds) < min(other for _, other in rounds)


def _product_seconds(matrix: torch.Tensor) -> float:
    """Time one product; the callers take the least of many in turns, for a machine may be busy."""
    begun = time.perf_counter()
    _ = matrix @ matrix
    return time.perf_counter() - begun


def _difference(one: RunConfig, other: RunConfig) -> str:
    left, right = (json.loads(config.to_json()) for config in (one, other))
    return "; ".join(_differences(left, right, "")) or "none"


def _differences(left: object, right: object, path: str) -> list[str]:
    if isinstance(left, dict) and isinstance(right, dict) and left.keys() == right.keys():
        return [line for name in left for line in _differences(left[name], right[name], f"{path}.{name}".lstrip("."))]
    return [] if left == right else [f"{path} is {left!r}, was {right!r}"]
