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


class Schedule(Protocol):
    """alpha and sigma with their derivatives, elementwise on float32 times in [0, 1]."""

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
    """alpha = 1 - t, sigma = t (flow matching, rectified flow)."""

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
    """

    offset: float = 0.008
    num_steps: int = 1000
    max_beta: float = 0.999

    def _start(self) -> float:
        return math.cos(self._angle_at(0.0))

    def _angle_at(self, t: float) -> float:
        return (t + self.offset) / (1 + self.offset) * math.pi / 2

    def _largest_angle(self) -> float:
        before = math.cos(self._angle_at(1 - 1 / self.num_steps))
        return math.acos(before * math.sqrt(1 - self.max_beta))

    def _angle(self, t: Tensor) -> Tensor:
        return ((t + self.offset) / (1 + self.offset) * (math.pi / 2)).clamp(max=self._largest_angle())

    def alpha(self, t: Tensor) -> Tensor:
        """Return sqrt(alpha_bar)."""
        return (self._angle(t).cos() / self._start()).clamp(max=1)

    def sigma(self, t: Tensor) -> Tensor:
        """Return sqrt(1 - alpha_bar)."""
        return (1 - self.alpha(t).square()).clamp(min=0).sqrt()

    def alpha_derivative(self, t: Tensor) -> Tensor:
        """Return d alpha / dt."""
        return -self._angle(t).sin() / self._start() * (math.pi / 2 / (1 + self.offset))

    def sigma_derivative(self, t: Tensor) -> Tensor:
        """Return d sigma / dt = -alpha alpha' / sigma."""
        return -self.alpha(t) * self.alpha_derivative(t) / self.sigma(t).clamp(min=1e-4)


def make_schedule(config: ScheduleConfig) -> Schedule:
    """Build the schedule that a config names."""
    return CosineSchedule() if config.kind == "cosine" else StraightSchedule()


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
        A time in [0, max_t].
    """
    if max_t == 0:
        return 0.0
    t = torch.tensor(min(max(uniform, MIN_UNIFORM), 1 - MIN_UNIFORM), dtype=torch.float64)
    if config.times == "logit_normal":
        t = torch.sigmoid(config.mean + config.std * torch.special.ndtri(t))
    t = shifted(t, config.shift) * max_t
    return float(t.clamp(min=min(config.min_t, max_t)).float())


def sampling_times(num_steps: int, shift: float = 1.0) -> Tensor:
    """Return (num_steps + 1,) float32 times from 1 down to 0."""
    return shifted(torch.linspace(1, 0, num_steps + 1, dtype=torch.float64), shift).float()
