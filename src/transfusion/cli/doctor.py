"""What a machine has for this project, what is wrong, and how to mend it."""

import importlib.util
import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, NamedTuple

import torch

from transfusion.devices import AUTO, KINDS, find_device, multiplies_bf16, num_devices

MIN_FREE_BYTES = 2 * 1024**3
MIN_TORCH = (2, 11)
PACKAGES = ("torch", "numpy", "pillow", "pydantic", "safetensors", "tokenizers", "tensorboard", "typer", "rich")


class Finding(NamedTuple):
    """One thing looked at."""

    level: Literal["ok", "warn", "error"]
    name: str
    value: str
    remedy: str = ""


def examine() -> list[Finding]:
    """Look at versions, devices, threads, kernels and free disk."""
    return [*_versions(), *_devices(), *_kernels(), _disk()]


def _versions() -> list[Finding]:
    findings = [Finding("ok", "python", platform.python_version())]
    for package in PACKAGES:
        try:
            findings.append(Finding("ok", package, version(package)))
        except PackageNotFoundError:
            findings.append(Finding("error", package, "missing", f"pip install {package}"))
    major, minor = (int(part) for part in torch.__version__.split(".")[:2])
    if (major, minor) < MIN_TORCH:
        findings.append(Finding("error", "torch version", torch.__version__, "pip install 'torch>=2.11'"))
    if importlib.util.find_spec("torchvision") is not None:
        remedy = "nothing here needs it; a build that does not match torch breaks imports: pip uninstall torchvision"
        findings.append(Finding("warn", "torchvision", "installed", remedy))
    return findings


def _devices() -> list[Finding]:
    has_bf16 = multiplies_bf16(torch.device("cpu"))
    findings = [
        Finding("ok", "threads", str(torch.get_num_threads())),
        Finding("ok", "precision on the CPU", "bf16 is faster" if has_bf16 else "fp32 is as fast as bf16, or faster"),
    ]
    names = [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(num_devices("cuda"))]
    return [
        *findings,
        Finding("ok", "CUDA devices", ", ".join(names) or "none"),
        Finding("ok", "devices", ", ".join(kind for kind in KINDS if num_devices(kind))),
        Finding("ok", "device that auto takes", str(find_device(AUTO))),
    ]


def _kernels() -> list[Finding]:
    compiler = shutil.which("g++") or shutil.which("clang++")
    remedy = "" if compiler else "train.use_compile=true needs one; install g++ or leave it off"
    return [
        Finding("ok", "CPU capability", torch.backends.cpu.get_cpu_capability()),
        Finding("ok", "oneDNN", str(torch.backends.mkldnn.is_available())),
        Finding("ok", "FlexAttention", "CUDA" if torch.cuda.is_available() else "forward only on a CPU; dense is used"),
        Finding("ok" if compiler else "warn", "C++ compiler", compiler or "none", remedy),
        Finding("ok", "platform", f"{sys.platform} {platform.machine()}"),
    ]


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free
    text = f"{free / 1024**3:.1f} GiB free here"
    if free < MIN_FREE_BYTES:
        return Finding("error", "disk", text, "checkpoints need room: free at least 2 GiB or set --run elsewhere")
    return Finding("ok", "disk", text)
