"""Damage files at random and read them: nothing but our own errors may leave.

``make fuzz`` takes ``FUZZ_SECONDS`` (120) over all targets. Case ``i`` of a target is a function of (target, seed, i);
an input that fails is kept with the command that repeats it.
"""

import argparse
import faulthandler
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import NamedTuple

from fuzz.damage import Case, damaged
from fuzz.targets import TARGETS, Target

MAX_KEPT = 5  # inputs of one target


class Outcome(NamedTuple):
    """What became of the cases of a target: how many were whole, refused, and what else left, as (case, error)."""

    num_whole: int
    num_refused: int
    failures: list[tuple[int, BaseException]]


def write(case: Case, folder: Path) -> Path:
    """Write the files of a case into a folder made anew."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, data in case.items():
        (folder / name).write_bytes(data)
    return folder


def failure(target: Target, folder: Path) -> BaseException | bool:
    """Read one folder; return True if it was whole, False if it was refused, or the error that must not leave."""
    try:
        target.read(folder)
    except target.errors:
        return False
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # the library's panics are no Exceptions
        return error
    return True


def fuzz(target: Target, *, seed: int, numbers: Iterator[int] | range, kept: Path) -> Outcome:
    """Run cases of a target.

    Args:
        target: What reads them.
        seed: Key of the damage.
        numbers: Which cases.
        kept: Folder of the case at hand, ``now``, and of those that failed.
    """
    seeds = target.seeds()
    results: Counter[bool] = Counter()
    failures: list[tuple[int, BaseException]] = []
    for number in numbers:
        case = damaged(seeds, random.Random(f"{target.name}/{seed}/{number}"))
        found = failure(target, write(case, kept / "now"))
        if isinstance(found, bool):
            results[found] += 1
            continue
        if len(failures) < MAX_KEPT:
            shutil.copytree(write(case, kept / "now"), kept / str(number))
        failures.append((number, found))
    return Outcome(results[True], results[False], failures)


def until(seconds: float) -> Iterator[int]:
    """Count until a time is over."""
    end = time.monotonic() + seconds
    for number in count():
        if time.monotonic() > end:
            return
        yield number


@contextmanager
def silent_decoders(log: Path) -> Iterator[None]:
    """Send what C libraries and panics write to standard error into a file."""
    before = os.dup(2)
    with log.open("wb") as stream:
        os.dup2(stream.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)


def tell(target: Target, outcome: Outcome, folder: Path) -> None:
    """Print the counts of a target, and how to repeat what failed."""
    failed = f", {len(outcome.failures)} FAILED" if outcome.failures else ""
    cases = outcome.num_whole + outcome.num_refused + len(outcome.failures)
    counts = f"{cases} cases, {outcome.num_whole} read, {outcome.num_refused} refused"
    print(f"{target.name}: {counts}{failed}", flush=True)
    kinds: dict[str, list[tuple[int, BaseException]]] = {}
    for number, error in outcome.failures:
        place = traceback.extract_tb(error.__traceback__)[-1]
        kinds.setdefault(f"{type(error).__name__} in {Path(place.filename).name}:{place.lineno}", []).append(
            (number, error)
        )
    for kind, found in sorted(kinds.items(), key=lambda item: -len(item[1])):
        print(f"  {len(found)} x {kind}: {str(found[0][1])[:100]!r} (case {found[0][0]})")
    kept = [number for number, _ in outcome.failures[:MAX_KEPT]]
    for number in kept:
        print(f"  repeat: PYTHONPATH=tests python -m fuzz.run {target.name} --case {folder / str(number)}")


def main() -> int:
    """Fuzz the targets that are named, or all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("targets", nargs="*", choices=[[], *TARGETS], help="default: all")
    parser.add_argument("--seconds", type=float, default=float(os.environ.get("FUZZ_SECONDS", "120")))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=Path, help="read this kept folder alone, and show what leaves")
    given = parser.parse_args()
    names = given.targets or list(TARGETS)
    faulthandler.enable(file=sys.stdout)
    root = Path(tempfile.mkdtemp(prefix="fuzz-"))
    if given.case is not None:
        print(TARGETS[names[0]].read(Path(shutil.copytree(given.case, root / "case"))))
        return 0
    print(f"inputs in {root}; not run: {', '.join(sorted(TARGETS.keys() - set(names))) or 'none'}")
    has_failed = False
    for name in names:
        with silent_decoders(root / f"{name}.log"):
            numbers = until(given.seconds / len(names))
            outcome = fuzz(TARGETS[name], seed=given.seed, numbers=numbers, kept=root / name)
        tell(TARGETS[name], outcome, root / name)
        has_failed |= bool(outcome.failures)
    if not has_failed:
        shutil.rmtree(root)
    return int(has_failed)


if __name__ == "__main__":
    sys.exit(main())
