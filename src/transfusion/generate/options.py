"""What a caller may ask of the engine, and what the engine tells back. It must not know how either is done."""

from dataclasses import dataclass
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from transfusion.diffusion.guidance import Guidance
from transfusion.diffusion.samplers import SamplerName
from transfusion.segments import Document, Segment


class DenoisingOptions(BaseModel):
    """How a latent is sampled; the paper takes 250 ancestral steps, guided by 3 to 5 (section 4)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    sampler: SamplerName = Field(default="ddpm", description="Which solver runs from noise to data")
    num_steps: int = Field(default=250, gt=0, description="Steps of the solver; Heun takes two evaluations in each")
    shift: float = Field(default=1.0, gt=0, description="Time shift of the steps; above 1 spends more of them on noise")
    guidance: Guidance = Field(default=Guidance(), description="Classifier-free guidance")
    clip: float | None = Field(
        default=None,
        gt=0,
        description="Clip clean estimates to [-clip, clip]; None: to the data's range, exact for pixels",
    )

    @property
    def num_evaluations(self) -> int:
        """Number of evaluations that a latent takes: one a step, and with Heun two in each step but the last."""
        return 2 * self.num_steps - 1 if self.sampler == "heun" else self.num_steps


class TokenOptions(BaseModel):
    """How a token is drawn; the paper decodes greedily."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    temperature: float = Field(default=0.0, ge=0, description="Divides the logits; 0 takes the most likely token")
    top_k: int | None = Field(default=None, gt=0, description="Draw among the k most likely tokens")
    top_p: float = Field(default=1.0, gt=0, le=1, description="Draw among the fewest tokens that hold this probability")


class GenerationOptions(BaseModel):
    """One request: what to generate after a prompt, and how much of it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    max_tokens: int = Field(
        default=64, ge=0, description="Most text tokens to generate; when they are spent no latent is begun"
    )
    max_latents: int = Field(
        default=1,
        ge=0,
        description="Most latents to generate, begin_with's among them; 0 draws none, whatever it says",
    )
    begin_with: str | None = Field(
        default=None, description="Modality to begin at once, without sampling its token, if max_latents allows one"
    )
    shapes: dict[str, tuple[int, ...]] = Field(
        default={}, description="Shape (C, *axes) of a generated latent by modality"
    )
    stop_tokens: tuple[int, ...] = Field(
        default=(), description="Token ids that end the text; unlike EOS they belong to it"
    )
    tokens: TokenOptions = Field(default=TokenOptions(), description="How tokens are drawn")
    denoising: DenoisingOptions = Field(default=DenoisingOptions(), description="How latents are sampled")
    seed: int = Field(default=0, description="Key of all draws; rows of one batch do not influence each other")
    is_apart: bool = Field(
        default=False,
        description="Share no forward with other requests: the result is the same to the bit in any company",
    )
    negative: tuple[int, ...] = Field(
        default=(), description="Text tokens that the second branch of guidance sees in place of no text"
    )
    preview_every: int = Field(default=0, ge=0, description="Emit a preview every so many evaluations; 0: none")


class TokenEvent(NamedTuple):
    """A token was drawn."""

    ticket: int
    token: int


class PreviewEvent(NamedTuple):
    """A latent is under way: the current clean estimate (C, *axes), and the evaluations done.

    ``DenoisingOptions.num_evaluations`` says how many there will be in all.
    """

    ticket: int
    modality: str
    estimate: Tensor
    num_evaluations: int


class LatentEvent(NamedTuple):
    """A latent is finished: (C, *axes) float32."""

    ticket: int
    modality: str
    values: Tensor


class FinishedEvent(NamedTuple):
    """A request is finished."""

    ticket: int
    result: "Generated"


class FailedEvent(NamedTuple):
    """A request failed, by itself or in a forward, and is over; the others go on. ``error`` says why."""

    ticket: int
    error: Exception


Event = TokenEvent | PreviewEvent | LatentEvent | FinishedEvent | FailedEvent


class RequestCancelled(Exception):
    """A request was cancelled while ``run`` or ``stream`` waited for it."""


@dataclass(frozen=True)
class Generated:
    """The outcome of a request.

    Attributes:
        document: Prompt and everything generated after it.
        generated: The generated segments alone.
        is_ended: Whether the model ended by itself (EOS or a stop token) before its budget.
    """

    document: Document
    generated: tuple[Segment, ...]
    is_ended: bool
