"""The page of a run, also of one whose files others damaged."""

import json
import os
from pathlib import Path

import pytest
from PIL import Image
from tiny import run_config

from transfusion.report import write as writing
from transfusion.report import write_run_report

CONFIG = run_config(6)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("samples/step_00000002.png", b""),
        ("samples/step_00000002.png", b"\x89PNG\r\n\x1a\n" + bytes(100)),
        ("scores.json", b"[" * 100_000),
        ("scores.json", b"{"),
    ],
)
def test_what_is_damaged_is_told_and_passed_over(
    tmp_path: Path, name: str, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "samples").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "samples" / "step_00000001.png")
    (tmp_path / name).write_bytes(content)
    page = write_run_report(tmp_path, CONFIG).read_text()
    assert f"{Path(name).name} is damaged and left out" in page and f"without {tmp_path / name}" in caplog.text
    assert page.count('alt="step_00000001"') == 1


def test_damaged_prompts_and_best_are_told_and_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "samples").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "samples" / "step_00000001.png")
    (tmp_path / "samples" / "prompts.json").write_bytes(b"[" * 100_000)
    (tmp_path / "best.json").write_text(json.dumps({"step": 10**300, "total": 1, "losses": {}}))
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss/text": 1e308}\n{"step": 2, "loss/text": 1.79e308}\n')
    assert "<svg" in write_run_report(tmp_path, CONFIG).read_text()
    assert "prompts.json is damaged" in caplog.text and "best.json is damaged" in caplog.text


def test_a_folder_whose_name_is_not_unicode_gets_a_report(tmp_path: Path) -> None:
    run = tmp_path / os.fsdecode(b"r\xff<b>")
    run.mkdir()
    assert r"Run r\udcff&lt;b&gt;: step 0 of 6" in write_run_report(run, CONFIG).read_text("utf-8")


def test_metrics_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 4, "loss/text": 2.5}\n')
    read, found = writing.read_metrics, list[Path]()
    monkeypatch.setattr(writing, "read_metrics", lambda run: found.append(run) or read(run))
    monkeypatch.setattr("transfusion.report.curves.read_metrics", None)
    assert "step 4 of 6" in write_run_report(tmp_path, CONFIG).read_text() and found == [tmp_path]
