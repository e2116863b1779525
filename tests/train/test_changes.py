"""Going on longer or at other rates: when it is said, told, and exact where nothing changed."""

import json
import shutil
import threading
from pathlib import Path

import pytest
import torch
from tiny import ToySource, equal, run_config

from transfusion.config import ConfigError, RunConfig, override
from transfusion.files import append_row
from transfusion.train.changes import CHANGEABLE, FIXED, Change, Said, differences, record_changes, with_taken
from transfusion.train.checkpoint import checkpoints, step_directory
from transfusion.train.loop import train
from transfusion.train.manifest import CheckpointError, read_manifest
from transfusion.train.metrics import read_metrics
from transfusion.train.opening import begin, resume
from transfusion.train.optimizer import optimizer_tensors
from transfusion.train.state import TrainState

CPU = torch.device("cpu")
CONSTANT = ["train.optimizer.schedule=constant", "train.optimizer.cooldown=0"]
INVERSE = ["train.optimizer.schedule=inverse_sqrt"]


def config(*overrides: str) -> RunConfig:
    """Make settings of a run of four steps."""
    return override(run_config(4, checkpoint_every=100), overrides)


def finish(state: TrainState | None, run: Path) -> TrainState:
    """Train to the end."""
    assert state is not None
    state.check_data("toy")
    for _ in train(state, ToySource(), run, threading.Event()):
        pass
    return state


def tensors(state: TrainState) -> dict[str, torch.Tensor]:
    """Collect all that a step changes."""
    assert state.ema is not None
    average = {f"ema.{name}": value for name, value in state.ema.model.state_dict().items()}
    return {**state.model.state_dict(), **average, **optimizer_tensors(state.optimizers)}


@pytest.mark.parametrize("schedule", [CONSTANT, INVERSE], ids=["constant", "inverse_sqrt"])
def test_a_run_that_is_prolonged_is_the_longer_run(tmp_path: Path, schedule: list[str]) -> None:
    whole = finish(begin(config("train.steps=6", *schedule), CPU), tmp_path / "whole")
    finish(begin(config(*schedule), CPU), tmp_path / "parts")
    longer = config("train.steps=6", *schedule)
    with pytest.raises(ConfigError, match=r"train.steps is 6, was 4; go on with its own .* --change"):
        resume(longer, tmp_path / "parts", CPU)
    parts = finish(resume(longer, tmp_path / "parts", CPU, is_change_wanted=True), tmp_path / "parts")
    assert parts.step == 6 and equal(tensors(whole), tensors(parts))
    losses = [[(row["step"], row["loss/text"]) for row in read_metrics(tmp_path / name)] for name in ("whole", "parts")]
    assert losses[0] == losses[1]
    rows = [json.loads(line) for line in (tmp_path / "parts" / "changes.jsonl").read_text().splitlines()]
    assert rows == [{"step": 0, "begun": True}, {"step": 4, "setting": "train.steps", "old": 4, "new": 6}]
    with pytest.raises(ConfigError, match="train.steps is 4, was 6"):  # and not back by accident
        resume(config(*schedule), tmp_path / "parts", CPU)


def test_it_is_said_what_the_rate_does(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    finish(begin(config(), CPU), tmp_path)
    longer = config("train.steps=8", "train.optimizer.lr=0.001")
    state = resume(longer, tmp_path, CPU, is_change_wanted=True)
    assert state is not None and {group["peak_lr"] for group in state.optimizers[0].param_groups} == {0.001}
    # Cosine after two steps of warm-up: the fourth of four steps is half-way, the fifth of eight a third.
    told = (
        "the rate goes from 0.525 of its peak (step 4) to 0.762 (step 5), and to 0.114 at the last (step 8); it goes up"
    )
    assert told in caplog.text and "the peak of lr goes from 0.01 to 0.001" in caplog.text
    assert "train.steps is 8, was 4" in caplog.text and "inverse_sqrt is prolonged without a jump" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("train.batch_size=5", r"train.batch_size is 5, was 6 \(which documents a step takes follows from it\)"),
        ("train.steps=3", r"train.steps is 3, was 4 \(so many steps are done already\)"),
        ("train.optimizer.kind=adamw", "moments are of the other kind"),
        ("train.freeze=trunk.*", "moments of the parameters that it moved"),
        ("model.trunk.rope_base=50", "the weights are of that model"),
        ("data.tasks.edit=1", "begin a new run from its weights"),
        ("train.init=elsewhere", "weights are taken when a run begins"),
        ("train.ema_decay=null", "averages are taken from the first step on"),
    ],
)
def test_what_gives_the_state_another_meaning_stays(tmp_path: Path, change: str, message: str) -> None:
    folder = Path(_run(tmp_path))
    with pytest.raises(ConfigError, match=message):
        resume(config(change), folder, CPU, is_change_wanted=True)
    assert [*map(json.loads, (folder / "changes.jsonl").read_text().splitlines())] == [{"step": 0, "begun": True}]


