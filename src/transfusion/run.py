"""A run: opened, from settings and a folder to a state and a source that the loop can work on; and trained, with what
happens between its steps: held-out losses, the best checkpoint, samples and the report.
"""

import logging
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch

from transfusion.autoencoder.space import LatentSpace
from transfusion.config import ConfigError, RunConfig
from transfusion.data.errors import DataError, UnreadableFile
from transfusion.data.fit import FittedSource
from transfusion.data.forecast import planned, records_of_step, rows_line
from transfusion.data.latents_index import Psnr
from transfusion.data.layouts import lay_out
from transfusion.data.limit import Limit
from transfusion.data.loader import Source
from transfusion.data.mixture import MixtureSource
from transfusion.data.readers import save_quarantine
from transfusion.data.settings import FolderConfig, data_of
from transfusion.data.sources import OpenedData, prepared_latents
from transfusion.data.tasks import is_text_alone
from transfusion.devices import PRECISIONS, find_device
from transfusion.evaluate.losses import evaluate_losses, of_all, total_loss
from transfusion.files import sweep_unfinished, write_whole
from transfusion.objective import TransfusionObjective
from transfusion.pretrained import Transfusion
from transfusion.report import write_run_report
from transfusion.samples import RECONSTRUCTIONS, SAMPLES_FOLDER, SampleTimes, draw_reconstructions, draw_samples
from transfusion.train.best import forget_best, offer_best
from transfusion.train.between import distance, tried
from transfusion.train.changes import Said, as_said
from transfusion.train.checkpoint import sweep
from transfusion.train.folder import seen, take_folder
from transfusion.train.lock import RunLock, hold_run
from transfusion.train.loop import StepReport, loading, train
from transfusion.train.metrics import HELD_OUT, Metrics, read_metrics
from transfusion.train.opening import begin, resume
from transfusion.train.saved import check_no_model
from transfusion.train.sizes import check_latents
from transfusion.train.state import TrainState, way_out
from transfusion.written import check_free, forget_before

NUM_HELD_OUT = 128  # documents that held-out losses are taken on, at most
NUM_RECONSTRUCTED = 32  # pictures, about
GROWTH = 1.02  # of the steps from one report to the next: all of them together cost fifty of the last, however long
_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")


def open_run(
    config: RunConfig | Said[RunConfig],
    directory: Path,
    *,
    is_resumed: bool,
    device: str = "auto",
    lock: RunLock | None = None,
    goes_on_from: Path | None = None,
    is_change_wanted: bool = False,
    space: LatentSpace | None = None,
) -> tuple[TrainState, Source]:
    """Begin a run, or resume it from its newest whole checkpoint where there is one.

    Args:
        config: Settings; when resuming they must be those of the checkpoint. What the run took since then is taken
            again, unless ``changes.Said`` names it, or ``is_change_wanted``: then a tree is meant as it stands, and a
            rate that equals the checkpoint's goes back to it.
        directory: Folder of the run.
        is_resumed: Whether to look for a checkpoint.
        device: Where to train: see ``devices.find_device``.
        lock: The lock of the folder, where the caller holds it; else it is held while this runs.
        goes_on_from: A checkpoint, or another run, to go on from where the folder has no checkpoint yet; where it has,
            they must have gone on from there.
        is_change_wanted: Whether a resumed run may take other rates, steps and whatever leaves its state its meaning,
            and data that changed.
        space: A latent space of one's own, in which the run is to denoise (``autoencoder.kind=given``).

    Returns:
        The state, and the source of its documents.

    Raises:
        ConfigError: Settings or data differ from the checkpoint's, documents do not fit, or the device cannot do it.
        BusyError: Another training is at work in the folder.
    """
    where, wanted = find_device(device), as_said(config)
    config = wanted.config
    if config.objective.attention == "flex" and where.type != "cuda":
        raise ConfigError(f"objective.attention=flex needs a CUDA device, this is {device!r}; leave it at dense")
    check_no_model(directory)
    check_free(directory)
    _check_apart(config, directory)
    with ExitStack() as stack:
        if lock is None and directory.is_dir():
            stack.enter_context(hold_run(directory))
        sweep(directory)
        for folder in (directory, directory / SAMPLES_FOLDER):
            sweep_unfinished(folder)
        state = None
        if is_resumed:
            state = resume(
                wanted, directory, where, goes_on_from=goes_on_from, is_change_wanted=is_change_wanted, space=space
            )
        if state is None:
            state = begin(config, where, space=space)
            state.seen = seen(directory)
        _check_workers(state)
        if not is_text_alone(state.config.data, state.config.encode):
            check_latents(state.config, state.latents.shape(state.config.data.size))
        return state, _bound(state, directory, is_change_wanted=is_change_wanted)


