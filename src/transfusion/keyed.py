"""Keyed randomness: every draw is a function of (seed, stream, ids), never of what was drawn before.

Responsible for turning a key into a generator or into noise. It knows nothing of what is drawn: data order,
diffusion times, noise, caption dropout, augmentation and sampling each name their own stream. So the batch
size, the number of workers and the point of resume cannot move a sample.
"""

import hashlib
import json
from operator import index

import numpy as np
import torch
from torch import Tensor

Key = int | str


def generator(seed: int, stream: str, *ids: Key) -> np.random.Generator:
    """Make the generator that belongs to a key.

    Args:
        seed: The run's seed.
        stream: Name of the draw's purpose, such as ``"noise"``; streams are independent of each other.
        ids: Whatever tells one draw of the stream from another: sample, visit, span.

    Returns:
        A counter-based (Philox) generator, equal for equal keys on every platform.

    Raises:
        TypeError: A part is neither an integer nor a string.
    """
    digest = hashlib.blake2b(_encoded((seed, stream, *ids)), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


def _encoded(key: tuple[Key, ...]) -> bytes:
    """Write a key so that equal keys give equal bytes and different ones never do: as JSON, which marks where a part
    ends, and 1 from "1"; any kind of integer counts as the number it is.
    """
    return json.dumps([part if isinstance(part, str) else index(part) for part in key]).encode()


def normal(shape: tuple[int, ...], seed: int, stream: str, *ids: Key) -> Tensor:
    """Draw standard normal noise for a key.

    Returns:
        (shape) float32 on the CPU.
    """
    return torch.from_numpy(generator(seed, stream, *ids).standard_normal(shape, dtype=np.float32))


def subseed(seed: int, stream: str, *ids: Key) -> int:
    """Derive an integer seed in [0, 2**63) from a key, for code that takes a seed and not a generator."""
    return int(generator(seed, stream, *ids).integers(0, 2**63))


def stable_fraction(text: str) -> float:
    """Map a text to a number in [0, 1) that never changes: what splits of data are decided by.

    Names of files that are not UTF-8 have halves of surrogate pairs in them; any text has a number.
    """
    told = text.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(told, digest_size=8).digest(), "little") / 2**64
