"""The only loop: batch → objective → backward → clip → step → average, for every model, objective and data set.

It yields a report of every step. What else happens between steps, such as pictures and evaluations, is done by who
reads the reports (``run.train_run``), and it must not know of it.
"""

import os
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import torch

from transfusion.batch import Batch
from transfusion.config import TrainConfig
from transfusion.data.loader import LoaderConfig, Source, Steps, load_steps
from transfusion.devices import PRECISIONS
from transfusion.objective import KeyedDraw, TransfusionObjective
from transfusion.train.broken import Broken
from transfusion.train.endings import keep
from transfusion.train.folder import trained_in
from transfusion.train.lock import RunLock
from transfusion.train.metrics import LOSS, SHARE, Metrics
from transfusion.train.optimizer import clip_gradient, lr_factor
from transfusion.train.state import TrainState


@dataclass(frozen=True)
class StepReport:
    """What a step did.

    Attributes:
        step: Steps done, from 1.
        losses: Mean of every loss over the step's terms; absent where the step had none.
        gradient_norm: Norm of the gradient before clipping.
        lr_factor: Learning rates over their peaks.
        num_slots: Slots that the step trained on, without padding.
        num_dropped: Documents of the step that were left out: too long for a row, or nothing to learn.
        fill: Share of the slots of the step's rows that documents take; the rest is padding.
        latents_per_row: Pictures and the like in a row, on average.
        seconds: Time of the step, waiting for its data included; what is saved, drawn or evaluated between two steps
            is of neither.
        checkpoint: Folder published after the step, if any.
        broken: Why documents of the step were left out that could not be told, by name.
        shares: Of the slots of all steps so far, those of each source, where the data are a mixture.
    """

    step: int
    losses: dict[str, float]
    gradient_norm: float
    lr_factor: float
    num_slots: int
    num_dropped: int
    fill: float
    latents_per_row: float
    seconds: float
    checkpoint: Path | None = None
    broken: Mapping[str, str] = field(default_factory=dict[str, str])
    shares: Mapping[str, float] = field(default_factory=dict[str, float])

    def numbers(self) -> dict[str, float]:
        """Return the row of metrics."""
        return {
            **{f"{LOSS}{name}": value for name, value in self.losses.items()},
            "gradient_norm": self.gradient_norm,
            "lr_factor": self.lr_factor,
            "slots_per_second": self.num_slots / self.seconds,
            "row_fill": self.fill,
            "latents_per_row": self.latents_per_row,
            **({"documents_dropped": self.num_dropped} if self.num_dropped else {}),
            **({"documents_broken": len(self.broken)} if self.broken else {}),
            **{f"{SHARE}{name}": share for name, share in self.shares.items()},
        }


def train(
    state: TrainState,
    source: Source,
    run: Path,
    stop: threading.Event,
    *,
    lock: RunLock | None = None,
    metrics: Metrics | None = None,
) -> Generator[StepReport]:
    """Train from the state's step to the end of the run, or until asked to stop.

    Whatever ends it before, closing the generator included, the last finished step is saved, and a note on the error
    says where; only where an update of the weights was under way the last checkpoint stands. A KeyboardInterrupt when
    ``stop`` is set already saves nothing: it is for who cannot wait.

    Args:
        state: Is changed by every step.
        source: The documents.
        run: Folder of the run: checkpoints and metrics go there.
        stop: When set, the step under way is finished and saved before the loop ends.
        lock: The lock of ``run``, where the caller holds it; else it is held while this runs.
        metrics: The run's files of numbers, where the caller writes there, too; else they are open while this runs.

    Yields:
        A report after every step. An error that is thrown into the generator there ends the training as one of its own.

    Raises:
        FloatingPointError: The gradient or the weights are not finite; the last checkpoint is whole.
        DataError: Too many documents are too long, or broken.
        BusyError: Another training is at work in ``run``, or was since the state was opened.
        ValueError: An error left the state in the middle of an update; the run must be opened again.
    """
    with trained_in(state, run, lock=lock, metrics=metrics) as written:
        try:
            yield from _steps(state, source, run, stop, written)
        except BaseException as error:
            _keep(state, run, error, stop)
            raise


