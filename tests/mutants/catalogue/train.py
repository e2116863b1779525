"""Bugs in the loop, optimizers and checkpoints."""

from mutants.mutant import Mutant

MUTANTS = [
    Mutant("muon: the momentum is not looked ahead", "train/muon.py", 'if group["nesterov"] else momentum', 'if False else momentum',
           "train/test_muon.py"),
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
]  # fmt: skip
