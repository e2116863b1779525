"""Predictions: exact values and round trips."""

from itertools import product
from typing import get_args

import pytest
import torch

from transfusion.diffusion.prediction import Kind, convert, target
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
