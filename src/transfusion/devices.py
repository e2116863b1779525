"""Where a model computes and how precisely: the device that a name means, and the dtype that pays there.

It must not know models.
"""

import time
from functools import cache

import torch

from transfusion.config import ConfigError

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
MEASURED_ROUNDS = 12
AUTO = "auto"
KINDS = ("cuda", "mps", "cpu")  # the first that is here is taken


def find_device(name: str) -> torch.device:
    """Return the device that a name means.

    Args:
        name: ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``; ``"auto"`` is the first that is there of cuda, mps, cpu.

    Raises:
        ConfigError: There is no such device here.
    """
    if name == AUTO:
        return torch.device(
            "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        )
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device {name!r} is unknown; expected auto, cpu, cuda, cuda:N or mps") from error
    if (device.index or 0) >= num_devices(device.type):
        here = ", ".join(f"{kind}: {num_devices(kind)}" for kind in KINDS)
        raise ConfigError(f"device {name!r} is not here ({here}); take auto, or see `transfusion doctor`")
    return device


def num_devices(kind: str) -> int:
    """Count the devices of a kind that are here."""
    counts = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    return counts.get(kind, 0)


def choose_precision(name: str, device: torch.device) -> str:
    """Decide what ``auto`` leaves open: bf16 where a device multiplies it faster than fp32.

    Raises:
        ConfigError: The name is unknown.
    """
    if name not in (AUTO, *PRECISIONS):
        raise ConfigError(f"precision {name!r} is unknown; expected {AUTO}, {' or '.join(PRECISIONS)}")
    if name != AUTO:
        return name
    return "bf16" if multiplies_bf16(device) else "fp32"


@cache
def multiplies_bf16(device: torch.device) -> bool:
    """Return whether bfloat16 pays on a device: a CPU that knows it may still multiply it at half the speed of float32,
    so there it is measured, in some hundredths of a second and once in a process: a busy machine changes no mind.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    is_known = device.type == "cpu" and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    if not is_known:
        return False
    bf16, fp32 = (torch.ones(1024, 1024, dtype=dtype) for dtype in (torch.bfloat16, torch.float32))
    rounds = [(_product_seconds(bf16), _product_seconds(fp32)) for _ in range(MEASURED_ROUNDS)]
    return min(one for one, _ in rounds) < min(other for _, other in rounds)


def _product_seconds(matrix: torch.Tensor) -> float:
    """Time one product; the callers take the least of many in turns, for a machine may be busy."""
    begun = time.perf_counter()
    _ = matrix @ matrix
    return time.perf_counter() - begun
