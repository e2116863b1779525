"""Opening a run."""

import os
from pathlib import Path

import pytest
from PIL import Image
from tiny import run_config

from transfusion.config import ConfigError, RunConfig, override
from transfusion.data.sources import FolderConfig
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
    assert other.found.pictures == source.found.pictures and "folder that holds a run" in other.found.left_out


def test_a_run_in_use_is_refused_but_not_to_its_holder(tmp_path: Path) -> None:
    with hold_run(tmp_path / "r") as lock:
        with pytest.raises(BusyError, match="r is being trained in"):
            open_run(config(), tmp_path / "r", is_resumed=True)
        open_run(config(), tmp_path / "r", is_resumed=True, lock=lock)
