"""How training ends before its end: what is saved, what is said, and what a run may then change."""

import json
import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from multiprocessing import active_children
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from safetensors.torch import save
from tiny import ToySource, equal, run_config

from transfusion.config import ConfigError, RunConfig, override
from transfusion.data.errors import DataError
from transfusion.segments import Document
from transfusion.train import loop
from transfusion.train.best import offer_best, read_best
from transfusion.train.changes import Change
from transfusion.train.checkpoint import checkpoints, newest, publish, step_directory, sweep
from transfusion.train.folder import seen
from transfusion.train.lock import BusyError, RunLock
from transfusion.train.loop import train
from transfusion.train.manifest import CheckpointError
from transfusion.train.metrics import METRICS_FILE, read_metrics
from transfusion.train.opening import begin, resume
from transfusion.train.optimizer import optimizer_tensors
from transfusion.train.state import TrainState
from transfusion.train.tensors import load_tensors

CPU = torch.device("cpu")
CONFIG = run_config(6, checkpoint_every=100)
RATE = "train.optimizer.lr=0.001"


class Broken(ToySource):
    """A source that fails behind the documents of ``num_steps`` steps."""

    def __init__(self, num_steps: int, error: Exception) -> None:
        super().__init__()
        self._first, self._error = num_steps * CONFIG.train.batch_size, error

    def document(self, index: int, visit: int) -> Document:
        if index >= self._first:
            raise self._error
        return super().document(index, visit)


def start(config: RunConfig = CONFIG) -> TrainState:
    """Begin a run over the toy source."""
    state = begin(config, CPU)
    state.check_data("toy")
    return state


def go_on(config: RunConfig, run: Path) -> TrainState:
    """Resume a run."""
    state = resume(config, run, CPU)
    assert state is not None
    return state


def finish(state: TrainState, run: Path, source: ToySource | None = None) -> None:
    """Train to the end."""
    for _ in train(state, source or ToySource(), run, threading.Event()):
        pass


