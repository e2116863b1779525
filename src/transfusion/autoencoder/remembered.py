"""A latent space that remembers what it encoded: pictures that come again take no network. It must not know which."""

from collections import OrderedDict
from hashlib import blake2b
from pathlib import Path

import torch
from torch import Tensor

from transfusion.autoencoder.space import LatentSpace, Moments, Picture, Size

MAX_BYTES = 2**30


class Remembered:
    """A latent space with a memory of the latents that were encoded last; it moves no bit."""

    def __init__(self, space: LatentSpace, max_bytes: int = MAX_BYTES) -> None:
        """Bind a space.

        Args:
            space: Encodes what is not remembered.
            max_bytes: Most memory that latents may take; the longest unused are forgotten.
        """
        self.space, self._max_bytes = space, max_bytes
        self._kept = OrderedDict[bytes, Moments]()
        self._bytes = 0

    @property
    def name(self) -> str:
        """The space's."""
        return self.space.name

    @property
    def channels(self) -> int:
        """The space's."""
        return self.space.channels

    @property
    def range(self) -> tuple[float, float] | None:
        """The space's."""
        return self.space.range

    @property
    def is_network(self) -> bool:
        """The space's."""
        return self.space.is_network

    def shape(self, size: Size) -> tuple[int, ...]:
        """Return the space's shape."""
        return self.space.shape(size)

    def moments(self, picture: Picture) -> Moments:
        """Encode a picture, or remember it."""
        key = blake2b(picture.tobytes(), digest_size=16, key=str(picture.shape).encode()).digest()
        found = self._kept.pop(key, None)
        if found is None:
            found = self.space.moments(picture)
            self._bytes += _num_bytes(found)
        self._kept[key] = found
        while self._bytes > self._max_bytes:
            self._bytes -= _num_bytes(self._kept.popitem(last=False)[1])
        return found

    def decode(self, latent: Tensor) -> Picture:
        """Decode by the space."""
        return self.space.decode(latent)

    def to(self, device: torch.device) -> "Remembered":
        """Move the space; latents are on the CPU."""
        self.space.to(device)
        return self

    def save(self, folder: Path) -> None:
        """Save the space."""
        self.space.save(folder)


def _num_bytes(moments: Moments) -> int:
    return sum(each.nbytes for each in moments if each is not None)
