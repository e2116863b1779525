"""Every case against the peer as one table, as experiments/LOG.md has it: ``python -m benchmarks.ratios [--rounds N]``.

Rows come as they are measured. ``kept`` is the ratio where the peer keeps freed memory too, as ours does.
"""

import argparse
import platform
from collections.abc import Mapping

import torch

from benchmarks.compare import compare
from benchmarks.work import SAMPLE, TRAIN, Side

CASES = {**TRAIN, **SAMPLE}
HEAD = "| case | unit | ours | peer | ratio | kept | memory, MiB | ratio |"
SIDES: dict[str, Mapping[Side, bool]] = {
    "as shipped": {"ours": True, "peer": False},
    "kept": {"ours": True, "peer": True},
}


def main() -> None:
    """Measure the cases and print a row of the table for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="timed units of work on each side")
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES), help="all unless named")
    options = parser.parse_args()
    machine = platform.processor() or platform.machine()
    print(f"torch {torch.__version__}, {machine}, {torch.get_num_threads()} threads\n")
    print(HEAD, "|---" * HEAD.count(" | ") + "|---|", sep="\n", flush=True)
    for name in options.cases:
        print(row(name, options.rounds), flush=True)


def row(name: str, rounds: int) -> str:
    """Measure a case, once with the peer as it ships and once with kept memory, and return its row."""
    shipped, kept = (compare(name, CASES[name], sides, rounds) for sides in SIDES.values())
    memory = f"{shipped['ours_peak_mib']} / {shipped['peer_peak_mib']}"
    cells = (name, shipped["unit"], shipped["ours"], shipped["peer"], shipped["ratio"], kept["ratio"], memory)
    return f"| {' | '.join(str(cell) for cell in cells)} | {shipped['memory_ratio']} |"


if __name__ == "__main__":
    main()