def tensors(state: TrainState) -> dict[str, torch.Tensor]:
    """Collect all that a step changes."""
    assert state.ema is not None
    average = {f"ema.{name}": value for name, value in state.ema.model.state_dict().items()}
    return {**state.model.state_dict(), **average, **optimizer_tensors(state.optimizers)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> TrainState:
    """Train without a break."""
    state = start()
    finish(state, tmp_path_factory.mktemp("whole"))
    return state


@pytest.mark.parametrize("num_workers", [0, 1])
def test_broken_data_cost_no_finished_step(tmp_path: Path, whole: TrainState, num_workers: int) -> None:
    config = override(CONFIG, [f"train.num_workers={num_workers}"])
    told = rf"the state after step 4 is saved in {step_directory(tmp_path, 4)}; the same command goes on"
    with pytest.raises(DataError, match=told):
        finish(start(config), tmp_path, Broken(4, DataError("a file vanished")))
    assert active_children() == []  # or the process could not end
    resumed = go_on(config, tmp_path)
    assert resumed.step == 4
    finish(resumed, tmp_path)
    assert equal(tensors(whole), tensors(resumed))


def test_workers_end_with_the_training_whatever_holds_the_error(tmp_path: Path) -> None:
    config = override(CONFIG, ["train.num_workers=1"])
    with (
        pytest.raises(RuntimeError, match="of who shows") as held,
        closing(train(start(config), ToySource(), tmp_path, threading.Event())) as reports,
    ):
        for _ in reports:
            assert len(active_children()) == 1
            raise RuntimeError("of who shows the reports")
    assert active_children() == [], held


def test_an_error_before_the_first_step_saves_nothing(tmp_path: Path) -> None:
    with pytest.raises(MemoryError, match="nothing is lost"):
        finish(start(), tmp_path, Broken(0, MemoryError("full")))
    assert checkpoints(tmp_path) == []


def test_an_error_of_who_reads_the_reports_costs_nothing(
    tmp_path: Path, whole: TrainState, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(BrokenPipeError), closing(train(start(), ToySource(), tmp_path, threading.Event())) as reports:
        for report in reports:
            if report.step == 3:
                raise BrokenPipeError
    assert f"the state after step 3 is saved in {step_directory(tmp_path, 3)}" in caplog.text
    resumed = go_on(CONFIG, tmp_path)
    finish(resumed, tmp_path)
    assert equal(tensors(whole), tensors(resumed))


@pytest.mark.parametrize("is_asked", [False, True])
@pytest.mark.parametrize("is_inside", [False, True])
def test_an_interrupt_saves_unless_it_is_the_second(tmp_path: Path, is_asked: bool, is_inside: bool) -> None:
    stop = threading.Event()

    class Interrupting(ToySource):
        def document(self, index: int, visit: int) -> Document:
            if is_inside and index == 2 * CONFIG.train.batch_size:
                interrupt()
            return super().document(index, visit)

    def interrupt() -> None:
        if is_asked:
            stop.set()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), closing(train(start(), Interrupting(), tmp_path, stop)) as reports:
        for report in reports:
            if report.step == 2 and not is_inside:
                interrupt()
    assert [path.name for path in checkpoints(tmp_path)] == ([] if is_asked else ["step_00000002"])


@pytest.mark.parametrize("place", ["optimizer", "average"])
def test_half_an_update_is_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    config = override(CONFIG, ["train.checkpoint_every=2"])
    state = start(config)
    assert state.ema is not None

    def fail(*arguments: object) -> None:
        raise MemoryError("full")

    told = f"an update of the weights after step 3 was under way; the last checkpoint is .*{2:08d}"
    with pytest.raises(MemoryError, match=told):
        for report in train(state, ToySource(), tmp_path, threading.Event()):
            if report.step == 3:
                target, name = (state.optimizers[-1], "step") if place == "optimizer" else (state.ema, "update")
                monkeypatch.setattr(target, name, fail)
    assert newest(tmp_path) == step_directory(tmp_path, 2)
    with pytest.raises(ValueError, match="open the run again"):
        finish(state, tmp_path)


def test_an_error_while_saving_names_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("transfusion.train.state.save_tensors", full)
    with pytest.raises(DataError, match=r"after step 1 could not be saved \(.*No space.*there is no checkpoint"):
        finish(start(), tmp_path, Broken(1, DataError("gone")))
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_a_metrics_file_that_cannot_be_written_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("transfusion.train.metrics.Metrics.write", full)
    with pytest.raises(OSError, match="the state after step 1 is saved"):
        finish(start(), tmp_path)


def test_an_error_thrown_in_ends_it_as_one_of_its_own(tmp_path: Path, whole: TrainState) -> None:
    reports = train(start(), ToySource(), tmp_path, threading.Event())
    assert [next(reports).step for _ in range(3)] == [1, 2, 3]
    with pytest.raises(MemoryError, match="the state after step 3 is saved"):
        reports.throw(MemoryError("full"))
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2, 3]
    resumed = go_on(CONFIG, tmp_path)
    finish(resumed, tmp_path)
    assert equal(tensors(whole), tensors(resumed))


def test_two_trainings_in_one_folder(tmp_path: Path) -> None:
    first = train(start(), ToySource(), tmp_path, threading.Event())
    next(first)
    rows = (tmp_path / METRICS_FILE).read_bytes()
    with pytest.raises(BusyError, match="is being trained in by another process"):
        next(train(start(), ToySource(), tmp_path, threading.Event()))
    assert (tmp_path / METRICS_FILE).read_bytes() == rows
    first.close()
    finish(go_on(CONFIG, tmp_path), tmp_path)


def spoil(state: TrainState) -> None:
    """Make the weights what they are after a step too wide."""
    with torch.no_grad():
        state.model.head.weight.fill_(float("nan"))


