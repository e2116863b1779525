"""Samplers: from noise to data, each written once, as a generator.

A sampler yields a query (x_t, t), is sent the clean estimate E[x_0 | x_t] that it asked for, and returns the final
x_0. ``sample`` drives one with a ``denoise`` closure; the engine steps many side by side. Times run from 1 to 0;
no sampler asks at t = 0, where the last step ends exactly. They must not know networks or guidance.

The first step is tamed. x_0 = (x_t - sigma noise) / alpha multiplies an error of the noise prediction by
sigma / alpha, which at t = 1 is 20,000 on the paper's schedule and infinite on the straight one. So where the
schedule says ``begins_inside``, the first step asks at a time inside of itself, where x is all but noise still and
alpha has not vanished. Of an error e it then takes 3/2 e instead of thousands; later steps need nothing, as step k
takes about e / k. What an exact model draws stays as it was, up to the square of the step: on a Gaussian the first step
errs by (alpha std)² / 6, where asked at its beginning it errs by (alpha std)² / 2 the other way.
Clipping x_0 at the data's range, as the engine does too, would not do alone: a range of 10 moves x by 1 in the first
of sixteen steps, and what guidance extrapolates may rightly lie outside.
"""

from collections.abc import Callable, Generator
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from transfusion.diffusion.schedule import Schedule


class Query(NamedTuple):
    """What a sampler wants denoised: x_t of any shape, float32, at time t in (0, 1].

    ``step_t`` is the time of ``sampling_times`` that it stands for, where t is another: the beginning of a step that
    asks inside of itself.
    """

    x_t: Tensor
    t: float
    step_t: float | None = None

    @property
    def guided_t(self) -> float:
        """The time that an interval of guidance is compared with."""
        return self.t if self.step_t is None else self.step_t


Steps = Generator[Query, Tensor, Tensor]
INSIDE = 2 / 3  # share of the first step; more of it asks less exactly, less takes more of an error: 1 / INSIDE
LARGEST_LEAP = 0.05  # of t from the start to the first query; where steps are few, x would not be noise further on
NoiseOf = Callable[[int], Tensor]
SamplerName = Literal["ddpm", "ddim", "euler", "heun", "dpm_solver_2m"]


def euler(x: Tensor, times: Tensor, schedule: Schedule) -> Steps:
    """Solve the probability-flow ODE dx/dt = alpha' x_0 + sigma' noise with Euler steps.

    Args:
        x: Noise, float32.
        times: (num_steps + 1,) float32 from 1 down to 0.
        schedule: alpha and sigma.
    """
    for now, then in pairwise(times):
        x_0 = yield _first_query(x, now, then, schedule)
        x = x + (then - now) * _velocity(x, x_0, now, schedule) if then > 0 else x_0
    return x


def heun(x: Tensor, times: Tensor, schedule: Schedule) -> Steps:
    """Solve the same ODE with Heun's second-order steps, two evaluations in each but the last (2206.00364, Alg. 1)."""
    for now, then in pairwise(times):
        x_0 = yield _first_query(x, now, then, schedule)
        if then == 0:
            return x_0
        slope = _velocity(x, x_0, now, schedule)
        guess = x + (then - now) * slope
        x_0 = yield Query(guess, float(then))
        x = x + (then - now) * 0.5 * (slope + _velocity(guess, x_0, then, schedule))
    return x


def ddim(x: Tensor, times: Tensor, schedule: Schedule) -> Steps:
    """Re-noise the clean estimate with the noise it implies (2010.02502, Eq. 12 with eta = 0)."""
    for now, then in pairwise(times):
        x_0 = yield _first_query(x, now, then, schedule)
        x = schedule.alpha(then) * x_0 + schedule.sigma(then) * _noise(x, x_0, now, schedule) if then > 0 else x_0
    return x


