"""Rows of metrics: taken back at a resume, and never lost."""

import json
import os
from pathlib import Path
from typing import IO

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from transfusion import files
from transfusion.train.metrics import BOARD_FOLDER, METRICS_FILE, Metrics, read_metrics


def rows(*steps: int) -> bytes:
    """Write rows."""
    return b"".join(json.dumps({"step": step, "loss/text": 0.5}).encode() + b"\n" for step in steps)


FOREIGN = b'{"step": 8, "acc": 0.5}\n{"step": 9, "train/loss": 2.5, "lr": 0.1}\n'


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (rows(1, 2, 3, 4), rows(1, 2, 3)),
        (rows(1, 2), rows(1, 2)),
        (rows(1, 4, 2, 5, 3), rows(1, 2, 3)),  # as two trainings at once left them
        (rows(1, 2) + rows(3)[:9], rows(1, 2)),
        (rows(1, 2)[:-1], rows(1, 2)),
        (rows(1) + b"\xff\xfe mine\n" + rows(2, 7), rows(1) + b"\xff\xfe mine\n" + rows(2)),
        (b'[1]\n{"note": "mine"}\n\n' + rows(9), b'[1]\n{"note": "mine"}\n\n'),
        (FOREIGN + rows(9) + FOREIGN + b"end", FOREIGN + FOREIGN + b"end\n"),  # with steps, of another tool
        (b'{"step": 9, "gradient_norm": 1}\n{"step": 9, "held_out/text": 1}\n', b""),
        (b"", b""),
    ],
)
def test_rows_behind_the_step_are_taken_back(tmp_path: Path, before: bytes, after: bytes) -> None:
    (tmp_path / METRICS_FILE).write_bytes(before)
    with Metrics(tmp_path, 3) as metrics:
        metrics.write(4, {"loss": 0.25})
    assert (tmp_path / METRICS_FILE).read_bytes() == after + b'{"step": 4, "loss": 0.25}\n'
    assert read_metrics(tmp_path)[-1] == {"step": 4, "loss": 0.25}


@pytest.mark.parametrize("before", [rows(*range(1, 1000)), rows(1, 4, 2, 5, 3)])
def test_a_write_that_fails_loses_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bytes) -> None:
    file = tmp_path / METRICS_FILE
    file.write_bytes(before)

    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", fail)
    monkeypatch.setattr(os, "truncate", fail)
    with pytest.raises(OSError, match="No space"):
        Metrics(tmp_path, 3)
    assert file.read_bytes() == before and [path.name for path in tmp_path.iterdir()] == [METRICS_FILE]


def test_taking_back_the_last_rows_needs_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / METRICS_FILE
    file.write_bytes(rows(1, 2, 3, 4))
    monkeypatch.setattr("transfusion.train.metrics.write_whole", None)
    with Metrics(tmp_path, 2):
        assert file.read_bytes() == rows(1, 2)


def test_a_row_that_a_full_disk_cut_costs_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Metrics(tmp_path, 0) as metrics:
        metrics.write(1, {"loss": 1.0})
        with monkeypatch.context() as patch:
            patch.setattr(metrics, "_file", Full((tmp_path / METRICS_FILE).open("ab", buffering=0)))
            with pytest.raises(OSError, match="No space"):
                metrics.write(1, {"held_out": 1.0})
        metrics.write(2, {"loss": 2.0})
        metrics.write(3, {"loss": 3.0})
    assert read_metrics(tmp_path) == [{"step": step, "loss": float(step)} for step in (1, 2, 3)]
    assert (tmp_path / METRICS_FILE).read_bytes().count(b"\n") == 4  # a line for what is left of the cut one, too


class Full:
    """A file on a disk with room for a few bytes."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file

    def write(self, data: bytes) -> int:
        """Write what fits, as the system does; then fail."""
        if self.file.closed:
            raise OSError(28, "No space left on device")
        with self.file as file:
            return file.write(data[:15])


def test_the_board_shows_the_step_that_is_gone_on_from(tmp_path: Path) -> None:
    with Metrics(tmp_path, 0) as metrics:
        for step in (2, 4, 5):
            metrics.write(step, {"held_out/text": 1.0})
    for file in (tmp_path / BOARD_FOLDER).iterdir():  # files are read in the order of their names, by the second
        file.rename(file.with_name(file.name.replace("tfevents.", "tfevents.0")))
    with Metrics(tmp_path, 4) as metrics:
        metrics.write(6, {"held_out/text": 1.0})
    board = EventAccumulator(str(tmp_path / BOARD_FOLDER))
    board.Reload()
    assert [row.step for row in board.Scalars("held_out/text")] == [2, 4, 6]


def test_a_folder_whose_name_is_not_unicode_has_no_board(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = tmp_path / os.fsdecode(b"r\xff")
    with Metrics(run, 0) as metrics:
        metrics.write(1, {"loss": 1.0})
    assert read_metrics(run) == [{"step": 1, "loss": 1.0}] and "no curves for TensorBoard" in caplog.text
