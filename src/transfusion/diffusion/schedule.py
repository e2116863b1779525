"""Noise schedules: alpha(t) and sigma(t), noising, and how times are drawn.

x_t = alpha(t) x_0 + sigma(t) noise with t from 0 (data) to 1 (noise), in float32 throughout.
"""

import math
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

MIN_UNIFORM = 1e-7
MIN_SIGMA = 1e-4  # where the cosine's sigma' = -alpha alpha' / sigma stops growing; at t = 0 it is infinite
ROUNDING = 1e-9  # of a time in levels, so that 0.29 * 100 counts as 29


class ScheduleConfig(BaseModel):
    """A schedule, and the distribution of times in training."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["cosine", "straight"] = Field(
        default="cosine", description="cosine: the paper's; straight: flow matching"
    )
    times: Literal["uniform", "logit_normal"] = Field(default="uniform", description="Distribution of t in training")
    mean: float = Field(default=0.0, description="Mean of the logit of t for logit_normal; above 0 is noisier")
    std: float = Field(default=1.0, gt=0, description="Standard deviation of the logit of t for logit_normal")
    shift: float = Field(default=1.0, gt=0, description="t -> s t / (1 + (s - 1) t); above 1 is noisier")
    min_t: float = Field(
        default=0.0, ge=0, lt=1, description="Lower bound of t in training; bounds the weight of a loss"
    )
    num_levels: int | None = Field(
        default=None, gt=0, description="Times in training are 1/n, 2/n ... 1, rounded up, as in DDPM; None: any time"
    )


class Schedule(Protocol):
    """alpha and sigma with their derivatives, elementwise on float32 times in [0, 1]."""

    @property
    def begins_inside(self) -> bool:
        """Whether samplers ask for the first estimate inside their first step: at t = 1 it cannot be told."""
        ...

    def alpha(self, t: Tensor) -> Tensor:
        """Scale of the data."""
        ...

    def sigma(self, t: Tensor) -> Tensor:
        """Scale of the noise."""
        ...

    def alpha_derivative(self, t: Tensor) -> Tensor:
        """D alpha / dt."""
        ...

    def sigma_derivative(self, t: Tensor) -> Tensor:
        """D sigma / dt."""
        ...


@dataclass(frozen=True)
class StraightSchedule:
    """alpha = 1 - t, sigma = t (flow matching, rectified flow).

    At t = 1 alpha is 0: velocity and clean data are told there, the clean data behind a noise prediction are not.
    """

    begins_inside: bool = False

    def alpha(self, t: Tensor) -> Tensor:
        """Return 1 - t."""
        return 1 - t

    def sigma(self, t: Tensor) -> Tensor:
        """Return t."""
        return t

    def alpha_derivative(self, t: Tensor) -> Tensor:
        """Return -1."""
        return -torch.ones_like(t)

    def sigma_derivative(self, t: Tensor) -> Tensor:
        """Return 1."""
        return torch.ones_like(t)


@dataclass(frozen=True)
class CosineSchedule:
    """alpha = cos(angle) / cos(angle(0)) over the paper's cosine, with its last step clipped at beta <= 0.999.

    The angle (t + s) / (1 + s) * pi / 2 of Nichol & Dhariwal 2021 (Eq. 17) runs to pi / 2, where alpha is 0. The
    clip of the discrete schedule keeps alpha_bar(1) at 0.001 of the step before; here the angle is capped there.
    Both ends are computed without cancellation: alpha from what the angle lacks to pi / 2, sigma from what it has
    gained since t = 0.
    """

    offset: float = 0.008
    num_steps: int = 1000
    max_beta: float = 0.999
    begins_inside: bool = True

    @property
    def _rate(self) -> float:
        return math.pi / 2 / (1 + self.offset)  # radians of angle per unit of t

    def _start(self) -> float:
        return math.cos(self._rate * self.offset)

    def _rest(self, t: Tensor) -> Tensor:
        """Return what the angle lacks to pi / 2."""
        before = math.sin(self._rate / self.num_steps)
        return (self._rate * (1 - t)).clamp(min=math.asin(before * math.sqrt(1 - self.max_beta)))

    def alpha(self, t: Tensor) -> Tensor:
        """Return sqrt(alpha_bar)."""
        return (self._rest(t).sin() / self._start()).clamp(max=1)

    def sigma(self, t: Tensor) -> Tensor:
        """Return sqrt(1 - alpha_bar), by cos² b - cos² a = sin(a - b) sin(a + b)."""
        gained = self._rate * t
        squared = gained.sin() * (gained + 2 * self._rate * self.offset).sin() / self._start() ** 2
        return squared.clamp(min=0, max=1).sqrt()

    def alpha_derivative(self, t: Tensor) -> Tensor:
        """Return d alpha / dt, also where the angle is capped: the velocity of the uncapped path."""
        return -self._rest(t).cos() / self._start() * self._rate

    def sigma_derivative(self, t: Tensor) -> Tensor:
        """Return d sigma / dt = -alpha alpha' / sigma, finite at t = 0."""
        return -self.alpha(t) * self.alpha_derivative(t) / self.sigma(t).clamp(min=MIN_SIGMA)


