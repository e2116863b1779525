"""The batched Muon against torch's."""

import pytest
import torch
from torch import nn

from transfusion.train.muon import BatchedMuon, orthogonalise

SHAPES = ((8, 8), (8, 8), (6, 16), (16, 6))
COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def matrices() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


@pytest.mark.parametrize("adjust", ["match_rms_adamw", "original"])
@pytest.mark.parametrize("is_nesterov", [True, False])
def test_moves_as_torch_s(adjust: str, is_nesterov: bool) -> None:
    ours, theirs = matrices(), matrices()
    settings = {"lr": 0.01, "weight_decay": 0.1, "ns_steps": 3, "nesterov": is_nesterov, "adjust_lr_fn": adjust}
    pairs = (BatchedMuon(ours, **settings), ours), (torch.optim.Muon(theirs, **settings), theirs)
    for step in range(5):
        for optimizer, parameters in pairs:
            generator = torch.Generator().manual_seed(step)
            for parameter in parameters:
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            optimizer.step()
    for a, b, begun in zip(ours, theirs, matrices(), strict=True):
        moved = (b - begun).detach().norm()
        assert (a - b).detach().norm() < 0.02 * moved  # theirs rounds to bfloat16, 8 bits
    for a, b in zip(pairs[0][0].state.values(), pairs[1][0].state.values(), strict=True):
        assert torch.equal(a["momentum_buffer"], b["momentum_buffer"])


def test_keeps_what_has_no_gradient() -> None:
    first, second = nn.Parameter(torch.ones(4, 4)), nn.Parameter(torch.ones(4, 4))
    optimizer = BatchedMuon([first, second], lr=0.1)
    first.grad = torch.eye(4)
    assert optimizer.step(lambda: 2.5) == 2.5
    assert torch.equal(second, torch.ones(4, 4)) and not torch.equal(first, torch.ones(4, 4))


@pytest.mark.parametrize("shape", [(3, 12, 12), (2, 10, 24), (2, 24, 10)])
def test_singular_values_come_near_one(shape: tuple[int, int, int]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    left, _, right = torch.linalg.svd(x, full_matrices=False)
    y = orthogonalise(x, COEFFICIENTS, 5)
    turned = left.mT @ y @ right.mT  # diagonal: the singular vectors stay
    values = turned.diagonal(dim1=1, dim2=2)
    assert torch.allclose(turned, torch.diag_embed(values), atol=1e-4)
    assert float(values.min()) > 0.6 and float(values.max()) < 1.3


def test_a_zero_gradient_moves_nothing() -> None:
    assert torch.equal(orthogonalise(torch.zeros(1, 4, 4), COEFFICIENTS, 3), torch.zeros(1, 4, 4))
