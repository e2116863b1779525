"""The training of an autoencoder: opened from settings and a folder, and trained, with what happens between its steps:
measures on pictures held out, and sheets of pictures with their reconstructions.
"""

import logging
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from transfusion.autoencoder.architecture import VQNetwork
from transfusion.autoencoder.measures import kernel_distance, perplexity, psnr, share_in_use, ssim
from transfusion.autoencoder.reconstruction import mean_psnr
from transfusion.config import ConfigError
from transfusion.data.readers import save_quarantine
from transfusion.data.settings import FolderConfig
from transfusion.devices import PRECISIONS, find_device
from transfusion.files import write_whole
from transfusion.pictures import encoded, sheet
from transfusion.samples import SAMPLES_FOLDER, SampleTimes
from transfusion.train.autoencoder.judges import Judges, load_judges
from transfusion.train.autoencoder.loop import AutoencoderReport, picture_losses, train
from transfusion.train.autoencoder.pictures import Pictures, as_pictures, as_values, open_pictures
from transfusion.train.autoencoder.settings import AutoencoderRun
from transfusion.train.autoencoder.state import AutoencoderState, begin, resume
from transfusion.train.between import distance, tried
from transfusion.train.changes import Said, as_said
from transfusion.train.checkpoint import sweep
from transfusion.train.folder import seen, take_folder
from transfusion.train.lock import RunLock, hold_run
from transfusion.train.metrics import HELD_OUT, Metrics
from transfusion.train.saved import check_no_model
from transfusion.written import check_free, forget_before

NUM_HELD_OUT = 128  # pictures that measures are taken on, at most
NUM_AT_ONCE = 8
NUM_SHOWN = 8  # on a sheet, above their reconstructions
_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")


class OpenedAutoencoder(NamedTuple):
    """What a training needs: its state, the pictures, those held out, if any, and the networks that judge."""

    state: AutoencoderState
    pictures: Pictures
    held_out: Pictures | None
    judges: Judges


def open_autoencoder(
    config: AutoencoderRun | Said[AutoencoderRun],
    directory: Path,
    *,
    is_resumed: bool,
    device: str = "auto",
    lock: RunLock | None = None,
    goes_on_from: Path | None = None,
    is_change_wanted: bool = False,
) -> OpenedAutoencoder:
    """Begin the training of an autoencoder, or resume it from its newest whole checkpoint where there is one.

    Args:
        config: Settings, as for ``run.open_run``.
        directory: Folder of the run.
        is_resumed: Whether to look for a checkpoint.
        device: Where to train: see ``devices.find_device``.
        lock: The lock of the folder, where the caller holds it; else it is held while this runs.
        goes_on_from: A checkpoint, or another run, to go on from where the folder has no checkpoint yet; where it has,
            they must have gone on from there.
        is_change_wanted: Whether a resumed run may take other rates, steps and whatever leaves its state its meaning.

    Raises:
        ConfigError: Settings, pictures or backbones differ from the checkpoint's, or the device cannot do it.
        BusyError: Another training is at work in the folder.
        DataError: There are no pictures.
    """
    where, wanted = find_device(device), as_said(config)
    config = wanted.config
    check_no_model(directory)
    check_free(directory)
    _check_apart(config, directory)
    with ExitStack() as stack:
        if lock is None and directory.is_dir():
            stack.enter_context(hold_run(directory))
        sweep(directory)
        state = None
        if is_resumed:
            state = resume(wanted, directory, where, goes_on_from=goes_on_from, is_change_wanted=is_change_wanted)
        opened = open_pictures(config.data if state is None else state.config.data, config.train.seed)
        if state is None:
            state = begin(config.model_copy(update={"data": opened.config}), where)
            state.seen = seen(directory)
        state.check_data(opened.training.digest())
        return OpenedAutoencoder(state, opened.training, opened.held_out, load_judges(state.config.backbones, where))


def _check_apart(config: AutoencoderRun, directory: Path) -> None:
    """Refuse a run within its own pictures: its sheets would be some more."""
    if isinstance(config.data, FolderConfig) and directory.resolve().is_relative_to(config.data.path.resolve()):
        raise ConfigError(f"the run's folder {directory} lies within the data {config.data.path}; name another (--run)")


@dataclass(frozen=True)
class AutoencoderRunReport:
    """What a step did, and what was done after it.

    Attributes:
        step: The loop's report.
        held_out: Measures on pictures held out, by name; none where none were taken.
        samples: Sheet of reconstructions drawn after the step, if any.
    """

    step: AutoencoderReport
    held_out: Mapping[str, float] = field(default_factory=dict[str, float])
    samples: Path | None = None


