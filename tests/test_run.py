"""Opening a run; and training it, with what happens between its steps."""

import json
import os
import threading
from collections.abc import Generator, Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import equal, run_config

from transfusion import run
from transfusion import samples as samples_module
from transfusion.config import ConfigError, RunConfig, override
from transfusion.data import readers
from transfusion.data.encode import Encoder
from transfusion.data.errors import DataError
from transfusion.data.loader import Source
from transfusion.data.sources import FolderConfig, held_out_config, open_source
from transfusion.evaluate.losses import evaluate_losses
from transfusion.model.transfusion import TransfusionModel
from transfusion.objective import TransfusionObjective
from transfusion.pretrained import Transfusion
from transfusion.run import RunReport, evaluation_distance, held_out_of, open_run, train_run
from transfusion.segments import Document
from transfusion.train import loop
from transfusion.train.best import Best, read_best
from transfusion.train.checkpoint import checkpoints, newest, step_directory
from transfusion.train.lock import BusyError, hold_run
from transfusion.train.loop import StepReport, train
from transfusion.train.manifest import MANIFEST, STATE_FILE, seal
from transfusion.train.metrics import read_metrics
from transfusion.train.optimizer import optimizer_tensors
from transfusion.train.saved import find_checkpoint
from transfusion.train.state import TrainState

PIXELS = 'encode.pixels={"mean": 0.8, "std": 0.3}'  # or they are measured
SMALL = ("train.row_length=512", "model.trunk.num_heads=2", "train.batch_size=2")


def config() -> RunConfig:
    """Make settings of a tiny run over the built-in world."""
    return override(RunConfig(train=run_config(2).train), ["model.trunk.dim=32", "model.trunk.depth=1", *SMALL])


def test_what_a_kill_left_is_swept_and_the_lock_is_let_go(tmp_path: Path) -> None:
    left = tmp_path / "checkpoints" / ".step_00000007.partial"
    left.mkdir(parents=True)
    (left / "model.safetensors").write_bytes(b"half")
    (tmp_path / ".report.html.0123456789abcdef.partial").touch()
    state, _ = open_run(config(), tmp_path, is_resumed=True)
    assert state.step == 0 and os.listdir(tmp_path / "checkpoints") == [] and os.listdir(tmp_path) == ["checkpoints"]
    open_run(config(), tmp_path / "new", is_resumed=True)
    assert not (tmp_path / "new").exists()


def write_pictures(folder: Path, count: int) -> Path:
    """Write pictures of one class."""
    (folder / "cat").mkdir(parents=True)
    for i in range(count):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(folder / "cat" / f"{i}.png")
    return folder


def test_a_run_keeps_what_it_found_of_its_data(tmp_path: Path) -> None:
    data = write_pictures(tmp_path / "data", 60)
    given = override(config(), ["data.kind=folder", f"data.path={data}", "data.resolution=16", "train.steps=1"])
    state, source = open_run(given, tmp_path / "r", is_resumed=True)
    kept = state.config.data
    assert isinstance(kept, FolderConfig) and kept.layout == "classes" and kept.hold_out
    assert source.found.records == source.size == 60 - source.left_for_others["test"]
    state.save(tmp_path / "r")
    (data / "README.txt").write_text("a note")
    again, other = open_run(given, tmp_path / "r", is_resumed=True)  # by the same command
    assert again.config == state.config and other.digest() == source.digest()
    (data / "captions.jsonl").write_text('{"file": "cat/1.png", "text": "a cat"}')  # the layout that it had goes on
    assert open_run(given, tmp_path / "r", is_resumed=True)[0].config == state.config
    for setting in ("data.layout=captions", "data.hold_out=0"):
        with pytest.raises(ConfigError, match=f"made with other settings: {setting.partition('=')[0]} is"):
            open_run(override(given, [setting]), tmp_path / "r", is_resumed=True)
    write_pictures(data / "more", 1)
    with pytest.raises(ConfigError, match="the data changed"):
        open_run(given, tmp_path / "r", is_resumed=True)


