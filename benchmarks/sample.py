"""Speed and memory of generation: ``python -m benchmarks.sample [--peer] [--rounds N] [--cases NAME ...]``."""

from benchmarks.compare import main
from benchmarks.work import SAMPLE

if __name__ == "__main__":
    main(SAMPLE, __doc__)
