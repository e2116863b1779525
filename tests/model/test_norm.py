"""The norm against torch's own, forward and backward."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from transfusion.model.norm import RMSNorm

EPS = 1e-5


def norms(x: Tensor, weight: Tensor, gradient: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Output and gradients of ours, and of the formula differentiated by autograd in float64."""
    norm = RMSNorm(x.shape[-1], eps=EPS)
    norm.weight.data.copy_(weight)
    ours = x.clone().requires_grad_()
    y = norm(ours)
    exact, exact_weight = x.double().requires_grad_(), weight.double().requires_grad_()
    expected = exact * (exact.square().mean(-1, keepdim=True) + EPS).rsqrt() * exact_weight
    return (
        [y, *torch.autograd.grad(y, (ours, norm.weight), gradient)],
        [expected, *torch.autograd.grad(expected, (exact, exact_weight), gradient.double())],
    )


@pytest.mark.parametrize("shape", [(7,), (3, 16), (2, 5, 192), (2, 4, 9, 48)])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_equals_the_formula(shape: tuple[int, ...], scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    x, gradient = (torch.randn(shape, generator=generator) + 0.5 for _ in range(2))
    weight = torch.randn(shape[-1], generator=generator)
    ours, expected = norms(x * scale, weight, gradient)
    for name, value, exact in zip(("y", "dx", "dw"), ours, expected, strict=True):
        largest = float(exact.detach().abs().max())
        assert torch.allclose(value.double(), exact, rtol=0, atol=2e-6 * largest), name  # float32 sums


def test_takes_views_that_are_not_contiguous() -> None:
    x = torch.randn(2, 9, 4, 48, generator=torch.Generator().manual_seed(1)).transpose(1, 2)
    ours, expected = norms(x, torch.full((48,), 0.7), torch.ones(48).expand(2, 4, 9, 48))
    assert all(torch.allclose(a.double(), b, atol=1e-5) for a, b in zip(ours, expected, strict=True))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_are_torch_s(dtype: torch.dtype) -> None:
    norm = RMSNorm(16, eps=EPS).to(dtype)
    x = torch.randn(3, 16, dtype=dtype)
    assert torch.equal(norm(x), F.rms_norm(x, (16,), norm.weight, EPS))


def test_second_derivatives_are_refused_and_not_wrong() -> None:
    x = torch.randn(3, 16, requires_grad=True)
    y = RMSNorm(16, eps=EPS)(x).square().sum()
    (first,) = torch.autograd.grad(y, x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()