def test_a_run_from_before_layouts_goes_on(tmp_path: Path) -> None:
    data = write_pictures(tmp_path / "data", 60)
    given = override(config(), ["data.kind=folder", f"data.path={data}", "data.resolution=16", "data.hold_out=0"])
    state, _ = open_run(given, tmp_path / "r", is_resumed=True)
    state.config = state.config.model_copy(update={"data": given.data})  # as it was saved then
    state.save(tmp_path / "r")
    for settings in (["data.hold_out=null"], ["data.layout=classes"], []):
        again, source = open_run(override(given, settings), tmp_path / "r", is_resumed=True)
        assert source.size == 60 and again.config.data.model_dump()["hold_out"] == 0


def test_data_that_are_read_otherwise_than_when_the_run_began(tmp_path: Path) -> None:
    data = write_pictures(tmp_path / "data" / "in", 4).parent
    given = override(settings(2), ["data.kind=folder", f"data.path={data}", "data.resolution=16"])
    state, _ = trained(given, tmp_path / "r")
    (data / "more").symlink_to("in")  # counted, and not read: the run goes on
    assert open_run(given, tmp_path / "r", is_resumed=True)[0].step == 2
    write_pictures(data / "test", 1)
    (data / "in").rename(data / "train")
    told = (
        rf"the data changed .* or this version reads them otherwise .*\(4 records then\).*train.init={tmp_path}/r .*"
        r"Now: found in .*splits 'test' 1, 'train' 4"
    )
    (data / "more").unlink()
    with pytest.raises(ConfigError, match=told):
        open_run(given, tmp_path / "r", is_resumed=True)
    anew, source = open_run(override(given, [f"train.init={tmp_path}/r"]), tmp_path / "new", is_resumed=True)
    assert anew.step == 0 and source.found.splits == {"test": 1, "train": 4}
    assert equal(dict(anew.model.state_dict()), dict(state.best_model.state_dict()))


def test_a_run_whose_data_cannot_be_read_now_is_told_what_to_do(tmp_path: Path) -> None:
    data = write_pictures(tmp_path / "data" / "train", 60).parent
    given = override(settings(1), ["data.kind=folder", f"data.path={data}", "data.resolution=16"])
    trained(given, tmp_path / "r")
    write_pictures(data / "eval", 1)  # what was no split is one
    told = rf"marks its splits itself .* When the run began they could be used: .* train.init={tmp_path}/r"
    with pytest.raises(DataError, match=told):
        open_run(given, tmp_path / "r", is_resumed=True)
    new, _ = trained(override(given, [f"train.init={tmp_path}/r"]), tmp_path / "new")
    assert new.step == 1 and new.origin is not None


def test_texts_named_for_splits_go_on_as_they_were_read(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        (tmp_path / f"{split}.txt").write_text("".join(f"{split} line {i} of a text\n" for i in range(3000)))
    given = override(config(), ["data.kind=folder", f"data.path={tmp_path}", "train.steps=1"])
    for name, told in (("split", []), ("whole", ["data.layout=text"])):
        settled = override(given, told)
        state, source = open_run(settled, tmp_path / name, is_resumed=True)
        assert source.found.splits.keys() == ({"train", "valid"} if name == "split" else {"train", "test"})
        state.save(tmp_path / name)
        again, other = open_run(settled, tmp_path / name, is_resumed=True)
        assert again.config == state.config and other.digest() == source.digest()
        assert open_run(state.config, tmp_path / name, is_resumed=True)[1].digest() == source.digest()
    with pytest.raises(ConfigError, match="made with other settings"):
        open_run(override(given, ["data.layout=text"]), tmp_path / "split", is_resumed=True)


def write_marked(folder: Path, counts: dict[str, int]) -> Path:
    """Write pictures of splits, a folder and a table each."""
    for split, count in counts.items():
        (folder / split).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (8, 8), (i, 0, 0)).save(folder / split / f"{i:02}.png")
        lines = [json.dumps({"file_name": f"{i:02}.png", "text": f"{split} {i}"}) for i in range(count)]
        (folder / split / "metadata.jsonl").write_text("\n".join(lines))
    return folder


