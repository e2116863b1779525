"""A run that begins in a folder shows nothing of one before."""

import threading
from contextlib import closing, suppress
from pathlib import Path

import pytest
import torch
from test_run import settings
from tiny import run_config

from transfusion.config import ConfigError, override
from transfusion.files import append_row, read_rows
from transfusion.run import open_run, train_run
from transfusion.train.best import read_best
from transfusion.train.checkpoint import checkpoints, publish, step_directory, sweep
from transfusion.train.folder import seen, take_folder
from transfusion.train.opening import begin
from transfusion.train.state import TrainState
from transfusion.written import check_free, forget_before, tells_of_a_training

CPU = torch.device("cpu")
SHOWN = (
    *(
        "scores.json",
        "report.html",
        "best.json",
        "quarantine.jsonl",
        "samples/step_00000500.png",
        "samples/prompts.json",
    ),
    *("tensorboard/events.out.tfevents.1.host.2.0", "metrics.jsonl"),
)
MINE = ("notes.md", "samples/mine.png")


def fill(run: Path, names: tuple[str, ...]) -> None:
    """Write files as a run does."""
    for name in names:
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text(
            '{"step": 500, "total": 1.0, "losses": {"text": 1.0}, "loss/text": 1.0, "geneval": 0.98}\n'
        )


def found(run: Path) -> set[str]:
    """List files."""
    names = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    return {name for name in names if not name.startswith(("checkpoints/", "."))}


def begun(state: TrainState, run: Path) -> bool:
    """Let a training begin in a folder, as one does that was opened a moment before."""
    state.seen, state.taken = seen(run), None
    is_begun = take_folder(state, run)
    if is_begun:
        forget_before(run)
    return is_begun


def test_a_run_begun_anew_shows_nothing_of_the_one_before(tmp_path: Path) -> None:
    state, source = open_run(settings(2, "train.preview_every=1"), tmp_path, is_resumed=True, device="cpu")
    list(train_run(state, source, tmp_path, threading.Event()))
    fill(tmp_path, (*SHOWN[:-1], *MINE))
    append_row(tmp_path / "changes.jsonl", {"step": 2, "setting": "train.steps", "old": 1, "new": 2})
    state, source = open_run(settings(1, "train.preview_every=0"), tmp_path, is_resumed=False, device="cpu")
    assert (tmp_path / "scores.json").exists()  # to open a run changes nothing
    list(train_run(state, source, tmp_path, threading.Event()))
    left = {name for name in found(tmp_path) if not name.startswith("tensorboard/")}
    assert left - {"best.json"} == {*MINE, "report.html", "metrics.jsonl", "changes.jsonl"}
    told = (tmp_path / "report.html").read_text()
    assert "geneval" not in told and "step 500" not in told and "kept no samples" in told
    assert {row["step"] for row in read_rows(tmp_path / "metrics.jsonl")} == {1}
    changes = read_rows(tmp_path / "changes.jsonl")
    assert [row for row in changes if "begun" in row] == [{"step": 0, "begun": True}] * 2 and "begun" in changes[-1]
    assert (tmp_path / "checkpoints" / "kept_step_00000002").is_dir()  # its weights stay


def test_what_lies_in_a_folder_that_was_never_trained_in_stays(tmp_path: Path) -> None:
    fill(tmp_path, (*SHOWN[:-1], *MINE))
    before = found(tmp_path)
    forget_before(tmp_path)
    assert found(tmp_path) == before


