"""Checkpoints: whole or absent, verified, newest first."""

import hashlib
import itertools
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest
import torch
from torch import nn

from transfusion.train.checkpoint import checkpoints, make_room, newest, prune, publish, step_directory, sweep, verified
from transfusion.train.lock import BusyError
from transfusion.train.manifest import CheckpointError, verify
from transfusion.train.tensors import load_tensors, load_weights, save_tensors


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


def manifest_of(content: object) -> Callable[[Path], None]:
    """Make a damage that writes another manifest."""
    return lambda folder: put(folder / "manifest.json", json.dumps(content))


def to_folder(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "config.json").mkdir()


def to_loop(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to("config.json")


DAMAGES: list[tuple[Callable[[Path], None], str]] = [
    (truncate, "bytes; its manifest says"),
    (flip, "differs from its manifest's SHA-256"),
    (lambda folder: (folder / "config.json").unlink(), "lacks config.json"),
    (lambda folder: (folder / "manifest.json").unlink(), "has no manifest.json"),
    (spoil, "is not JSON"),
    (to_folder, "lacks config.json"),
    (to_loop, "config.json|symbolic links"),
    (lambda folder: (folder / "manifest.json").write_bytes(b"\xff{}"), "manifest.json cannot be used"),
    (lambda folder: put(folder / "manifest.json", "[" * 100_000), "manifest.json cannot be used"),
    (manifest_of([]), "holds no object of file names"),
    (manifest_of({}), "holds no object of file names"),
    (manifest_of({"config.json": 3}), "does not give bytes and sha256 of config.json"),
    (manifest_of({"config.json": {"bytes": 2}}), "does not give bytes and sha256 of config.json"),
    (manifest_of({"config.json": {"bytes": "2", "sha256": []}}), "its manifest says 2"),
    *(
        (manifest_of({name: {"bytes": 2, "sha256": ""}}), "is no plain file name")
        for name in ("", ".", "..", "../x", "/etc/passwd", "a/b", "a\\b", "a\0b")
    ),
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


def put(path: Path, text: str = "mine") -> None:
    """Write a file, with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ((), "is a file"),
        (("checkpoints/step_00000001/model.safetensors", "metrics.jsonl", "notes.md"), "checkpoints, metrics.jsonl, n"),
        (("model.safetensors", "config.json"), "config.json, model.safetensors"),
        (tuple("abcdefg"), "a, b, c, d, e and 2 more"),
        (("manifest.json", "notes.md"), "manifest.json, notes.md"),
        (("manifest.json",), "manifest.json"),
    ],
)
def test_nothing_but_a_checkpoint_is_replaced(tmp_path: Path, names: tuple[str, ...], told: str) -> None:
    target = tmp_path / "target"
    for path in [target / name for name in names] or [target]:
        put(path)
    before = sorted(tmp_path.rglob("*"))

    def never(folder: Path) -> None:
        raise AssertionError("it is refused before anything is written")

    with pytest.raises(CheckpointError, match=told):
        publish(target, never)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["notes.md", "config.json/notes.md"])
def test_a_users_file_in_a_checkpoint_is_not_lost(tmp_path: Path, name: str) -> None:
    target = publish(tmp_path / "model", write)
    if name.startswith("config.json"):
        (target / "config.json").unlink()
    put(target / name)
    with pytest.raises(CheckpointError, match=name.split("/")[0]):
        publish(target, write)
    assert (target / name).read_text() == "mine"

    def late(folder: Path) -> None:
        write(folder)
        put(other / name)

    other = publish(tmp_path / "other", lambda folder: put(folder / "a.bin"))
    with pytest.raises(CheckpointError, match=name.split("/")[0]):
        publish(other, late)
    assert (other / name).read_text() == "mine" and sorted(os.listdir(tmp_path)) == ["model", "other"]


def test_an_empty_folder_and_links_may_be_published_to(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("far/away")
    for name in ("empty", "link", "link"):
        assert publish(tmp_path / name, write) == tmp_path / name
        verify(tmp_path / name)
    assert (tmp_path / "link").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "far", "link"]
    assert [path.name for path in (tmp_path / "far").iterdir()] == ["away"]


def told(version: str) -> Callable[[Path], None]:
    """Make a writer of a checkpoint that says a word."""
    return lambda folder: put(folder / "config.json", version)


WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}


def kill_at(number: int, work: Callable[[], object]) -> bool:
    """Do something in a process that ends, as by a kill, before its ``number``-th call that changes files.

    Returns:
        Whether it came to its end before.
    """
    child = os.fork()
    if child == 0:
        left = itertools.count(number, -1)

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            is_change = event in CHANGES or (event == "open" and int(str(arguments[2])) & WRITING)
            if is_change and next(left) == 0:
                os._exit(9)

        sys.addaudithook(hook)
        work()
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 9)
    return status == 0


@pytest.mark.parametrize(
    ("is_there", "left"),
    [(True, ""), (False, ""), (True, "partial"), (False, "partial replaced"), (False, "replaced"), (True, "replaced")],
)
def test_a_kill_at_any_moment_leaves_the_old_or_the_new(tmp_path: Path, is_there: bool, left: str) -> None:
    """Whatever a kill before left beside it: what can be loaded once can be loaded ever after."""
    base = tmp_path / "base"
    if is_there:
        publish(base / "model", told("old"))
    for ending in left.split():
        publish(base / "left", told(ending)).rename(base / f".model.{ending}")
    may_be = {"old"} if is_there else set(left.split()[:1])
    for number in itertools.count():
        here = tmp_path / "here"
        shutil.rmtree(here, ignore_errors=True)
        if base.exists():
            shutil.copytree(base, here)
        is_done = kill_at(number, lambda here=here: publish(here / "model", told("new")))
        try:
            found = (verified(here / "model") / "config.json").read_text()
        except CheckpointError:
            found = None
        assert found in may_be | {"new"} or (found is None and not may_be), number
        publish(here / "model", told("next"))
        assert os.listdir(here) == ["model"] and (here / "model" / "config.json").read_text() == "next"
        if is_done:
            assert found == "new" and number > 6
            return


def test_a_kill_while_pruning_leaves_the_newest(tmp_path: Path) -> None:
    for number in itertools.count():
        run = tmp_path / str(number)
        last = [publish(step_directory(run, step), write) for step in (1, 2, 3)][-1]
        is_done = kill_at(number, lambda last=last: prune(last, 1))
        assert newest(run) == last
        prune(last, 1)
        assert checkpoints(run) == [last]
        if is_done:
            return


def test_an_error_between_the_renames_puts_the_old_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = publish(tmp_path / "model", told("old"))
    rename = Path.rename

    def fail(self: Path, goal: Path) -> Path:
        if self.name.endswith(".partial"):
            raise KeyboardInterrupt
        return rename(self, goal)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(KeyboardInterrupt):
        publish(target, told("new"))
    assert os.listdir(tmp_path) == ["model"] and (target / "config.json").read_text() == "old"


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    def full(folder: Path) -> None:
        write(folder)
        raise OSError(28, "No space left on device")

    for target in (publish(tmp_path / "model", write), tmp_path / "other"):
        with pytest.raises(OSError, match="No space"):
            publish(target, full)
    assert os.listdir(tmp_path) == ["model"]


def test_a_second_publisher_is_refused(tmp_path: Path) -> None:
    def while_another(folder: Path) -> None:
        with pytest.raises(BusyError, match="model is being written by another process"):
            publish(tmp_path / "model", told("second"))
        told("first")(folder)

    publish(tmp_path / "model", while_another)
    assert (verified(tmp_path / "model") / "config.json").read_text() == "first"
    assert os.listdir(tmp_path) == ["model"]


def test_a_run_is_swept(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    for step, ending in ((1, "replaced"), (2, "partial")):
        publish(step_directory(tmp_path, step), write).rename(folder / f".step_{step:08d}.{ending}")
    put(folder / ".step_00000003.partial" / "model.safetensors")
    put(folder / ".step_00000003.lock")
    publish(step_directory(tmp_path, 4), told("whole"))
    put(folder / ".step_00000004.partial" / "model.safetensors")
    (folder / ".step_00000005.partial").symlink_to(folder / "step_00000004")
    put(folder / ".mine.partial")
    assert newest(tmp_path) == step_directory(tmp_path, 4)
    sweep(tmp_path)
    assert sorted(os.listdir(folder)) == [".mine.partial", "step_00000001", "step_00000002", "step_00000004"]
    assert newest(tmp_path) == step_directory(tmp_path, 4)


def test_a_run_killed_between_two_renames_has_its_newest(tmp_path: Path) -> None:
    publish(step_directory(tmp_path, 1), write)
    left = publish(step_directory(tmp_path, 2), write).rename(tmp_path / "checkpoints" / ".step_00000002.replaced")
    put(tmp_path / "checkpoints" / ".step_00000003.partial" / "model.safetensors")
    assert newest(tmp_path) == left


def test_room_is_made_for_a_step_and_nothing_lost(tmp_path: Path) -> None:
    target = step_directory(tmp_path, 1)
    for _ in range(2):
        make_room(target)
        publish(target, write)
        put(target / "notes.md")
    make_room(target)
    assert sorted(os.listdir(target.parent)) == ["kept_step_00000001", "kept_step_00000001_1"]
    assert checkpoints(tmp_path) == []


def test_prune_keeps_the_newest(tmp_path: Path) -> None:
    for step in (1, 20, 3, 100):
        publish(step_directory(tmp_path, step), write)
    prune(step_directory(tmp_path, 100), 2)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step_00000020", "step_00000100"]


def test_prune_counts_whole_ones(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        publish(step_directory(tmp_path, step), write)
    truncate(step_directory(tmp_path, 3))
    prune(step_directory(tmp_path, 4), 2)
    assert [path.name[-1] for path in checkpoints(tmp_path)] == ["2", "3", "4"]
    prune(step_directory(tmp_path, 4), 1)
    assert [path.name[-1] for path in checkpoints(tmp_path)] == ["4"]


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


def test_prune_leaves_links_and_users_files(tmp_path: Path) -> None:
    far = publish(tmp_path / "far", write)
    for step in (1, 3, 4):
        publish(step_directory(tmp_path, step), write)
    step_directory(tmp_path, 2).symlink_to(far)
    put(step_directory(tmp_path, 1) / "notes.md")
    put(tmp_path / "checkpoints" / "step_notes.txt")
    prune(step_directory(tmp_path, 4), 1)
    verify(far)
    assert sorted(os.listdir(tmp_path / "checkpoints")) == [
        "step_00000001", "step_00000002", "step_00000004", "step_notes.txt"
    ]  # fmt: skip
    assert os.listdir(step_directory(tmp_path, 1)) == ["notes.md"]


def test_steps_are_sorted_as_numbers(tmp_path: Path) -> None:
    for step in (99_999_999, 100_000_000):
        publish(step_directory(tmp_path, step), write)
    assert newest(tmp_path) == step_directory(tmp_path, 100_000_000)


def test_any_flipped_byte_of_a_manifest_is_damage(tmp_path: Path) -> None:
    old, new = (publish(step_directory(tmp_path, step), told("x")) for step in (1, 2))
    whole = (new / "manifest.json").read_bytes()
    for place in range(len(whole)):
        for mask in (1, 0x20, 0x80):
            flipped = bytearray(whole)
            flipped[place] ^= mask
            (new / "manifest.json").write_bytes(flipped)
            assert newest(tmp_path) == old, (place, mask)


def test_damaged_tensors_are_damage_too(tmp_path: Path) -> None:
    file = publish(tmp_path / "model", write) / "model.safetensors"
    whole = file.read_bytes()
    for data in (
        b"",
        whole[:7],
        whole[:-1],
        b"\xff" * len(whole),
        b"\xff" * 8 + whole[8:],
        whole[:9] + b"\xff" + whole[10:],
    ):
        file.write_bytes(data)
        with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be used"):
            load_tensors(file)


def test_each_file_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(step_directory(tmp_path, 1), write)
    new = publish(step_directory(tmp_path, 2), write)
    hashed: list[str] = []
    digest = hashlib.file_digest

    def spy(stream: BinaryIO, name: str) -> object:
        hashed.append(Path(stream.name).name)
        return digest(stream, name)

    monkeypatch.setattr(hashlib, "file_digest", spy)
    assert newest(tmp_path) == verified(new) == new
    assert sorted(hashed) == ["config.json", "config.json", "model.safetensors", "model.safetensors"]
    hashed.clear()
    assert newest(tmp_path, hashed={"config.json"}) == new and hashed == ["config.json"]
    truncate(new)
    assert newest(tmp_path, hashed={"config.json"}) == step_directory(tmp_path, 1)


def write_training(folder: Path) -> None:
    """Write a small checkpoint with what a resume needs."""
    write(folder)
    put(folder / "state.json", "{}")
    put(folder / "optimizer.safetensors", "")


def test_a_model_does_not_take_the_place_of_a_training_checkpoint(tmp_path: Path) -> None:
    step = publish(step_directory(tmp_path, 1), write_training)
    with pytest.raises(CheckpointError, match="training checkpoint, and optimizer.safetensors and state.json would"):
        publish(step, write)
    verify(step)
    assert os.listdir(step.parent) == [step.name] and "state.json" in os.listdir(step)
    publish(step, write_training)
    publish(tmp_path / "model", lambda folder: put(folder / "tokenizer.json"))
    publish(tmp_path / "model", write)  # another tokenizer is no loss


@pytest.mark.parametrize("ending", ["partial", "replaced"])
@pytest.mark.parametrize("name", ["", "/notes.txt", "/config.json/notes.txt"])
def test_a_users_hidden_names_are_not_deleted(tmp_path: Path, name: str, ending: str) -> None:
    hidden = tmp_path / f".model.{ending}"
    put(tmp_path / f".model.{ending}{name}")
    with pytest.raises(CheckpointError, match=rf"\.model\.{ending} is no checkpoint that a kill left; move"):
        publish(tmp_path / "model", write)
    assert [path.read_text() for path in tmp_path.rglob("*") if path.is_file()] == ["mine"]
    shutil.rmtree(hidden) if name else hidden.unlink()
    put(tmp_path / ".model.lock")
    with pytest.raises(BusyError, match=r"\.model\.lock holds something else"):
        publish(tmp_path / "model", write)
    assert (tmp_path / ".model.lock").read_text() == "mine" and os.listdir(tmp_path) == [".model.lock"]