def test_of_held_out_pictures_those_are_opened_that_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_marked(tmp_path / "data", {"train": 4, "val": 40})
    given = override(settings(1), ["data.kind=folder", f"data.path={data}", "data.resolution=16"])
    names, decode = set[str](), readers.open_picture

    def noted(file: Path, size: tuple[int, int], *, crop: float) -> np.ndarray:
        names.add(file.relative_to(data).as_posix())
        return decode(file, size, crop=crop)

    monkeypatch.setattr(readers, "open_picture", noted)
    state, _ = trained(given, tmp_path / "r")
    assert {name for name in names if "val" in name} == {f"val/{i}.png" for i in ("00", "10", "20", "30")}
    held = held_out_config(state.config.data)
    assert held is not None
    encoder = Encoder(state.tokenizer, state.config.encode, state.config.train.seed)
    objective = TransfusionObjective(state.config.diffusion, state.config.objective, state.model.vocabulary)
    few, whole = (
        evaluate_losses(state.best_model, objective, source, num_documents=4, seed=state.config.train.seed)
        for source in (open_source(held, encoder, 99, at_most=4), open_source(held, encoder, 99))
    )
    assert few == whole


def test_held_out_data_that_changed_are_noticed(tmp_path: Path) -> None:
    data = write_marked(tmp_path / "data", {"train": 4, "val": 12})
    given = override(settings(1), ["data.kind=folder", f"data.path={data}", "data.resolution=16"])
    trained(given, tmp_path / "r")
    assert open_run(given, tmp_path / "r", is_resumed=True)[0].held_out
    table, last = data / "val" / "metadata.jsonl", data / "val" / "09.png"
    lines = table.read_text()
    for changed in ("\n".join(lines.split("\n")[:-1]), lines.replace("val 11", "another")):
        table.write_text(changed)
        with pytest.raises(ConfigError, match=r"held-out data changed .* \(train.evaluate_every=0\)"):
            open_run(given, tmp_path / "r", is_resumed=True)
        without = open_run(override(given, ["train.evaluate_every=0"]), tmp_path / "r", is_resumed=True)[0]
        assert without.held_out  # what it was stays known
    table.write_text(lines)
    Image.new("RGB", (8, 8), "red").save(last)  # the last of the four that are measured
    with pytest.raises(ConfigError, match="held-out data changed"):
        open_run(given, tmp_path / "r", is_resumed=True)
    facts = step_directory(tmp_path / "r", 1) / STATE_FILE
    told = json.loads(facts.read_text())
    del told["held_out"]  # as it was written before
    facts.write_text(json.dumps(told))
    (facts.parent / MANIFEST).unlink()
    seal(facts.parent)
    assert open_run(given, tmp_path / "r", is_resumed=True)[0].step == 1


def test_a_run_of_the_same_command_keeps_its_row(tmp_path: Path) -> None:
    given = override(config(), ["train.row_length=0", "data.tasks.story=0.1", "train.max_dropped=0.9"])
    before = override(given, ["train.row_length=128"])  # what was settled when stories were not thought of
    state, _ = open_run(before, tmp_path / "r", is_resumed=True)
    state.save(tmp_path / "r")
    assert open_run(given, tmp_path / "r", is_resumed=True)[0].config.train.row_length == 128
    assert open_run(given, tmp_path / "new", is_resumed=True)[0].config.train.row_length > 128


@pytest.mark.parametrize(
    ("layout", "run", "is_refused"),
    [("classes", ".", True), ("classes", "runs/r", True), ("text", "runs/r", False), ("text", ".", True),
     ("pairs", "runs/r", False), ("pairs", ".", True), ("captions", ".", False)],
)  # fmt: skip
def test_a_run_beside_its_data(tmp_path: Path, layout: str, run: str, is_refused: bool) -> None:
    write_pictures(tmp_path, 1)
    (tmp_path / "a.txt").write_text("words")
    (tmp_path / "cat" / "0.txt").write_text("a cat")
    (tmp_path / "captions.jsonl").write_text('{"file": "cat/0.png", "text": "a cat"}')
    given = override(config(), ["data.kind=folder", f"data.path={tmp_path}", "data.resolution=16"])
    given = override(given, [f"data.layout={layout}"])
    if is_refused:
        with pytest.raises(ConfigError, match="lies within the data"):
            open_run(given, tmp_path / run, is_resumed=True)
        return
    state, source = open_run(given, tmp_path / run, is_resumed=True)
    (tmp_path / run / "samples").mkdir(parents=True)
    (tmp_path / run / "metrics.jsonl").write_text("{}")
    Image.new("RGB", (8, 8)).save(tmp_path / run / "samples" / "step_00000001.png")
    state.save(tmp_path / run)
    again, other = open_run(given, tmp_path / run, is_resumed=True)
    assert again.config == state.config and other.digest() == source.digest()
    assert other.found.pictures == source.found.pictures and "folder of a run" in other.found.left_out


