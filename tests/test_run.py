"""Opening a run."""

import os
from pathlib import Path

import pytest
from tiny import run_config

from transfusion.config import RunConfig, override
from transfusion.run import open_run
from transfusion.train.lock import BusyError, hold_run

SMALL = ("train.row_length=512", "model.trunk.num_heads=2", "train.batch_size=2")


def config() -> RunConfig:
    """Make settings of a tiny run over the built-in world."""
    return override(RunConfig(train=run_config(2).train), ["model.trunk.dim=32", "model.trunk.depth=1", *SMALL])


def test_what_a_kill_left_is_swept_and_the_lock_is_let_go(tmp_path: Path) -> None:
    left = tmp_path / "checkpoints" / ".step_00000007.partial"
    left.mkdir(parents=True)
    (left / "model.safetensors").write_bytes(b"half")
    state, _ = open_run(config(), tmp_path, is_resumed=True)
    assert state.step == 0 and os.listdir(tmp_path / "checkpoints") == [] and os.listdir(tmp_path) == ["checkpoints"]
    open_run(config(), tmp_path / "new", is_resumed=True)
    assert not (tmp_path / "new").exists()


def test_a_run_in_use_is_refused_but_not_to_its_holder(tmp_path: Path) -> None:
    with hold_run(tmp_path / "r") as lock:
        with pytest.raises(BusyError, match="r is being trained in"):
            open_run(config(), tmp_path / "r", is_resumed=True)
        open_run(config(), tmp_path / "r", is_resumed=True, lock=lock)
