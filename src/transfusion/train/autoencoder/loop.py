"""The loop of an autoencoder's training: pictures → reconstructions → losses of both networks → both step → average.

It yields a report of every step, as the loop of the other runs does, and must not know what happens between steps.
"""

import threading
import time
from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from transfusion.autoencoder.architecture import Draw, Passed, VQNetwork
from transfusion.autoencoder.losses import balance, hinge_loss, judged_loss, l1_loss, total_loss
from transfusion.autoencoder.measures import perplexity, share_in_use
from transfusion.devices import PRECISIONS
from transfusion.train.autoencoder.judges import Judges
from transfusion.train.autoencoder.pictures import Batches, Pictures
from transfusion.train.autoencoder.state import AutoencoderState
from transfusion.train.endings import keep
from transfusion.train.folder import trained_in
from transfusion.train.lock import RunLock
from transfusion.train.metrics import LOSS, Metrics
from transfusion.train.optimizer import clip_gradient, lr_factor


@dataclass(frozen=True)
class AutoencoderReport:
    """What a step did.

    Attributes:
        step: Steps done, from 1.
        losses: By name, without their weights; ``gan`` and ``discriminator`` from the step on that has them.
        numbers: What else is known of the step.
        num_pictures: Pictures of the step.
        seconds: Time of the step, data included.
        checkpoint: Folder published after the step, if any.
    """

    step: int
    losses: dict[str, float]
    numbers: dict[str, float]
    num_pictures: int
    seconds: float
    checkpoint: Path | None = None

    def row(self) -> dict[str, float]:
        """Return the row of metrics."""
        named = {f"{LOSS}{name}": value for name, value in self.losses.items()}
        return {**named, **self.numbers, "pictures_per_second": self.num_pictures / self.seconds}


def train(
    state: AutoencoderState,
    pictures: Pictures,
    judges: Judges,
    run: Path,
    stop: threading.Event,
    *,
    lock: RunLock | None = None,
    metrics: Metrics | None = None,
) -> Generator[AutoencoderReport]:
    """Train from the state's step to the end of the run, or until asked to stop; ends as ``train.loop.train`` does.

    Args:
        state: Is changed by every step.
        pictures: What is trained on.
        judges: Networks of the losses.
        run: Folder of the run: checkpoints and metrics go there.
        stop: When set, the step under way is finished and saved before the loop ends.
        lock: The lock of ``run``, where the caller holds it; else it is held while this runs.
        metrics: The run's files of numbers, where the caller writes there, too; else they are open while this runs.

    Yields:
        A report after every step.

    Raises:
        FloatingPointError: A gradient or the weights are not finite; the last checkpoint is whole.
        BusyError: Another training is at work in ``run``, or was since the state was opened.
        ValueError: An error left the state in the middle of an update; the run must be opened again.
    """
    with trained_in(state, run, lock=lock, metrics=metrics) as written:
        try:
            yield from _steps(state, pictures, judges, run, stop, metrics=written)
        except BaseException as error:
            for optimizer in state.optimizers:
                optimizer.zero_grad(set_to_none=True)
            keep(state, run, error, stop)
            raise


def _steps(
    state: AutoencoderState,
    pictures: Pictures,
    judges: Judges,
    run: Path,
    stop: threading.Event,
    *,
    metrics: Metrics,
) -> Generator[AutoencoderReport]:
    config = state.config.train
    batches = Batches(pictures, state.config)
    begun = time.perf_counter()
    while state.step < config.steps:
        batch = batches[state.step].to(state.device)
        factor = lr_factor(config.optimizer, state.step, config.steps)
        found = differentiate(state, judges, batch)
        if not all(norm < float("inf") for norm in found.norms.values()):
            raise state.not_finite("the gradient is", run, facts=f" (losses {found.losses})")
        num_revived = state.update(factor, found.passed)
        seconds = time.perf_counter() - begun
        state.train_seconds += seconds
        numbers = {**found.norms, "lr_factor": factor, **_code_numbers(found.passed, state, num_revived)}
        report = AutoencoderReport(state.step, found.losses, numbers, len(batch), seconds)
        is_last = state.step == config.steps or stop.is_set()
        checkpoint = None
        if is_last or state.step % config.log_every == 0:
            metrics.write(state.step, report.row())
        if is_last or state.step % config.checkpoint_every == 0:
            checkpoint = state.save(run)
        yield replace(report, checkpoint=checkpoint)
        if stop.is_set():
            if checkpoint is None:
                state.save(run)
            return
        begun = time.perf_counter()