def test_a_training_keeps_what_it_wrote_its_own(tmp_path: Path) -> None:
    state, source = open_run(settings(3, "train.checkpoint_every=100"), tmp_path, is_resumed=True, device="cpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("transfusion.train.loop._keep", lambda *_: None)  # nothing is saved
        with closing(train_run(state, source, tmp_path, threading.Event())) as reports:
            next(reports)
    assert state.saved_step is None and state.step == 1
    list(train_run(state, source, tmp_path, threading.Event()))
    assert [row["step"] for row in read_rows(tmp_path / "metrics.jsonl") if "gradient_norm" in row] == [1, 2, 3]


def test_a_kill_leaves_the_old_run_or_what_the_next_one_deletes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_old, state = list[bool](), begin(run_config(2), CPU)
    for moment in range(16):
        run = tmp_path / str(moment)
        for step in (1, 500):
            publish(step_directory(run, step), lambda folder: (folder / "other.bin").write_text("x"))
        fill(run, (*SHOWN, *MINE))
        left = [moment]
        with monkeypatch.context() as patch:
            for name in ("rename", "unlink", "rmdir", "mkdir"):
                patch.setattr(Path, name, killed(getattr(Path, name), left))
            with suppress(KeyboardInterrupt):
                begun(state, run)
        sweep(run)
        is_old.append(step_directory(run, 500).is_dir())
        assert not is_old[-1] or (found(run) == {*SHOWN, *MINE} and read_best(run) is not None)
        assert (
            begun(state, run)
            and found(run) == {*MINE, "changes.jsonl"}
            and (run / "checkpoints" / "kept_step_00000500").is_dir()
        )
    assert is_old == sorted(is_old, reverse=True) and len(set(is_old)) == 2


def killed(work: object, left: list[int]) -> object:
    """Let something be done so many times, and end the process then."""
    assert callable(work)

    def called(*arguments: object, **options: object) -> object:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return work(*arguments, **options)

    return called


def test_a_state_that_was_trained_elsewhere_begins_in_another_folder(tmp_path: Path) -> None:
    settings_ = override(settings(), ["train.steps=2"])
    state, source = open_run(settings_, tmp_path / "one", is_resumed=True, device="cpu")
    list(train_run(state, source, tmp_path / "one", threading.Event()))
    state, source = open_run(override(settings_, ["train.steps=3"]), tmp_path / "one", is_resumed=True,
                             device="cpu", is_change_wanted=True)  # fmt: skip
    fill(tmp_path / "two", (*SHOWN, *MINE))
    list(train_run(state, source, tmp_path / "two", threading.Event()))
    assert {"samples/step_00000500.png", "best.json"} & found(tmp_path / "two") <= {"best.json"}
    assert {*MINE} <= found(tmp_path / "two") and "scores.json" not in found(tmp_path / "two")
    assert {row["step"] for row in read_rows(tmp_path / "two" / "metrics.jsonl")} == {3}
    assert [path.name for path in checkpoints(tmp_path / "two")] == ["step_00000003"]
    assert checkpoints(tmp_path / "one")[-1].name == "step_00000002"


@pytest.mark.parametrize("row", ['{"step": 4, "accuracy": 0.9}', '{"step": 4, "train/loss": 2.3, "lr": 0.1}', "[1, 2]"])
def test_numbers_of_another_tool_are_no_run(tmp_path: Path, row: str) -> None:
    (tmp_path / "metrics.jsonl").write_text(f'{{"epoch": 3, "accuracy": 0.91}}\n{row}\n')
    (tmp_path / "scores.json").write_text('{"mine": 1}')
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "tensorboard" / "events.out.tfevents.1.other").write_bytes(b"mine")
    forget_before(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        *("events.out.tfevents.1.other", "metrics.jsonl", "scores.json", "tensorboard")
    ]
    (tmp_path / "metrics.jsonl").write_text('{"step": 4, "loss/text": 0.9}\n')
    forget_before(tmp_path)
    assert not (tmp_path / "scores.json").exists()


@pytest.mark.parametrize("name", [*SHOWN, "changes.jsonl"])
def test_a_run_does_not_begin_where_files_of_its_names_are_anothers(tmp_path: Path, name: str) -> None:
    run, words = tmp_path / "run", '{"step": 4, "train/loss": 0.9}\n'
    state, source = open_run(settings(1), run, is_resumed=True, device="cpu")
    (run / name).parent.mkdir(parents=True, exist_ok=True)
    (run / name).write_text(words)
    (run / "samples").mkdir(exist_ok=True)
    (run / "samples" / "mine.png").write_text("mine")  # of a name that no run gives
    told = f"holds {name} and no sign of a run .*another folder"
    for is_resumed in (True, False):
        with pytest.raises(ConfigError, match=told):
            open_run(settings(1), run, is_resumed=is_resumed, device="cpu")
    with pytest.raises(ConfigError, match=told):  # it came since the run was opened
        list(train_run(state, source, run, threading.Event()))
    assert found(run) == {name, "samples/mine.png"} and (run / name).read_text() == words
    (run / name).write_text("")
    check_free(run)


def test_numbers_of_another_tool_stay_beside_a_run(tmp_path: Path) -> None:
    state, source = open_run(settings(1), tmp_path, is_resumed=True, device="cpu")
    with (tmp_path / "metrics.jsonl").open("w") as file:
        file.write('{"step": 4, "train/loss": 0.9}\n')
    (step_directory(tmp_path, 1)).mkdir(parents=True)  # damaged: without a manifest
    list(train_run(state, source, tmp_path, threading.Event()))
    rows = read_rows(tmp_path / "metrics.jsonl")
    assert rows[0] == {"step": 4, "train/loss": 0.9} and rows[1]["step"] == 1


def test_a_run_that_fails_in_its_first_step_left_a_sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    state, source = open_run(settings(1), tmp_path, is_resumed=True, device="cpu")
    for where in ("transfusion.run.Metrics", "transfusion.train.loop._accumulate"):
        with monkeypatch.context() as patch, pytest.raises(MemoryError):
            patch.setattr(where, fail)
            list(train_run(state, source, tmp_path, threading.Event()))
        assert tells_of_a_training(tmp_path)
    assert read_rows(tmp_path / "changes.jsonl") == [{"step": 0, "begun": True}]
    state, source = open_run(settings(1), tmp_path, is_resumed=True, device="cpu")  # the same command goes on
    list(train_run(state, source, tmp_path, threading.Event()))


def test_the_sign_is_there_as_a_whole_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("transfusion.files.os.fsync", fail)
    with pytest.raises(OSError, match="No space"):
        take_folder(begin(run_config(2), CPU), tmp_path)
    assert found(tmp_path) == set()
