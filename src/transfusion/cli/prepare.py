"""Encoding a folder of pictures once, from the command line: what was found, how far it is, what it took."""

import time
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypedDict

import numpy as np
import torch

from transfusion.autoencoder.opening import open_network
from transfusion.autoencoder.pretrained import open_pretrained, settled
from transfusion.autoencoder.settings import PretrainedConfig
from transfusion.autoencoder.space import LatentSpace, Size, SpaceError
from transfusion.cli.progress import counting
from transfusion.config import ConfigError
from transfusion.data.latents import DTYPES, Latents, LatentsSettings
from transfusion.data.prepare import Held, Plan, held_settings, make_plan, prepare
from transfusion.data.settings import FolderConfig
from transfusion.data.sources import open_reader
from transfusion.devices import find_device
from transfusion.train.lock import hold
from transfusion.train.spaces import measured_pictures

LOCK_FILE = ".preparing.lock"
LEAST_SIDE = 8
NUM_NAMED = 5


class Wanted(NamedTuple):
    """What to encode, and how.

    Attributes:
        data: The folder of pictures.
        autoencoder: Path or name on the hub.
        to: Where latents go.
        resolution: ``N`` or ``HxW`` pixels.
        has_flip: Whether flipped pictures are encoded too.
        has_std: Whether the spread of the posterior is stored.
        dtype: In which latents are stored.
        device: See ``devices.find_device``.
        processes: How many work at once.
    """

    data: Path
    autoencoder: str
    to: Path
    resolution: str
    has_flip: bool
    has_std: bool
    dtype: str
    device: str
    processes: int


class Made(TypedDict):
    """What there is, and what it took."""

    folder: str
    found: str
    pictures: int
    left_out: dict[str, str]
    shape: list[int]
    dtype: str
    bytes: int
    seconds: float


def prepare_latents(wanted: Wanted) -> Made:
    """Encode what is not encoded yet; return what there is then, and what it took.

    Raises:
        ConfigError: A setting is bad, or there is no such autoencoder.
        DataError: See ``make_plan`` and ``prepare``.
        BusyError: Another process prepares latents in the folder.
    """
    if wanted.dtype not in DTYPES:
        raise ConfigError(f"--dtype {wanted.dtype!r} is unknown; expected {', '.join(DTYPES)}")
    size, begun = size_of(wanted.resolution), time.perf_counter()
    made = [folder for folder in (wanted.to, *wanted.to.parents) if not folder.exists()]
    wanted.to.mkdir(parents=True, exist_ok=True)
    try:
        remedy = "wait for its end, or name another folder (--to)"
        with hold(wanted.to / LOCK_FILE, f"latents are being prepared in {wanted.to}", remedy):
            plan, latents = _prepared(wanted, size)
    except SpaceError as error:
        raise ConfigError(f"autoencoder: {error}") from error
    except KeyboardInterrupt as stopped:
        stopped.add_note("what is finished stays, and the same command goes on")
        raise
    finally:
        for folder in made:
            if not any(folder.iterdir()):
                folder.rmdir()
    broken = {file: reason for shard in latents.shards for file, reason in shard.broken.items()}
    return {
        "folder": str(wanted.to),
        "found": plan.told.found.line(),
        "pictures": sum(shard.count for shard in latents.shards),
        "left_out": {**latents.quarantine, **broken},
        "shape": list(latents.shape),
        "dtype": latents.settings.dtype,
        "bytes": sum(file.stat().st_size for file in wanted.to.iterdir()),
        "seconds": round(time.perf_counter() - begun, 1),
    }


def told(made: Made) -> str:
    """Say what was made."""
    lines = [made["found"].partition("; trains on")[0]]
    lines += [f"left out: {reason}" for reason in list(made["left_out"].values())[:NUM_NAMED]]
    more = len(made["left_out"]) - NUM_NAMED
    lines += [f"left out: {more} more"] if more > 0 else []
    shape = "x".join(map(str, made["shape"]))
    latents = f"{made['pictures']} pictures as latents of {shape}, {made['dtype']}, {made['bytes'] / 1e6:.1f} MB"
    lines.append(f"wrote {made['folder']}: {latents}, {made['seconds']:.0f} s")
    lines.append(f"train on them: transfusion train photos data.path={made['folder']}")
    return "\n".join(lines)


def size_of(resolution: str) -> Size:
    """Read ``N`` or ``HxW`` pixels.

    Raises:
        ConfigError: It is neither.

    >>> size_of("128"), size_of("96x128")
    ((128, 128), (96, 128))
    """
    sides = resolution.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() and len(side) < 6 and int(side) >= LEAST_SIDE for side in sides):
        raise ConfigError(f"--resolution {resolution!r}: expected a side as 128, or height x width as 96x128")
    return int(sides[0]), int(sides[-1])


def _prepared(wanted: Wanted, size: Size) -> tuple[Plan, Latents]:
    device = find_device(wanted.device)
    held = held_settings(wanted.to)
    config = _settled(wanted, size, held, device)
    settings = LatentsSettings.model_validate(
        {
            "size": size,
            "dtype": wanted.dtype,
            "has_std": wanted.has_std,
            "has_flip": wanted.has_flip,
            "device": device.type,
            "autoencoder": config,
        }
    )
    plan = make_plan(wanted.data, wanted.to, settings)
    steps = prepare(plan, partial(_opened, config, str(device)), processes=wanted.processes)
    with counting("encoding", len(plan.files)) as advance:
        while True:
            try:
                advance(next(steps).done)
            except StopIteration as end:
                return plan, end.value


def _opened(config: PretrainedConfig, device: str) -> LatentSpace:
    """Open the space where it computes; in a process of its own too."""
    return open_pretrained(config).to(torch.device(device))


def _settled(wanted: Wanted, size: Size, held: Held | None, device: torch.device) -> PretrainedConfig:
    """Settle the autoencoder: by what the folder was begun with, if it was, else by what is measured on the data."""
    network = open_network(wanted.autoencoder)
    asked = PretrainedConfig(path=wanted.autoencoder, posterior="sample" if wanted.has_std else "mean")
    if held is not None:
        known = {name: getattr(held.settings.autoencoder, name) for name in ("mean", "std")}
        return settled(asked.model_copy(update=known), network, np.empty((0, *size, 3), np.uint8))
    pictures = measured_pictures(open_reader(FolderConfig(path=wanted.data, resolution=size)))
    if pictures is None:
        raise ConfigError(f"{wanted.data} holds no pictures; expected a folder of captioned pictures")
    network.module.to(device)
    return settled(asked, network, pictures)
