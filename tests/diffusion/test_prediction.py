"""Predictions: exact values and round trips."""

from itertools import product
from typing import get_args

import pytest
import torch

from transfusion.diffusion.prediction import Kind, convert, target, to_noise, to_x_0
from transfusion.diffusion.schedule import CosineSchedule, Schedule, StraightSchedule, add_noise

KINDS: tuple[Kind, ...] = get_args(Kind)


def case(schedule: Schedule) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Make clean latents, noise, times away from the ends, and noised latents."""
    draw = torch.Generator().manual_seed(0)
    x_0, noise = torch.randn(9, 2, 4, generator=draw), torch.randn(9, 2, 4, generator=draw)
    t = torch.linspace(0.1, 0.9, 9)
    return x_0, noise, t, add_noise(schedule, x_0, noise, t)


def test_velocity_of_the_straight_path_is_noise_minus_data() -> None:
    x_0, noise, t, _ = case(StraightSchedule())
    assert torch.equal(target("v", StraightSchedule(), x_0, noise, t), noise - x_0)
    assert torch.equal(target("x_0", StraightSchedule(), x_0, noise, t), x_0)
    assert torch.equal(target("noise", StraightSchedule(), x_0, noise, t), noise)


@pytest.mark.parametrize("schedule", [CosineSchedule(), StraightSchedule()])
@pytest.mark.parametrize(("source", "destination"), list(product(KINDS, KINDS)))
def test_targets_convert_into_each_other(schedule: Schedule, source: Kind, destination: Kind) -> None:
    x_0, noise, t, x_t = case(schedule)
    known = target(source, schedule, x_0, noise, t)
    wanted = target(destination, schedule, x_0, noise, t)
    found = convert(known, x_t, t, schedule, source=source, destination=destination)
    assert torch.allclose(found, wanted, atol=2e-5)  # float32, divided by alpha or sigma >= 0.1


@pytest.mark.parametrize("schedule", [CosineSchedule(), StraightSchedule()])
@pytest.mark.parametrize(("source", "between"), list(product(KINDS, KINDS)))
def test_round_trips_of_any_output(schedule: Schedule, source: Kind, between: Kind) -> None:
    _, _, t, x_t = case(schedule)
    output = torch.randn(x_t.shape, generator=torch.Generator().manual_seed(1))
    there = convert(output, x_t, t, schedule, source=source, destination=between)
    back = convert(there, x_t, t, schedule, source=between, destination=source)
    assert torch.allclose(back, output, atol=1e-4)  # two divisions by 0.1 in float32


@pytest.mark.parametrize("t", [0.0, 1.0])
def test_ends_stay_finite(t: float) -> None:
    for schedule, source, destination in product((CosineSchedule(), StraightSchedule()), KINDS, KINDS):
        x_t = torch.ones(1, 1, 2)
        found = convert(x_t, x_t, torch.tensor([t]), schedule, source=source, destination=destination)
        assert bool(torch.isfinite(found).all())


COSINE, STRAIGHT = CosineSchedule(), StraightSchedule()
ENDS = [0.0, 1e-7, 1e-6, 1e-4, 0.999, 1 - 1e-6, 1.0]


@pytest.mark.parametrize("schedule", [COSINE, STRAIGHT])
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize(("source", "destination"), list(product(KINDS, KINDS)))
def test_targets_convert_at_the_ends(schedule: Schedule, end: float, source: Kind, destination: Kind) -> None:
    x_0, noise, _, _ = case(schedule)
    t = torch.full((len(x_0),), end)
    alpha, sigma = float(schedule.alpha(t[0])), float(schedule.sigma(t[0]))
    if (source == "x_0" and sigma == 0) or (source == "noise" and alpha == 0):
        destination = source  # nothing else is told there
    x_t, known = add_noise(schedule, x_0, noise, t), target(source, schedule, x_0, noise, t)
    wanted = target(destination, schedule, x_0, noise, t)
    found = convert(known, x_t, t, schedule, source=source, destination=destination)
    # float32 carries 1e-7 of x_t, divided by what the conversion must divide by.
    divisor = {"noise": alpha, "x_0": sigma, "v": 1.0}[source] if source != destination else 1.0
    scale = float(wanted.abs().max())
    assert float((found - wanted).abs().max()) < 1e-6 * (1 + scale) / min(divisor, 1.0) + 2e-6 * scale


def test_the_whole_of_the_data_comes_out_at_the_paper_s_last_level() -> None:
    x_0, noise, _, _ = case(COSINE)
    t = torch.ones(len(x_0))
    found = to_x_0("noise", COSINE, noise, add_noise(COSINE, x_0, noise, t), t)
    assert torch.allclose(found, x_0, atol=1e-2)  # float32's 2e-7 of x_t, divided by alpha = 5e-5


def test_what_x_t_does_not_hold_is_zero() -> None:
    x_t, one, zero = torch.full((1, 1, 2), 0.5), torch.ones(1), torch.zeros(1)
    assert torch.equal(to_x_0("noise", STRAIGHT, x_t + 1, x_t, one), torch.zeros(1, 1, 2))
    for schedule in (COSINE, STRAIGHT):
        assert torch.equal(to_noise("x_0", schedule, x_t + 1, x_t, zero), torch.zeros(1, 1, 2))
