"""What a network's output means: noise, velocity or clean data, and how one becomes another.

The velocity is v = alpha' x_0 + sigma' noise, the derivative of x_t along the path; on the straight schedule it is
noise - x_0.

Conversions are exact for every t: they divide by what they must divide by, however small. Where that is 0 the
asked is not in x_t at all (the noise at t = 0; the data behind a noise prediction where alpha is 0): the answer is
then 0, the mean of standardised data and of the noise.
"""

from typing import Literal

import torch
from torch import Tensor

from transfusion.diffusion.schedule import Schedule, over_latents

Kind = Literal["noise", "v", "x_0"]


def target(kind: Kind, schedule: Schedule, x_0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """Return what a network of this kind should output, (I, C, *axes)."""
    if kind == "x_0":
        return x_0
    if kind == "noise":
        return noise
    t = over_latents(t, x_0)
    return schedule.alpha_derivative(t) * x_0 + schedule.sigma_derivative(t) * noise


def to_x_0(kind: Kind, schedule: Schedule, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    """Return the clean latents that an output stands for, float32 whatever the network's dtype."""
    output = _widened(output)
    if kind == "x_0":
        return output
    t = over_latents(t, x_t)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    if kind == "noise":
        return _quotient(x_t - sigma * output, alpha)
    alpha_slope, sigma_slope = schedule.alpha_derivative(t), schedule.sigma_derivative(t)
    return (sigma_slope * x_t - sigma * output) / (alpha * sigma_slope - sigma * alpha_slope)


def to_noise(kind: Kind, schedule: Schedule, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    """Return the noise that an output stands for, float32 whatever the network's dtype."""
    output = _widened(output)
    if kind == "noise":
        return output
    t = over_latents(t, x_t)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    if kind == "x_0":
        return _quotient(x_t - alpha * output, sigma)
    alpha_slope, sigma_slope = schedule.alpha_derivative(t), schedule.sigma_derivative(t)
    return (alpha * output - alpha_slope * x_t) / (alpha * sigma_slope - sigma * alpha_slope)


def convert(output: Tensor, x_t: Tensor, t: Tensor, schedule: Schedule, *, source: Kind, destination: Kind) -> Tensor:
    """Turn an output of one kind into another, (I, C, *axes)."""
    if source == destination:
        return _widened(output)
    if destination == "x_0":
        return to_x_0(source, schedule, output, x_t, t)
    if destination == "noise":
        return to_noise(source, schedule, output, x_t, t)
    x_0, noise = to_x_0(source, schedule, output, x_t, t), to_noise(source, schedule, output, x_t, t)
    return target("v", schedule, x_0, noise, t)


def _widened(output: Tensor) -> Tensor:
    return output.to(torch.promote_types(output.dtype, torch.float32))


def _quotient(numerator: Tensor, divisor: Tensor) -> Tensor:
    """Divide, with 0 where the divisor is 0."""
    is_told = divisor != 0
    return torch.where(is_told, numerator / torch.where(is_told, divisor, 1), 0)
