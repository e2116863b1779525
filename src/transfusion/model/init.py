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

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    embedding_std: float = Field(default=0.02, gt=0, description="Standard deviation of token embeddings")
    position_std: float = Field(default=0.02, gt=0, description="Standard deviation of learned axis positions")
    linear_gain: float = Field(default=1.0, gt=0, description="Linear weights have std gain / sqrt(fan_in)")


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
                draw = torch.Generator().manual_seed(subseed(seed, "init", f"{prefix}.{name}"))
                weight.normal_(generator=draw).mul_(scale * _std(part, name, weight, config)).add_(_mean(part, name))
        for part in model.modules():
            _zero_last(part)


def _mean(part: nn.Module, name: str) -> float:
    return 1.0 if isinstance(part, nn.RMSNorm | nn.GroupNorm) and name == "weight" else 0.0


def _std(part: nn.Module, name: str, weight: Tensor, config: InitConfig) -> float:
    if name == "bias" or isinstance(part, nn.RMSNorm | nn.GroupNorm):
        return 0.0
    if isinstance(part, nn.Embedding):
        return config.embedding_std
    if isinstance(part, nn.ParameterList):
        return config.position_std
    return config.linear_gain / math.sqrt(_fan_in(part, weight))


def _fan_in(part: nn.Module, weight: Tensor) -> int:
    """Count the inputs of one output. A transposed convolution of ours enlarges without overlap: its weight is
    (in, out, *kernel), and an output sees each channel once.
    """
    is_transposed = isinstance(part, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d)
    return weight.shape[0] if is_transposed else weight[0].numel()


def _zero_last(part: nn.Module) -> None:
    if isinstance(part, LinearPatches):
        nn.init.zeros_(part.project_out.weight)
    elif isinstance(part, UNetPatches):
        nn.init.zeros_(part.head.get_parameter("weight"))
        if part.direct_out is not None:
            nn.init.zeros_(part.direct_out.weight)
