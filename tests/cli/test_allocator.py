"""Freed memory is kept: a process that takes and gives back the same block does not fault on it again."""

import resource
import subprocess
import sys

import pytest

FAULTS = """
import resource, torch
from transfusion.cli.allocator import keep_freed_memory
{call}
torch.ones(2_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    blocks = [torch.ones(2_000_000) for _ in range(8)]  # 8 MB each, 1953 pages
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(call: str) -> int:
    """Page faults of the loop in a process of its own."""
    done = subprocess.run([sys.executable, "-c", FAULTS.format(call=call)], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_freed_memory_is_kept() -> None:
    check = "from transfusion.cli.allocator import keep_freed_memory; print(keep_freed_memory())"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    if done.stdout.strip() != "True":
        pytest.skip("the C library is not glibc")
    touched = 20 * 8 * 8_000_000 // resource.getpagesize()
    assert faults("keep_freed_memory()") < touched / 5
