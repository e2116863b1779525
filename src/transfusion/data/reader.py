"""What is asked of data of any kind before and beside training. It must not know kinds of data."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from transfusion.data.encode import Encoder
from transfusion.data.loader import Source
from transfusion.data.settings import DataConfig

Pictures = NDArray[np.uint8]


class Reader(Protocol):
    """Data of one kind: what is asked of them before and beside training."""

    @property
    def config(self) -> DataConfig:
        """Settings with nothing left open: the layout and the share that is held out are what was found."""
        ...

    @property
    def held_out(self) -> DataConfig | None:
        """Settings of the split that is held out of these, None where none is."""
        ...

    def texts(self) -> Iterator[str]:
        """Yield the text to learn a tokenizer from."""
        ...

    def sample_pictures(self) -> Pictures | None:
        """Return a few hundred of the pictures, (count, H, W, 3) uint8, to measure them; None for text and latents."""
        ...

    def digest(self) -> str:
        """Name what the data hold."""
        ...

    def measured_digest(self, count: int) -> str | None:
        """Name which records there are and what ``count`` of them hold; None where that follows from the settings."""
        ...

    def source(self, encoder: Encoder, chunk_length: int, *, at_most: int | None = None) -> Source:
        """Return the records, told by an encoder; plain text in chunks of so many tokens.

        Args:
            encoder: Tells them.
            chunk_length: Tokens of a chunk of plain text.
            at_most: Decode so many pictures at once, spread over all; None: all of them. Text costs little.
        """
        ...
