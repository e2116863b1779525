"""The sampler stays tame where the noise prediction errs, and draws what it drew where it does not."""

from collections.abc import Callable
from itertools import product
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from transfusion.diffusion.guidance import Guidance, apply
from transfusion.diffusion.prediction import Kind, convert
from transfusion.diffusion.process import DiffusionConfig, Process, make_process
from transfusion.diffusion.samplers import SamplerName, sample, start
from transfusion.diffusion.schedule import CosineSchedule, Schedule, ScheduleConfig, StraightSchedule, sampling_times

ERROR = 0.05  # of the noise's deviation
COUNT = 1000
SAMPLERS: tuple[SamplerName, ...] = ("ddpm", "ddim", "euler", "heun", "dpm_solver_2m")
Denoise = Callable[[Tensor, float], Tensor]


class Data(NamedTuple):
    """Mixtures of Gaussians, one a row, whose exact E[x_0 | x_t] is known; every value is (rows, components)."""

    weights: Tensor
    means: Tensor
    stds: Tensor


# Four Gaussians; two points, two points of unlike weight, and two humps.
DATA = Data(
    torch.tensor([[0.5, 0.5], [0.5, 0.5], [0.5, 0.5], [0.5, 0.5], [0.5, 0.5], [0.2, 0.8], [0.4, 0.6]]),
    torch.tensor([[0.0, 0], [0.7, 0.7], [2, 2], [-1, -1], [-1, 1], [-2, 0.5], [-1, 0.7]]),
    torch.tensor([[1.0, 1], [0.5, 0.5], [0.3, 0.3], [2, 2], [1e-3, 1e-3], [1e-3, 1e-3], [0.3, 0.2]]),
)
NUM_GAUSSIANS = 4
MEANS, STDS = DATA.means[:NUM_GAUSSIANS, 0], DATA.stds[:NUM_GAUSSIANS, 0]


