"""Schedules: exact values, the discrete cosine schedule, and how times are drawn."""

import itertools
import math
import operator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from transfusion.diffusion.process import make_process
from transfusion.diffusion.schedule import (
    CosineSchedule,
    Schedule,
    ScheduleConfig,
    StraightSchedule,
    add_noise,
    sampling_times,
    time_from_uniform,
)
from transfusion.recipes import RECIPES

SCHEDULES: list[Schedule] = [CosineSchedule(), StraightSchedule()]


def discrete_alpha_bar(num_steps: int = 1000, offset: float = 0.008) -> torch.Tensor:
    """Multiply (1 - beta_i) with clipped betas, as Nichol & Dhariwal write it."""
    f = [math.cos((i / num_steps + offset) / (1 + offset) * math.pi / 2) ** 2 for i in range(num_steps + 1)]
    betas = [min(1 - f[i + 1] / f[i], 0.999) for i in range(num_steps)]
    bars = itertools.accumulate((1 - beta for beta in betas), operator.mul)
    return torch.tensor(list(bars), dtype=torch.float64)


def test_cosine_is_the_discrete_schedule_with_clipped_betas() -> None:
    times = torch.arange(1, 1001) / 1000
    alpha_bar, wanted = CosineSchedule().alpha(times).double() ** 2, discrete_alpha_bar()
    assert torch.allclose(alpha_bar, wanted, rtol=0, atol=1e-6)
    # k / 1000 in float32 is off by up to 3e-8, which at 0.999 is 3e-5 of 1 - t and twice that of its square.
    assert torch.allclose(alpha_bar, wanted, rtol=1e-4, atol=0)
    assert torch.allclose(CosineSchedule().sigma(times).double() ** 2, 1 - wanted, rtol=1e-4, atol=0)


def test_the_paper_trains_on_the_discrete_levels() -> None:
    config = RECIPES["paper"]().diffusion
    drawn = [time_from_uniform(config.schedule, (k - u) / 1000) for k in range(1, 1001) for u in (0.999, 0.001)]
    levels = torch.arange(1, 1001, dtype=torch.float64).repeat_interleave(2) / 1000
    assert torch.equal(torch.tensor(drawn), levels.float())
    alpha_bar = make_process(config).schedule.alpha(torch.tensor(drawn[::2])).double() ** 2
    assert torch.allclose(alpha_bar, discrete_alpha_bar(), rtol=0, atol=1e-6)


@given(st.floats(0, 1), st.floats(1e-4, 1), st.integers(1, 2000))
def test_levels_keep_the_noise_limit(uniform: float, max_t: float, num_levels: int) -> None:
    t = time_from_uniform(ScheduleConfig(num_levels=num_levels), uniform, max_t)
    assert 0 < t <= max_t + 1e-7
    level = t * num_levels
    assert abs(level - round(level)) < 1e-3 or (t == pytest.approx(max_t) and max_t * num_levels < 1)


def test_level_table() -> None:
    config = ScheduleConfig(num_levels=100)
    assert [time_from_uniform(config, u) for u in (0.0, 0.5, 0.501, 1.0)] == pytest.approx([0.01, 0.5, 0.51, 1.0])
    assert [time_from_uniform(config, u, 0.29) for u in (0.0, 0.5, 1.0)] == pytest.approx([0.01, 0.15, 0.29])
    assert time_from_uniform(config, 0.5, 0.004) == pytest.approx(0.004) and time_from_uniform(config, 0.5, 0.0) == 0
    assert time_from_uniform(ScheduleConfig(num_levels=10, min_t=0.25), 0.1) == pytest.approx(0.3)


def test_the_smallest_time_is_the_first_level() -> None:
    config = ScheduleConfig(times="logit_normal", mean=-10, std=3, num_levels=100)
    assert [time_from_uniform(config, u) for u in (0.0, 1e-3, 0.5)] == pytest.approx([0.01] * 3)


