"""Guidance: the formula, its interval and its rescale."""

import pytest
import torch

from transfusion.diffusion.guidance import Guidance, apply, needs_unconditional

CONDITIONAL, UNCONDITIONAL = torch.tensor([1.0, 3.0]), torch.tensor([0.0, 2.5])


@pytest.mark.parametrize(("scale", "expected"), [(0.0, [0.0, 2.5]), (1.0, [1.0, 3.0]), (3.0, [3.0, 4.0])])
def test_table(scale: float, expected: list[float]) -> None:
    assert apply(CONDITIONAL, UNCONDITIONAL, 0.5, Guidance(scale=scale)).tolist() == expected


def test_scale_one_is_the_conditional_to_the_bit() -> None:
    assert apply(CONDITIONAL, UNCONDITIONAL, 0.5, Guidance(scale=1.0)) is CONDITIONAL
    assert not needs_unconditional(Guidance(scale=1.0), 0.5)


def test_interval() -> None:
    guidance = Guidance(scale=2.0, interval=(0.2, 0.8))
    assert [needs_unconditional(guidance, t) for t in (0.1, 0.2, 0.5, 0.8, 0.9)] == [False, True, True, True, False]
    assert apply(CONDITIONAL, UNCONDITIONAL, 0.9, guidance) is CONDITIONAL


def test_rescale_restores_the_deviation() -> None:
    whole = apply(CONDITIONAL, UNCONDITIONAL, 0.5, Guidance(scale=4.0, rescale=1.0))
    assert float(whole.std()) == pytest.approx(float(CONDITIONAL.std()), rel=1e-5)
    plain = apply(CONDITIONAL, UNCONDITIONAL, 0.5, Guidance(scale=4.0))
    half = apply(CONDITIONAL, UNCONDITIONAL, 0.5, Guidance(scale=4.0, rescale=0.5))
    assert torch.allclose(half, (whole + plain) / 2)


def test_rescale_leaves_what_has_no_deviation() -> None:
    guidance, t = Guidance(scale=4.0, rescale=1.0), 0.5
    assert apply(torch.tensor([1.0]), torch.tensor([0.5]), t, guidance).tolist() == [2.5]
    assert apply(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 4 / 3]), t, guidance).tolist() == pytest.approx([4, 4])