class Differentiated(NamedTuple):
    """What a step's forward and backward found: losses without weights, norms of gradients, and what was made."""

    losses: dict[str, float]
    norms: dict[str, float]
    passed: Passed


def differentiate(state: AutoencoderState, judges: Judges, pictures: Tensor) -> Differentiated:
    """Fill the gradients of a step, clipped: the network's and, from its step on, the discriminator's."""
    config = state.config
    state.network.train()
    dtype, is_judged = PRECISIONS[config.train.precision], state.is_judged
    with torch.autocast(pictures.device.type, dtype, enabled=dtype is not torch.float32):
        passed = state.network(pictures, Draw(config.train.seed, state.step))
        losses = picture_losses(passed, pictures, judges)
        reconstruction = total_loss(losses, config.losses)
        total = reconstruction + total_loss(passed.losses, config.losses)
        if is_judged:
            assert state.discriminator is not None
            losses["gan"] = judged_loss(state.discriminator(passed.pictures))
            is_adaptive = config.losses.gan_balance == "adaptive"
            ratio = balance(reconstruction, losses["gan"], state.network.last_weight) if is_adaptive else 1.0
            total = total + config.losses.gan * ratio * losses["gan"]
    total.backward()
    norms = {"gradient_norm": float(clip_gradient(state.network, config.train.optimizer.clip))}
    losses |= passed.losses
    if is_judged:
        losses["discriminator"], norms["discriminator_gradient_norm"] = _judge(
            state, pictures, passed.pictures.detach()
        )
    return Differentiated({name: float(loss.detach()) for name, loss in losses.items()}, norms, passed)


def picture_losses(passed: Passed, pictures: Tensor, judges: Judges) -> dict[str, Tensor]:
    """Return the losses that compare reconstructions with pictures, by name."""
    losses = {"l1": l1_loss(passed.pictures, pictures)}
    if judges.perceptual is not None:
        losses[judges.perceptual.name] = judges.perceptual(passed.pictures, pictures)
    if judges.identity is not None:
        losses["identity"] = judges.identity(passed.pictures, pictures)
    return losses


class _Judged(NamedTuple):
    loss: Tensor
    norm: float


def _judge(state: AutoencoderState, pictures: Tensor, made: Tensor) -> _Judged:
    """Fill the discriminator's gradient: each picture of the step, and its reconstruction."""
    discriminator, train = state.discriminator, state.config.train
    assert discriminator is not None
    dtype = PRECISIONS[train.precision]
    discriminator.requires_grad_(True)
    with torch.autocast(pictures.device.type, dtype, enabled=dtype is not torch.float32):
        loss = hinge_loss(discriminator(pictures), discriminator(made))
    loss.backward()
    norm = float(clip_gradient(discriminator, train.optimizer.clip))
    discriminator.requires_grad_(False)
    return _Judged(loss.detach(), norm)


def _code_numbers(passed: Passed, state: AutoencoderState, num_revived: int) -> dict[str, float]:
    """Say how a step's codes were used."""
    if passed.codes is None or not isinstance(state.network, VQNetwork):
        return {}
    counts = torch.bincount(passed.codes, minlength=len(state.network.codebook))
    return {
        "codes_in_use": share_in_use(counts),
        "code_perplexity": perplexity(counts),
        "codes_revived": float(num_revived),
    }
