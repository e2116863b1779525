"""Bugs in the engine."""

from mutants.mutant import Mutant

MUTANTS = [
    Mutant("engine: the twin is the conditional", "generate/row.py", "Track(null_prompt(self.document)", "Track((self.document)",
           "generate/test_engine.py"),
    Mutant("engine: finished latents are forgotten", "generate/row.py",
           "        self.main.spans.append(PendingSpan(self.main.written, modality, values))\n", "", "generate/test_engine.py"),
    Mutant("engine: seeds are ignored", "generate/row.py", 'normal(shape, options.seed, "start", number)',
           'normal(shape, 0, "start", number)', "generate/test_engine.py"),
    Mutant("engine: estimates are not kept within the data's range", "generate/engine.py", "x_0 = x_0.clamp(least, largest)",
           "x_0 = x_0 if options.clip is None else x_0.clamp(least, largest)", "generate/test_clip.py"),
    Mutant("pretrained: the range of pixels reaches no engine", "pretrained.py", ", max_rows=max_rows, ranges=ranges)",
           ", max_rows=max_rows)", "generate/test_clip.py -k knows"),
]  # fmt: skip
