"""The trunk: a Llama-style transformer over slots. It knows slots and positions, and no modality.

RMSNorm before attention and feed-forward, rotary positions, SwiGLU, optional grouped queries and query-key norm
(paper section 2, Table 2).

Letters: B rows, T slots, D width, N heads, K kv heads, E head size, S keys.
"""

from collections.abc import Callable
from functools import cache
from typing import Protocol

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from transfusion.model.linear import Linear
from transfusion.model.norm import RMSNorm

FFN_MULTIPLE = 64


class TransformerConfig(BaseModel):
    """Size and shape of the trunk."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    dim: int = Field(default=512, gt=0, description="Width D of the residual stream")
    depth: int = Field(default=8, gt=0, description="Number of blocks")
    num_heads: int = Field(default=8, gt=0, description="Number of query heads N")
    num_kv_heads: int | None = Field(
        default=None, gt=0, description="Number of key and value heads K; None: as many as N"
    )
    hidden_dim: int | None = Field(default=None, gt=0, description="Width of the SwiGLU; None: 8/3 D rounded up to 64")
    rope_base: float = Field(default=10_000.0, gt=0, description="Base of the rotary frequencies")
    use_qk_norm: bool = Field(default=False, description="RMS-normalise queries and keys per head")
    norm_eps: float = Field(default=1e-5, gt=0, description="Added to the mean square in every norm")

    @model_validator(mode="after")
    def _check(self) -> "TransformerConfig":
        if self.dim % self.num_heads or (self.dim // self.num_heads) % 2:
            raise ValueError(f"dim {self.dim} must be an even multiple of num_heads {self.num_heads}")
        if self.num_heads % self.kv_heads:
            raise ValueError(f"num_heads {self.num_heads} is not a multiple of num_kv_heads {self.num_kv_heads}")
        return self

    @property
    def kv_heads(self) -> int:
        """Number of key and value heads K."""
        return self.num_kv_heads or self.num_heads

    @property
    def head_dim(self) -> int:
        """Size E of one head."""
        return self.dim // self.num_heads

    @property
    def ffn_dim(self) -> int:
        """Width of the SwiGLU."""
        return self.hidden_dim or -(-8 * self.dim // (3 * FFN_MULTIPLE)) * FFN_MULTIPLE


class Cache(Protocol):
    """What a block needs of a key-value cache: ``kv_cache.CacheView`` is one."""

    def join(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Put a layer's cached keys and values, each (B, K, S, E), before the new (B, K, T, E) ones."""
        ...


def rotary_angles(positions: Tensor, head_dim: int, base: float) -> tuple[Tensor, Tensor]:
    """Compute cosine and sine of the rotary embedding.

    Args:
        positions: (B, T) int64.
        head_dim: E, even.
        base: Base of the frequencies.

    Returns:
        Cosine and signed sine (negative in the first half), each (B, 1, T, E) float32, in Llama's half-split layout.
    """
    exponents = torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float32) / head_dim
    angles = positions[:, None, :, None].float() * base**-exponents  # (B, 1, T, E/2)
    cosine, sine = angles.cos(), angles.sin()
    return torch.cat((cosine, cosine), dim=-1), torch.cat((-sine, sine), dim=-1)


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Apply the rotary embedding to (B, N, T, E) queries or keys."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((second, first), dim=-1).mul_(sine).addcmul_(x, cosine)


class Attention(nn.Module):
    """Self-attention with rotary positions under the mask it is given.

    Queries, keys and values have a matrix each: Muon orthogonalises matrix by matrix, and in a fused one the large
    gradient of the values would all but stop the queries and keys.
    """

    def __init__(self, config: TransformerConfig, layer: int) -> None:
        """Build the projections of one layer."""
        super().__init__()
        self.layer = layer
        self.head_dim = config.head_dim
        self.is_grouped = config.kv_heads != config.num_heads
        self.query = Linear(config.dim, config.dim)
        self.key = Linear(config.dim, config.kv_heads * config.head_dim)
        self.value = Linear(config.dim, config.kv_heads * config.head_dim)
        self.out = Linear(config.dim, config.dim)
        normed = RMSNorm if config.use_qk_norm else nn.Identity
        self.query_norm = normed(config.head_dim, eps=config.norm_eps)
        self.key_norm = normed(config.head_dim, eps=config.norm_eps)

    def forward(
        self, x: Tensor, rotary: tuple[Tensor, Tensor], mask: Tensor | BlockMask, cache: Cache | None
    ) -> Tensor:
        """Map (B, T, D) to (B, T, D)."""
        query, key, value = (
            project(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)  # (B, N or K, T, E)
            for project in (self.query, self.key, self.value)
        )
        query = rotate(self.query_norm(query), *rotary)
        key = rotate(self.key_norm(key), *rotary)
        if cache is not None:
            key, value = cache.join(self.layer, key, value)
        return self.out(attend(query, key, value, mask, is_grouped=self.is_grouped).transpose(1, 2).flatten(2))


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | BlockMask, *, is_grouped: bool) -> Tensor:
    """Attend with the kernel that suits: FlexAttention for a block mask, SDPA otherwise, which on a CPU works in
    float32 (its backward takes two to four times longer in bfloat16).

    Args:
        query: (B, N, T, E).
        key: (B, K, S, E).
        value: (B, K, S, E).
        mask: (B, 1, T, S) added to the scores, in the query's dtype or ``attention_dtype``; or a block mask.
        is_grouped: Whether K < N.

    Returns:
        (B, N, T, E).
    """
    if isinstance(mask, BlockMask):
        output = flex_kernel(query.device)(query, key, value, block_mask=mask, enable_gqa=is_grouped)
        assert isinstance(output, Tensor)
        return output
    if query.device.type == "cpu" and query.dtype is torch.bfloat16:
        wide = (tensor.float() for tensor in (query, key, value, mask))
        with torch.autocast("cpu", enabled=False):
            return attend(*wide, is_grouped=is_grouped).to(query.dtype)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=is_grouped)