def stopped(run: Path, config: RunConfig, *, after: int) -> None:
    """Train until the weights are not finite after a step."""
    state = start(config)
    with pytest.raises(FloatingPointError, match="not finite"):
        for report in train(state, ToySource(), run, threading.Event()):
            if report.step == after:
                spoil(state)


def rows(run: Path) -> list[dict[str, object]]:
    """Read what the run says of changes."""
    return [json.loads(line) for line in (run / "changes.jsonl").read_text().splitlines()]


def test_after_a_loss_that_is_not_finite_the_advice_works_and_is_recorded(tmp_path: Path) -> None:
    config = override(CONFIG, ["train.checkpoint_every=2"])
    stopped(tmp_path, config, after=3)
    assert newest(tmp_path) == step_directory(tmp_path, 2)  # and nothing of step 3
    lower = override(config, [RATE, "train.optimizer.muon_lr=0.002", "train.optimizer.clip=0.5"])
    state = go_on(lower, tmp_path)
    assert state.step == 2 and state.config.train.optimizer == lower.train.optimizer
    assert [group["peak_lr"] for o in state.optimizers for group in o.param_groups] == [0.001, 0.001, 0.002]
    finish(state, tmp_path)
    assert rows(tmp_path) == [
        {"step": 0, "begun": True},
        {"step": 3, "stopped": "a loss or the gradient is not finite"},
        {"step": 2, "setting": "train.optimizer.lr", "old": 0.01, "new": 0.001},
        {"step": 2, "setting": "train.optimizer.muon_lr", "old": 0.01, "new": 0.002},
        {"step": 2, "setting": "train.optimizer.clip", "old": 1.0, "new": 0.5},
    ]
    assert go_on(lower, tmp_path).changes == ()
    with pytest.raises(ConfigError, match=r"train.optimizer.lr is 0.01, was 0.001"):  # the run got beyond
        resume(config, tmp_path, CPU)


def test_the_precision_may_change_after_such_a_stop(tmp_path: Path) -> None:
    config = override(CONFIG, ["train.checkpoint_every=2", "train.precision=bf16"])
    stopped(tmp_path, config, after=2)
    assert go_on(override(config, ["train.precision=auto"]), tmp_path).changes == ()
    state = go_on(override(config, ["train.precision=fp32"]), tmp_path)
    assert state.config.train.precision == "fp32"
    finish(state, tmp_path)
    assert rows(tmp_path)[-1] == {"step": 2, "setting": "train.precision", "old": "bf16", "new": "fp32"}


def test_nothing_changes_by_accident(tmp_path: Path) -> None:
    config = override(CONFIG, ["train.checkpoint_every=2"])
    state = start(config)
    stop = threading.Event()
    for report in train(state, ToySource(), tmp_path, stop):
        if report.step == 3:
            stop.set()
    with pytest.raises(ConfigError, match="train.optimizer.lr is 0.001, was 0.01; go on with its own"):
        resume(override(config, [RATE]), tmp_path, CPU)
    finish(go_on(config, tmp_path), tmp_path)
    assert rows(tmp_path) == [{"step": 0, "begun": True}]
    stopped(tmp_path / "other", config, after=3)
    for other in ("train.seed=7", "train.optimizer.weight_decay=0.5"):
        with pytest.raises(ConfigError, match="made with other settings"):
            resume(override(config, [other, RATE]), tmp_path / "other", CPU)
    state = start(config)  # anew in the same folder: its stop is no longer this run's
    with closing(train(state, ToySource(), tmp_path / "other", threading.Event())) as reports:
        next(reports)
    with pytest.raises(ConfigError, match="made with other settings"):
        resume(override(config, [RATE]), tmp_path / "other", CPU)


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A last step may spoil the weights after the last gradient that was looked at."""
    state = start(run_config(3, checkpoint_every=2))
    update = state.update

    def wide(factor: float) -> None:
        update(factor)
        if state.step == 3:
            spoil(state)

    monkeypatch.setattr(state, "update", wide)
    with pytest.raises(
        FloatingPointError, match=r"the weights are not finite at step 3; the last checkpoint is .*02, and"
    ):
        finish(state, tmp_path)
    assert checkpoints(tmp_path) == [step_directory(tmp_path, 2)]
    assert go_on(run_config(3, checkpoint_every=2, optimizer=state.config.train.optimizer), tmp_path).step == 2


def test_the_message_says_what_to_do(tmp_path: Path) -> None:
    state = start()
    assert "there is no checkpoint yet, so begin again by the same command: lower" in str(
        state.not_finite("the gradient is", tmp_path)
    )
    state.saved_step = 0
    told = str(state.not_finite("the gradient is", tmp_path, facts=" (x)"))
    assert "the gradient is not finite at step 0 (x); the last checkpoint is" in told
    assert f"`transfusion train {tmp_path} train.optimizer.lr=0.001`" in told and "move that checkpoint away" in told


def resealed(folder: Path, name: str, content: bytes) -> None:
    """Replace a file of a checkpoint by another, with a manifest that fits."""
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "manifest.json"}

    def write(new: Path) -> None:
        for file, data in (files | {name: content}).items():
            (new / file).write_bytes(data)

    publish(folder, write)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a run of one step."""
    run = tmp_path_factory.mktemp("saved")
    finish(start(run_config(1)), run)
    return run