def _bound(state: TrainState, run: Path, *, is_change_wanted: bool) -> Source:
    """Open the data of a run, and bind its state to them."""
    source = _read(state, run)
    held_out = _held_out_digest(state.open_data()) if evaluation_distance(state.config) else None
    state.check_data(source.digest(), held_out, found=source.found, run=run, is_change_wanted=is_change_wanted)
    return _fitted(state, source)


def _read(state: TrainState, run: Path) -> Source:
    """Open the data of a run.

    Raises:
        DataError: They cannot be used; of a run that goes on, which had data, that is said.
    """
    try:
        return state.open_data().reader.source(state.encoder, state.config.train.row_length - 1)
    except DataError as error:
        if state.data is None or isinstance(error, UnreadableFile):
            raise
        raise DataError(
            f"{error}. When the run began they could be used: they changed since, or this version reads them otherwise;"
            f" restore them, say where they lie now (transfusion train {run} data.path=DATA), or {way_out(run)}"
        ) from error


def _held_out_digest(data: OpenedData) -> str | None:
    """Name what held-out losses are taken on; None where nothing is held out, or none of it can be read."""
    try:
        return None if data.held_out is None else data.held_out.measured_digest(NUM_HELD_OUT)
    except DataError:
        return None  # the run goes on without held-out losses, and says so


def _check_apart(config: RunConfig, directory: Path) -> None:
    """Refuse a run within a folder of classes: its samples would be one more class, and the data change by training.

    So is one that is a folder of texts, of pairs or of a table itself, which as the folder of a run would not be looked
    into again; but a table at the top is found there.
    """
    for data in data_of(config.data):
        if isinstance(data, FolderConfig) and data.path.is_dir():
            _check_apart_from(data, directory)


def _check_apart_from(config: FolderConfig, directory: Path) -> None:
    data, run = config.path.resolve(), directory.resolve()
    if not run.is_relative_to(data):
        return
    try:
        laid = lay_out(config.path, config.layout)
    except DataError:
        return  # who reads the data says so, unless the run that goes on has settled it
    holding = {part.tree.path.resolve() for part in laid.parts} | {data}
    is_found = run == data and laid.layout in ("captions", "metadata")
    if laid.layout == "classes" or (run in holding and not is_found):
        raise ConfigError(f"the run's folder {directory} lies within the data {config.path}; name another (--run)")


def _check_workers(state: TrainState) -> None:
    """Refuse workers where pictures are encoded while training: the network is on the model's device, in one process.

    Raises:
        ConfigError: There are to be some.
    """
    if state.encodes_pictures and state.config.train.num_workers:
        raise ConfigError(
            f"train.num_workers={state.config.train.num_workers} cannot encode pictures by {state.latents.name}; leave "
            "it out, or encode them once (transfusion prepare latents)"
        )


def _fitted(state: TrainState, source: Source) -> Source:
    """Leave out what does not fit into a row, or say so: now and not hours later."""
    train = state.config.train
    limit = Limit(state.model.vocabulary, train.row_length, train.too_long)
    try:
        if isinstance(source, MixtureSource):
            fitted = planned(source.fitted(limit, train.max_dropped), loading(train), train.steps)
        else:
            fitted = FittedSource(source, limit, train.max_dropped)
        if told := rows_line(fitted, loading(train), state.model.vocabulary, train.steps):
            _log.info("%s", told)
        return fitted
    except DataError as error:
        raise ConfigError(str(error)) from error


