"""Seed bugs into copies of the source, one at a time, and check that a test catches each.

``make mutants`` runs all; ``run(MUTANTS[:5])`` a sample. Every mutant names the text it replaces, which must occur
exactly once, so that mutants cannot rot, and the tests that must fail.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]


class Mutant(NamedTuple):
    """A seeded bug."""

    name: str
    file: str
    old: str
    new: str
    tests: str


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
    Mutant("cache: peek keeps", "model/kv_cache.py", "return CacheView(self, _Places(rows, starts, width), columns)",
           "self.lengths[rows] += width\n        return CacheView(self, _Places(rows, starts, width), columns)",
           "model/test_kv_cache.py"),
    Mutant("cache: what was peeked at is seen", "model/kv_cache.py", ".masked_fill(order >= places.ends[:, None], EMPTY)", "",
           "model/test_kv_cache.py"),
    Mutant("cache: rows are taken for adjacent", "model/kv_cache.py",
           "are_adjacent = torch.equal(rows, torch.arange(first, first + num_rows))", "are_adjacent = True", "model/test_kv_cache.py"),
    Mutant("cache: lengths do not advance", "model/kv_cache.py", "self.lengths[rows] += counts", "pass", "model/test_kv_cache.py"),
    Mutant("cache: rows are not cleared", "model/kv_cache.py", "        self.lengths[row] = 0\n", "", "model/test_kv_cache.py"),
    Mutant("cache: what a row held stays", "model/kv_cache.py", "            stored[row] = 0\n", "            pass\n",
           "generate/test_engine.py"),
    Mutant("rotary: sine negated", "model/transformer.py", "torch.cat((-sine, sine), dim=-1)",
           "torch.cat((sine, -sine), dim=-1)", "model/test_transformer.py"),
    Mutant("norm: the mean is not added back", "model/norm.py", "for_x.add_(mean.mul_(inverse))", "for_x",
           "model/test_norm.py"),
    Mutant("muon: the momentum is not looked ahead", "train/muon.py", 'if group["nesterov"] else momentum', 'if False else momentum',
           "train/test_muon.py"),
    Mutant("patches: columns before rows", "model/patchify.py", "x = x.permute(0, *grid_dims, 1, *patch_dims)",
           "x = x.permute(0, *grid_dims[::-1], 1, *patch_dims)", "model/test_patchify.py"),
    Mutant("guidance: sign", "diffusion/guidance.py", "(conditional - unconditional)", "(unconditional - conditional)",
           "diffusion/test_guidance.py"),
    Mutant("schedule: time runs backwards", "diffusion/schedule.py", "torch.linspace(1, 0, num_steps + 1",
           "torch.linspace(0, 1, num_steps + 1", "diffusion/test_schedule.py"),
    Mutant("schedule: noise limit ignored", "diffusion/schedule.py", "t = shifted(t, config.shift) * max_t",
           "t = shifted(t, config.shift)", "diffusion/test_schedule.py"),
    Mutant("samplers: Heun is Euler", "diffusion/samplers.py", "0.5 * (slope + _velocity(guess, x_0, then, schedule))",
           "slope", "diffusion/test_samplers.py"),
    Mutant("samplers: no fresh noise", "diffusion/samplers.py", "x = mean + std * noise(step)", "x = mean",
           "diffusion/test_samplers.py"),
    Mutant("objective: spans that are no target count", "objective.py", "before.sum + (error * group.is_target).sum()",
           "before.sum + error.sum()", "test_objective.py"),
    Mutant("objective: mean of means", "objective.py", "part.sum / max(counts[name], 1)", "part.sum / max(part.count, 1)",
           "train/test_train.py -k micro"),
    Mutant("objective: spans share their noise", "objective.py", 'normal(tuple(latent.values.shape), seed, "noise", *document.key, number)',
           'normal(tuple(latent.values.shape), seed, "noise", *document.key)', "test_objective.py"),
    Mutant("objective: noise of the batch's place", "objective.py", 'generator(seed, "time", *document.key, number)',
           'generator(seed, "time", id(document), number)', "test_objective.py"),
    Mutant("engine: the twin is the conditional", "generate/row.py", "Track(null_prompt(self.document)", "Track((self.document)",
           "generate/test_engine.py"),
    Mutant("engine: finished latents are forgotten", "generate/row.py",
           "        self.main.spans.append(PendingSpan(self.main.written, modality, values))\n", "", "generate/test_engine.py"),
    Mutant("engine: seeds are ignored", "generate/row.py", 'normal(shape, options.seed, "start", number)',
           'normal(shape, 0, "start", number)', "generate/test_engine.py"),
    Mutant("average: turned round", "train/ema.py", "average = get_ema_multi_avg_fn(decay)",
           "average = get_ema_multi_avg_fn(1 - decay)", "train/test_optimizer.py"),
    Mutant("rates: warm-up skipped", "train/optimizer.py", "return (step + 1) / config.warmup_steps", "return 1.0",
           "train/test_optimizer.py"),
    Mutant("checkpoint: renamed before the manifest", "train/checkpoint.py",
           "    (temporary / MANIFEST).write_text(json.dumps(manifest, indent=1))\n    for path in (*files, temporary / MANIFEST, temporary):\n        _sync(path)\n",
           "", "train/test_checkpoint.py"),
    Mutant("checkpoint: content is not verified", "train/checkpoint.py", 'if _sha256(file) != expected["sha256"]:', "if False:",
           "train/test_checkpoint.py"),
    Mutant("resume: the step is lost", "train/state.py", 'state.step, state.train_seconds, state.data = facts["step"],',
           "state.step, state.train_seconds, state.data = 0,", "train/test_train.py"),
    Mutant("loader: the same order in every epoch", "data/loader.py", 'generator(self._config.seed, "order", visit)',
           'generator(self._config.seed, "order")', "data/test_loader.py"),
]  # fmt: skip


def is_caught(mutant: Mutant) -> bool:
    """Return whether the named tests fail on a copy of the source with the bug in it."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "src"
        shutil.copytree(ROOT / "src", source)
        file = source / "transfusion" / mutant.file
        text = file.read_text()
        if text.count(mutant.old) != 1:
            raise ValueError(f"mutant {mutant.name!r}: its text occurs {text.count(mutant.old)} times in {mutant.file}")
        file.write_text(text.replace(mutant.old, mutant.new))
        name, *rest = mutant.tests.split()
        # Only the verdict counts: no explanations of failures, which can take longer than the test.
        plain = ["-p", "no:cacheprovider", "--assert=plain", "--tb=no"]
        arguments = ["-x", "-q", *plain, str(ROOT / "tests" / name), *rest]
        environment = {**os.environ, "PYTHONPATH": f"{source}{os.pathsep}{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *arguments], cwd=ROOT, env=environment, capture_output=True, check=False
        )
    return done.returncode == 1


def run(mutants: Sequence[Mutant]) -> list[str]:
    """Run mutants, print a line each and the sum, and return the names of those that survived."""
    survivors: list[str] = []
    for mutant in mutants:
        caught = is_caught(mutant)
        print(f"{'caught  ' if caught else 'SURVIVED'} {mutant.name}", flush=True)
        if not caught:
            survivors.append(mutant.name)
    print(f"{len(mutants)} seeded, {len(mutants) - len(survivors)} caught")
    return survivors


if __name__ == "__main__":
    sys.exit(1 if run(MUTANTS) else 0)