@cache
def _compiled_flex() -> Callable[..., object]:
    """Prepare the kernel at its first use: the compiler alone takes longer to import than all the rest."""
    return torch.compile(flex_attention)


def flex_kernel(device: torch.device) -> Callable[..., object]:
    """Return FlexAttention as one kernel, within a compiled model or not: uncompiled it holds all (B, N, T, S) scores.

    On a CPU, where the kernel knows no backward, it stays as it is; no recipe trains so.
    """
    return flex_attention if device.type == "cpu" or torch.compiler.is_compiling() else _compiled_flex()


def is_autocast(like: Tensor) -> bool:
    """Return whether autocast is on for the device of ``like``; some devices know none."""
    device = like.device.type
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def compute_dtype(like: Tensor) -> torch.dtype:
    """Return the dtype in which products of ``like`` are computed: autocast's, or its own."""
    return torch.get_autocast_dtype(like.device.type) if is_autocast(like) else like.dtype


def attention_dtype(like: Tensor) -> torch.dtype:
    """Return the dtype in which ``attend`` works, given ``like``: float32 on a CPU in place of bfloat16."""
    dtype = compute_dtype(like)
    return torch.float32 if like.device.type == "cpu" and dtype is torch.bfloat16 else dtype


def additive(mask: Tensor | BlockMask, dtype: torch.dtype) -> Tensor | BlockMask:
    """Turn a bool mask into one that is added to scores of a dtype; a block mask stays as it is."""
    if isinstance(mask, BlockMask):
        return mask
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, torch.finfo(dtype).min)


class FeedForward(nn.Module):
    """SwiGLU."""

    def __init__(self, config: TransformerConfig) -> None:
        """Build gate, up and down projections."""
        super().__init__()
        self.gate = Linear(config.dim, config.ffn_dim)
        self.up = Linear(config.dim, config.ffn_dim)
        self.down = Linear(config.ffn_dim, config.dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, D) to (B, T, D)."""
        if torch.is_grad_enabled():
            return self.down(F.silu(self.gate(x)) * self.up(x))
        return self.down(F.silu(self.gate(x), inplace=True).mul_(self.up(x)))  # the trunk's widest tensors


class Block(nn.Module):
    """One pre-norm block: attention, then feed-forward, each added to the stream."""

    def __init__(self, config: TransformerConfig, layer: int) -> None:
        """Build one layer."""
        super().__init__()
        self.attention_norm = RMSNorm(config.dim, eps=config.norm_eps)
        self.attention = Attention(config, layer)
        self.ffn_norm = RMSNorm(config.dim, eps=config.norm_eps)
        self.ffn = FeedForward(config)

    def forward(
        self, x: Tensor, rotary: tuple[Tensor, Tensor], mask: Tensor | BlockMask, cache: Cache | None
    ) -> Tensor:
        """Map (B, T, D) to (B, T, D)."""
        x = _plus(self.attention(self.attention_norm(x), rotary, mask, cache), x)
        return _plus(self.ffn(self.ffn_norm(x)), x)


def _plus(update: Tensor, x: Tensor) -> Tensor:
    """Add an update to the stream, in the update's memory where it has the stream's dtype."""
    return update.add_(x) if update.dtype is x.dtype else x + update


class Transformer(nn.Module):
    """The trunk: blocks and a final norm."""

    def __init__(self, config: TransformerConfig) -> None:
        """Build all layers."""
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.depth))
        self.norm = RMSNorm(config.dim, eps=config.norm_eps)

    def forward(self, x: Tensor, positions: Tensor, mask: Tensor | BlockMask, cache: Cache | None = None) -> Tensor:
        """Run the trunk.

        Args:
            x: (B, T, D) embedded slots.
            positions: (B, T) int64 rotary positions.
            mask: (B, 1, T, S) bool, True where attention is allowed, or a block mask.
            cache: Keys and values of earlier slots, or None.

        Returns:
            (B, T, D) normed hidden states.
        """
        cosine, sine = rotary_angles(positions, self.config.head_dim, self.config.rope_base)
        dtype = compute_dtype(x)
        rotary, mask = (cosine.to(dtype), sine.to(dtype)), additive(mask, attention_dtype(x))
        for block in self.blocks:
            x = block(x, rotary, mask, cache)
        return self.norm(x)
