"""Classifier-free guidance: the one place of its formula (2207.12598). It must not know how branches are run."""

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor


class Guidance(BaseModel):
    """How strongly, when and how tamely the prompt pulls."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    scale: float = Field(default=1.0, ge=0, description="w in u + w (c - u); 1 is no guidance")
    interval: tuple[float, float] = Field(
        default=(0.0, 1.0), description="Times t in which it acts, of a sampler's steps from 1 to 0 (2404.07724)"
    )
    rescale: float = Field(
        default=0.0, ge=0, le=1, description="Share of the way back to the conditional's deviation (2305.08891)"
    )


def needs_unconditional(guidance: Guidance, t: float) -> bool:
    """Return whether the unconditional branch matters at time t, so that it is run only then."""
    return guidance.scale != 1 and guidance.interval[0] <= t <= guidance.interval[1]


def apply(conditional: Tensor, unconditional: Tensor, t: float, guidance: Guidance) -> Tensor:
    """Combine two predictions of one latent, in any parameterisation: for equal x_t they are linear in each other.

    Args:
        conditional: (C, *axes), with the prompt.
        unconditional: (C, *axes), with the null prompt.
        t: Time that the evaluation stands for: ``Query.guided_t``.
        guidance: Scale, interval and rescale.

    Returns:
        (C, *axes).
    """
    if not needs_unconditional(guidance, t):
        return conditional
    guided = unconditional + guidance.scale * (conditional - unconditional)
    if guidance.rescale == 0:
        return guided
    wanted, found = conditional.float().std(correction=0), guided.float().std(correction=0)
    ratio = torch.where(found > 0, wanted / found, 1)  # one value, or values all alike, have no deviation to restore
    restored = guided * ratio
    return guidance.rescale * restored + (1 - guidance.rescale) * guided
