"""Bugs in the engine."""

from mutants.mutant import Mutant

MUTANTS = [
    Mutant("engine: the twin is the conditional", "generate/row.py", "Track(null_prompt(self.document)", "Track((self.document)",
           "generate/test_engine.py"),
    Mutant("engine: finished latents are forgotten", "generate/row.py",
           "        self.main.spans.append(PendingSpan(self.main.written, modality, values))\n", "", "generate/test_engine.py"),
    Mutant("engine: seeds are ignored", "generate/row.py", 'normal(shape, options.seed, "start", number)',
           'normal(shape, 0, "start", number)', "generate/test_engine.py"),
]  # fmt: skip