def expected(data: Data, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """Return E[x_0 | x_t] of (rows, count) values, in float64."""
    x, means = x_t.double()[..., None], data.means.double()[:, None]
    variances = alpha**2 * data.stds.double()[:, None] ** 2 + sigma**2
    away = x - alpha * means
    shares = (data.weights.double()[:, None].log() - away**2 / (2 * variances) - variances.log() / 2).softmax(-1)
    return (shares * (means + alpha * data.stds.double()[:, None] ** 2 / variances * away)).sum(-1)


def denoiser(process: Process, scale: float = 1.0, error: float = 0.0) -> Denoise:
    """Return a model that predicts the exact noise with an error drawn anew for each evaluation and branch."""
    draw, kind = torch.Generator().manual_seed(1), process.config.prediction

    def branch(x_t: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = process.schedule.alpha(t[:1]).double(), process.schedule.sigma(t[:1]).double()
        noise = ((x_t.double() - alpha * expected(DATA, x_t, alpha, sigma)) / sigma).float()
        noise = noise + error * torch.randn(x_t.shape, generator=draw)
        output = convert(noise, x_t, t, process.schedule, source="noise", destination=kind)
        return process.to_x_0(output, x_t, t)

    def denoise(x_t: Tensor, t: float) -> Tensor:
        times = torch.full((len(x_t),), t)
        if scale == 1:
            return branch(x_t, times)
        return apply(branch(x_t, times), branch(x_t, times), t, Guidance(scale=scale))

    return denoise


def drawn(name: SamplerName, schedule: Schedule, denoise: Denoise, num_steps: int, shift: float = 1.0) -> Tensor:
    """Sample (rows, COUNT) values."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(len(DATA.means), COUNT, generator=draw)
    noise = (torch.randn(x.shape, generator=draw) for _ in range(num_steps))
    return sample(denoise, start(name, x, sampling_times(num_steps, shift), schedule, lambda step: next(noise)))


def process_of(schedule: str, prediction: Kind) -> Process:
    """Make a process by the names of its parts."""
    config = ScheduleConfig.model_validate({"kind": schedule})
    return make_process(DiffusionConfig(schedule=config, prediction=prediction))


CASES = [
    *product(("cosine", "straight"), ("noise",), SAMPLERS, (16,), (1.0,)),
    *product(("cosine", "straight"), ("noise",), ("ddim", "dpm_solver_2m"), (50,), (1.0,)),
    *product(("cosine", "straight"), ("v", "x_0"), SAMPLERS, (16,), (1.0,)),
    *product(("cosine", "straight"), ("noise",), SAMPLERS, (32,), (6.0,)),
    ("cosine", "noise", "ddpm", 250, 1.0),  # the paper's
]


@pytest.mark.parametrize(("schedule", "prediction", "name", "num_steps", "shift"), CASES)
def test_an_error_of_the_noise_keeps_the_spread(
    schedule: str, prediction: Kind, name: SamplerName, num_steps: int, shift: float
) -> None:
    process = process_of(schedule, prediction)
    exact = drawn(name, process.schedule, denoiser(process), num_steps, shift).std(1)
    for scale in (1.0, 5.0):  # both branches are of one distribution: guidance moves the error alone
        found = drawn(name, process.schedule, denoiser(process, scale, ERROR), num_steps, shift).std(1)
        assert float((found / exact).min()) > 0.7 and float((found / exact).max()) < 1.4, (scale, found / exact)


@pytest.mark.parametrize("schedule", [CosineSchedule(begins_inside=False), StraightSchedule(begins_inside=False)])
@pytest.mark.parametrize(("name", "num_steps"), list(product(SAMPLERS, (16, 50))))
def test_what_an_exact_model_draws_stays_as_it_was(schedule: Schedule, name: SamplerName, num_steps: int) -> None:
    process = process_of("cosine" if isinstance(schedule, CosineSchedule) else "straight", "noise")

    def denoise(x_t: Tensor, t: float) -> Tensor:
        alpha, sigma = (f(torch.tensor(t)).double() for f in (schedule.alpha, schedule.sigma))
        return expected(DATA, x_t, alpha, sigma).float()

    from_one = drawn(name, schedule, denoise, num_steps)
    found = drawn(name, process.schedule, denoiser(process), num_steps)
    change = (found - from_one)[:NUM_GAUSSIANS].square().mean(1).sqrt() / STDS
    # From the mean, which is what t = 1 tells, the first step errs by (alpha std)² / 2; asked at two thirds of it, by
    # (alpha std)² / 6 the other way.
    alpha = schedule.alpha(sampling_times(num_steps)[1])
    assert bool((change < 0.8 * (alpha * STDS) ** 2 + 1e-4).all()), change


@pytest.mark.parametrize("schedule", ["cosine", "straight"])
@pytest.mark.parametrize(("name", "num_steps"), list(product(SAMPLERS, (1, 2))))
def test_one_and_two_steps_draw_the_mean_and_no_more_than_the_spread(
    schedule: str, name: SamplerName, num_steps: int
) -> None:
    process = process_of(schedule, "noise")
    for shift in (1.0, 6.0):
        found = drawn(name, process.schedule, denoiser(process), num_steps, shift)[:NUM_GAUSSIANS]
        assert torch.allclose(found.mean(1), MEANS, atol=0.11)
        assert bool((found.std(1) < STDS).all())


@pytest.mark.parametrize(
    ("schedule", "prediction", "is_inside"),
    [("cosine", "noise", True), ("straight", "noise", True), ("straight", "x_0", False), ("straight", "v", False)],
)
def test_the_first_query_is_where_the_data_can_be_told(schedule: str, prediction: Kind, is_inside: bool) -> None:
    process = process_of(schedule, prediction)
    for name in SAMPLERS:
        steps = start(name, torch.zeros(2), sampling_times(50), process.schedule, lambda step: torch.zeros(2))
        assert next(steps).t == pytest.approx(1 - 0.02 * 2 / 3 if is_inside else 1.0)
        coarse = start(name, torch.zeros(2), sampling_times(2), process.schedule, lambda step: torch.zeros(2))
        assert next(coarse).t == pytest.approx(0.95 if is_inside else 1.0)
        late = start(name, torch.zeros(2), torch.tensor([0.9, 0.1, 0.0]), process.schedule, lambda step: torch.zeros(2))
        assert next(late).t == pytest.approx(0.9)


def test_an_output_in_bfloat16_is_turned_into_float32() -> None:
    for prediction in ("noise", "v", "x_0"):
        process = process_of("straight", prediction)
        x_0 = process.to_x_0(torch.ones(2, 1, 3, dtype=torch.bfloat16), torch.ones(2, 1, 3), torch.tensor([0.5, 1.0]))
        assert x_0.dtype is torch.float32
