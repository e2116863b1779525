"""The network of Transfusion: embed slots → trunk → heads, in one forward without modes.

Here tokens and latents meet: token embeddings and encoded patches fill the slots, and hidden states leave through
the text head where a text target is wanted and through the patch decoders at every span. It must not know noise
schedules, losses or sampling.

Letters: B rows, T slots, D width, V vocabulary, I spans, L patches per span, N slots whose logits are wanted.
"""

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask

from transfusion.layout import Columns
from transfusion.model.init import InitConfig, initialise
from transfusion.model.linear import Linear
from transfusion.model.patchify import ModalityConfig, PatchPair, build_patches
from transfusion.model.transformer import Cache, Transformer, TransformerConfig, is_autocast
from transfusion.segments import Modality, Vocabulary

NUM_BYTES = 256


class ModelConfig(BaseModel):
    """Everything that decides the network's shape."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    text_vocab_size: int | None = Field(
        default=None, gt=0, description="Number of ids of the tokenizer; None: as many as it has, 256 for bytes"
    )
    trunk: TransformerConfig = Field(default=TransformerConfig(), description="The transformer")
    modalities: tuple[ModalityConfig, ...] = Field(default=(ModalityConfig(),), description="Continuous modalities")
    init: InitConfig = Field(default=InitConfig(), description="Initial weights")

    @model_validator(mode="after")
    def _check(self) -> "ModelConfig":
        names = [modality.name for modality in self.modalities]
        if len(set(names)) != len(names):
            raise ValueError(f"modalities have equal names: {names}")
        return self

    def vocabulary(self) -> Vocabulary:
        """Return the token ids and modalities that the layout uses."""
        return Vocabulary(self.text_vocab_size or NUM_BYTES, tuple(modality.record() for modality in self.modalities))

    def modality(self, name: str) -> Modality | None:
        """Return what a modality is to the layout; None where there is none of this name."""
        return next((modality.record() for modality in self.modalities if modality.name == name), None)


class NoisedSpans(NamedTuple):
    """Latents as the network sees them: those of one modality and shape.

    Attributes:
        modality: Modality index >= 1.
        x_t: (I, C, *axes) float32 noised latents.
        t: (I,) float32 times in [0, 1].
        slots: (I, L) int64 indices into the flattened (B * T) slots.
    """

    modality: int
    x_t: Tensor
    t: Tensor
    slots: Tensor


class Outputs(NamedTuple):
    """What one forward gives.

    Attributes:
        logits: (N, V) float32, of the slots asked for.
        predictions: For each group of spans the (I, C, *axes) float32 prediction, in the parameterisation that
            the network is trained in.
    """

    logits: Tensor
    predictions: tuple[Tensor, ...]


class TransfusionModel(nn.Module):
    """One transformer over text and continuous data."""

    def __init__(self, config: ModelConfig) -> None:
        """Build the modules; ``initialise_weights`` or a checkpoint gives them their values."""
        super().__init__()
        self.config = config
        self.vocabulary = config.vocabulary()
        dim = config.trunk.dim
        self.embed = nn.Embedding(self.vocabulary.size, dim)
        self.trunk = Transformer(config.trunk)
        self.head = Linear(dim, self.vocabulary.size)
        self.patches = nn.ModuleList(build_patches(modality, dim) for modality in config.modalities)
        self.held_dtype = torch.float32  # of the matrices, see ``held``

    def initialise_weights(self, seed: int) -> None:
        """Give all parameters their initial values for a seed."""
        initialise(self, self.config.init, seed)
        nn.init.zeros_(self.head.weight)

    @property
    def num_parameters(self) -> int:
        """Number of trained numbers."""
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def device(self) -> torch.device:
        """Where the model is, and where what it is given must be."""
        return self.embed.weight.device

    def forward(
        self,
        columns: Columns,
        spans: Sequence[NoisedSpans],
        text_slots: Tensor,
        mask: Tensor | BlockMask,
        cache: Cache | None = None,
    ) -> Outputs:
        """Run the network once.

        Args:
            columns: (B, T) columns.
            spans: The latents that fill the patch slots.
            text_slots: (N,) int64 indices into the flattened (B * T) slots whose logits are wanted.
            mask: (B, 1, T, S) bool, True where attention is allowed, or a block mask.
            cache: Keys and values of earlier slots, or None.

        Returns:
            Logits of ``text_slots`` and a prediction for every group of spans.
        """
        if self.held_dtype is not torch.float32 and not is_autocast(self.embed.weight):
            with torch.autocast(self.device.type, self.held_dtype):
                return self.forward(columns, spans, text_slots, mask, cache)
        x = self.embed(columns.tokens).flatten(0, 1)  # (B * T, D)
        skips: list[tuple[Tensor, ...]] = []
        for group in spans:
            vectors, skip = self._pair(group).encode(group.x_t, group.t)
            x = x.index_copy(0, group.slots.flatten(), vectors.flatten(0, 1).to(x.dtype))
            skips.append(skip)
        hidden = self.trunk(x.unflatten(0, columns.tokens.shape), columns.positions, mask, cache).flatten(0, 1)
        predictions = tuple(
            self._pair(group).decode(hidden[group.slots], group.t, skip).float()
            for group, skip in zip(spans, skips, strict=True)
        )
        return Outputs(self._logits(hidden[text_slots]), predictions)

    def _logits(self, hidden: Tensor) -> Tensor:
        """Map (N, D) to (N, V) float32.

        Training multiplies in autocast's dtype, which for large vocabularies is many times faster; where a token is
        chosen or a text is scored the product is float32, for in bfloat16's eight bits the best tokens are often equal.
        """
        if torch.is_grad_enabled() or not is_autocast(hidden):
            return self.head(hidden).float()
        with torch.autocast(hidden.device.type, enabled=False):
            return self.head(hidden.float()).float()

    def _pair(self, group: NoisedSpans) -> PatchPair:
        return cast(PatchPair, self.patches[group.modality - 1])
