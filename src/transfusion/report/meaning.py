"""What a run's numbers mean: their units, where a good run stands, and whether this one learns or overfits."""

import math
from typing import NamedTuple

import numpy as np

from transfusion.config import RunConfig
from transfusion.objective import TEXT
from transfusion.report.curves import Curve, Point

RISE = 1.01  # a held-out loss that is so much above its lowest has risen; its times and noises are always the same
WINDOW = 10  # rows of training that are taken together, for single steps differ by chance
KINDS = {"noise": "of the noise", "v": "of the velocity", "x_0": "of the clean values"}


class Verdict(NamedTuple):
    """What a curve says of the run.

    Attributes:
        text: In words, with the run's own numbers.
        is_overfit: Whether held-out losses rise while those of training fall.
    """

    text: str
    is_overfit: bool


def unit(name: str) -> str:
    """Return the unit of a loss."""
    return "nats per token" if name == TEXT else "mean squared error per latent value"


def explained(name: str, config: RunConfig) -> str:
    """Say what a loss is, and where a good run stands."""
    if name == TEXT:
        size = config.model.text_vocab_size
        blind = f" Guessing blindly among the {size:,} tokens of this run costs {math.log(size):.2f}." if size else ""
        return (
            "Minus the logarithm of the probability that the model gave to the token that came, a mean over the tokens "
            f"that it learns to foretell: e to the loss is among how many equally likely ones it hesitates.{blind} It "
            "falls steeply over the first hundreds of steps and slowly after that, and never to 0: nobody knows before "
            "what a caption or a text will say. As a rule of thumb, captions of a small collection end at 0.7 to 1.0, "
            "plain text at 1.3 to 1.6 with bytes for tokens and at 3 to 4 with tokens of whole words."
        )
    return (
        f"The squared distance between what the model says {KINDS[config.diffusion.loss]} and what is true, a mean "
        "over all values of a latent; values are standardised, so 1 is their own spread. A model that knows nothing "
        "stands near 1, of a velocity near 2, which is where a run begins. As a rule of thumb, a good one comes to a "
        "tenth of that, and never to 0: noise hides what was there. Look at the samples beside it: pictures go on "
        "getting better while the curve seems level."
    )


def verdict(curve: Curve) -> Verdict:
    """Say from a curve whether the run still learns, stands or overfits: held out rises while training falls."""
    if not curve.held_out:
        return Verdict("Nothing is held out, so whether the run overfits cannot be said; see data.hold_out.", False)
    lowest, last = min(curve.held_out, key=lambda point: point.value), curve.held_out[-1]
    after = [point for point in curve.held_out if point.step > lowest.step]
    stands = f"Held out it is {last.value:.4g} after step {last.step:.0f}"
    if not after:
        return Verdict(f"{stands}, its lowest so far: no sign of overfitting, and more steps may help.", False)
    since = f"the lowest, {lowest.value:.4g}, was after step {lowest.step:.0f}"
    if len(after) < 2 or min(point.value for point in after[-2:]) <= RISE * lowest.value:
        return Verdict(f"{stands}; {since}. It stands: no sign of overfitting.", False)
    before, now = _around(curve.training, lowest.step), _around(curve.training, math.inf)
    if before is None or now is None or now >= before:
        return Verdict(
            f"{stands} and rises; {since}. The loss of training does not fall either, so this is no overfitting: the "
            "rates may be too high (train.optimizer.lr).",
            False,
        )
    return Verdict(
        f"{stands} and rises; {since}. Training fell from {before:.4g} to {now:.4g} meanwhile: from there on the run "
        "learns its records by heart (it overfits). Use the best checkpoint, fewer steps or more data.",
        True,
    )


def _around(points: list[Point], step: float) -> float | None:
    """Return the mean training loss of the last rows up to a step."""
    values = [point.value for point in points if point.step <= step][-WINDOW:]
    return float(np.mean(values)) if values else None
