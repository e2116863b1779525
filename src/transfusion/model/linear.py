"""The trunk's matrix product, quick for a few rows on a CPU too. It knows one tensor and its last axis."""

import torch
from torch import Tensor, nn

FEW_ROWS = range(16, 64)  # of x: for so many the CPU's library takes up to 2.7 times longer for x Wᵀ than for W xᵀ


class Linear(nn.Linear):
    """``nn.Linear`` without bias that turns the product round where that is faster: to write some texts at once.

    Only in float32 on a CPU and without gradients; the sums are the same up to their order.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        """Build the (out, in) matrix."""
        super().__init__(in_features, out_features, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """Map (..., in) to (..., out)."""
        rows = input.shape[:-1]
        is_plain = input.device.type == "cpu" and input.dtype is self.weight.dtype is torch.float32
        is_inference = not torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")
        is_eager = not torch.compiler.is_compiling()  # the compiler lays products out itself, for any number of rows
        if is_plain and is_inference and is_eager and rows.numel() in FEW_ROWS:
            return (self.weight @ input.reshape(-1, self.in_features).T).T.contiguous().unflatten(0, rows)
        return super().forward(input)