def train_autoencoder(
    opened: OpenedAutoencoder, run: Path, stop: threading.Event, *, lock: RunLock | None = None
) -> Generator[AutoencoderRunReport]:
    """Train as ``train.autoencoder.loop.train`` does, and between steps measure and show reconstructions.

    What is done between steps moves no bit of the training and counts as none of its time. Where it fails, that is
    said and training goes on. Once ``stop`` is set, nothing more is made.

    Args:
        opened: Its state is changed by every step.
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
    state = opened.state
    with ExitStack() as stack:
        lock = stack.enter_context(hold_run(run)) if lock is None else lock
        check_free(run)
        if take_folder(state, run):
            forget_before(run)
        if opened.pictures.quarantine:
            save_quarantine(opened.pictures.quarantine, run)
        metrics = stack.enter_context(Metrics(run, state.step))
        between = _Between(opened, run, metrics, stop)
        steps = train(state, opened.pictures, opened.judges, run, stop, lock=lock, metrics=metrics)
        reports = stack.enter_context(closing(steps))
        for report in reports:
            try:
                yield between.after(report)
            except BaseException as error:
                reports.throw(error)  # it saves the step, says so on the error and raises it again


class _Between:
    """What happens between the steps."""

    def __init__(self, opened: OpenedAutoencoder, run: Path, metrics: Metrics, stop: threading.Event) -> None:
        self._opened, self._run, self._metrics, self._stop = opened, run, metrics, stop
        self._every = evaluation_distance(opened.state.config) if opened.held_out is not None else 0
        state = opened.state
        self._times = SampleTimes(state.config.train, run, step=state.step, train_seconds=state.train_seconds)

    def after(self, report: AutoencoderReport) -> AutoencoderRunReport:
        """Do what is due after a step."""
        state = self._opened.state
        is_last = report.step == state.config.train.steps
        measures: Mapping[str, float] = {}
        samples = None
        if is_last or not self._stop.is_set():
            if self._every and (report.checkpoint or report.step % self._every == 0):
                measures = self._tried("measures on pictures held out", self._measure) or {}
            is_stopped = self._stop.is_set() and not is_last  # it may have been set meanwhile
            if not is_stopped and self._times.is_now(report.step, state.train_seconds):
                samples = self._tried("sheet", self._draw)
        return AutoencoderRunReport(report, measures, samples)

    def _measure(self) -> dict[str, float]:
        assert self._opened.held_out is not None
        measures = measure(self._opened.state, self._opened.held_out, self._opened.judges)
        self._metrics.write(self._opened.state.step, {f"{HELD_OUT}{name}": value for name, value in measures.items()})
        return measures

    def _draw(self) -> Path:
        with self._times.drawing():
            return self._drawn()

    def _drawn(self) -> Path:
        state = self._opened.state
        pictures = self._opened.held_out or self._opened.pictures
        shown = torch.cat(list(_batches(pictures, NUM_SHOWN))).to(state.device)
        with _evaluating(state):
            made = state.best_network(shown).pictures
        images = [Image.fromarray(picture) for values in (shown, made) for picture in as_pictures(values)]
        file = self._run / SAMPLES_FOLDER / f"step_{state.step:08d}.png"
        return write_whole(file, encoded(sheet(images, num_columns=len(shown))))

    def _tried(self, what: str, work: Callable[[], _Result]) -> _Result | None:
        """Do something that is not worth a run; where it fails, say so and go on."""
        return tried(what, work, self._opened.state.step)


def measure(state: AutoencoderState, pictures: Pictures, judges: Judges) -> dict[str, float]:
    """Measure the averaged network's reconstructions, in the run's precision, at full size.

    Args:
        state: The training.
        pictures: Up to 128 of them are taken, spread over all.
        judges: Networks of the losses, and of the kernel distance.

    Returns:
        Losses by their names, ``psnr`` (dB, the mean over pictures), ``ssim``; ``codes_in_use`` and
        ``code_perplexity`` of a VQ network; ``kernel_distance`` where a network is given for it.
    """
    network, sums, count = state.best_network, dict[str, float](), 0
    counts = torch.zeros(network.config.num_codes, dtype=torch.int64) if isinstance(network, VQNetwork) else None
    features: list[tuple[Tensor, Tensor]] = []
    found_psnr: list[float] = []
    for batch in _batches(pictures, NUM_HELD_OUT):
        values = batch.to(state.device)
        with _evaluating(state):
            passed = network(values)
            losses = {**picture_losses(passed, values, judges), **passed.losses}
            if judges.judge is not None:
                found = (judges.judge(each).pooled.float().cpu() for each in (passed.pictures, values))
                features.append((next(found), next(found)))
        found_psnr += psnr(passed.pictures, values).tolist()
        likeness = {"ssim": ssim(passed.pictures, values).mean()}
        for name, value in {**likeness, **losses}.items():
            sums[name] = sums.get(name, 0.0) + float(value) * len(batch)
        if counts is not None and passed.codes is not None:
            counts += torch.bincount(passed.codes.cpu(), minlength=len(counts))
        count += len(batch)
    measures = {"psnr": mean_psnr(found_psnr), **{name: total / count for name, total in sums.items()}}
    if counts is not None:
        measures |= {"codes_in_use": share_in_use(counts), "code_perplexity": perplexity(counts)}
    if features and count > 1:
        made, real = (torch.cat(each) for each in zip(*features, strict=True))
        measures["kernel_distance"] = kernel_distance(made, real)
    return measures


@contextmanager
def _evaluating(state: AutoencoderState) -> Generator[None]:
    """Compute without gradients, in a training's precision."""
    dtype = PRECISIONS[state.config.train.precision]
    state.best_network.eval()
    with torch.no_grad(), torch.autocast(state.device.type, dtype, enabled=dtype is not torch.float32):
        yield


def _batches(pictures: Pictures, most: int) -> Iterator[Tensor]:
    """Yield pictures as values, a few at once, spread over all: a folder may have them in order of their classes."""
    size = most if pictures.size is None else pictures.size
    places: list[int] = np.linspace(0, size - 1, min(most, size)).astype(int).tolist()
    for first in range(0, len(places), NUM_AT_ONCE):
        yield as_values([pictures.picture(index) for index in places[first : first + NUM_AT_ONCE]])


def evaluation_distance(config: AutoencoderRun) -> int:
    """Return the steps between measures on pictures held out, which every checkpoint has, too; 0: there are none."""
    size = (config.resolution / config.side) ** 2
    return distance(config.train, NUM_HELD_OUT * size, config.train.batch_size)
