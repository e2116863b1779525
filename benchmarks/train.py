"""Speed and memory of training steps: ``python -m benchmarks.train [--peer] [--rounds N] [--cases NAME ...]``."""

from benchmarks.compare import main
from benchmarks.work import TRAIN

if __name__ == "__main__":
    main(TRAIN, __doc__)
