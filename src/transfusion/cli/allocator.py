"""How the C library keeps memory that was freed. Only the command line may set it: it is the whole process's.

By default glibc gives large freed blocks back to the system at once, and every step of training and of sampling then
waits for the same megabytes to be mapped and cleared again: 10,000 page faults and 6 % of the time of a step of
``tiny`` (experiments/LOG.md).
"""

import ctypes
import sys

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3
LARGEST_MMAP_THRESHOLD_BYTES = 32 * 1024**2  # glibc takes no larger one on 64 bits
LARGEST_INT = 2**31 - 1


def keep_freed_memory() -> bool:
    """Ask glibc to keep up to 2 GiB of freed memory for the next allocation.

    Returns:
        Whether it is set: False where the C library is not glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    settings = {
        MMAP_THRESHOLD: LARGEST_MMAP_THRESHOLD_BYTES,
        TRIM_THRESHOLD: LARGEST_INT,
        TOP_PAD: 64 * 1024**2,
    }
    return all(library.mallopt(name, value) == 1 for name, value in settings.items())
