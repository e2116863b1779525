"""A model that is asked for what it was never told says so, once, on standard error; what it cannot do is refused."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image
from test_cli import call
from test_show import make_run

NONE = [f"data.tasks.{name}=0" for name in ("draw", "look", "edit", "story")]
WORDS = "never learnt to"


def told(arguments: Sequence[str | Path], caplog: pytest.LogCaptureFixture) -> int:
    """Count the warnings of a verb that does its work: on standard error, or in the log where that is caught."""
    caplog.clear()
    lines = call(*arguments).stderr.splitlines()
    return max(sum(WORDS in line for line in told) for told in (lines, caplog.messages))


def verbs(run: Path, tmp_path: Path) -> dict[str, tuple[str | Path, ...]]:
    """Name a command line for each task."""
    Image.new("RGB", (40, 32), "white").save(picture := tmp_path / "picture.png")
    return {
        "draw": ("generate", run, "a star", "a circle", "-o", tmp_path / "a.png"),
        "caption": ("caption", run, picture, picture),
        "ask": ("ask", run, picture, "how many stars are there"),
        "edit": ("edit", run, picture, "remove it", "-o", tmp_path / "e.png"),
    }


@pytest.mark.parametrize(("weight", "known"), [("draw", {"draw"}), ("look", {"caption", "ask"}), ("edit", {"edit"})])
def test_a_task_never_told_is_warned_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, weight: str, known: set[str]
) -> None:
    run = make_run(tmp_path / "r", *NONE, f"data.tasks.{weight}=1")
    found = {task: told(arguments, caplog) for task, arguments in verbs(run, tmp_path).items()}
    assert found == {task: int(task not in known) for task in found}


def test_a_model_that_was_told_all_says_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = make_run(tmp_path / "r")
    assert [told(arguments, caplog) for arguments in verbs(run, tmp_path).values()] == [0, 0, 0, 0]