@pytest.fixture
def restored(saved: Path) -> Iterator[Path]:
    """Give the checkpoint and put it back as it was."""
    folder = step_directory(saved, 1)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    yield folder
    shutil.rmtree(folder)
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)


def state_with(**facts: object) -> bytes:
    """Write a state."""
    return json.dumps({"step": 1, "data": "toy", "train_seconds": 1.0} | facts).encode()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("state.json", b"{}"),
        ("state.json", b"[]"),
        ("state.json", b"\xff"),
        ("state.json", b"{"),
        ("state.json", state_with(step="1")),
        ("state.json", state_with(step=-1)),
        ("state.json", state_with(step=True)),
        ("state.json", state_with(train_seconds=None)),
        ("state.json", state_with(data=5)),
        ("config.json", b"\xff"),
        ("config.json", b"{"),
        ("config.json", b'{"setting_of_another_version": 1}'),
        ("tokenizer.json", b"{}"),
        ("model.safetensors", b"\xff" * 9),
        ("ema.safetensors", b"\xff" * 9),
        ("optimizer.safetensors", b""),
    ],
    ids=str,
)
def test_damage_behind_a_manifest_that_fits_is_damage(restored: Path, name: str, content: bytes) -> None:
    resealed(restored, name, content)
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        resume(run_config(1), restored.parents[1], CPU)


@pytest.mark.parametrize("key", ["0.0", "7.0.step", "0.9999.step", "0.0.other", "x.y.z"])
def test_moments_that_fit_no_parameter_are_damage(restored: Path, key: str) -> None:
    found = load_tensors(restored / "optimizer.safetensors")
    for changed in ({**found, key: torch.ones(1)}, {**found, "0.0.exp_avg": torch.ones(2)}):
        resealed(restored, "optimizer.safetensors", save(changed))
        with pytest.raises(CheckpointError, match=r"optimizer\.safetensors cannot be used"):
            resume(run_config(1), restored.parents[1], CPU)


def test_every_file_of_a_checkpoint_is_the_one_that_is_used(restored: Path) -> None:
    names = ("model.safetensors", "ema.safetensors", "optimizer.safetensors")
    other = {name: {k: v + 1 for k, v in load_tensors(restored / name).items()} for name in names}
    for name, changed in other.items():
        resealed(restored, name, save(changed))
    resealed(restored, "state.json", state_with(step=5, data="other", train_seconds=77.0))
    config = json.loads((restored / "config.json").read_text())
    config["encode"]["pixels"] = {"mean": 0.25, "std": 3.0}
    resealed(restored, "config.json", json.dumps(config).encode())
    state = go_on(run_config(1), restored.parents[1])
    assert state.ema is not None
    assert equal(state.model.state_dict(), other["model.safetensors"])
    assert equal(state.ema.model.state_dict(), other["ema.safetensors"])
    assert equal(optimizer_tensors(state.optimizers), other["optimizer.safetensors"])
    assert (state.step, state.data, state.train_seconds) == (5, "other", 77.0)
    assert json.loads(state.config.to_json())["encode"]["pixels"] == config["encode"]["pixels"]