@pytest.mark.parametrize(
    ("table", "where", "is_refused"),
    [("images/captions.jsonl", "images", True), ("images/captions.jsonl", ".", False),
     ("images/captions.jsonl", "images/r", False), ("captions.jsonl", "images", False)],
)  # fmt: skip
def test_a_run_is_no_folder_that_the_data_are_found_in(
    tmp_path: Path, table: str, where: str, is_refused: bool
) -> None:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / "0.png")
    (tmp_path / table).write_text(json.dumps({"file": "0.png" if "/" in table else "images/0.png", "text": "a cat"}))
    given = override(config(), ["data.kind=folder", f"data.path={tmp_path}", "data.resolution=16"])
    if is_refused:
        with pytest.raises(ConfigError, match="lies within the data"):
            open_run(given, tmp_path / where, is_resumed=True)
        return
    state, source = open_run(given, tmp_path / where, is_resumed=True)
    (tmp_path / where).mkdir(exist_ok=True)
    (tmp_path / where / "metrics.jsonl").write_text("{}")
    state.save(tmp_path / where)
    assert open_run(given, tmp_path / where, is_resumed=True)[1].digest() == source.digest()


def test_a_run_in_use_is_refused_but_not_to_its_holder(tmp_path: Path) -> None:
    with hold_run(tmp_path / "r") as lock:
        with pytest.raises(BusyError, match="r is being trained in"):
            open_run(config(), tmp_path / "r", is_resumed=True)
        open_run(config(), tmp_path / "r", is_resumed=True, lock=lock)


