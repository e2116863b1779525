"""Times both sides of a case in turns: a process each, told to go one after the other, never at once.

A process builds its side, warms up and then answers every line on its standard input with the seconds of one unit
of work; at the end it tells its peak memory. Time is the median over the rounds; the ratio is the peer's time over
ours. Memory is the peak of the resident set less what the libraries held before the model was built.

Each side runs as its users run it: ours keeps freed memory, as its command line does, and the peer has the C library's
defaults, as its package does; ``--peer-keeps-memory`` gives it the same.
"""

import argparse
import importlib
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import TextIO

import torch

from benchmarks.work import SAMPLE, TRAIN, Side, Work
from transfusion.cli.allocator import keep_freed_memory

WARM_UPS = 2
MIB = 2**20


def main(works: Mapping[str, Work], description: str | None) -> None:
    """Run the cases that the command line names and print a JSON line for each."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--peer", action="store_true", help="also run transfusion-pytorch and print the ratios")
    parser.add_argument("--peer-keeps-memory", action="store_true", help="keep freed memory for the peer too")
    parser.add_argument("--rounds", type=int, default=5, help="timed units of work on each side")
    parser.add_argument("--cases", nargs="*", default=list(works), help=f"among {', '.join(works)}")
    options = parser.parse_args()
    for name in options.cases:
        if name not in works:
            parser.error(f"no case {name!r}; known: {', '.join(works)}")
        keeps: dict[Side, bool] = {"ours": True}
        if options.peer or options.peer_keeps_memory:
            keeps["peer"] = options.peer_keeps_memory
        print(json.dumps(compare(name, works[name], keeps, options.rounds)), flush=True)


def compare(name: str, work: Work, keeps: Mapping[Side, bool], rounds: int) -> dict[str, object]:
    """Time a case on the sides in turns; ``keeps`` says of each whether freed memory is kept.

    Returns:
        case, unit, ours, peer (units per second), ratio, and the peak memory of both in MiB with its ratio.
    """
    workers = {side: _Worker(side, name, keeps_memory=keeps_memory) for side, keeps_memory in keeps.items()}
    seconds: dict[Side, list[float]] = {side: [] for side in keeps}
    for _ in range(rounds):
        for side, worker in workers.items():
            seconds[side].append(worker.go())
    memory = {side: worker.end() for side, worker in workers.items()}
    speed = {side: work.amount / statistics.median(seconds[side]) for side in keeps}
    line: dict[str, object] = {"case": name, "unit": work.unit, "ours": round(speed["ours"], 2)}
    line["ours_peak_mib"] = round(memory["ours"] / MIB)
    if "peer" in speed:
        line |= {"peer": round(speed["peer"], 2), "ratio": round(speed["ours"] / speed["peer"], 2)}
        line |= {
            "peer_peak_mib": round(memory["peer"] / MIB),
            "memory_ratio": round(memory["ours"] / memory["peer"], 2),
        }
    return line


class _Worker:
    """The process of one side."""

    def __init__(self, side: Side, name: str, *, keeps_memory: bool) -> None:
        command = [sys.executable, "-m", "benchmarks.compare", side, name, *(["keep"] if keeps_memory else [])]
        quiet = {**os.environ, "TQDM_DISABLE": "1"}  # the peer draws a bar for every picture and text
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=quiet, text=True)
        self._read()

    def go(self) -> float:
        """Do one unit of work and return its seconds."""
        return self._ask("go")

    def end(self) -> float:
        """End the process and return its peak memory in bytes."""
        peak = self._ask("end")
        self._process.wait()
        return peak

    def _ask(self, word: str) -> float:
        _open(self._process.stdin).write(f"{word}\n")
        _open(self._process.stdin).flush()
        return self._read()

    def _read(self) -> float:
        line = _open(self._process.stdout).readline()
        if not line:
            raise SystemExit(f"{self._process.args} ended with {self._process.wait()}; its message is above")
        return float(line)


def _open(stream: TextIO | None) -> TextIO:
    assert stream is not None
    return stream


def serve(side: Side, name: str, *, keeps_memory: bool) -> None:
    """Build one side of a case and work at command."""
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries may print; answers alone go to the parent
    if keeps_memory:
        keep_freed_memory()
    module = importlib.import_module(f"benchmarks.{side}")
    torch.mm(torch.ones(64, 64), torch.ones(64, 64))
    before = _peak_bytes()
    work = module.build({**TRAIN, **SAMPLE}[name])
    for _ in range(WARM_UPS):
        work()
    print(0.0, file=answers, flush=True)
    for line in sys.stdin:
        if line.strip() == "end":
            print(_peak_bytes() - before, file=answers, flush=True)
            return
        begun = time.perf_counter()
        work()
        print(time.perf_counter() - begun, file=answers, flush=True)


def _peak_bytes() -> float:
    kilobyte = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilobyte)


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2], keeps_memory="keep" in sys.argv[3:])  # pyright: ignore
