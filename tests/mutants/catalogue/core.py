"""Bugs in segments, layout, mask and objective."""

from mutants.mutant import Mutant

MUTANTS = [
    Mutant("mask: causality turned round", "mask.py", "key.order <= query.order", "key.order >= query.order", "test_mask.py"),
    Mutant("mask: no barrier between documents", "mask.py", "is_same_document & (", "(", "test_mask.py"),
    Mutant("mask: spans are causal", "mask.py", "(is_past | is_same_span)", "is_past", "test_mask.py"),
    Mutant("mask: private copies are seen", "mask.py", " & (key.private == 0)", "", "test_mask.py"),
    Mutant("layout: the end token is a target", "layout.py", "        self._slot(self.vocabulary.end_token(modality))",
           "        self._predicts = True\n        self._supervise(self.vocabulary.end_token(modality))\n"
           "        self._slot(self.vocabulary.end_token(modality))", "test_layout.py"),
    Mutant("layout: BEGIN is no target", "layout.py",
           "            self._supervise(token)\n        self._slot(token, predicts=False)",
           "            pass\n        self._slot(token, predicts=False)", "test_layout.py"),
    Mutant("layout: targets are not shifted", "layout.py", "                self._supervise(token)\n            self._slot(token)",
           "                pass\n            self._slot(token)\n            self._supervise(token)", "test_layout.py"),
    Mutant("layout: positions begin at one", "layout.py", "positions = torch.arange(start, len(self._rows))",
           "positions = torch.arange(start, len(self._rows)) + 1", "test_layout.py"),
    Mutant("segments: dropped prompts keep their text", "segments.py", "if isinstance(part, Latent))\n",
           "if isinstance(part, Latent))\n    kept += tuple(part for part in document.segments if isinstance(part, Text))\n",
           "test_layout.py"),
    Mutant("objective: spans that are no target count", "objective.py", "before.sum + (error * group.is_target).sum()",
           "before.sum + error.sum()", "test_objective.py"),
    Mutant("objective: mean of means", "objective.py", "part.sum / max(counts[name], 1)", "part.sum / max(part.count, 1)",
           "train/test_train.py -k micro"),
    Mutant("objective: spans share their noise", "objective.py", 'normal(tuple(latent.values.shape), seed, "noise", *document.key, number)',
           'normal(tuple(latent.values.shape), seed, "noise", *document.key)', "test_objective.py"),
    Mutant("objective: noise of the batch's place", "objective.py", 'generator(seed, "time", *document.key, number)',
           'generator(seed, "time", id(document), number)', "test_objective.py"),
]  # fmt: skip
