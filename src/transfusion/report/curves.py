"""Losses over the steps, of training and of what is held out: read from the metrics and drawn as SVG with axes."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np

from transfusion.train.metrics import HELD_OUT, LOSS, read_metrics

WIDTH, HEIGHT = 560, 280
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 34, 46
MAX_TICKS, MAX_POINTS, MIN_SMOOTHED = 6, 120, 200
LOWEST, HIGHEST = 1e-9, 1e300
TRAINING_COLOUR, HELD_OUT_COLOUR = "#3b7dd8", "#d8763b"


class Point(NamedTuple):
    """A loss after a step."""

    step: float
    value: float


class Curve(NamedTuple):
    """One loss over the steps.

    Attributes:
        name: Of the loss: "text", or a modality.
        training: Means over the documents of single steps.
        held_out: Means over the held-out documents; none where nothing is held out.
    """

    name: str
    training: list[Point]
    held_out: list[Point]


def read_curves(run: Path) -> list[Curve]:
    """Read the curves of a run's metrics."""
    return curves_of(read_metrics(run))


def curves_of(rows: Sequence[Mapping[str, object]]) -> list[Curve]:
    """Return the curves of rows of metrics; what was written into the file by hand may be anything and is left out."""
    keys = {key for row in rows for key in row if key.startswith((LOSS, HELD_OUT))}
    names = sorted({key.partition("/")[2] for key in keys}, key=lambda name: (name != "text", name))
    curves = [Curve(name, _points(rows, f"{LOSS}{name}"), _points(rows, f"{HELD_OUT}{name}")) for name in names]
    return [curve for curve in curves if curve.training or curve.held_out]


def _points(rows: Sequence[Mapping[str, object]], key: str) -> list[Point]:
    return [Point(*numbers) for row in rows if (numbers := _numbers(row, key)) is not None]


def _numbers(row: Mapping[str, object], key: str) -> tuple[float, float] | None:
    numbers = [float(f"{value}") for name in ("step", key) if type(value := row.get(name)) in (int, float)]
    return (numbers[0], numbers[1]) if len(numbers) == 2 and all(map(math.isfinite, numbers)) else None


def draw(curve: Curve, unit: str) -> str:
    """Draw a curve as SVG: steps to the right, the loss upwards on a logarithmic scale.

    Args:
        curve: What to draw.
        unit: Of the loss.
    """
    scale = _scale([*curve.training, *curve.held_out])
    is_smoothed = len(curve.training) >= MIN_SMOOTHED
    parts = [_axes(scale)]
    parts.append(_line(scale.places(_thinned(curve.training)), TRAINING_COLOUR, opacity=0.3 if is_smoothed else 1.0))
    if is_smoothed:
        parts.append(_line(scale.places(_smoothed(curve.training)), TRAINING_COLOUR))
    held_out = scale.places(_thinned(curve.held_out))
    parts.append(_line(held_out, HELD_OUT_COLOUR))
    parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{HELD_OUT_COLOUR}"/>' for x, y in held_out]
    label = escape(f"{curve.name}, {unit} (logarithmic scale)")
    parts.append(_text(LEFT, 18, label, size=14))
    parts.append(_text(WIDTH - RIGHT, TOP + 12, _legend(curve), anchor="end"))
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" role="img" aria-label="{label}: {_told(curve)}">'
        f"{''.join(parts)}</svg>"
    )


def _told(curve: Curve) -> str:
    points = curve.training or curve.held_out
    return f"{points[0].value:.3g} → {points[-1].value:.3g}, {points[-1].step:.0f} steps"


def _legend(curve: Curve) -> str:
    parts = [f'<tspan fill="{TRAINING_COLOUR}">training</tspan>'] if curve.training else []
    parts += [f'<tspan fill="{HELD_OUT_COLOUR}">held out</tspan>'] if curve.held_out else []
    return " · ".join(parts)