@dataclass(frozen=True)
class RunReport:
    """What a step did, and what was done after it.

    Attributes:
        step: The loop's report.
        held_out: Held-out losses measured after the step; none where none were.
        is_best: Whether the step's checkpoint is the best by them.
        samples: File of pictures or texts drawn after the step, if any.
        report: The report, where it was written after the step.
    """

    step: StepReport
    held_out: Mapping[str, float] = field(default_factory=dict)
    is_best: bool = False
    samples: Path | None = None
    report: Path | None = None


def train_run(
    state: TrainState, source: Source, run: Path, stop: threading.Event, *, lock: RunLock | None = None
) -> Generator[RunReport]:
    """Train as ``train.loop.train`` does, and between steps evaluate, keep the best checkpoint, draw and report.

    What is done between steps moves no bit of the training and counts as none of its time. Where it fails, that is
    said and training goes on; but memory that is used up is the run's affair: the next step would end less gently.
    Once ``stop`` is set, nothing but the report is made.

    Args:
        state: Is changed by every step.
        source: The documents.
        run: Folder of the run.
        stop: When set, the step under way is finished and saved before training ends.
        lock: The lock of ``run``, where the caller holds it; else it is held while this runs.

    Yields:
        A report after every step.

    Raises:
        FloatingPointError: As ``train``, and so for the others.
        BusyError: Another training is at work in ``run``, or was since the state was opened.
        ValueError: An error left the state in the middle of an update; the run must be opened again.
    """
    with ExitStack() as stack:
        lock = stack.enter_context(hold_run(run)) if lock is None else lock
        check_free(run)
        if take_folder(state, run):
            forget_before(run)
        if state.forgets_best:
            forget_best(run, beyond=-1)
        if source.quarantine:
            save_quarantine(source.quarantine, run)
        metrics = stack.enter_context(Metrics(run, state.step))
        between = _Between(state, source, run, metrics, stop)
        if state.step == 0 and state.latents.is_network:
            between.show_reconstructions()
        reports = stack.enter_context(closing(train(state, source, run, stop, lock=lock, metrics=metrics)))
        between.catch_up()
        state.forgets_best = False
        for report in reports:
            try:
                yield between.after(report)
            except BaseException as error:
                reports.throw(error)  # it saves the step, says so on the error and raises it again
        between.end()


