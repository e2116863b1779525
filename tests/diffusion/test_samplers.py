"""Samplers against the closed form of a Gaussian, and their order of convergence."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from transfusion.diffusion.guidance import Guidance, needs_unconditional
from transfusion.diffusion.samplers import SamplerName, num_evaluations, sample, start
from transfusion.diffusion.schedule import CosineSchedule, Schedule, StraightSchedule, sampling_times

MEAN, STD = 0.7, 0.5
SCHEDULES: list[Schedule] = [CosineSchedule(), StraightSchedule()]
ODE: list[SamplerName] = ["ddim", "euler", "heun", "dpm_solver_2m"]


def gaussian_denoiser(schedule: Schedule) -> Callable[[Tensor, float], Tensor]:
    """Return E[x_0 | x_t] for data N(MEAN, STD²)."""

    def denoise(x_t: Tensor, t: float) -> Tensor:
        alpha, sigma = (f(torch.tensor(t, dtype=x_t.dtype)) for f in (schedule.alpha, schedule.sigma))
        gain = alpha * STD**2 / (alpha**2 * STD**2 + sigma**2)
        return MEAN + gain * (x_t - alpha * MEAN)

    return denoise


def closed_form(x_1: Tensor, schedule: Schedule) -> Tensor:
    """Solve the probability-flow ODE of the Gaussian: standard scores stay as they are."""
    one = torch.tensor(1.0)
    alpha, sigma = schedule.alpha(one), schedule.sigma(one)
    return MEAN + STD * (x_1 - alpha * MEAN) / torch.sqrt(alpha**2 * STD**2 + sigma**2)


def solve(name: SamplerName, schedule: Schedule, num_steps: int, x: Tensor) -> Tensor:
    """Sample with keyed noise."""
    draw = torch.Generator().manual_seed(3)
    steps = start(name, x, sampling_times(num_steps), schedule, lambda step: torch.randn(x.shape, generator=draw))
    return sample(gaussian_denoiser(schedule), steps)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", ODE)
def test_ode_samplers_reach_the_closed_form(name: SamplerName, schedule: Schedule) -> None:
    x = torch.linspace(-2, 2, 9)
    error = (solve(name, schedule, 200, x) - closed_form(x, schedule)).abs().max()
    assert float(error) < 0.02  # first order at 200 steps


def at_time(score: Tensor, t: float, schedule: Schedule) -> Tensor:
    """Return the exact solution at t of the path with this standard score."""
    alpha, sigma = (f(torch.tensor(t, dtype=torch.float64)) for f in (schedule.alpha, schedule.sigma))
    return alpha * MEAN + torch.sqrt(alpha**2 * STD**2 + sigma**2) * score


def slope(name: SamplerName, few: int, many: int) -> float:
    """Measure the order of convergence from t = 0.9 to t = 0.1, in float64 and away from the ends."""
    schedule, score = StraightSchedule(), torch.linspace(-2, 2, 9, dtype=torch.float64)
    errors: list[float] = []
    for num_steps in (few, many):
        times = torch.linspace(0.9, 0.1, num_steps + 1, dtype=torch.float64)
        steps = start(name, at_time(score, 0.9, schedule), times, schedule, lambda step: score)
        found = sample(gaussian_denoiser(schedule), steps)
        errors.append(float((found - at_time(score, 0.1, schedule)).abs().max()))
    return math.log(errors[0] / errors[1]) / math.log(many / few)


@pytest.mark.parametrize(
    ("name", "order", "few", "many"),
    [("euler", 1.0, 20, 80), ("ddim", 1.0, 20, 80), ("heun", 2.0, 8, 32), ("dpm_solver_2m", 2.0, 10, 40)],
)
def test_error_falls_with_the_order_of_the_method(name: SamplerName, order: float, few: int, many: int) -> None:
    assert slope(name, few, many) == pytest.approx(order, abs=0.25)


def test_ddpm_has_the_gaussian_s_moments() -> None:
    x = torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    found = solve("ddpm", CosineSchedule(), 100, x)
    assert float(found.mean()) == pytest.approx(MEAN, abs=0.02)  # 4 standard errors of 20,000 draws
    assert float(found.std()) == pytest.approx(STD, abs=0.03)


def test_ddpm_step_is_the_discrete_posterior() -> None:
    """Compare with Eq. 7 of DDPM written in betas."""
    schedule = CosineSchedule()
    now, then = torch.tensor(0.6), torch.tensor(0.5)
    bar_now, bar_then = schedule.alpha(now) ** 2, schedule.alpha(then) ** 2
    beta = 1 - bar_now / bar_then
    x_t, x_0, noise = torch.tensor([0.3]), torch.tensor([-0.4]), torch.tensor([1.7])
    mean = (bar_then.sqrt() * beta * x_0 + (1 - beta).sqrt() * (1 - bar_then) * x_t) / (1 - bar_now)
    expected = mean + ((1 - bar_then) / (1 - bar_now) * beta).sqrt() * noise
    steps = start("ddpm", x_t, torch.tensor([0.6, 0.5, 0.0]), schedule, lambda step: noise)
    next(steps)
    found = steps.send(x_0).x_t
    assert torch.allclose(found, expected, atol=1e-6)


def test_ddim_is_euler_on_the_straight_path() -> None:
    x = torch.linspace(-2, 2, 5)
    one, other = (solve(name, StraightSchedule(), 12, x) for name in ("ddim", "euler"))
    assert torch.allclose(one, other, atol=1e-5)  # the same formula, rounded in another order


@pytest.mark.parametrize("name", [*ODE, "ddpm"])
def test_no_sampler_asks_at_zero_and_all_count_their_evaluations(name: SamplerName) -> None:
    asked: list[float] = []

    def denoise(x_t: Tensor, t: float) -> Tensor:
        asked.append(t)
        return torch.full_like(x_t, 0.25)

    steps = start(name, torch.ones(2), sampling_times(5), StraightSchedule(), lambda step: torch.zeros(2))
    assert torch.equal(sample(denoise, steps), torch.full((2,), 0.25))
    assert asked[0] == 1.0 and min(asked) > 0
    assert len(asked) == num_evaluations(name, 5)


def test_interleaved_samplers_do_not_disturb_each_other() -> None:
    schedule, denoise = StraightSchedule(), gaussian_denoiser(StraightSchedule())
    starts = [torch.tensor([1.0]), torch.tensor([-2.0])]
    alone = [solve("heun", schedule, 4, x) for x in starts]
    runs = [start("heun", x, sampling_times(4), schedule, lambda step: starts[0]) for x in starts]
    queries = [next(run) for run in runs]
    results: list[Tensor] = []
    while len(results) < 2:
        for i, run in enumerate(runs):
            try:
                queries[i] = run.send(denoise(queries[i].x_t, queries[i].t))
            except StopIteration as stop:
                results.append(stop.value)
    assert all(torch.equal(one, two) for one, two in zip(results, alone, strict=True))


@pytest.mark.parametrize("name", [*ODE, "ddpm"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_an_interval_knows_the_first_step_by_its_beginning(name: SamplerName, schedule: Schedule) -> None:
    """Of 16 steps the first alone begins within 0.99 to 1, wherever inside of itself it asks."""
    steps = start(name, torch.zeros(3), sampling_times(16), schedule, lambda _: torch.zeros(3))
    query, acts, last = next(steps), list[bool](), Guidance(scale=2.0, interval=(0.99, 1.0))
    while True:
        acts.append(needs_unconditional(last, query.guided_t))
        try:
            query = steps.send(torch.zeros(3))
        except StopIteration:
            break
    assert acts == [True] + [False] * (num_evaluations(name, 16) - 1)