def _steps(
    state: TrainState, source: Source, run: Path, stop: threading.Event, metrics: Metrics
) -> Generator[StepReport]:
    """Take the steps; the only place that does."""
    config = state.config.train
    objective = TransfusionObjective(state.config.diffusion, state.config.objective, state.model.vocabulary)
    if config.use_compile:
        state.model.compile()
    begun, broken = time.perf_counter(), Broken(run, config.max_dropped)
    with closing(_batches(state, source)) as prepared:
        for batches in prepared:
            broken.add(batches[0].broken, _num_documents(batches, config))
            state.model.train()
            factor = lr_factor(config.optimizer, state.step, config.steps)
            losses = _accumulate(state.model, objective, batches, config.precision)
            norm = float(clip_gradient(state.model, config.optimizer.clip))
            if not (norm < float("inf")):
                raise state.not_finite("the gradient is", run, facts=f" (losses {losses})")
            state.update(factor)
            seconds = time.perf_counter() - begun
            state.train_seconds += seconds
            is_last = state.step == config.steps or stop.is_set()
            checkpoint = None
            report = StepReport(state.step, losses, norm, factor, *_sizes(batches), seconds, broken=batches[0].broken)
            report = replace(report, shares=state.count_slots(batches[0].slots))
            state.planned = batches[0].planned
            if is_last or state.step % config.log_every == 0:
                metrics.write(state.step, report.numbers())
            if is_last or state.step % config.checkpoint_every == 0:
                checkpoint = state.save(run)
            yield replace(report, checkpoint=checkpoint)
            if stop.is_set():
                if checkpoint is None:
                    state.save(run)
                return
            begun = time.perf_counter()


def _batches(state: TrainState, source: Source) -> Generator[list[Batch]]:
    """Yield the micro-batches of the steps that are left, on the model's device."""
    config = state.config.train
    device = next(state.model.parameters()).device
    draw = KeyedDraw(state.config.diffusion, config.seed)
    steps = Steps(source, loading(config), state.model.vocabulary, draw, planned=state.planned)
    default = 0 if state.encodes_pictures else default_workers(device)
    num_workers = default if config.num_workers is None else config.num_workers
    with closing(load_steps(steps, state.step, config.steps, num_workers)) as loaded:
        for batches in loaded:
            yield [batch.to(device) for batch in batches]


def loading(config: TrainConfig) -> LoaderConfig:
    """Return what of the settings decides which documents a step takes, and how they are packed."""
    return LoaderConfig(
        config.batch_size, config.accumulation, config.row_length, config.seed, config.too_long, config.batch_unit
    )


def _keep(state: TrainState, run: Path, error: BaseException, stop: threading.Event) -> None:
    """Save the last finished step where training ends before it should, and note on the error what is saved."""
    state.model.zero_grad(set_to_none=True)
    keep(state, run, error, stop)


def _num_documents(batches: Sequence[Batch], config: TrainConfig) -> int:
    """Return how many documents a step was to tell, those included that could not be."""
    if config.batch_unit == "documents":
        return config.batch_size
    first = batches[0]
    return sum(batch.num_documents for batch in batches) + first.num_dropped + len(first.broken)


class _Sizes(NamedTuple):
    """Of a step: see ``StepReport``."""

    num_slots: int
    num_dropped: int
    fill: float
    latents_per_row: float


def _sizes(batches: Sequence[Batch]) -> _Sizes:
    tokens = [batch.columns.tokens for batch in batches]
    num_slots = sum(batch.num_slots for batch in batches)
    return _Sizes(
        num_slots,
        batches[0].num_dropped,
        num_slots / sum(rows.numel() for rows in tokens),
        sum(batch.num_latents for batch in batches) / sum(map(len, tokens)),
    )


def default_workers(device: torch.device) -> int:
    """Return how many processes prepare batches: none where the model computes on all of one or two cores, which wait
    for each other at every product when a third process takes its turns.
    """
    return 0 if device.type == "cpu" and (os.cpu_count() or 1) <= 2 else 1


def _accumulate(
    model: torch.nn.Module, objective: TransfusionObjective, batches: Sequence[Batch], precision: str
) -> dict[str, float]:
    """Differentiate the loss of a step, micro-batch by micro-batch, divided once by the counts of all of them."""
    all_counts = [objective.counts(batch) for batch in batches]
    counts = {name: sum(part[name] for part in all_counts) for name in all_counts[0]}
    sums = dict.fromkeys(counts, 0.0)
    dtype = PRECISIONS[precision]
    for batch in batches:
        device = batch.columns.tokens.device.type
        with torch.autocast(device, dtype, enabled=dtype is not torch.float32):
            losses = objective(model, batch)
        total = objective.total(losses, counts)
        if total.requires_grad:  # not where all that a batch reaches is frozen
            total.backward()
        for name, loss in losses.items():
            sums[name] += float(loss.sum.detach())
    return {name: sums[name] / counts[name] for name in counts if counts[name]}
