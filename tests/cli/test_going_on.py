"""Going on from what one has, from the command line: new data, more steps, and no folder of weights that is ignored."""

import json
import os
import shutil
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from transfusion.cli import main
from transfusion.cli.places import said_paths
from transfusion.cli.training import find_config
from transfusion.config import ConfigError
from transfusion.files import append_row
from transfusion.train.tensors import load_tensors

QUICK = ["train.batch_size=4", "train.num_workers=0", "train.preview_every=0", "train.precision=fp32"]
SMALL = [*QUICK, "train.steps=2", "model.trunk.dim=32", "model.trunk.depth=1"]


def call(*arguments: str | Path, code: int = 0) -> str:
    """Run a verb in this process, check its exit code and return what it says."""
    told = StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(told), redirect_stderr(told):
        patch.setattr(sys, "argv", ["transfusion", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
    assert (ended.value.code or 0) == code, told.getvalue()
    return told.getvalue()


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a little text."""
    file = tmp_path_factory.mktemp("data") / "words.txt"
    file.write_text("to be or not to be\n" * 30)
    return file


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, words: Path) -> Path:
    """Train a run of two steps on text, smaller than its recipe."""
    run = tmp_path_factory.mktemp("runs") / "trained"
    call("train", "folder", f"data.path={words}", *SMALL, "--run", run)
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """Return a copy of the run that may be changed."""
    return shutil.copytree(trained, tmp_path / "run")


def last(run: Path) -> Path:
    """Return a run's newest checkpoint."""
    return max((run / "checkpoints").iterdir())


def test_fine_tuning_is_one_command_and_the_same_command_goes_on(run: Path, words: Path, tmp_path: Path) -> None:
    """What the recipe says of the model gives way without a word; what the user says does not."""
    new = tmp_path / "new"
    command = ["train", "folder", f"data.path={words}", *QUICK, f"train.init={run}", "--run", new]
    assert "model.trunk.dim is 48, but was 32 for these weights" in call(*command, "model.trunk.dim=48", code=2)
    assert not new.exists()
    shown = json.loads(call("config", "folder", f"train.init={run}"))
    assert shown["model"]["trunk"]["dim"] == 32 and shown["train"]["steps"] == 6000
    call(*command, "train.steps=2", "train.freeze=trunk.*")
    old, now = (load_tensors(last(path) / "model.safetensors") for path in (run, new))
    assert old.keys() == now.keys() and json.loads((last(new) / "state.json").read_text())["origin"]["step"] == 2
    shutil.rmtree(run)
    assert "train.steps is 3, was 2" in call(*command, "train.steps=3", "train.freeze=trunk.*", code=2)
    told = call(*command, "train.steps=3", "train.freeze=trunk.*", "--change")
    assert "resuming at step 2 of 3" in told and " frozen)" in told and last(new).name == "step_00000003"
    assert "no checkpoint at" in call(*command, "train.steps=3", "--anew", code=1)


def test_a_run_in_a_folder_whose_name_is_not_unicode_is_one_like_others(run: Path, tmp_path: Path) -> None:
    """The library of weights knows no such name."""
    odd = run.rename(tmp_path / os.fsdecode(b"r\xff"))
    for file in ("report.html", "scores.json"):
        (odd / file).unlink(missing_ok=True)
    assert "resuming at step 2 of 3" in call("train", odd, "train.steps=3", "--change")
    assert (odd / "report.html").exists() and last(odd).name == "step_00000003"
    (odd / "scores.json").write_text('{"a": ' + "[" * 900 + "]" * 900 + "}")  # deeper than anything is gone through
    assert json.loads(call("show", odd, "--json"))["scores"] is None
    assert "wrote" in call("report", odd) and "bf16" in call("export", odd, tmp_path / "out", "--dtype", "bf16")


def test_a_run_is_prolonged_when_it_is_said(run: Path) -> None:
    refused = call("train", run, "train.steps=4", code=2)
    assert "train.steps is 4, was 2" in refused and "--change" in refused
    assert last(run).name == "step_00000002" and len((run / "changes.jsonl").read_text().splitlines()) == 1
    told = call("train", run, "train.steps=4", "--change")
    assert "resuming at step 2 of 4" in told and last(run).name == "step_00000004"
    assert json.loads((run / "changes.jsonl").read_text().splitlines()[1])["setting"] == "train.steps"
    assert "train.batch_size is 5, was 4 (which documents" in call(
        "train", run, "train.batch_size=5", "--change", code=2
    )


def everything(folder: Path) -> dict[Path, bytes]:
    """Return all files of a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_that_holds_a_model_is_never_ignored(run: Path, words: Path, tmp_path: Path) -> None:
    mine, new, data = tmp_path / "mine", tmp_path / "new", f"data.path={words}"
    shutil.copytree(last(run), mine)
    before = everything(mine)
    for arguments in (
        ("train", mine, data),
        ("train", mine, data, "--anew"),
        ("train", "folder", data, *SMALL, "--run", mine),
        ("train", "folder", data, *SMALL, "--run", mine, "--anew"),
        ("train", "folder", data, *QUICK, f"train.init={run}", "--run", mine),
        ("train", run, "--run", mine),
        ("demo", "--run", mine, "--anew"),
    ):
        told = call(*arguments, code=2)
        assert f"transfusion train RECIPE train.init={mine} --run runs/NEW" in told
        assert f"transfusion train {mine} --run runs/NEW" in told
    assert everything(mine) == before
    call("train", "folder", data, *QUICK, "train.steps=1", f"train.init={mine}", "--run", new)  # what it says to do
    call("train", mine, "train.steps=3", "--change", "--run", tmp_path / "longer")
    assert last(tmp_path / "longer").name == "step_00000003" and everything(mine) == before


def test_without_its_moments_a_model_is_begun_from_and_not_gone_on_with(run: Path, tmp_path: Path) -> None:
    from transfusion.pretrained import Transfusion

    saved = Transfusion.from_pretrained(run).save_pretrained(tmp_path / "saved")
    refused = call("train", saved, code=2)
    assert f"train.init={saved}" in refused and f"transfusion train {saved}" not in refused
    told = call("train", saved, "--run", tmp_path / "new", code=1)
    assert "lacks ema.safetensors, optimizer.safetensors, state.json" in told and f"train.init={saved}" in told
    assert not (tmp_path / "new").exists()


def test_damaged_moments_are_not_gone_on_with(run: Path, tmp_path: Path) -> None:
    file = last(run) / "optimizer.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert "optimizer.safetensors" in call("train", last(run), "--run", tmp_path / "new", code=1)


def test_no_other_way_ignores_weights(run: Path, words: Path, tmp_path: Path) -> None:
    data, new = f"data.path={words}", tmp_path / "new"
    assert "lies in the folder of the run" in call(
        "train", "folder", data, f"train.init={run}", "--run", run, "--anew", code=2
    )
    mine = shutil.copytree(last(run), tmp_path / "mine")
    told = call("train", "folder", data, f"train.init={mine}", *QUICK, "train.steps=2", "--run", run, code=2)
    assert "train.init is" in told and "weights are taken when a run begins" in told
    assert "leave --anew out" in call("train", run, "--run", new, "--anew", code=2)
    (tmp_path / "empty").mkdir()
    assert "no checkpoint at" in call("train", tmp_path / "empty", code=1)
    assert f"train.init={tmp_path / 'no'}: no checkpoint" in call(
        "train", "tiny", f"train.init={tmp_path / 'no'}", code=1
    )
    call("train", run, "train.steps=3", "--change")
    old = min((run / "checkpoints").iterdir())
    told = call("train", old, code=2)
    assert "step_00000002 is not the newest checkpoint" in told and f"transfusion train {old} --run runs/NEW" in told
    call("train", last(run))  # the newest is the run itself


def test_a_setting_reaches_what_the_run_took_since_its_checkpoint(run: Path) -> None:
    for path, value in (("schedule", "constant"), ("cooldown", 0.2)):
        row = {"step": 2, "setting": f"train.optimizer.{path}", "old": None, "new": value}
        append_row(run / "changes.jsonl", row)
    assert find_config(str(run), ["train.optimizer.cooldown=0.3"]).train.optimizer.cooldown == 0.3
    append_row(run / "changes.jsonl", {"step": 2, "setting": "train.optimizer.schedule", "new": "cosine"})
    with pytest.raises(ConfigError, match="cooldown reaches nothing while train.optimizer.schedule is 'cosine'"):
        find_config(str(run), ["train.optimizer.cooldown=0.3"])
    assert find_config(str(run), []).train.optimizer.schedule == "cosine"


def test_what_is_said_wins_over_an_unsaved_change_and_the_rest_is_kept(run: Path, words: Path, tmp_path: Path) -> None:
    lr, recipe = "train.optimizer.lr", ("train", "folder", f"data.path={words}", *SMALL, "--run", run)
    was = json.loads(call("config", run))["train"]["optimizer"]["lr"]
    for path, value in ((lr, 1e-5), ("train.steps", 2), ("train.max_dropped", 0.5)):
        append_row(run / "changes.jsonl", {"step": 2, "setting": path, "old": None, "new": value})

    def change(*arguments: object, code: int = 0) -> str:
        copy = shutil.copytree(run, tmp_path / "copy", dirs_exist_ok=True)
        shutil.copy(run / "changes.jsonl", copy)
        told = call(*(str(each).replace(str(run), str(copy)) for each in arguments), code=code)
        rows = [json.loads(line) for line in (copy / "changes.jsonl").read_text().splitlines()[4:]]
        return told if code else json.dumps([(row["setting"], row["old"], row["new"]) for row in rows])

    back = json.dumps([(lr, 1e-5, was)])
    assert change("train", run) == change(*recipe) == change(*recipe, "--change") == "[]"
    assert change("train", run, f"{lr}={was}", "--change") == back
    assert change(*recipe, f"{lr}={was}", "--change") == back
    assert f"{lr} is {was}, was 1e-05" in change("train", run, f"{lr}={was}", code=2)
    file = tmp_path / "settings.json"
    file.write_text(call("config", last(run)))
    assert change("train", file, "--run", run) == "[]"
    assert [lr, 1e-5, was] in json.loads(change("train", file, "--run", run, "--change"))  # the file says it


def test_going_on_elsewhere_again_is_no_other_training(run: Path, words: Path, tmp_path: Path) -> None:
    new, other = tmp_path / "new", tmp_path / "other"
    append_row(run / "changes.jsonl", {"step": 2, "setting": "train.steps", "old": 2, "new": 3})
    append_row(run / "changes.jsonl", {"step": 2, "setting": "train.optimizer.lr", "old": 1e-3, "new": 1e-5})
    assert "resuming at step 2 of 3" in call("train", run, "--run", new)
    assert {row.get("setting") for row in map(json.loads, (new / "changes.jsonl").read_text().splitlines())} >= {
        "train.steps", "train.optimizer.lr"
    }  # fmt: skip
    assert "finished: step 3 of 3" in call("train", run, "--run", new)
    call("train", "folder", f"data.path={words}", *SMALL, "train.seed=5", "--run", other)
    told = call("train", run, "--run", other, code=2)
    assert f"{other} has checkpoints already, and began from nothing, not from {run}" in told
    assert f"not from {other}; go on with it (transfusion train {new})" in call("train", other, "--run", new, code=2)


def test_a_file_of_settings_says_all_of_them_also_with_an_override(run: Path) -> None:
    lr = "train.optimizer.lr"
    call("train", run, f"{lr}=0.0005", "train.steps=3", "--change")
    row = {"step": 3, "setting": lr, "old": 0.0005, "new": 0.0001}
    with (run / "changes.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    settings = run / "mine.json"
    settings.write_text((last(run) / "config.json").read_text())
    told = call("train", settings, "train.steps=4", "--run", run, "--change")
    assert f"{lr} is 0.0005, was 0.0001" in told
    assert said_paths(["train.steps = 4"], is_file=True) == ("", "train.steps") and said_paths([], is_file=False) == ()
