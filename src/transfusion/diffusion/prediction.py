"""What a network's output means: noise, velocity or clean data, and how one becomes another.

The velocity is v = alpha' x_0 + sigma' noise, the derivative of x_t along the path; on the straight schedule it is
noise - x_0.
"""

from typing import Literal

from torch import Tensor

from transfusion.diffusion.schedule import Schedule, over_latents

Kind = Literal["noise", "v", "x_0"]
FLOOR = 1e-4  # smallest divisor, where alpha or sigma vanishes


def target(kind: Kind, schedule: Schedule, x_0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """Return what a network of this kind should output, (I, C, *axes)."""
    if kind == "x_0":
        return x_0
    if kind == "noise":
        return noise
    t = over_latents(t, x_0)
    return schedule.alpha_derivative(t) * x_0 + schedule.sigma_derivative(t) * noise


def to_x_0(kind: Kind, schedule: Schedule, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    """Return the clean latents that an output stands for."""
    if kind == "x_0":
        return output
    t = over_latents(t, x_t)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    if kind == "noise":
        return (x_t - sigma * output) / alpha.clamp(min=FLOOR)
    alpha_slope, sigma_slope = schedule.alpha_derivative(t), schedule.sigma_derivative(t)
    return (sigma_slope * x_t - sigma * output) / (alpha * sigma_slope - sigma * alpha_slope)


def to_noise(kind: Kind, schedule: Schedule, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    """Return the noise that an output stands for."""
    if kind == "noise":
        return output
    x_0 = to_x_0(kind, schedule, output, x_t, t)
    t = over_latents(t, x_t)
    return (x_t - schedule.alpha(t) * x_0) / schedule.sigma(t).clamp(min=FLOOR)


def convert(output: Tensor, x_t: Tensor, t: Tensor, schedule: Schedule, *, source: Kind, destination: Kind) -> Tensor:
    """Turn an output of one kind into another, (I, C, *axes)."""
    if source == destination:
        return output
    if destination == "x_0":
        return to_x_0(source, schedule, output, x_t, t)
    if destination == "noise":
        return to_noise(source, schedule, output, x_t, t)
    x_0, noise = to_x_0(source, schedule, output, x_t, t), to_noise(source, schedule, output, x_t, t)
    return target("v", schedule, x_0, noise, t)
