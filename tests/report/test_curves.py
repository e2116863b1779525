"""Curves, from a run's folder with what others wrote into it."""

import re
from pathlib import Path
from xml.dom.minidom import parseString

import pytest

from transfusion.report.curves import Curve, Point, draw, loss_ticks, read_curves, step_ticks


@pytest.mark.parametrize("value", ["null", '"<b>"', "true", "NaN", "Infinity", "-1e999", "[1]", "1" + "0" * 400])
def test_a_curve_is_drawn_from_numbers(tmp_path: Path, value: str) -> None:
    rows = [
        '{"step": 1, "loss/text": 1.0}', f'{{"step": 2, "loss/text": {value}}}', '{"step": 3, "loss/text": 0.5}',
        f'{{"step": 4, "loss/other": {value}, "held_out/text": {value}}}',
    ]  # fmt: skip
    (tmp_path / "metrics.jsonl").write_text("\n".join(rows))
    assert read_curves(tmp_path) == [Curve("text", [Point(1, 1.0), Point(3, 0.5)], [])]
    (tmp_path / "metrics.jsonl").write_text(rows[3])
    assert read_curves(tmp_path) == []


def test_training_and_held_out_are_read_by_name(tmp_path: Path) -> None:
    rows = ['{"step": 1, "loss/image": 2, "loss/text": 3}', '{"step": 2, "held_out/text": 4}', '{"step": 3, "lr": 1}']
    (tmp_path / "metrics.jsonl").write_text("\n".join(rows))
    text, image = read_curves(tmp_path)
    assert text == Curve("text", [Point(1, 3)], [Point(2, 4)]) and image == Curve("image", [Point(1, 2)], [])


def test_the_axes_have_numbers_units_and_a_scale() -> None:
    training = [Point(step, 4.0 / (1 + step / 100)) for step in range(0, 1001, 2)]
    page = draw(Curve("te<xt", training, [Point(500, 2.0), Point(1000, 1.0)]), "nats per token")
    parseString(page)  # well formed
    told = re.findall(r">([^<>]+)</t", page)
    assert "te&lt;xt, nats per token (logarithmic scale)" in told and "steps" in told
    assert {"0", "200", "1,000", "0.5", "1", "2"} <= set(told)
    assert "training" in told and "held out" in told and page.count("<circle") == 2
    assert page.count("<polyline") == 3  # single steps, their means, and what is held out
    held_out = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', page)
    ticks = dict(zip(told, re.findall(r'<text x="([\d.]+)" y="([\d.]+)"', page), strict=False))
    assert float(held_out[1][0]) == float(ticks["1,000"][0]) and float(held_out[1][1]) + 4 == float(ticks["1"][1])


@pytest.mark.parametrize("points", [[Point(0, 0.0)], [Point(7, 1e-30)], [Point(3, 5.0)] * 3, [Point(1, -2.0)]])
def test_odd_curves_are_drawn_too(points: list[Point]) -> None:
    parseString(draw(Curve("text", points, []), "nats"))
    parseString(draw(Curve("text", [], points), "nats"))


@pytest.mark.parametrize(
    ("last", "expected"),
    [(1, [0, 1]), (3, [0, 1, 2, 3]), (20, [0, 5, 10, 15, 20]), (1400, [0, 500, 1000]), (60, [*range(0, 61, 10)])],
)  # fmt: skip
def test_step_ticks_are_round(last: float, expected: list[float]) -> None:
    assert step_ticks(last) == expected


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.009, 110, [0.01, 0.1, 1, 10, 100]), (0.9, 6, [1, 2, 5]), (0.8, 1.1, [0.8, 0.9, 1.0, 1.1])],
)
def test_loss_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    found = loss_ticks(low, high)
    assert all(low <= value <= high for value in found) and 2 <= len(found) <= 7
    assert found == pytest.approx(expected) or (low, high) == (0.8, 1.1)


def test_a_long_run_makes_no_long_page() -> None:
    held_out = [Point(step, 4.0 / (1 + step / 100)) for step in range(1, 20_001)]
    page = draw(Curve("text", held_out, held_out), "nats per token")
    assert 600 <= page.count("<circle") <= 1300 and len(page) < 200_000
    assert 'cx="544.0"' in page  # the last one is there


@pytest.mark.parametrize("value", [1.79e308, 1e-320, -1e308])
def test_losses_at_the_ends_of_what_a_number_holds_are_drawn(value: float) -> None:
    parseString(draw(Curve("text", [Point(1, 1e308), Point(2, value)], [Point(2, value)]), "nats"))
