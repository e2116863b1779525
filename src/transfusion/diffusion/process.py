"""The diffusion process that a model is trained in: a schedule, what the network predicts, what the loss compares.

Responsible for putting schedule and prediction together for one modality-free latent. It must not know the
network, documents or the samplers.
"""

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from transfusion.diffusion.prediction import Kind, convert, target
from transfusion.diffusion.schedule import Schedule, ScheduleConfig, add_noise, make_schedule


class DiffusionConfig(BaseModel):
    """The process; the paper's is the cosine schedule with noise prediction (section 3)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    schedule: ScheduleConfig = Field(default=ScheduleConfig(), description="alpha(t), sigma(t) and how times are drawn")
    prediction: Kind = Field(default="noise", description="What the network's output means")
    loss: Kind = Field(
        default="noise", description="In which of them the squared error is taken; sets its weight over t"
    )


@dataclass(frozen=True)
class Process:
    """A schedule with the meaning of the network's output."""

    config: DiffusionConfig
    schedule: Schedule

    def noised(self, x_0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Return x_t of (I, C, *axes) latents at (I,) times (paper Eq. 2)."""
        return add_noise(self.schedule, x_0, noise, t)

    def to_x_0(self, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """Turn the network's output into the clean latents it stands for."""
        return self._convert(output, x_t, t, "x_0")

    def squared_error(self, output: Tensor, x_0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Compare the network's output at x_t with the truth (paper Eq. 3).

        Returns:
            (I,) float32: squared error per latent, a mean over its elements.
        """
        x_t = self.noised(x_0, noise, t)
        predicted = self._convert(output.float(), x_t, t, self.config.loss)
        wanted = target(self.config.loss, self.schedule, x_0, noise, t)
        return (predicted - wanted).square().flatten(1).mean(1)

    def _convert(self, output: Tensor, x_t: Tensor, t: Tensor, destination: Kind) -> Tensor:
        return convert(output, x_t, t, self.schedule, source=self.config.prediction, destination=destination)


def make_process(config: DiffusionConfig) -> Process:
    """Build the process that a config names."""
    return Process(config, make_schedule(config.schedule, is_noise_predicted=config.prediction == "noise"))