def _show_reconstructions(state: TrainState, run: Path) -> None:
    """Say, before the first step, what the autoencoder itself loses: nothing that is drawn will be better."""
    reader = state.open_data().reader
    if (latents := prepared_latents(reader)) is not None:
        psnr, sheet = latents.latents.psnr, latents.sheet()
        file = None if sheet is None else write_whole(run / SAMPLES_FOLDER / RECONSTRUCTIONS, sheet)
    elif (pictures := reader.sample_pictures()) is not None:
        chosen = list(pictures[:: max(1, len(pictures) // NUM_RECONSTRUCTED)])
        found, file = draw_reconstructions(state.latents, chosen, run)
        psnr = Psnr.of(found)
    else:
        return
    if psnr is not None:
        told = "" if file is None else f"; {file} shows some beside their reconstructions"
        _log.info("%s: PSNR of %s%s", state.latents.name, psnr, told)


class _Between:
    """What happens between the steps of a run."""

    def __init__(self, state: TrainState, source: Source, run: Path, metrics: Metrics, stop: threading.Event) -> None:
        self._state, self._source, self._run, self._metrics, self._stop = state, source, run, metrics, stop
        of_step = records_of_step(source, loading(state.config.train), state.model.vocabulary)
        self._every = evaluation_distance(state.config, of_step)
        self._held_out = self._tried("held-out data", self._opened) if self._every else None
        self._reported_step: int | None = None
        self._times = SampleTimes(state.config.train, run, step=state.step, train_seconds=state.train_seconds)

    def show_reconstructions(self) -> None:
        """Say what the autoencoder itself loses."""
        self._tried("reconstructions", lambda: _show_reconstructions(self._state, self._run))

    def catch_up(self) -> None:
        """Take the held-out losses that the checkpoint lacks from which training goes on: it was saved at a stop."""
        state = self._state
        is_saved = state.is_whole and state.step > 0 and state.saved_step == state.step
        if self._held_out is None or not is_saved:
            return
        known = [row for row in read_metrics(self._run) if row["step"] == state.step and held_out_of(row)]
        is_known = bool(known) and not state.forgets_best  # else they are of other documents
        losses = held_out_of(known[-1]) if is_known else self._tried("held-out losses", self._evaluate) or {}
        self._offer(losses)

    def after(self, report: StepReport) -> RunReport:
        """Do what is due after a step."""
        is_last = report.step == self._state.config.train.steps
        losses: Mapping[str, float] = {}
        samples, is_best = None, False
        if is_last or not self._stop.is_set():
            if self._held_out is not None and (report.checkpoint or report.step % self._every == 0):
                losses = self._tried("held-out losses", self._evaluate) or {}
            is_best = report.checkpoint is not None and self._offer(losses)
            is_stopped = self._stop.is_set() and not is_last  # it may have been set meanwhile
            if not is_stopped and self._times.is_now(report.step, self._state.train_seconds):
                samples = self._tried("samples", self._draw)
        is_reported = bool(report.checkpoint or samples) and self._is_reported(is_last)
        written = self._tried("report", self._report) if is_reported else None
        return RunReport(report, losses, is_best, samples, written)

    def end(self) -> None:
        """Write the report of a run that was stopped, or was finished before; of the last step it is there."""
        if self._reported_step != self._state.step:
            self._tried("report", self._report)

    def _is_reported(self, is_last: bool) -> bool:
        """Return whether the run grew enough for another report: each reads what all steps left."""
        return is_last or self._state.step >= GROWTH * (self._reported_step or 0)

    def _report(self) -> Path:
        self._reported_step = self._state.step
        return write_run_report(self._run, self._state.config)

    def _draw(self) -> Path | None:
        state = self._state
        with self._times.drawing():
            model = Transfusion(state.best_model, state.tokenizer, state.config, space=state.latents)
            return draw_samples(model, self._source, self._run, state.step)

    def _evaluate(self) -> dict[str, float]:
        """Measure the averaged weights, in the run's precision, and write the losses down."""
        state, model = self._state, self._state.best_model
        assert self._held_out is not None
        settings = state.config.train
        objective = TransfusionObjective(state.config.diffusion, state.config.objective, model.vocabulary)
        limit = Limit(model.vocabulary, settings.row_length, settings.too_long)
        dtype = PRECISIONS[settings.precision]
        with torch.autocast(model.device.type, dtype, enabled=dtype is not torch.float32):
            losses = evaluate_losses(
                model, objective, self._held_out, num_documents=NUM_HELD_OUT, seed=settings.seed, limit=limit
            )
        self._metrics.write(state.step, {f"{HELD_OUT}{name}": value for name, value in losses.items()})
        return of_all(losses)

    def _opened(self) -> Source | None:
        """Open the documents that the run holds out; None where it holds out none."""
        state = self._state
        reader = state.open_data().held_out
        length = state.config.train.row_length - 1
        return None if reader is None else reader.source(state.encoder, length, at_most=NUM_HELD_OUT)

    def _offer(self, losses: Mapping[str, float]) -> bool:
        """Let the present checkpoint be the best if it is."""
        total = partial(total_loss, config=self._state.config.objective)
        offer = partial(offer_best, self._run, self._state.step, losses, total)
        return bool(losses) and self._tried("note on the best checkpoint", offer) is True

    def _tried(self, what: str, work: Callable[[], _Result]) -> _Result | None:
        """Do something that is not worth a run; where it fails, say so and go on."""
        return tried(what, work, self._state.step)


def evaluation_distance(config: RunConfig, of_step: float | None = None) -> int:
    """Return the steps between held-out losses; 0: there are none.

    Args:
        config: The run's settings.
        of_step: Records of a step; None: as many as the batch size says.
    """
    return distance(config.train, NUM_HELD_OUT, of_step or config.train.batch_size)


def held_out_of(row: Mapping[str, float]) -> dict[str, float]:
    """Return the held-out losses of a row of metrics, by their names; of a mixture, those of all sources together."""
    return of_all({name.removeprefix(HELD_OUT): value for name, value in row.items() if name.startswith(HELD_OUT)})
