"""RMSNorm as in Llama, quick on a CPU too. It knows one tensor and its last axis.

y = x r w with r = (mean(x²) + ε)^(-1/2) over the last axis (Zhang & Sennrich, arXiv 1910.07467, eq. 4).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction, FunctionCtx, once_differentiable


class RMSNorm(nn.RMSNorm):
    """``nn.RMSNorm``, leaner in float32 on a CPU, where torch composes it of a dozen passes over memory."""

    def __init__(self, dim: int, *, eps: float) -> None:
        """Build the norm of a last axis of ``dim`` with a weight for each place."""
        super().__init__(dim, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis of (..., D)."""
        is_plain = x.device.type == "cpu" and x.dtype is self.weight.dtype is torch.float32
        if not is_plain or torch.compiler.is_compiling():
            return F.rms_norm(x, self.normalized_shape, self.weight, self.eps)
        if not torch.is_grad_enabled():  # an autograd function costs more than the norm of one token
            return _normalised(x, self.weight, self.eps)[0]
        output = _RMSNormOnCPU.apply(x, self.weight, self.eps)
        assert isinstance(output, Tensor)
        return output


def _normalised(x: Tensor, weight: Tensor, eps: float | None) -> tuple[Tensor, Tensor]:
    """Return the normed (..., D) and the inverse deviations (..., 1)."""
    square = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_()
    inverse = square.div_(x.shape[-1]).add_(eps).rsqrt_()
    return (x * inverse).mul_(weight), inverse


class _RMSNormOnCPU(torch.autograd.Function):
    """The same numbers in three passes forward and three backward.

    Layer norm's backward is one fused kernel, dx = r (h - mean(h) - x r mean(h x r)) with h = dy w, when its mean is
    given as zero and its inverse deviation as r; RMSNorm's is that without mean(h), so r mean(h) is added back.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        output, inverse = _normalised(x, weight, eps)
        ctx.save_for_backward(x, weight, inverse)
        return output

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: BackwardCFunction, *grad_outputs: Tensor
    ) -> tuple[Tensor, Tensor, None]:
        (gradient,), (x, weight, inverse) = grad_outputs, list(ctx.saved_tensors)
        for_x, for_weight, _ = torch.ops.aten.native_layer_norm_backward(
            gradient, x, weight.shape, torch.zeros_like(inverse), inverse, weight, None, (True, True, False)
        )
        mean = (gradient @ weight).unsqueeze(-1).div_(weight.numel())  # (..., 1)
        return for_x.add_(mean.mul_(inverse)), for_weight, None
