"""``export``: what others load, without what only a training needs."""

import json
import os
import shutil
import stat
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_cli import call
from test_show import make_run
from tiny import equal

from transfusion.pretrained import Transfusion
from transfusion.tokenizer import train_tokenizer


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a run whose averaged weights differ from the trained ones."""
    folder = tmp_path_factory.mktemp("runs")
    train_tokenizer(["a red star", "a blue circle"], 270).save(folder)
    return make_run(folder / "toy", "tokenizer.kind=file", f"tokenizer.path={folder}/tokenizer.json")


def checkpoint(run: Path) -> Path:
    """Return the run's one checkpoint."""
    return run / "checkpoints" / "step_00000002"


def modes(folder: Path) -> set[int]:
    """Return the modes of the files of a folder."""
    return {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}


def test_it_holds_what_loading_needs_and_others_may_read_it(run: Path, tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        told = json.loads(call("export", run, tmp_path / "new" / "mine", "--json").stdout)
    finally:
        os.umask(before)
    folder = tmp_path / "new" / "mine"
    names = {"config.json", "model.safetensors", "tokenizer.json", "manifest.json"}
    assert {file.name for file in folder.iterdir()} == names and modes(folder) == {0o644}
    source = checkpoint(run)
    assert equal(load_file(folder / "model.safetensors"), load_file(source / "ema.safetensors"))
    named = json.loads((source / "manifest.json").read_text())["ema.safetensors"]
    assert told["sha256"] == named["sha256"] and told["weights"] == "averaged"
    one, other = Transfusion.from_pretrained(folder), Transfusion.from_pretrained(run)
    assert equal(one.model.state_dict(), other.model.state_dict()) and one.config == other.config
    assert one.tokenizer.encode("a red star") == other.tokenizer.encode("a red star")


def test_the_weights_that_are_asked_for(run: Path, tmp_path: Path) -> None:
    source = tmp_path / "r"
    shutil.copytree(run, source)
    call("export", source, tmp_path / "t", "--weights", "trained")
    assert equal(load_file(tmp_path / "t" / "model.safetensors"), load_file(checkpoint(source) / "model.safetensors"))
    call("export", source, tmp_path / "b", "--dtype", "bf16")
    halves = load_file(tmp_path / "b" / "model.safetensors")
    wanted = load_file(checkpoint(source) / "ema.safetensors")
    assert {value.dtype for value in halves.values()} == {torch.bfloat16} and modes(tmp_path / "b") == modes(
        tmp_path / "t"
    )
    assert equal(halves, {name: value.bfloat16() for name, value in wanted.items()})
    loaded = Transfusion.from_pretrained(tmp_path / "b").model.state_dict()
    assert equal(loaded, {name: value.bfloat16().float() for name, value in wanted.items()})


def test_a_checkpoint_whose_optimizer_is_gone_is_enough(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "r")
    for name in ("optimizer.safetensors", "state.json"):
        (checkpoint(tmp_path / "r") / name).unlink()
    call("export", tmp_path / "r", tmp_path / "mine")
    assert Transfusion.from_pretrained(tmp_path / "mine").resolution == 32
    assert Transfusion.from_pretrained(checkpoint(tmp_path / "r")).resolution == 32


def test_nothing_of_the_users_is_replaced(run: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").write_text("mine")
    assert "is not replaced" in call("export", run, tmp_path / "taken", code=1).stderr
    assert (tmp_path / "taken" / "notes.txt").read_text() == "mine"
    assert "is not replaced" in call("export", run, run, code=1).stderr
    assert "training checkpoint" in call("export", run, checkpoint(run), code=1).stderr
    call("export", run, tmp_path / "mine")
    call("export", tmp_path / "mine", tmp_path / "mine", "--dtype", "bf16")
    assert Transfusion.from_pretrained(tmp_path / "mine").resolution == 32


def test_what_is_not_there_is_said(run: Path, tmp_path: Path) -> None:
    assert "--weights 'best' is unknown" in call("export", run, tmp_path / "x", "--weights", "best", code=2).stderr
    assert "--dtype 'fp8' is unknown" in call("export", run, tmp_path / "x", "--dtype", "fp8", code=2).stderr
    assert "no checkpoint at" in call("export", tmp_path, tmp_path / "x", code=1).stderr
    call("export", run, tmp_path / "mine")
    again = call("export", tmp_path / "mine", tmp_path / "y", "--weights", "averaged", code=2).stderr
    assert "has no averaged weights" in again and not (tmp_path / "y").exists()