def test_a_damaged_checkpoint_in_the_way_of_a_step_does_not_end_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = run_config(2, checkpoint_every=1)
    finish(start(config), tmp_path)
    (step_directory(tmp_path, 2) / "manifest.json").write_bytes(b"\xff")
    (step_directory(tmp_path, 2) / "notes.md").write_text("mine")
    state = go_on(config, tmp_path)
    assert state.step == 1 and "skipping a checkpoint" in caplog.text
    caplog.set_level(logging.WARNING)
    step_directory(tmp_path, 2).mkdir()  # and one that comes into the way after the run was opened
    (step_directory(tmp_path, 2) / "late.md").write_text("mine")
    finish(state, tmp_path)
    assert newest(tmp_path) == step_directory(tmp_path, 2)
    kept = tmp_path / "checkpoints" / "kept_step_00000002"
    assert (kept / "notes.md").read_text() == (kept.with_name(f"{kept.name}_1") / "late.md").read_text() == "mine"


def test_a_checkpoint_without_what_a_resume_needs_is_passed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = run_config(3, checkpoint_every=1, num_checkpoints=3)
    finish(start(config), tmp_path)
    for step, name in ((3, "state.json"), (2, "ema.safetensors")):
        folder = step_directory(tmp_path, step)
        manifest = json.loads((folder / "manifest.json").read_text())
        del manifest[name]
        (folder / name).unlink()
        (folder / "manifest.json").write_text(json.dumps(manifest))
    assert go_on(config, tmp_path).step == 1
    assert "lacks state.json" in caplog.text and "lacks ema.safetensors" in caplog.text


def open_toy(run: Path) -> TrainState:
    """Open a run as ``open_run`` does."""
    state = resume(CONFIG, run, CPU) or start()
    state.seen = seen(run)
    return state


@pytest.mark.parametrize("is_old", [False, True])
def test_a_state_that_another_training_overtook_is_refused(tmp_path: Path, is_old: bool) -> None:
    config = override(CONFIG, ["train.checkpoint_every=2"])
    if is_old:
        with closing(train(start(config), ToySource(), tmp_path, threading.Event())) as reports:
            next(reports)
    first, second = open_toy(tmp_path), open_toy(tmp_path)
    finish(first, tmp_path)
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and "events" not in path.name}
    with pytest.raises(BusyError, match=r"was trained in since .*step_00000006.* came\); open the run again"):
        finish(second, tmp_path)
    assert files == {path: path.read_bytes() for path in files}
    finish(first, tmp_path)  # its own are no others


def test_a_damaged_checkpoint_does_not_count_among_the_kept(tmp_path: Path) -> None:
    config = run_config(7, checkpoint_every=2, num_checkpoints=2)
    with closing(train(start(config), ToySource(), tmp_path, threading.Event())) as reports:
        assert [next(reports).step for _ in range(4)][-1] == 4
    file = step_directory(tmp_path, 4) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\xff")
    state = go_on(config, tmp_path)
    assert state.step == 2
    state.config = override(config, ["train.checkpoint_every=5"])
    with closing(train(state, ToySource(), tmp_path, threading.Event())) as reports:
        assert [next(reports).step for _ in range(3)][-1] == 5
    assert [path.name for path in checkpoints(tmp_path)] == ["step_00000002", "step_00000005"]
    assert (tmp_path / "checkpoints" / "kept_step_00000004").is_dir()