_made: list[Path] = []


def _run(folder: Path) -> Path:
    """Train a run of four steps, once for all who only read it."""
    if not _made:
        finish(begin(config(), CPU), folder / "run")
        _made.append(folder / "run")
    return _made[0]


def test_every_setting_that_may_change_is_one() -> None:
    tree = json.loads(config().to_json())
    for path in CHANGEABLE:
        node = tree
        for name in path.split("."):
            assert name in node, path
            node = node[name]
    assert "" in FIXED


def test_a_change_that_a_kill_overtook_is_taken_again(tmp_path: Path) -> None:
    finish(begin(config(), CPU), tmp_path)
    state = resume(config("train.steps=6"), tmp_path, CPU, is_change_wanted=True)
    assert state is not None
    state.check_data("toy")
    reports = train(state, ToySource(), tmp_path, threading.Event())
    next(reports)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("transfusion.train.loop._keep", lambda *_: None)  # as by a kill: nothing more is saved
        reports.close()
    again = resume(config(), tmp_path, CPU)
    assert again is not None and (again.step, again.config.train.steps, again.changes) == (4, 6, ())


def test_the_checkpoint_before_the_cool_down_is_kept_and_gone_on_from_elsewhere(tmp_path: Path) -> None:
    cooling = ["train.optimizer.schedule=constant", "train.optimizer.cooldown=0.5", "train.checkpoint_every=1"]
    given = [*cooling, "train.num_checkpoints=1"]
    finish(begin(config("train.steps=6", *given), CPU), tmp_path / "first")
    assert [path.name[-1] for path in checkpoints(tmp_path / "first")] == ["4", "6"]  # step 3 is the last at the peak
    before = step_directory(tmp_path / "first", 4)
    longer = config("train.steps=12", *given, "train.checkpoint_every=100")
    with pytest.raises(ConfigError, match="--change"):
        resume(longer, tmp_path / "second", CPU, goes_on_from=before)
    state = resume(longer, tmp_path / "second", CPU, goes_on_from=before, is_change_wanted=True)
    parts = finish(state, tmp_path / "second")
    whole = finish(begin(longer, CPU), tmp_path / "whole")
    assert equal(tensors(whole), tensors(parts))
    rows = [json.loads(line) for line in (tmp_path / "second" / "changes.jsonl").read_text().splitlines()]
    sha256 = read_manifest(before)["model.safetensors"].sha256
    assert [row["step"] for row in rows] == [4, 4] and rows[1]["setting"] == "train.steps"
    assert rows[0]["from"] == {
        "path": str(before), "checkpoint": str(before), "step": 4, "weights": "trained", "sha256": sha256,
    }  # fmt: skip
    assert [path.name[-1] for path in checkpoints(tmp_path / "first")] == ["4", "6"]  # as it was


def test_what_was_tried_in_a_folder_is_not_taken_by_a_run_from_elsewhere(tmp_path: Path) -> None:
    source, new = _run(tmp_path), tmp_path / "new"
    append_row(new / "changes.jsonl", {"step": 4, "setting": "train.optimizer.lr", "old": 0.001, "new": 0.07})
    state = resume(config(), new, CPU, goes_on_from=step_directory(source, 4))
    assert state is not None and state.config.train.optimizer.lr == config().train.optimizer.lr and not state.changes


def test_a_model_without_moments_is_not_gone_on_from(tmp_path: Path) -> None:
    folder = step_directory(_run(tmp_path), 4)
    copy = tmp_path / "model"
    copy.mkdir()
    manifest = json.loads((folder / "manifest.json").read_text())
    kept = {name: facts for name, facts in manifest.items() if name not in ("optimizer.safetensors", "state.json")}
    for name in kept:
        (copy / name).write_bytes((folder / name).read_bytes())
    (copy / "manifest.json").write_text(json.dumps(kept))
    with pytest.raises(CheckpointError, match=r"lacks optimizer.safetensors, state.json.*train.init="):
        resume(config(), tmp_path / "new", CPU, goes_on_from=copy)


def test_a_folder_that_holds_a_model_is_not_trained_in(tmp_path: Path) -> None:
    folder = step_directory(_run(tmp_path), 4)
    state = begin(config(), CPU)
    with pytest.raises(ConfigError, match=f"holds a model.*train.init={folder}"):
        finish(state, folder)
    assert not (folder / "metrics.jsonl").exists()


def recorded(run: Path, *steps: str) -> None:
    """Record changes as a run that takes them one after the other at step 4."""
    before = config(*CONSTANT)
    for text in steps:
        after = override(before, [text])
        record_changes(run, 4, differences(before, after))
        before = after