@pytest.fixture(autouse=True)
def few_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take held-out losses on a few documents, which is faster."""
    monkeypatch.setattr(run, "NUM_HELD_OUT", 4)


def settings(steps: int = 5, *overrides: str) -> RunConfig:
    """Make settings of a tiny run over the built-in world that saves after every step."""
    base = (
        f"train.steps={steps}",
        "train.checkpoint_every=1",
        "train.num_checkpoints=1",
        "denoising.num_steps=1",
        PIXELS,
    )
    return override(config(), [*base, "train.evaluate_every=1", *overrides])


def trained(config: RunConfig, folder: Path, *, stop_after: int | None = None) -> tuple[TrainState, list[RunReport]]:
    """Begin or resume a run and train it, stopping as Ctrl-C does."""
    state, source = open_run(config, folder, is_resumed=True)
    stop, reports = threading.Event(), list[RunReport]()
    for report in train_run(state, source, folder, stop):
        reports.append(report)
        if report.step.step == stop_after:
            stop.set()
    return state, reports


class Stopping:
    """A source that asks to stop while the documents of the second step are read, as a signal may come."""

    def __init__(self, source: Source, stop: threading.Event) -> None:
        self._source, self._stop = source, stop

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def document(self, index: int, visit: int) -> Document:
        if index == settings().train.batch_size:
            self._stop.set()
        return self._source.document(index, visit)


def tensors(state: TrainState) -> dict[str, torch.Tensor]:
    """Collect all that a step changes."""
    average = {} if state.ema is None else {f"ema.{k}": v for k, v in state.ema.model.state_dict().items()}
    return {**state.model.state_dict(), **average, **optimizer_tensors(state.optimizers)}


def rows(folder: Path) -> dict[int, dict[str, float]]:
    """Read the held-out losses by their steps; each is written once."""
    found = [(int(row["step"]), losses) for row in read_metrics(folder) if (losses := held_out_of(row))]
    assert len(dict(found)) == len(found)
    return dict(found)


def scripted(monkeypatch: pytest.MonkeyPatch, values: Sequence[float]) -> None:
    """Let held-out losses be what is wanted after each step."""
    monkeypatch.setattr(run, "evaluate_losses", lambda *_, **__: {"text": 0.0, "image": values_of.pop(0)})
    values_of = list(values)


@pytest.mark.parametrize("average", ["train.ema_decay=0.9", "train.ema_decay=null"])
def test_what_happens_between_steps_moves_no_bit(tmp_path: Path, average: str) -> None:
    plain, source = open_run(settings(3, average), tmp_path / "plain", is_resumed=True)
    assert len(list(train(plain, source, tmp_path / "plain", threading.Event()))) == 3
    busy, reports = trained(settings(3, average, "train.preview_every=1"), tmp_path / "busy")
    assert equal(tensors(plain), tensors(busy))
    assert all(report.samples and report.held_out and report.report for report in reports)


@pytest.mark.parametrize("place", ["draw_samples", "evaluate_losses", "write_run_report"])
@pytest.mark.parametrize(
    ("error", "is_fatal"),
    [
        (ValueError("odd"), False),
        (OSError(28, "No space left on device"), False),
        (MemoryError("full"), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), True),
        (KeyboardInterrupt(), True),
    ],
)
def test_what_fails_between_steps_costs_the_run_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, place: str,
    error: BaseException, is_fatal: bool,
) -> None:  # fmt: skip
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(run, place, fail)
    given = settings(2, "train.checkpoint_every=100", "train.preview_every=1")
    if is_fatal:
        with pytest.raises(type(error), match="the state after step 1 is saved"):
            trained(given, tmp_path)
        assert [row["step"] for row in read_metrics(tmp_path) if "lr_factor" in row] == [1]
        assert newest(tmp_path) == step_directory(tmp_path, 1)
    else:
        assert trained(given, tmp_path)[0].step == 2
        assert "after step 1" in caplog.text and "training goes on" in caplog.text


def test_an_error_of_who_reads_the_reports_costs_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state, source = open_run(settings(3, "train.checkpoint_every=100"), tmp_path, is_resumed=True)
    with (
        pytest.raises(BrokenPipeError),
        closing(train_run(state, source, tmp_path, threading.Event())) as reports,
    ):
        for _ in reports:
            raise BrokenPipeError
    assert f"the state after step 1 is saved in {step_directory(tmp_path, 1)}" in caplog.text
    assert newest(tmp_path) == step_directory(tmp_path, 1)
    stop = threading.Event()
    state, source = open_run(settings(3, "train.checkpoint_every=100"), tmp_path, is_resumed=True)
    with pytest.raises(KeyboardInterrupt), closing(train_run(state, source, tmp_path, stop)) as reports:
        for _ in reports:
            stop.set()
            raise KeyboardInterrupt  # the second: it is for who cannot wait
    assert newest(tmp_path) == step_directory(tmp_path, 1)


def test_it_takes_no_time_of_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(loop.time, "perf_counter", lambda: clock[0])

    def update(self: TrainState, factor: float) -> None:
        clock[0] += 1.0
        whole(self, factor)

    def slow(*_: object, **__: object) -> dict[str, float]:
        clock[0] += 1000.0
        return {"text": 1.0}

    whole = TrainState.update
    monkeypatch.setattr(TrainState, "update", update)
    monkeypatch.setattr(run, "evaluate_losses", slow)
    state, reports = trained(settings(3), tmp_path)
    assert clock[0] == 3003 and [report.step.seconds for report in reports] == [1, 1, 1] and state.train_seconds == 3


def test_the_best_checkpoint_is_kept_beside_the_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, [3.0, 1.0, 2.0, float("nan"), 1.0])
    _, reports = trained(settings(5), tmp_path)
    assert [report.is_best for report in reports] == [True, True, False, False, False]
    assert [path.name for path in checkpoints(tmp_path)] == ["step_00000002", "step_00000005"]
    weight = settings().objective.diffusion_weight
    assert json.loads((tmp_path / "best.json").read_text()) == {
        "step": 2, "total": weight, "losses": {"text": 0.0, "image": 1.0},
    }  # fmt: skip
    assert find_checkpoint(tmp_path / "best") == step_directory(tmp_path, 2)
    assert find_checkpoint(tmp_path) == step_directory(tmp_path, 5)
    best, last = (Transfusion.from_pretrained(path, use_ema=False).model for path in (tmp_path / "best", tmp_path))
    assert not equal(best.state_dict(), last.state_dict())
    page = (tmp_path / "report.html").read_text()
    assert "The best checkpoint by them is that of step 2" in page and str(tmp_path / "best") in page


def test_only_steps_with_a_checkpoint_are_the_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, [0.5, 3.0, 0.4, 2.0, 9.0])
    _, reports = trained(settings(5, "train.checkpoint_every=2"), tmp_path)
    assert [report.is_best for report in reports] == [False, True, False, True, False]
    assert read_best(tmp_path) == Best(4, 2.0 * settings().objective.diffusion_weight, {"text": 0.0, "image": 2.0})


def test_what_a_stop_saves_is_told(tmp_path: Path) -> None:
    given = settings(4, "train.checkpoint_every=100", "train.evaluate_every=3")
    _, reports = trained(given, tmp_path, stop_after=1)
    assert len(reports) == 1 and reports[0].report is None and "step 1 of 4" in (tmp_path / "report.html").read_text()
    assert set(rows(tmp_path)) == set() and set(trained(given, tmp_path)[1][1].held_out) == {"text", "image"}
    assert set(rows(tmp_path)) == {1, 3, 4}


def test_a_stop_waits_for_nothing_and_its_checkpoint_is_measured_when_it_goes_on(tmp_path: Path) -> None:
    trained(settings(4), tmp_path / "whole")
    given = settings(4, "train.preview_every=2")
    state, source = open_run(given, tmp_path / "parts", is_resumed=True)
    reports, stop = list[RunReport](), threading.Event()
    for report in train_run(state, Stopping(source, stop), tmp_path / "parts", stop):
        reports.append(report)
    assert [len(report.held_out) for report in reports] == [2, 0] and reports[-1].samples is None
    assert reports[-1].step.checkpoint and reports[-1].report and set(rows(tmp_path / "parts")) == {1}
    state, _ = trained(given, tmp_path / "parts")
    assert state.step == 4 and rows(tmp_path / "parts") == rows(tmp_path / "whole")
    assert read_best(tmp_path / "parts") == read_best(tmp_path / "whole")
    before = rows(tmp_path / "parts")
    assert trained(given, tmp_path / "parts")[1] == [] and rows(tmp_path / "parts") == before  # finished


def test_a_best_checkpoint_that_is_lost_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = settings(6, "train.num_checkpoints=3")
    scripted(monkeypatch, [3.0, 2.0, 1.0, 5.0, 4.0])
    trained(given, tmp_path, stop_after=3)
    (step_directory(tmp_path, 3) / "model.safetensors").write_bytes(b"damaged")
    state, source = open_run(given, tmp_path, is_resumed=True)
    assert state.step == 2
    with closing(train_run(state, source, tmp_path, threading.Event())) as reports:
        assert not next(reports).is_best
    assert read_best(tmp_path) == Best(2, 2.0 * given.objective.diffusion_weight, {"text": 0.0, "image": 2.0})


def test_the_averaged_weights_are_measured_at_keyed_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[object] = []

    def measure(model: TransfusionModel, *rest: Any, **options: Any) -> dict[str, float]:
        found.append(model)
        assert evaluate_losses(model, *rest, **options) == evaluate_losses(model, *rest, **options)
        assert options["num_documents"] <= 200
        return evaluate_losses(model, *rest, **options)

    monkeypatch.setattr(run, "evaluate_losses", measure)
    state, reports = trained(settings(1), tmp_path)
    assert state.ema is not None and found == [state.ema.model] and set(reports[0].held_out) == {"text", "image"}


@pytest.mark.parametrize(
    ("given", "steps", "batch", "expected"),
    [(7, 1000, 64, 7), (0, 1000, 64, 0), (None, 1400, 64, 33), (None, 6000, 64, 120), (None, 1000, 4, 533),
     (None, 10, 512, 4)],
)  # fmt: skip
def test_held_out_losses_cost_little(
    monkeypatch: pytest.MonkeyPatch, given: int | None, steps: int, batch: int, expected: int
) -> None:
    monkeypatch.undo()
    changed = override(config(), [f"train.steps={steps}", f"train.batch_size={batch}"])
    changed = changed.model_copy(update={"train": changed.train.model_copy(update={"evaluate_every": given})})
    assert evaluation_distance(changed) == expected


def folder(where: Path, count: int = 40) -> list[str]:
    """Write captioned pictures and return overrides that train on them."""
    where.mkdir()
    for i in range(count):
        Image.fromarray(np.full((16, 16, 3), 5 * i, np.uint8)).save(where / f"{i}.png")
    lines = [json.dumps({"file": f"{i}.png", "text": f"größe {i}"}) for i in range(count)]
    (where / "captions.jsonl").write_text("\n".join(lines))
    return ["data.kind=folder", f"data.path={where}", "data.resolution=32"]


def test_a_folder_is_measured_on_what_it_holds_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def measure(model: object, objective: object, source: Source, **_: object) -> dict[str, float]:
        assert source.size is not None
        read.extend(source.name(index) for index in range(source.size))
        return {"text": 1.0}

    monkeypatch.setattr(run, "evaluate_losses", measure)
    data = folder(tmp_path / "data")
    given = settings(1, *data, "data.hold_out=0.3", "train.preview_every=1")
    _, source = open_run(given, tmp_path / "r", is_resumed=True)
    assert source.size is not None
    names = {source.name(index) for index in range(source.size)}
    _, reports = trained(given, tmp_path / "r")
    assert read and not names & set(read) and len(names) + len(read) == 40 and reports[0].is_best
    page = (tmp_path / "r" / "report.html").read_text()
    assert "größe" in page and "transfusion evaluate" in page and "data.split=test" in page and "red circle" not in page
    _, reports = trained(settings(1, *data, "data.hold_out=0"), tmp_path / "s")
    assert reports[0].held_out == {} and rows(tmp_path / "s") == {} and read_best(tmp_path / "s") is None


def test_text_alone_is_shown_by_what_it_writes(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("to be or not to be <b> that is the question\n" * 300)
    text = ["data.kind=folder", f"data.path={tmp_path}/t.txt", "data.hold_out=0.3", "train.preview_every=1"]
    _, reports = trained(settings(1, *text), tmp_path / "r")
    assert set(reports[0].held_out) == {"text"} and reports[0].samples is not None
    assert reports[0].samples.name == "step_00000001.txt"
    page = (tmp_path / "r" / "report.html").read_text()
    assert "|" in reports[0].samples.read_text() and "what stands before | was given" in page
    assert "transfusion write" in page and "transfusion generate" not in page


def test_the_report_is_there_while_it_trains_and_of_one_piece(tmp_path: Path) -> None:
    state, source = open_run(
        settings(3, "train.preview_every=2", "train.checkpoint_every=3"), tmp_path, is_resumed=True
    )
    with closing(train_run(state, source, tmp_path, threading.Event())) as reports:
        assert next(reports).report is None and next(reports).report == tmp_path / "report.html"
        page = (tmp_path / "report.html").read_text()
        assert (
            "step 2 of 3" in page and "nats per token" in page and "held out" in page and "goes on to the last" in page
        )
    trained(settings(3, "train.preview_every=2", "train.checkpoint_every=3"), tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "step 3 of 3" in page and "http" not in page and page.count("<tr><td>step ") == 2
    assert "transfusion edit" in page and f"tensorboard --logdir {tmp_path}" in page and "metrics.jsonl" in page


def test_the_report_of_a_long_run_is_written_when_the_run_grew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state, source = open_run(settings(5, "train.evaluate_every=0"), tmp_path, is_resumed=True)
    written: list[int] = []
    monkeypatch.setattr("transfusion.run.write_run_report", lambda run, config: written.append(state.step))
    monkeypatch.setattr("transfusion.run.train", lambda state, *_, **__: far(state, 1000))
    for _ in train_run(state, source, tmp_path, threading.Event()):
        pass
    assert written[:51] == [*range(1, 52)]  # a short run has one at every checkpoint
    assert len(written) < 51 + 151 and written[-1] == 1000
    assert all(step >= 1.02 * before for before, step in pairwise(written[:-1]))


def far(state: TrainState, last: int) -> Generator[StepReport]:
    """Stand for a long training with a checkpoint at every step."""
    for step in range(1, last + 1):
        state.step = step
        yield StepReport(step, {}, 1.0, 1.0, 1, 0, 1.0, 0.0, 1.0, Path("checkpoint"))


def test_samples_take_no_more_than_their_share_of_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10**6, 40))  # every look at the clock is 40 s later: so long does each drawing take
    monkeypatch.setattr(samples_module.time, "perf_counter", lambda: float(next(clock)))
    _, reports = trained(settings(12, "train.preview_every=1", "train.evaluate_every=0"), tmp_path)
    drawn = [report.step.step for report in reports if report.samples]
    trained_seconds = [sum(one.step.seconds for one in reports[:step]) for step in range(13)]
    for number, step in enumerate(drawn[:-1]):
        assert number * 40 <= max(60, 0.1 * trained_seconds[step])
    assert drawn[:2] == [1, 2] and len(drawn) < 12 and drawn[-1] == 12
