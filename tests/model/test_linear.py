"""The trunk's matrix product against torch's, for any number of rows."""

import pytest
import torch
import torch.nn.functional as F

from transfusion.model.linear import FEW_ROWS, Linear

EDGES = [1, FEW_ROWS.start - 1, FEW_ROWS.start, FEW_ROWS.stop - 1, FEW_ROWS.stop]


@pytest.mark.parametrize("rows", EDGES)
@pytest.mark.parametrize("is_training", [False, True])
def test_equals_the_product(rows: int, is_training: bool) -> None:
    generator = torch.Generator().manual_seed(rows)
    linear = Linear(48, 80)
    x = torch.randn(rows, 1, 48, generator=generator)
    with torch.set_grad_enabled(is_training):
        y = linear(x)
    assert y.requires_grad == is_training and y.is_contiguous()
    expected = F.linear(x.double(), linear.weight.double())
    assert torch.allclose(y.double(), expected, rtol=0, atol=1e-5)  # float32 sums of 48


def test_takes_views_that_are_not_contiguous() -> None:
    linear, x = Linear(48, 80), torch.randn(4, 48, 5).transpose(1, 2)
    with torch.inference_mode():
        assert torch.allclose(linear(x), F.linear(x, linear.weight), atol=1e-5)


def test_autocast_decides_the_dtype() -> None:
    linear, x = Linear(48, 80), torch.randn(FEW_ROWS.start, 48)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert linear(x).dtype is torch.bfloat16
