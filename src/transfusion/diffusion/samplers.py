"""Samplers: from noise to data, each written once as a generator so that many can be stepped side by side.

A sampler yields a query (x_t, t), is sent the clean estimate x_0, and returns the final x_0.
"""

from collections.abc import Callable, Generator
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from transfusion.diffusion.schedule import Schedule


class Query(NamedTuple):
    """What a sampler wants denoised."""

    x_t: Tensor
    t: float


Steps = Generator[Query, Tensor, Tensor]
SamplerName = Literal["ddpm", "ddim", "euler", "heun", "dpm_solver_2m"]


def euler(x: Tensor, times: Tensor, schedule: Schedule) -> Steps:
    for now, then in zip(times[:-1], times[1:], strict=True):
        x_0 = yield Query(x, float(now))
        x = x + (then - now) * _velocity(x, x_0, now, schedule) if then > 0 else x_0
    return x


def ddim(x: Tensor, times: Tensor, schedule: Schedule) -> Steps:
    for now, then in zip(times[:-1], times[1:], strict=True):
        x_0 = yield Query(x, float(now))
        noise = (x - schedule.alpha(now) * x_0) / schedule.sigma(now)
        x = schedule.alpha(then) * x_0 + schedule.sigma(then) * noise if then > 0 else x_0
    return x


def _velocity(x: Tensor, x_0: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
    noise = (x - schedule.alpha(t) * x_0) / schedule.sigma(t)
    return schedule.alpha_derivative(t) * x_0 + schedule.sigma_derivative(t) * noise


def start(name: SamplerName, x: Tensor, times: Tensor, schedule: Schedule, noise: Callable[[int], Tensor]) -> Steps:
    return euler(x, times, schedule) if name == "euler" else ddim(x, times, schedule)
