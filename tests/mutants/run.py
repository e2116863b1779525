"""Seed bugs into copies of the source, one at a time, and check that a test catches each.

``make mutants`` runs all; ``run(MUTANTS[:5])`` a sample. Every mutant names the text it replaces, which must occur
exactly once, so that mutants cannot rot, and the tests that must fail.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mutants.catalogue import MUTANTS
from mutants.mutant import Mutant

ROOT = Path(__file__).parents[2]
MAX_SECONDS = 180  # ten times what the slowest takes


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
        nowhere = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        command = [sys.executable, "-m", "pytest", *arguments]
        with subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True, **nowhere) as process:
            try:
                return process.wait(MAX_SECONDS) == 1
            except subprocess.TimeoutExpired:  # a bug that keeps a process from ending is seen, too
                os.killpg(process.pid, signal.SIGKILL)
                return True


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
