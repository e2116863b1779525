"""Rows of metrics: taken back at a resume, and never lost."""

import json
import os
from pathlib import Path

import pytest

from transfusion import files
from transfusion.train.metrics import METRICS_FILE, Metrics, read_metrics


def rows(*steps: int) -> bytes:
    """Write rows."""
    return b"".join(json.dumps({"step": step, "loss": 0.5}).encode() + b"\n" for step in steps)


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
