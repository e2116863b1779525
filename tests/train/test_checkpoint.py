"""Checkpoints: whole or absent, verified, newest first."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from transfusion.train.checkpoint import (
    CheckpointError,
    load_weights,
    newest,
    prune,
    publish,
    save_tensors,
    step_directory,
    verify,
)


def write(folder: Path) -> None:
    """Write a small checkpoint."""
    save_tensors({"weight": torch.ones(2, 3), "bias": torch.zeros(2)}, folder / "model.safetensors")
    (folder / "config.json").write_text("{}")


def truncate(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


def flip(folder: Path) -> None:
    file = folder / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))


def spoil(folder: Path) -> None:
    (folder / "manifest.json").write_text("{")


DAMAGES: list[tuple[Callable[[Path], None], str]] = [
    (truncate, "bytes; its manifest says"),
    (flip, "differs from its manifest's SHA-256"),
    (lambda folder: (folder / "config.json").unlink(), "lacks config.json"),
    (lambda folder: (folder / "manifest.json").unlink(), "has no manifest.json"),
    (spoil, "is not JSON"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_damage_is_found_and_an_older_checkpoint_taken(
    tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    old, new = (publish(step_directory(tmp_path, step), write) for step in (1, 2))
    assert newest(tmp_path) == new
    damage(new)
    with pytest.raises(CheckpointError, match=message):
        verify(new)
    assert newest(tmp_path) == old


def test_a_failed_write_publishes_nothing_and_keeps_the_old(tmp_path: Path) -> None:
    target = publish(tmp_path / "model", write)

    def fail(folder: Path) -> None:
        write(folder)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        publish(target, fail)
    verify(target)
    with pytest.raises(OSError, match="disk full"):
        publish(step_directory(tmp_path, 7), fail)
    assert newest(tmp_path) is None


def test_the_manifest_is_there_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    rename = Path.rename

    def spy(self: Path, target: Path) -> Path:
        seen.append((self / "manifest.json").exists())
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", spy)
    publish(tmp_path / "model", write)
    publish(tmp_path / "model", write)
    assert seen == [True, True, True]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_prune_keeps_the_newest(tmp_path: Path) -> None:
    for step in (1, 20, 3, 100):
        publish(step_directory(tmp_path, step), write)
    prune(step_directory(tmp_path, 100), 2)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step_00000020", "step_00000100"]


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    folder = publish(tmp_path / "model", write)
    model = nn.Linear(3, 2)
    load_weights(model, folder / "model.safetensors")
    assert bool((model.weight == 1).all())
    with pytest.raises(CheckpointError, match=r"weight has shape \(2, 3\); the config makes \(2, 4\)"):
        load_weights(nn.Linear(4, 2), folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"has \['bias'\] too many"):
        load_weights(nn.Linear(3, 2, bias=False), folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="does not exist"):
        load_weights(model, tmp_path / "nothing.safetensors")


def test_prune_keeps_what_was_just_published(tmp_path: Path) -> None:
    for step in (1, 2, 9):
        step_directory(tmp_path, step).mkdir(parents=True)
    prune(step_directory(tmp_path, 2), 1)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step_00000002", "step_00000009"]
