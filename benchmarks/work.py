"""The work that is compared: sizes and cases, alike for us and for the peer."""

from dataclasses import dataclass
from typing import Literal

DIM, DEPTH, NUM_HEADS, VOCAB_SIZE = 512, 8, 8, 8192
GRID, CHANNELS = (8, 8), 16
PATCHES = 64
LR = 3e-4
PROMPT_TOKENS, NEW_TOKENS = 24, 128
EVALUATIONS, GUIDANCE = 32, 3.0

Side = Literal["ours", "peer"]


@dataclass(frozen=True)
class TrainWork:
    """One optimizer step on ``rows`` sequences of ``images`` times (24 text, image), then ``tail`` text."""

    rows: int
    images: int
    tail: int
    precision: Literal["fp32", "bf16"]
    is_compiled: bool

    @property
    def amount(self) -> int:
        """Text tokens and patches of a step."""
        return self.rows * (self.images * (PROMPT_TOKENS + PATCHES) + self.tail)

    unit = "tokens/s"


@dataclass(frozen=True)
class ImageWork:
    """``rows`` images after 24 text tokens each, 32 evaluations, guided or not."""

    rows: int
    is_guided: bool

    @property
    def amount(self) -> int:
        """Images."""
        return self.rows

    unit = "images/s"


@dataclass(frozen=True)
class TextWork:
    """128 new tokens in each of ``rows`` texts, after 24."""

    rows: int

    @property
    def amount(self) -> int:
        """Tokens."""
        return self.rows * NEW_TOKENS

    unit = "tokens/s"


Work = TrainWork | ImageWork | TextWork

TRAIN: dict[str, Work] = {
    f"train-{name}-{precision}-{'compiled' if is_compiled else 'eager'}": TrainWork(
        rows, images, tail, precision, is_compiled
    )
    for name, (rows, images, tail) in {"short": (16, 1, 8), "long": (4, 8, 0)}.items()
    for precision in ("fp32", "bf16")
    for is_compiled in (False, True)
}
SAMPLE: dict[str, Work] = {
    "image-1-guided": ImageWork(1, True),
    "image-1-plain": ImageWork(1, False),
    "image-16-guided": ImageWork(16, True),
    "text-1": TextWork(1),
    "text-16": TextWork(16),
}
