"""Bugs in readers, encoder and loader."""

from mutants.mutant import Mutant

MUTANTS = [
    Mutant("loader: the same order in every epoch", "data/loader.py", 'generator(self._config.seed, "order", visit)',
           'generator(self._config.seed, "order")', "data/test_loader.py"),
]  # fmt: skip
