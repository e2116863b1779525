"""The record of the best checkpoint."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from transfusion.train.best import Best, forget_best, offer_best, read_best
from transfusion.train.checkpoint import publish, step_directory


def total(losses: Mapping[str, float]) -> float:
    """Weigh all alike."""
    return sum(losses.values())


def save(run: Path, *steps: int) -> None:
    """Publish checkpoints."""
    for step in steps:
        publish(step_directory(run, step), lambda folder: (folder / "other.bin").write_text("x"))


def test_the_lowest_total_wins_and_the_first_of_equal_ones(tmp_path: Path) -> None:
    save(tmp_path, 1, 2, 3, 4)
    assert read_best(tmp_path) is None
    assert not offer_best(tmp_path, 1, {"text": float("nan")}, total) and read_best(tmp_path) is None
    assert offer_best(tmp_path, 1, {"text": 5.0}, total) and offer_best(tmp_path, 2, {"text": 4.0}, total)
    assert not offer_best(tmp_path, 3, {"text": 4.0}, total) and not offer_best(
        tmp_path, 4, {"text": float("inf")}, total
    )
    assert read_best(tmp_path) == Best(2, 4.0, {"text": 4.0})


def test_one_that_is_gone_or_of_another_training_is_none(tmp_path: Path) -> None:
    save(tmp_path, 4)
    offer_best(tmp_path, 4, {"text": 1.0}, total)
    forget_best(tmp_path, beyond=4)
    assert read_best(tmp_path) is not None
    forget_best(tmp_path, beyond=3)
    assert not (tmp_path / "best.json").exists()
    offer_best(tmp_path, 4, {"text": 1.0}, total)
    step_directory(tmp_path, 4).rename(tmp_path / "elsewhere")
    assert read_best(tmp_path) is None
    save(tmp_path, 5)
    assert offer_best(tmp_path, 5, {"text": 2.0}, total)


@pytest.mark.parametrize(
    "content",
    ["", "{", "[1]", '{"step": "4", "total": 1, "losses": {}}', '{"step": 4, "total": null, "losses": {}}',
     '{"step": 4, "total": 1, "losses": {"text": "<b>"}}', '{"step": 4, "total": 1}', '{"step": true, "total": 1}',
     f'{{"step": {10**300}, "total": 1, "losses": {{}}}}', '{"step": -4, "total": 1, "losses": {}}',
     '{"step": 4, "total": -Infinity, "losses": {"text": 1}}', '{"step": 4, "total": 1, "losses": {"text": -Infinity}}',
     f'{{"step": 4, "total": {10**400}, "losses": {{}}}}', "[" * 100_000,
     '{"step": 2, "total": 1.5, "losses": {}}'],
)  # fmt: skip
def test_what_is_no_record_of_ours_is_none(tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path, 2, 4)
    (tmp_path / "best.json").write_text(content)
    assert read_best(tmp_path) is None and "best.json is damaged" in caplog.text
    offer_best(tmp_path, 4, {"text": 1.5}, total)
    assert json.loads((tmp_path / "best.json").read_text()) == {"step": 4, "total": 1.5, "losses": {"text": 1.5}}


def test_the_best_is_weighed_as_the_run_weighs_now(tmp_path: Path) -> None:
    save(tmp_path, 1, 2)
    assert offer_best(tmp_path, 1, {"text": 1.0, "image": 3.0}, total)
    assert offer_best(tmp_path, 2, {"text": 2.0, "image": 2.5}, lambda losses: losses["text"] + 5 * losses["image"])


def test_one_with_other_losses_is_not_compared(tmp_path: Path) -> None:
    save(tmp_path, 1, 2)
    assert not offer_best(tmp_path, 1, {}, total) and read_best(tmp_path) is None
    assert offer_best(tmp_path, 1, {"text": 1.0}, total)  # the total of one loss is lower than that of both
    assert offer_best(tmp_path, 2, {"text": 0.5, "image": 0.7}, total)
    assert read_best(tmp_path) == Best(2, 1.2, {"text": 0.5, "image": 0.7})
