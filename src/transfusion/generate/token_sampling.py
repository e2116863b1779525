"""The token draw: logits → one token. The only place where probabilities of tokens are reshaped."""

import math

import torch
from torch import Tensor

from transfusion.generate.options import TokenOptions


def draw_token(logits: Tensor, options: TokenOptions, uniform: float) -> int:
    """Draw a token by inverting the cumulative distribution at a keyed uniform number.

    Args:
        logits: (V,) float32; -inf forbids a token.
        options: Temperature, top-k and top-p.
        uniform: In [0, 1).

    Returns:
        The token id.

    Raises:
        FloatingPointError: A logit is not a number, or all are -inf: no token is likelier than another.
    """
    best = float(logits.max())  # NaN where any is
    if not math.isfinite(best):
        raise FloatingPointError(f"the largest logit of the next token is {best}; the model or its input is broken")
    if options.temperature == 0:
        return int(logits.argmax())
    sorted_logits, ids = ((logits - best) / options.temperature).sort(descending=True, stable=True)
    probabilities = sorted_logits.softmax(dim=-1)
    before = probabilities.cumsum(dim=-1) - probabilities
    is_kept = before < options.top_p
    if options.top_k is not None:
        is_kept &= torch.arange(len(ids), device=ids.device) < options.top_k
    kept = torch.where(is_kept, probabilities, 0.0)
    cumulative = kept.double().cumsum(dim=-1)
    place = torch.searchsorted(cumulative, cumulative[-1] * uniform, right=True)
    return int(ids[min(int(place), int(is_kept.sum()) - 1)])