def test_a_run_begun_anew_leaves_no_checkpoint_of_the_old_to_go_on_from(tmp_path: Path) -> None:
    finish(start(run_config(6)), tmp_path)
    state = start(run_config(6))
    state.seen = seen(tmp_path)
    with closing(train(state, ToySource(), tmp_path, threading.Event())) as reports:
        next(reports)
    assert [path.name for path in checkpoints(tmp_path)] == ["step_00000001"]
    assert go_on(run_config(6), tmp_path).step == 1
    assert (tmp_path / "checkpoints" / "kept_step_00000006" / "model.safetensors").exists()


def test_a_changed_rate_outlives_a_kill_before_the_next_checkpoint(tmp_path: Path) -> None:
    config = override(CONFIG, ["train.checkpoint_every=2"])
    stopped(tmp_path, config, after=3)
    lower = override(config, [RATE])
    reports = train(go_on(lower, tmp_path), ToySource(), tmp_path, threading.Event())
    next(reports)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_keep", lambda *_: None)  # as by a kill: nothing more is saved
        reports.close()
    for given in (config, lower):
        state = go_on(given, tmp_path)
        assert (state.step, state.config.train.optimizer.lr, state.changes) == (2, 0.001, ())
        assert {group["peak_lr"] for o in state.optimizers for group in o.param_groups} == {0.001, 0.01}
    again = go_on(override(config, ["train.optimizer.lr=0.0001"]), tmp_path)
    assert again.changes == (Change("train.optimizer.lr", 0.001, 0.0001),)
    finish(go_on(config, tmp_path), tmp_path)
    assert go_on(lower, tmp_path).step == 6


class KilledError(BaseException):
    """Stands for the end of the process."""


def cut_off(*_: object) -> NoReturn:
    """End the process."""
    raise KilledError


def test_at_any_moment_the_old_run_is_whole_or_a_new_one_has_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = run_config(2, checkpoint_every=1)
    finish(start(config), tmp_path / "old")
    assert offer_best(tmp_path / "old", 1, {"text": 1.0}, lambda losses: losses["text"])
    rows, state = read_metrics(tmp_path / "old"), start(config)
    found: list[bool] = []
    for moment in range(9):
        run = shutil.copytree(tmp_path / "old", tmp_path / str(moment))
        state.seen = seen(run)
        begin_and_kill(monkeypatch, state, run, moment)
        sweep(run)
        names, kept = [path.name for path in checkpoints(run)], run / "checkpoints" / "kept_step_00000001"
        found.append(names == [])
        if names:
            assert names == ["step_00000001", "step_00000002"]
            assert read_metrics(run) == rows and read_best(run) is not None
        else:
            assert kept.is_dir() and kept.with_name("kept_step_00000002").is_dir() and read_best(run) is None
    assert found == sorted(found) and len(set(found)) == 2
    state.seen = seen(tmp_path / "3")
    finish(state, tmp_path / "3")
    assert [row["step"] for row in read_metrics(tmp_path / "3")] == [1, 2]


def begin_and_kill(monkeypatch: pytest.MonkeyPatch, state: TrainState, run: Path, moment: int) -> None:
    """Begin a training that is killed at one of its first changes of the folder, and before its first step at last."""
    left = [moment]

    def killed(work: Callable[..., object]) -> Callable[..., object]:
        def called(*arguments: object, **options: object) -> object:
            left[0] -= 1
            if left[0] < 0:
                cut_off()
            return work(*arguments, **options)

        return called

    with monkeypatch.context() as patch:
        for name in ("rename", "unlink", "mkdir", "rmdir"):
            patch.setattr(Path, name, killed(getattr(Path, name)))
        patch.setattr(os, "truncate", killed(os.truncate))
        patch.setattr(loop, "_keep", lambda *_: None)
        patch.setattr(loop, "_batches", cut_off)
        with suppress(KilledError):
            next(train(state, ToySource(), run, threading.Event(), lock=RunLock(run)))
