"""Samples of a run: when they are due, and what lies in the folder."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import ToySource, run_config

from transfusion import samples
from transfusion.config import RunConfig, override
from transfusion.pretrained import Transfusion
from transfusion.recipes import RECIPES
from transfusion.samples import SampleTimes, draw_samples, is_due, list_samples, read_prompts
from transfusion.train.opening import begin

SMALL = ("model.trunk.dim=32", "model.trunk.depth=1", "denoising.num_steps=2", "tokenizer.kind=bytes")


class Prompted(ToySource):
    """A source with prompts."""

    def preview_prompts(self) -> list[str]:
        return ["a red circle", "größer 🔵 圆", " "]


@pytest.fixture(scope="module")
def model() -> Transfusion:
    """Begin a run of the built-in world and take its first weights."""
    state = begin(override(RECIPES["tiny"](), SMALL), torch.device("cpu"))
    return Transfusion(state.model, state.tokenizer, state.config)


@pytest.mark.parametrize(
    ("every", "steps", "expected"),
    [
        (0, 1000, []),
        (500, 1400, [50, 100, 200, 400, 500, 1000, 1400]),
        (250, 600, [50, 100, 200, 250, 500, 600]),
        (50, 160, [50, 100, 150, 160]),
        (40, 100, [40, 80, 100]),
        (1000, 30, [30]),
        (100_000, 3300, [50, 100, 200, 400, 800, 1600, 3200, 3300]),
    ],
)
def test_samples_are_due_early_and_then_regularly(every: int, steps: int, expected: list[int]) -> None:
    settings: RunConfig = run_config(steps, preview_every=every)
    assert [step for step in range(1, steps + 1) if is_due(settings.train, step)] == expected


def test_a_sheet_has_its_prompts_in_it_and_beside_it(model: Transfusion, tmp_path: Path) -> None:
    source = Prompted()
    file = draw_samples(model, source, tmp_path, 7)
    assert file == tmp_path / "samples" / "step_00000007.png"
    drawn = np.asarray(Image.open(file))
    assert drawn.shape[0] > 104 and (drawn[104:].sum(2) < 300).any()
    assert read_prompts(tmp_path) == source.preview_prompts()[:2]  # nothing is drawn of a caption that says nothing


def test_a_caption_that_is_too_long_costs_the_others_nothing(model: Transfusion, tmp_path: Path) -> None:
    class Long(ToySource):
        def preview_prompts(self) -> list[str]:
            return ["x" * model.config.train.row_length, "a red circle"]

    assert draw_samples(model, Long(), tmp_path, 7) is not None and read_prompts(tmp_path) == ["a red circle"]


def test_without_prompts_texts_go_on(model: Transfusion, tmp_path: Path) -> None:
    file = draw_samples(model, ToySource(9), tmp_path, 7)
    assert file is not None and file.name == "step_00000007.txt"
    told = file.read_text().split("\n\n---\n\n")
    assert told[0].startswith("step 7, temperature 0.8") and len(told) >= 3 and all("|" in text for text in told)
    assert file.read_text() == draw_samples(model, ToySource(9), tmp_path, 7).read_text()  # type: ignore[union-attr]


def test_samples_are_listed_by_their_steps(tmp_path: Path) -> None:
    (tmp_path / "samples").mkdir()
    for name in ("step_100000000.png", "step_00000009.txt", "step_by_step.png", "step_1.jpg", "prompts.json"):
        (tmp_path / "samples" / name).write_bytes(b"mine")
    assert [sample.step for sample in list_samples(tmp_path)] == [9, 100000000]
    assert list_samples(tmp_path / "no") == [] and read_prompts(tmp_path) == []
    (tmp_path / "samples" / "prompts.json").write_text(json.dumps(["a", 5]))
    assert read_prompts(tmp_path) == ["a"]


def test_they_take_no_more_than_a_tenth_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, clock = run_config(1000, preview_every=1).train, iter(range(0, 10**6, 40))
    monkeypatch.setattr(samples.time, "perf_counter", lambda: float(next(clock)))  # a drawing takes 40 s
    times = SampleTimes(train, tmp_path, step=100, train_seconds=5000.0)

    def drawn(step: int, seconds: float) -> bool:
        if is_now := times.is_now(step, 5000.0 + seconds):
            with times.drawing():
                pass
        return is_now

    assert [drawn(101, 0), drawn(102, 0), drawn(103, 0), drawn(104, 799), drawn(105, 801)] == [
        True,
        True,
        False,
        False,
        True,
    ]
    assert drawn(1000, 801)  # the last is always drawn
    assert not SampleTimes(run_config(9, preview_every=0).train, tmp_path, step=0, train_seconds=0).is_now(9, 99.0)
    rare = run_config(9, preview_every=500).train
    assert SampleTimes(rare, tmp_path, step=0, train_seconds=0).is_now(3, 60.0)  # the first, after a minute
    assert not SampleTimes(rare, tmp_path, step=0, train_seconds=0).is_now(3, 59.0)