def test_cosine_ends_do_not_cancel() -> None:
    t = torch.tensor([1e-7, 1e-5, 1e-3, 0.9, 0.99, 0.999])
    start, rate = math.cos(0.008 / 1.008 * math.pi / 2), math.pi / 2 / 1.008
    alpha = torch.cos((t.double() + 0.008) * rate) / start
    sigma = torch.sqrt(1 - alpha**2)
    schedule = CosineSchedule()
    assert torch.allclose(schedule.alpha(t).double(), alpha, rtol=1e-6, atol=0)
    assert torch.allclose(schedule.sigma(t).double(), sigma, rtol=1e-6, atol=0)
    assert torch.allclose(
        schedule.sigma_derivative(t)[1:].double(), (-alpha * slope(alpha, start, rate) / sigma)[1:], rtol=1e-5
    )
    assert bool(torch.isfinite(schedule.sigma_derivative(torch.zeros(1))))


def slope(alpha: torch.Tensor, start: float, rate: float) -> torch.Tensor:
    """Return d alpha / dt of the cosine from alpha itself."""
    return -rate / start * torch.sqrt(1 - (alpha * start) ** 2)


@pytest.mark.parametrize(("t", "alpha", "sigma"), [(0.0, 1.0, 0.0), (0.25, 0.75, 0.25), (1.0, 0.0, 1.0)])
def test_straight_table(t: float, alpha: float, sigma: float) -> None:
    schedule, time = StraightSchedule(), torch.tensor(t)
    assert (float(schedule.alpha(time)), float(schedule.sigma(time))) == (alpha, sigma)


def test_cosine_table() -> None:
    schedule, t = CosineSchedule(), torch.tensor([0.0, 0.5])
    assert float(schedule.alpha(t)[0]) == 1.0 and float(schedule.sigma(t)[0]) == 0.0
    expected = math.cos(0.508 / 1.008 * math.pi / 2) / math.cos(0.008 / 1.008 * math.pi / 2)
    assert float(schedule.alpha(t)[1]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_derivatives_are_those_of_finite_differences(schedule: Schedule) -> None:
    t, step = torch.linspace(0.05, 0.95, 19), 1e-3
    for value, slope in ((schedule.alpha, schedule.alpha_derivative), (schedule.sigma, schedule.sigma_derivative)):
        difference = (value(t + step) - value(t - step)) / (2 * step)
        assert torch.allclose(difference, slope(t), atol=2e-3)  # float32 differences carry 1e-7 / 2e-3


def test_noise_rises_with_time() -> None:
    x_0, noise = torch.full((3, 1, 2), 2.0), torch.full((3, 1, 2), -1.0)
    x_t = add_noise(StraightSchedule(), x_0, noise, torch.tensor([0.0, 0.25, 1.0]))
    assert x_t[:, 0, 0].tolist() == [2.0, 1.25, -1.0]


@given(st.floats(0, 1), st.floats(0.1, 1))
def test_times_stay_below_the_noise_limit(uniform: float, max_t: float) -> None:
    for config in (ScheduleConfig(), ScheduleConfig(times="logit_normal", mean=0.5, shift=2.0)):
        assert 0 <= time_from_uniform(config, uniform, max_t) <= max_t + 1e-7
        assert time_from_uniform(config, uniform, 0.0) == 0.0


def test_time_table() -> None:
    assert time_from_uniform(ScheduleConfig(), 0.25) == 0.25
    assert time_from_uniform(ScheduleConfig(), 0.25, 0.5) == 0.125
    assert time_from_uniform(ScheduleConfig(shift=3.0), 0.5) == 0.75
    assert time_from_uniform(ScheduleConfig(min_t=0.1), 0.01) == pytest.approx(0.1)
    normal = ScheduleConfig(times="logit_normal", mean=1.0, std=2.0)
    assert time_from_uniform(normal, 0.5) == pytest.approx(1 / (1 + math.exp(-1)))
    assert time_from_uniform(normal, 0.8413447) == pytest.approx(1 / (1 + math.exp(-3)), abs=1e-5)


def test_sampling_times() -> None:
    assert sampling_times(4).tolist() == [1.0, 0.75, 0.5, 0.25, 0.0]
    shifted = sampling_times(4, 3.0)
    assert shifted[0] == 1 and shifted[-1] == 0 and float(shifted[2]) == 0.75