def test_changes_are_taken_again_whatever_they_leave_to_reach(tmp_path: Path) -> None:
    finish(begin(config(*CONSTANT), CPU), tmp_path)
    recorded(tmp_path, "train.optimizer.cooldown=0.2", "train.optimizer.schedule=cosine", "train.steps=9")
    said = Said(config(*CONSTANT, "train.optimizer.lr=0.001"), ["train.optimizer.lr"])
    state = resume(said, tmp_path, CPU, is_change_wanted=True)
    assert state is not None and state.config.train.steps == 9
    assert (state.config.train.optimizer.schedule, state.config.train.optimizer.cooldown) == ("cosine", 0.2)
    assert [change.setting for change in state.changes] == ["train.optimizer.lr"]


LR = "train.optimizer.lr"
BACK = Change(LR, 0.001, 0.01)


@pytest.mark.parametrize(
    ("said", "is_change_wanted", "changes"),
    [
        ([LR], True, (BACK,)),
        (["train.optimizer"], True, (BACK,)),
        ([f"{LR}.0"], True, (BACK,)),  # as of betas
        ([], True, ()),
        (["train.optimizer.l"], True, ()),
        (None, True, (BACK,)),  # a tree from Python, with the word that a change is wanted
        (None, False, ()),
        (["", "train.log_every"], True, (BACK,)),  # a file, with an override
        (["", "train.log_every"], False, ()),
        (["", LR], False, None),  # refused: it is said, and no change is wanted
    ],
)
def test_what_is_said_wins_over_what_the_run_took(
    tmp_path: Path, *, said: list[str] | None, is_change_wanted: bool, changes: tuple[Change, ...] | None
) -> None:
    run = shutil.copytree(_run(tmp_path), tmp_path / "copy")
    recorded(run, f"{LR}=0.001")
    if changes is None:
        with pytest.raises(ConfigError, match="lr is 0.01, was 0.001"):
            resume(Said(config(), said), run, CPU, is_change_wanted=is_change_wanted)
        return
    state = resume(Said(config(), said), run, CPU, is_change_wanted=is_change_wanted)
    assert state is not None and state.changes == changes
    assert state.config.train.optimizer.lr == (0.01 if changes else 0.001)
    if said is None:
        tree = resume(config(), run, CPU, is_change_wanted=is_change_wanted)
        assert tree is not None and tree.changes == changes


def test_to_say_a_setting_is_to_change_it(tmp_path: Path) -> None:
    run = shutil.copytree(_run(tmp_path), tmp_path / "copy")
    recorded(run, "train.steps=9")
    with pytest.raises(ConfigError, match="train.steps is 4, was 9.*--change"):
        resume(Said(config(), ["train.steps"]), run, CPU)


def test_a_run_from_elsewhere_goes_on_with_what_that_run_took(tmp_path: Path) -> None:
    source, new = shutil.copytree(_run(tmp_path), tmp_path / "copy"), tmp_path / "new"
    recorded(source, f"{LR}=0.001", "train.steps=6")
    state = resume(Said(config(f"{LR}=0.001", "train.steps=6"), ()), new, CPU, goes_on_from=source)
    assert state is not None and (state.config.train.steps, state.config.train.optimizer.lr) == (6, 0.001)
    assert {change.setting for change in state.changes} == {"train.steps", LR}  # its own folder tells of them, too
    finish(state, new)
    again = resume(Said(config(f"{LR}=0.001", "train.steps=6"), ()), new, CPU, goes_on_from=source)
    assert again is not None and again.step == 6
    checkpoint = resume(Said(config(), ()), tmp_path / "other", CPU, goes_on_from=step_directory(source, 4))
    assert checkpoint is not None and checkpoint.config.train.optimizer.lr == 0.01  # which took nothing


def test_a_run_that_did_not_go_on_from_there_is_refused(tmp_path: Path) -> None:
    source, new = shutil.copytree(_run(tmp_path), tmp_path / "copy"), tmp_path / "new"
    finish(resume(config("train.steps=5"), new, CPU, goes_on_from=source, is_change_wanted=True), new)
    other = shutil.copytree(source, tmp_path / "other")
    finish(resume(config("train.steps=6"), other, CPU, is_change_wanted=True), other)
    given = config("train.steps=5")
    for named in (source, step_directory(source, 4), step_directory(other, 4)):  # the last has the same weights
        assert (resume(given, new, CPU, goes_on_from=named) or start()).step == 5
    source.rename(tmp_path / "moved")
    assert (resume(given, new, CPU, goes_on_from=tmp_path / "moved") or start()).step == 5
    for run, named, began in ((new, step_directory(other, 6), f"from {source}"), (other, new, "from nothing")):
        with pytest.raises(ConfigError, match=f"{run} has checkpoints already, and began {began}, not from {named};"):
            resume(given, run, CPU, goes_on_from=named)


def start() -> TrainState:
    """Begin a run."""
    return begin(config(), CPU)


def test_a_file_of_changes_with_a_bad_value_is_named(tmp_path: Path) -> None:
    (tmp_path / "changes.jsonl").write_text('{"step": 4, "setting": "train.steps", "old": 4, "new": "many"}\n')
    with pytest.raises(ConfigError, match=r"changes.jsonl: train.steps: .*given 'many'"):
        with_taken(config(), config(), tmp_path, 4)