def make_schedule(config: ScheduleConfig, *, is_noise_predicted: bool = False) -> Schedule:
    """Build the schedule that a config names.

    Args:
        config: Its kind.
        is_noise_predicted: Whether the network predicts the noise, which tells nothing of the data where alpha is 0.
    """
    if config.kind == "cosine":
        return CosineSchedule()
    return StraightSchedule(begins_inside=is_noise_predicted)


def add_noise(schedule: Schedule, x_0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """Noise (I, C, *axes) latents at (I,) times (paper Eq. 2), in float32."""
    t = over_latents(t, x_0)
    return schedule.alpha(t) * x_0.float() + schedule.sigma(t) * noise.float()


def over_latents(t: Tensor, x: Tensor) -> Tensor:
    """Shape (I,) times so that they broadcast over (I, C, *axes)."""
    return t.float().reshape(-1, *[1] * (x.dim() - 1))


def shifted(t: Tensor, shift: float) -> Tensor:
    """Shift times towards noise: s t / (1 + (s - 1) t)."""
    return shift * t / (1 + (shift - 1) * t)


def time_from_uniform(config: ScheduleConfig, uniform: float, max_t: float = 1.0) -> float:
    """Turn one uniform draw into a time of the config's distribution, rescaled to [0, max_t].

    Args:
        config: The distribution.
        uniform: In (0, 1).
        max_t: The noise limit; the paper's 0.5 draws t from [0, 0.5] (Table 8), 0 gives exactly 0.

    Returns:
        A time in [0, max_t]; with ``num_levels`` a multiple of 1 / num_levels above 0, or max_t where that is less
        than the first.
    """
    if max_t == 0:
        return 0.0
    t = torch.tensor(min(max(uniform, MIN_UNIFORM), 1 - MIN_UNIFORM), dtype=torch.float64)
    if config.times == "logit_normal":
        t = torch.sigmoid(config.mean + config.std * torch.special.ndtri(t))
    t = shifted(t, config.shift) * max_t
    t = t.clamp(min=min(config.min_t, max_t))
    if config.num_levels is not None:
        return _level(float(t), max_t, config.num_levels)
    return float(t.float())


def _level(t: float, max_t: float, num_levels: int) -> float:
    """Round a time up to a multiple of 1 / num_levels that keeps the noise limit."""
    highest = math.floor(max_t * num_levels + ROUNDING)
    level = min(max(math.ceil(t * num_levels - ROUNDING), 1), highest)
    return float(torch.tensor(level / num_levels if highest else max_t, dtype=torch.float32))


def sampling_times(num_steps: int, shift: float = 1.0) -> Tensor:
    """Return (num_steps + 1,) float32 times from 1 down to 0."""
    return shifted(torch.linspace(1, 0, num_steps + 1, dtype=torch.float64), shift).float()
