"""Objectives: (model, batch) → {name: (sum, count)}. Diffusion makes its own inputs, so the seam is here.

Responsible for the paper's combined loss L = L_LM + λ L_DDPM (Eq. 4), where text is averaged over its target
tokens and a modality over its latents. It divides nothing: the loop divides once, by counts summed over
micro-batches. It must not know optimizers, data or sampling.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from transfusion.batch import Batch, TimeAndNoise
from transfusion.diffusion.process import DiffusionConfig, make_process
from transfusion.diffusion.schedule import time_from_uniform
from transfusion.keyed import generator, normal
from transfusion.layout import IGNORE
from transfusion.mask import MaskKernel, attention_mask
from transfusion.model.transfusion import NoisedSpans, Outputs
from transfusion.segments import Document, Latent, Vocabulary

TEXT = "text"


@dataclass(frozen=True)
class LossSum:
    """A loss before its division: the sum of its terms, and how many there are."""

    sum: Tensor
    count: int


Losses = dict[str, LossSum]


class ObjectiveConfig(BaseModel):
    """Weights of the losses and how attention is computed."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    text_weight: float = Field(default=1.0, ge=0, description="Weight of the text loss, a mean over target tokens")
    diffusion_weight: float = Field(
        default=5.0, ge=0, description="Weight λ of every diffusion loss, a mean over latents"
    )
    attention: MaskKernel = Field(default="dense", description="dense: SDPA everywhere; flex: FlexAttention, CUDA only")

    def weight(self, name: str) -> float:
        """Return the weight of a loss by its name."""
        return self.text_weight if name == TEXT else self.diffusion_weight


class TransfusionObjective:
    """Next-token prediction on text and denoising on latents, in one forward."""

    def __init__(self, diffusion: DiffusionConfig, config: ObjectiveConfig, vocabulary: Vocabulary) -> None:
        """Bind the process, the weights and the names of the modalities."""
        self.process = make_process(diffusion)
        self.config = config
        self.vocabulary = vocabulary

    def __call__(self, model: nn.Module, batch: Batch) -> Losses:
        """Compute the sums of all losses of a batch.

        Returns:
            ``"text"`` (nats, count of target tokens) and one entry per modality (mean squared error per latent,
            count of target latents); an absent modality has count 0.
        """
        spans = [
            NoisedSpans(group.modality, self.process.noised(group.x_0, group.noise, group.t), group.t, group.slots)
            for group in batch.spans
        ]
        mask = attention_mask(batch.columns, self.config.attention)
        outputs: Outputs = model(batch.columns, spans, batch.text_slots, mask)
        targets = batch.columns.targets.flatten()[batch.text_slots]
        text = F.cross_entropy(outputs.logits, targets, reduction="sum", ignore_index=IGNORE)
        losses = {TEXT: LossSum(text, len(targets))}
        losses |= {record.name: LossSum(text.new_zeros(()), 0) for record in self.vocabulary.modalities}
        for group, prediction in zip(batch.spans, outputs.predictions, strict=True):
            error = self.process.squared_error(prediction, group.x_0, group.noise, group.t)
            name = self.vocabulary.modality(group.modality).name
            before = losses[name]
            losses[name] = LossSum(
                before.sum + (error * group.is_target).sum(), before.count + int(group.is_target.sum())
            )
        return losses

    def counts(self, batch: Batch) -> dict[str, int]:
        """Count the terms of every loss without running the model."""
        counts = {TEXT: len(batch.text_slots), **{record.name: 0 for record in self.vocabulary.modalities}}
        for group in batch.spans:
            counts[self.vocabulary.modality(group.modality).name] += int(group.is_target.sum())
        return counts

    def total(self, losses: Losses, counts: Mapping[str, int]) -> Tensor:
        """Combine sums into the loss to differentiate (paper Eq. 4).

        Args:
            losses: Sums of one micro-batch.
            counts: Counts over all micro-batches of the step.

        Returns:
            A scalar; added over the micro-batches it is the step's loss.
        """
        terms = [self.config.weight(name) * part.sum / max(counts[name], 1) for name, part in losses.items()]
        return sum(terms[1:], start=terms[0])


@dataclass(frozen=True)
class KeyedDraw:
    """The draw of times and noise that depends on a document's key and the span's number alone; workers get a copy."""

    diffusion: DiffusionConfig
    seed: int

    def __call__(self, document: Document, number: int, latent: Latent) -> TimeAndNoise:
        """Draw for one latent of a document."""
        if latent.max_t == 0:  # a clean picture takes no noise, so none is drawn
            return TimeAndNoise(0.0, torch.zeros(latent.values.shape))
        seed = self.seed
        uniform = float(generator(seed, "time", *document.key, number).random())
        t = time_from_uniform(self.diffusion.schedule, uniform, latent.max_t)
        return TimeAndNoise(t, normal(tuple(latent.values.shape), seed, "noise", *document.key, number))
