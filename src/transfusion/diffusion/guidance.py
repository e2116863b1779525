"""Classifier-free guidance."""

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor


class Guidance(BaseModel):
    """How strongly the prompt pulls."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scale: float = Field(1.0, ge=0, description="1: none")
    interval: tuple[float, float] = Field((0.0, 1.0), description="Times in which it acts")
    rescale: float = Field(0.0, ge=0, le=1, description="Share of the std rescale")


def needs_unconditional(guidance: Guidance, t: float) -> bool:
    return guidance.scale != 1 and guidance.interval[0] <= t <= guidance.interval[1]


def apply(conditional: Tensor, unconditional: Tensor, t: float, guidance: Guidance) -> Tensor:
    return unconditional + guidance.scale * (conditional - unconditional)
