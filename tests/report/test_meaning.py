"""What the numbers are said to mean."""

import math

import pytest
from tiny import run_config

from transfusion.report.curves import Curve, Point
from transfusion.report.meaning import explained, unit, verdict

FALLING = [Point(step, 4.0 / (1 + step / 100)) for step in range(0, 1001, 10)]
LEVEL = [Point(step, 4.0) for step in range(0, 1001, 10)]


def held_out(*values: float) -> list[Point]:
    """Place losses at every hundredth step."""
    return [Point(100.0 * (i + 1), value) for i, value in enumerate(values)]


@pytest.mark.parametrize(
    ("training", "points", "is_overfit", "words"),
    [
        (
            FALLING,
            held_out(3.0, 2.0, 2.2, 2.5, 3.0),
            True,
            ["lowest, 2, was after step 200", "3 after step 500", "by heart"],
        ),
        (FALLING, held_out(3.0, 2.0, 1.5), False, ["lowest so far", "more steps"]),
        (FALLING, held_out(3.0, 2.0, 2.001, 2.01), False, ["stands", "step 200"]),
        (FALLING, held_out(3.0, 2.0, 2.5), False, ["stands"]),  # one point may be chance
        (FALLING, held_out(3.0, 2.0, 2.5, 2.01), False, ["stands"]),
        (LEVEL, held_out(3.0, 2.0, 2.5, 2.9), False, ["no overfitting", "train.optimizer.lr"]),
        ([], held_out(3.0, 2.0, 2.5, 2.9), False, ["no overfitting"]),
        (FALLING, [], False, ["Nothing is held out", "data.hold_out"]),
    ],
)
def test_overfitting_is_said_from_the_rows(
    training: list[Point], points: list[Point], is_overfit: bool, words: list[str]
) -> None:
    found = verdict(Curve("text", training, points))
    assert found.is_overfit == is_overfit
    assert all(word in found.text for word in words), found.text


def test_units_and_where_a_good_run_stands() -> None:
    config = run_config()
    config = config.model_copy(update={"model": config.model.model_copy(update={"text_vocab_size": 400})})
    assert unit("text") == "nats per token" and unit("image") == "mean squared error per latent value"
    assert f"{math.log(400):.2f}" in explained("text", config) and "of the velocity" in explained("image", config)
