"""Initial weights, keyed by parameter name: a weight's draw depends on (seed, name) and on nothing before it.

So a model built in any order, on any device or in shards begins with the same bits.
"""

import math

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from transfusion.keyed import subseed
from transfusion.model.patchify import LinearPatches, UNetPatches
from transfusion.model.transformer import Attention, FeedForward, Transformer


class InitConfig(BaseModel):
    """How weights begin."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    embedding_std: float = Field(0.02, gt=0, description="Standard deviation of token embeddings")
    position_std: float = Field(0.02, gt=0, description="Standard deviation of learned axis positions")
    linear_gain: float = Field(1.0, gt=0, description="Linear weights have std gain / sqrt(fan_in)")


def initialise(model: nn.Module, config: InitConfig, seed: int) -> None:
    """Fill all parameters in place.

    Linear and convolution weights are normal with std gain / sqrt(fan_in), those that write to the residual stream
    smaller by sqrt(2 depth); biases zero, norms one; the last layer of a patch decoder and the text head zero, so
    that training begins at the uniform prediction and at zero.
    """
    depth = next((part.config.depth for part in model.modules() if isinstance(part, Transformer)), 1)
    residual = {id(part.out.weight) for part in model.modules() if isinstance(part, Attention)}
    residual |= {id(part.down.weight) for part in model.modules() if isinstance(part, FeedForward)}
    with torch.no_grad():
        for prefix, part in model.named_modules():
            for name, weight in part.named_parameters(recurse=False):
                scale = 1 / math.sqrt(2 * depth) if id(weight) in residual else 1.0
                _fill(part, name, weight, config, scale, subseed(seed, "init", f"{prefix}.{name}"))
        for part in model.modules():
            _zero_last(part)


def _fill(part: nn.Module, name: str, weight: Tensor, config: InitConfig, scale: float, seed: int) -> None:
    if isinstance(part, nn.Embedding):
        std = config.embedding_std
    elif isinstance(part, nn.ParameterList):
        std = config.position_std
    elif name == "bias":
        std = 0.0
    elif isinstance(part, nn.RMSNorm | nn.GroupNorm):
        weight.fill_(1.0)
        return
    else:
        std = scale * config.linear_gain / math.sqrt(weight[0].numel())
    draw = torch.empty(weight.shape).normal_(generator=torch.Generator().manual_seed(seed))
    weight.copy_(draw * std)


def _zero_last(part: nn.Module) -> None:
    if isinstance(part, LinearPatches):
        part.project_out.weight.zero_()
    elif isinstance(part, UNetPatches):
        part.head.weight.zero_()