def ddpm(x: Tensor, times: Tensor, schedule: Schedule, noise: NoiseOf) -> Steps:
    """Draw from the posterior q(x_s | x_t, x_0) step by step, on the respaced schedule (2006.11239, Eq. 6-7).

    Args:
        x: Noise, float32.
        times: (num_steps + 1,) float32 from 1 down to 0.
        schedule: alpha and sigma, with alpha² + sigma² = 1 for the paper's process.
        noise: Fresh standard normal of x's shape for step i.
    """
    for step, (now, then) in enumerate(pairwise(times)):
        x_0 = yield _first_query(x, now, then, schedule)
        if then == 0:
            return x_0
        mean, std = _posterior(x, x_0, now, then, schedule)
        x = mean + std * noise(step)
    return x


def dpm_solver_2m(x: Tensor, times: Tensor, schedule: Schedule) -> Steps:
    """Solve the ODE with second-order multistep DPM-Solver++(2M) in clean-estimate form (2211.01095, Alg. 2)."""
    before: tuple[Tensor, Tensor] | None = None  # the last clean estimate, and the step of lambda that led here
    for now, then in pairwise(times):
        x_0 = yield _first_query(x, now, then, schedule)
        if then == 0:
            return x_0
        step = _half_log_snr(then, schedule) - _half_log_snr(now, schedule)
        slope = x_0
        if before is not None and torch.isfinite(before[1]):
            ratio = before[1] / step
            slope = x_0 + (x_0 - before[0]) / (2 * ratio)
        x = schedule.sigma(then) / schedule.sigma(now) * x - schedule.alpha(then) * torch.expm1(-step) * slope
        before = (x_0, step)
    return x


def start(name: SamplerName, x: Tensor, times: Tensor, schedule: Schedule, noise: NoiseOf) -> Steps:
    """Start the sampler of a name; ``noise`` is used by ``"ddpm"`` alone."""
    if name == "ddpm":
        return ddpm(x, times, schedule, noise)
    solvers = {"ddim": ddim, "euler": euler, "heun": heun, "dpm_solver_2m": dpm_solver_2m}
    return solvers[name](x, times, schedule)


def sample(denoise: Callable[[Tensor, float], Tensor], steps: Steps) -> Tensor:
    """Drive one sampler to its end.

    Args:
        denoise: Maps x_t and t to the clean estimate.
        steps: A sampler, not begun.

    Returns:
        The final x_0.
    """
    query = next(steps)
    while True:
        try:
            query = steps.send(denoise(query.x_t, query.t))
        except StopIteration as stop:
            return stop.value


def num_evaluations(name: SamplerName, num_steps: int) -> int:
    """Count the evaluations that a sampler makes."""
    return 2 * num_steps - 1 if name == "heun" else num_steps


def _first_query(x: Tensor, now: Tensor, then: Tensor, schedule: Schedule) -> Query:
    """Ask for a step's first estimate: at its beginning, but inside of a first step from pure noise."""
    if now < 1 or not schedule.begins_inside:
        return Query(x, float(now))
    return Query(x, float(torch.maximum(now + INSIDE * (then - now), now - LARGEST_LEAP)), float(now))


def _noise(x: Tensor, x_0: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
    return (x - schedule.alpha(t) * x_0) / schedule.sigma(t)


def _velocity(x: Tensor, x_0: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
    return schedule.alpha_derivative(t) * x_0 + schedule.sigma_derivative(t) * _noise(x, x_0, t, schedule)


def _posterior(x: Tensor, x_0: Tensor, now: Tensor, then: Tensor, schedule: Schedule) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of q(x_then | x_now, x_0); the variance is the posterior's beta tilde."""
    alpha_now, alpha_then = schedule.alpha(now), schedule.alpha(then)
    sigma_now, sigma_then = schedule.sigma(now), schedule.sigma(then)
    ratio = alpha_now / alpha_then
    step_variance = sigma_now**2 - ratio**2 * sigma_then**2  # of x_now given x_then
    mean = (ratio * sigma_then**2 * x + alpha_then * step_variance * x_0) / sigma_now**2
    return mean, (step_variance.clamp(min=0)).sqrt() * sigma_then / sigma_now


def _half_log_snr(t: Tensor, schedule: Schedule) -> Tensor:
    return schedule.alpha(t).log() - schedule.sigma(t).log()
