"""The only loop: batch → objective → backward → clip → step → average, for every model, objective and data set."""

import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from transfusion.batch import Batch
from transfusion.data.loader import LoaderConfig, Source, Steps, load_steps
from transfusion.objective import KeyedDraw, TransfusionObjective
from transfusion.pictures import sheet
from transfusion.pretrained import PRECISIONS, Transfusion
from transfusion.train.metrics import Metrics
from transfusion.train.optimizer import clip_gradient, lr_factor, set_lr
from transfusion.train.state import TrainState

SAMPLES_FOLDER = "samples"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepReport:
    """What a step did.

    Attributes:
        step: Steps done, from 1.
        losses: Mean of every loss over the step's terms; absent where the step had none.
        gradient_norm: Norm of the gradient before clipping.
        lr_factor: Learning rates over their peaks.
        num_slots: Slots that the step trained on, without padding.
        num_dropped: Documents of the step that were too long for a row and left out.
        seconds: Time from the end of the last step to the end of this one: waiting for data
            included, and what was saved and drawn after the last step.
        checkpoint: Folder published after the step, if any.
        preview: Sheet of sample pictures saved after the step, if any.
    """

    step: int
    losses: dict[str, float]
    gradient_norm: float
    lr_factor: float
    num_slots: int
    num_dropped: int
    seconds: float
    checkpoint: Path | None = None
    preview: Path | None = None

    def numbers(self) -> dict[str, float]:
        """Return the row of metrics."""
        return {
            **{f"loss/{name}": value for name, value in self.losses.items()},
            "gradient_norm": self.gradient_norm,
            "lr_factor": self.lr_factor,
            "slots_per_second": self.num_slots / self.seconds,
            **({"documents_dropped": self.num_dropped} if self.num_dropped else {}),
        }


def train(state: TrainState, source: Source, run: Path, stop: threading.Event) -> Iterator[StepReport]:
    """Train from the state's step to the end of the run, or until asked to stop.

    Args:
        state: Is changed by every step.
        source: The documents.
        run: Folder of the run: checkpoints, metrics and samples go there.
        stop: When set, the step under way is finished and saved before the loop ends.

    Yields:
        A report after every step.

    Raises:
        FloatingPointError: A loss is not finite; the last checkpoint is whole.
    """
    config = state.config.train
    device = next(state.model.parameters()).device
    objective = TransfusionObjective(state.config.diffusion, state.config.objective, state.model.vocabulary)
    if config.use_compile:
        state.model.compile()
    loading = LoaderConfig(config.batch_size, config.accumulation, config.row_length, config.seed, config.too_long)
    draw = KeyedDraw(state.config.diffusion, config.seed)
    steps = Steps(source, loading, state.model.vocabulary, draw)
    num_workers = default_workers(device) if config.num_workers is None else config.num_workers
    begun = time.perf_counter()
    with Metrics(run, state.step) as metrics:
        for batches in load_steps(steps, state.step, config.steps, num_workers):
            state.model.train()
            factor = lr_factor(config.optimizer, state.step, config.steps)
            losses = _accumulate(state.model, objective, [batch.to(device) for batch in batches], config.precision)
            norm = float(clip_gradient(state.model, config.optimizer.clip))
            if not (norm < float("inf")):
                raise FloatingPointError(
                    f"the gradient is not finite at step {state.step} (losses {losses}); lower train.optimizer.lr "
                    f"or use train.precision=fp32; a checkpoint in {run}, if there is one, is whole"
                )
            set_lr(state.optimizers, factor)
            for optimizer in state.optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            if state.ema is not None:
                state.ema.update(state.model, state.step)
            state.step += 1
            seconds = time.perf_counter() - begun
            begun += seconds
            state.train_seconds += seconds
            is_last = state.step == config.steps or stop.is_set()
            checkpoint = preview = None
            if is_last or state.step % config.checkpoint_every == 0:
                checkpoint = state.save(run)
            if config.preview_every and (state.step % config.preview_every == 0 or state.step == config.steps):
                preview = draw_previews(state, source, run)
            num_slots, num_dropped = (sum(counts) for counts in zip(*map(_sizes, batches), strict=True))
            report = StepReport(state.step, losses, norm, factor, num_slots, num_dropped, seconds, checkpoint, preview)
            if is_last or state.step % config.log_every == 0:
                metrics.write(state.step, report.numbers())
            yield report
            if stop.is_set():
                if checkpoint is None:
                    state.save(run)
                return


def _sizes(batch: Batch) -> tuple[int, int]:
    return batch.num_slots, batch.num_dropped


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
        objective.total(losses, counts).backward()
        for name, loss in losses.items():
            sums[name] += float(loss.sum.detach())
    return {name: sums[name] / counts[name] for name in counts if counts[name]}


def draw_previews(state: TrainState, source: Source, run: Path) -> Path | None:
    """Draw the source's preview prompts with the averaged weights and save them as one sheet."""
    prompts = source.preview_prompts()
    if not prompts:
        return None
    pictures = Transfusion(state.best_model, state.tokenizer, state.config).generate_images(prompts, seed=0)
    file = run / SAMPLES_FOLDER / f"step_{state.step:08d}.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    sheet(pictures, num_columns=len(pictures)).save(file)
    return file
