"""What a seeded bug is."""

from typing import NamedTuple


class Mutant(NamedTuple):
    """A seeded bug."""

    name: str
    file: str
    old: str
    new: str
    tests: str
