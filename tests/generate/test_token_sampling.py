"""The token draw."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from transfusion.generate.options import TokenOptions
from transfusion.generate.token_sampling import draw_token

LOGITS = torch.tensor([0.5, 0.1, 0.4]).log()


@pytest.mark.parametrize(("uniform", "token"), [(0.0, 0), (0.49, 0), (0.51, 2), (0.89, 2), (0.91, 1), (0.9999, 1)])
def test_inverse_distribution(uniform: float, token: int) -> None:
    assert draw_token(LOGITS, TokenOptions(temperature=1.0), uniform) == token


@given(st.floats(0, 1, exclude_max=True))
def test_greedy_and_top_one_are_the_most_likely(uniform: float) -> None:
    for options in (TokenOptions(), TokenOptions(temperature=2.0, top_k=1), TokenOptions(temperature=1.0, top_p=0.3)):
        assert draw_token(LOGITS, options, uniform) == 0


@given(st.floats(0, 1, exclude_max=True), st.floats(0.2, 3))
def test_forbidden_tokens_are_never_drawn(uniform: float, temperature: float) -> None:
    logits = torch.tensor([-torch.inf, 0.0, -torch.inf, -3.0])
    assert draw_token(logits, TokenOptions(temperature=temperature), uniform) in (1, 3)


def test_top_p_keeps_the_fewest_that_reach_it() -> None:
    drawn = {draw_token(LOGITS, TokenOptions(temperature=1.0, top_p=0.6), u / 50) for u in range(50)}
    assert drawn == {0, 2}


def test_low_temperature_sharpens() -> None:
    assert draw_token(LOGITS, TokenOptions(temperature=0.05), 0.97) == 0


@pytest.mark.parametrize("temperature", [0.0, 1e-40, 1.0])
def test_what_is_no_number_is_refused_and_small_temperatures_are_greedy(temperature: float) -> None:
    options = TokenOptions(temperature=temperature)
    for broken in (torch.tensor([0.0, torch.nan]), torch.tensor([0.0, torch.inf]), torch.full((2,), -torch.inf)):
        with pytest.raises(FloatingPointError, match="largest logit"):
            draw_token(broken, options, 0.5)
    if temperature < 1:
        assert draw_token(torch.tensor([-torch.inf, 1.0, 2.0, -torch.inf]), options, 0.99) == 2
