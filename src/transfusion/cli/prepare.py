"""Encoding a folder of pictures once, from the command line: what was found, how far it is, what it took."""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypedDict

import numpy as np
import torch

from transfusion.autoencoder.carried import has_carried
from transfusion.autoencoder.opening import open_network
from transfusion.autoencoder.pretrained import open_pretrained, settled
from transfusion.autoencoder.reconstruction import Reconstruction
from transfusion.autoencoder.settings import PretrainedConfig
from transfusion.autoencoder.space import CARRIED_FILES, LatentSpace, Size, SpaceError
from transfusion.cli.progress import counting
from transfusion.config import CONFIG_FILE, ConfigError
from transfusion.data.latents import DTYPES, read_latents, space_of
from transfusion.data.latents_index import Latents, LatentsSettings, Psnr
from transfusion.data.layouts import LATENTS_FILE, holds_latents
from transfusion.data.prepare import Held, Plan, held_settings, make_plan, prepare
from transfusion.data.settings import FolderConfig
from transfusion.data.sources import open_reader
from transfusion.devices import find_device
from transfusion.pretrained import find_model
from transfusion.samples import reconstruction_sheet
from transfusion.tokenizer import TOKENIZER_FILE
from transfusion.train.lock import hold
from transfusion.train.saved import load_settings
from transfusion.train.spaces import measured_pictures

LOCK_FILE = ".preparing.lock"
LEAST_SIDE, SIDE = 8, 128
NUM_NAMED = 5


class Wanted(NamedTuple):
    """What to encode, and how.

    Attributes:
        data: The folder of pictures.
        autoencoder: Path or name on the hub; empty where ``like`` tells.
        to: Where latents go.
        resolution: ``N`` or ``HxW`` pixels; None: that of ``like``, or 128.
        has_flip: Whether flipped pictures are encoded too.
        has_std: Whether the spread of the posterior is stored.
        dtype: In which latents are stored.
        device: See ``devices.find_device``.
        processes: How many work at once.
        like: A run, checkpoint, folder of latents or name on the hub, whose autoencoder and normalisation are taken.
    """

    data: Path
    autoencoder: str
    to: Path
    resolution: str | None
    has_flip: bool
    has_std: bool
    dtype: str
    device: str
    processes: int
    like: str | Path | None = None


class Space(NamedTuple):
    """A latent space that there is, and the size of its pictures."""

    config: PretrainedConfig
    size: Size


class Made(TypedDict):
    """What there is, and what it took."""

    folder: str
    found: str
    pictures: int
    left_out: dict[str, str]
    shape: list[int]
    dtype: str
    psnr: dict[str, float | None] | None
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
    begun, like = time.perf_counter(), _like(wanted)
    size = (SIDE, SIDE) if like is None else like.size
    size = size if wanted.resolution is None else size_of(wanted.resolution)
    made = [folder for folder in (wanted.to, *wanted.to.parents) if not folder.exists()]
    wanted.to.mkdir(parents=True, exist_ok=True)
    try:
        remedy = "wait for its end, or name another folder (--to)"
        with hold(wanted.to / LOCK_FILE, f"latents are being prepared in {wanted.to}", remedy):
            plan, latents = _prepared(wanted, size, None if like is None else like.config)
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
        "psnr": None if latents.psnr is None else latents.psnr.model_dump(),
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
    if made["psnr"] is not None:
        lines.append(f"PSNR of {Psnr.model_validate(made['psnr'])}")
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


def _like(wanted: Wanted) -> Space | None:
    if wanted.like is not None and wanted.autoencoder:
        raise ConfigError("--like names the autoencoder; leave --autoencoder out, or --like")
    if wanted.like is None and not wanted.autoencoder:
        raise ConfigError("no autoencoder is named: give --autoencoder, or --like RUN for that of a run")
    return None if wanted.like is None else space_like(wanted.like)


def space_like(path: str | Path) -> Space:
    """Return the latent space of a run, a checkpoint, a saved model or a folder of latents; as a string also of a model
    on the hub.

    Raises:
        CheckpointError: There is no model.
        ConfigError: It has no autoencoder.
    """
    if (latents := Path(path) / LATENTS_FILE).is_file():
        return Space(space_of(latents.parent), read_latents(latents.parent).settings.size)
    folder = find_model(path, hashed={CONFIG_FILE, TOKENIZER_FILE, *CARRIED_FILES})
    config = load_settings(folder).config
    own = config.autoencoder
    if not isinstance(own, PretrainedConfig):
        raise ConfigError(
            f"--like {path}: that model has autoencoder.kind={own.kind}, and no autoencoder to encode pictures by; "
            "name one that has, or give --autoencoder"
        )
    return Space(own.model_copy(update={"path": str(folder)}) if has_carried(folder) else own, config.data.size)


def _prepared(wanted: Wanted, size: Size, like: PretrainedConfig | None) -> tuple[Plan, Latents]:
    device = find_device(wanted.device)
    held = held_settings(wanted.to)
    config = _settled(wanted, size, held, device) if like is None else _settled_like(like, wanted)
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
    is_apart = not wanted.to.resolve().is_relative_to(wanted.data.resolve())  # else it would be a picture of the data
    draw = partial(_drawn, is_apart=is_apart)
    steps = prepare(plan, partial(_opened, config, str(device)), processes=wanted.processes, draw=draw)
    with counting("encoding", len(plan.files)) as advance:
        while True:
            try:
                advance(next(steps).done)
            except StopIteration as end:
                return plan, end.value


def _drawn(found: Sequence[Reconstruction], *, is_apart: bool) -> bytes | None:
    return reconstruction_sheet(found) if is_apart else None


def _opened(config: PretrainedConfig, device: str) -> LatentSpace:
    """Open the space where it computes; in a process of its own too."""
    return open_pretrained(config).to(torch.device(device))


def _settled_like(like: PretrainedConfig, wanted: Wanted) -> PretrainedConfig:
    """Settle the autoencoder of a run, with its normalisation."""
    posterior = "sample" if wanted.has_std else "mean"
    asked = like.model_copy(update={"posterior": posterior, "is_carried": True})
    return settled(asked, open_network(asked.path), np.empty((0, 0, 0, 3), np.uint8))


def _settled(wanted: Wanted, size: Size, held: Held | None, device: torch.device) -> PretrainedConfig:
    """Settle the autoencoder: by what the folder was begun with, if it was, else by what is measured on the data."""
    network = open_network(wanted.autoencoder)
    asked = PretrainedConfig(path=wanted.autoencoder, posterior="sample" if wanted.has_std else "mean")
    if held is not None:
        known = {name: getattr(held.settings.autoencoder, name) for name in ("mean", "std")}
        return settled(asked.model_copy(update=known), network, np.empty((0, *size, 3), np.uint8))
    pictures = measured_pictures(open_reader(FolderConfig(path=wanted.data, resolution=size)))
    if pictures is None:
        what = "latents, and no pictures" if holds_latents(wanted.data) else "no pictures"
        raise ConfigError(f"{wanted.data} holds {what}; expected a folder of captioned pictures")
    network.module.to(device)
    return settled(asked, network, pictures)
