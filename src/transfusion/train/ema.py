"""An exponential moving average of the weights, kept as a second model of the same shape."""

from copy import deepcopy

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Ema:
    """Averages a model's weights; the average is what previews, evaluation and users run."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Begin at the model's present weights; ``decay`` in [0, 1) is reached after a warm-up."""
        self.model = deepcopy(model).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move the average towards the weights after step ``step`` (from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        average = get_ema_multi_avg_fn(decay)
        average(list(self.model.parameters()), list(model.parameters()), step)
