"""One thread a process: models here are small, and on a busy machine two threads wait for each other for minutes."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; the processes that tests start inherit it