class _Scale(NamedTuple):
    """From steps and losses to places in the picture; the losses' scale is logarithmic."""

    last: float
    lowest: float
    highest: float

    def places(self, points: Sequence[Point]) -> list[tuple[float, float]]:
        width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
        span = math.log(self.highest / self.lowest)
        rises = [math.log(_drawable(point.value) / self.lowest) / span for point in points]
        return [
            (LEFT + point.step / self.last * width, HEIGHT - BOTTOM - rise * height)
            for point, rise in zip(points, rises, strict=True)
        ]


def _scale(points: Sequence[Point]) -> _Scale:
    values = [_drawable(point.value) for point in points]
    return _Scale(max(1.0, *(point.step for point in points)), min(values) * 0.97, max(values) * 1.03)


def _drawable(value: float) -> float:
    return min(max(value, LOWEST), HIGHEST)


def _axes(scale: _Scale) -> str:
    """Draw both axes with their ticks and names."""
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    steps, losses = step_ticks(scale.last), loss_ticks(scale.lowest, scale.highest)
    parts = [_segment(LEFT, TOP, LEFT, bottom), _segment(LEFT, bottom, right, bottom)]
    for (x, _), step in zip(scale.places([Point(step, scale.lowest) for step in steps]), steps, strict=True):
        parts += [_segment(x, bottom, x, bottom + 5), _text(x, bottom + 18, f"{step:,.0f}", anchor="middle")]
    for (_, y), value in zip(scale.places([Point(0, value) for value in losses]), losses, strict=True):
        parts += [_segment(LEFT, y, right, y, opacity=0.2), _text(LEFT - 7, y + 4, f"{value:.3g}", anchor="end")]
    return "".join(parts) + _text((LEFT + right) / 2, HEIGHT - 8, "steps", anchor="middle")


def _segment(x_0: float, y_0: float, x_1: float, y_1: float, *, opacity: float = 1.0) -> str:
    ends = f'x1="{x_0:.1f}" y1="{y_0:.1f}" x2="{x_1:.1f}" y2="{y_1:.1f}"'
    return f'<line {ends} stroke="currentColor" stroke-opacity="{opacity}"/>'


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 12) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} font-size="{size}" fill="currentColor">{text}</text>'


def _line(places: Sequence[tuple[float, float]], colour: str, *, opacity: float = 1.0) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    style = f'fill="none" stroke="{colour}" stroke-width="2" stroke-opacity="{opacity}"'
    return f'<polyline points="{path}" {style}/>' if path else ""


def step_ticks(last: float) -> list[float]:
    """Return a few round numbers from 0 to ``last``."""
    rough = last / MAX_TICKS
    scale = 10.0 ** math.floor(math.log10(max(rough, 1.0)))
    distance = next(factor * scale for factor in (1, 2, 5, 10) if factor * scale >= rough)
    return [number * distance for number in range(int(last / distance) + 1)]


def loss_ticks(lowest: float, highest: float) -> list[float]:
    """Return a few round numbers within a range, spread over a logarithmic scale."""
    exponents = range(math.floor(math.log10(lowest)), math.ceil(math.log10(highest)) + 1)
    ladders = [(1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), tuple(np.arange(1, 10, 0.5)), tuple(np.arange(1, 10, 0.1))]
    found: list[float] = []
    for ladder in ladders:
        found = [float(f * 10.0**e) for e in exponents for f in ladder if lowest <= f * 10.0**e <= highest]
        if len(found) >= MAX_TICKS // 2:
            break
    found = found[:: -(-len(found) // MAX_TICKS)] if found else []
    return found or [lowest, highest]


def _smoothed(points: Sequence[Point]) -> list[Point]:
    """Return means over stretches of a curve."""
    stride = -(-len(points) // MAX_POINTS)
    parts = [points[start : start + stride] for start in range(0, len(points), stride)]
    return [Point(float(np.mean([p.step for p in part])), float(np.mean([p.value for p in part]))) for part in parts]


def _thinned(points: Sequence[Point]) -> list[Point]:
    """Leave points out where there are more than the picture can show; the last stays."""
    stride = max(1, len(points) // (5 * MAX_POINTS))
    return [*points[: len(points) - 1 : stride], *points[-1:]]
