"""A folder of latents: pictures that were encoded once, with their captions, as training reads them.

    latents.json               what decided the latents, the shards with their SHA-256; written last, names itself
    records.jsonl              a row for each caption of every split, in the order of the pictures' folder
    latents_00000.safetensors  mean, and as asked std, flipped_mean, flipped_std: (pictures, C, *axes), normalised
    autoencoder.*              what encoded them

Latents are stored normalised, by the statistics that stand in ``latents.json``: in fp32 they are to the bit what
encoding on the fly makes. A flipped latent is not the latent of a flipped picture, so both are encoded. ``prepare``
writes such folders. It must not know how latents are made.
"""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open

from transfusion.autoencoder.settings import PretrainedConfig
from transfusion.autoencoder.space import CARRIED_FILES, Moments, Size
from transfusion.data.augment import View
from transfusion.data.captions import CaptionRow, Told, chosen_captions
from transfusion.data.errors import DataError, plain
from transfusion.data.found import Found
from transfusion.data.layouts import LATENTS_FILE
from transfusion.data.settings import FolderConfig, Layout
from transfusion.files import read_rows, sha256_of

RECORDS_FILE = "records.jsonl"
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
AGAIN = "the same `transfusion prepare latents` again mends it"
ANEW = "copy it again, or delete its folder and prepare the latents anew"

_log = logging.getLogger(__name__)


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class LatentsSettings(_Facts):
    """What decides the latents of a folder of pictures.

    Attributes:
        size: Height and width to which pictures are brought.
        dtype: In which latents are stored.
        has_std: Whether the spread of the posterior is stored.
        has_flip: Whether latents of the flipped pictures are stored.
        device: Kind of the device that encodes.
        per_shard: Pictures of a shard.
        autoencoder: What encodes, settled.
    """

    size: tuple[int, int]
    dtype: Literal["fp32", "fp16", "bf16"] = "fp32"
    has_std: bool = False
    has_flip: bool = False
    device: str = "cpu"
    per_shard: int = Field(default=256, gt=0)
    autoencoder: PretrainedConfig

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the tensors of a shard."""
        kinds = ("mean", "std") if self.has_std else ("mean",)
        return (*kinds, *(f"flipped_{kind}" for kind in kinds if self.has_flip))


class FileFacts(_Facts):
    """Size and SHA-256 of a file."""

    bytes: int
    sha256: str


class Shard(FileFacts):
    """A shard.

    Attributes:
        count: Pictures in it.
        broken: Pictures that it would have, by their plain names, which cannot be read, and why.
        pixels: SHA-256 of its pictures, decoded.
    """

    count: int = Field(ge=0)
    broken: dict[str, str]
    pixels: str


class Latents(_Facts):
    """What ``latents.json`` says.

    Attributes:
        version: Of the format.
        space: Name of what encoded them, for a person.
        settings: What decided them.
        shape: Of a latent, (C, *axes).
        layout: Of the folder of pictures.
        quarantine: Captions that could not be read, and why.
        source: Names captions and pictures, as they were decoded.
        plan: Names captions and pictures, by their files.
        shards: In order.
        files: The other files.
        digest: SHA-256 of all the rest.
    """

    version: Literal[1] = 1
    space: str
    settings: LatentsSettings
    shape: tuple[int, ...]
    layout: Layout
    quarantine: dict[str, str]
    source: str
    plan: str
    shards: tuple[Shard, ...]
    files: dict[str, FileFacts]
    digest: str = ""

    def named(self) -> str:
        """Return the digest that it should have."""
        rest = self.model_dump(mode="json", exclude={"digest"})
        return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


class Place(NamedTuple):
    """Where the latents of a picture are."""

    shard: int
    row: int


class Record(NamedTuple):
    """A caption with the place of its picture's latents, None where the picture is broken."""

    row: CaptionRow
    place: Place | None


def shard_name(number: int) -> str:
    """Name the file of a shard."""
    return f"latents_{number:05d}.safetensors"


def read_latents(path: Path) -> Latents:
    """Read what a folder of latents says of itself.

    Raises:
        DataError: It is none, of another version, or damaged.
    """
    file = path / LATENTS_FILE
    try:
        latents = Latents.model_validate_json(file.read_bytes())
    except (ValidationError, OSError, RecursionError) as error:
        told = str(error)
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            told = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise DataError(f"{file} is not what transfusion prepare latents writes ({told}); {ANEW}") from error
    if latents.digest != latents.named():
        raise DataError(f"{file} is damaged: it does not have the digest that it names; {ANEW}")
    return latents


def space_of(path: Path) -> PretrainedConfig:
    """Return the settled settings of the autoencoder that encoded a folder of latents: the folder's own, if it carries
    it.

    Raises:
        DataError: As ``read_latents``.
    """
    latents = read_latents(path)
    config = latents.settings.autoencoder
    is_carried = all(name in latents.files for name in CARRIED_FILES)
    return config.model_copy(update={"path": str(path)}) if is_carried else config


def agreed_space(path: Path, wanted: PretrainedConfig) -> PretrainedConfig:
    """Return the settled settings of a run that trains on a folder of latents.

    Args:
        path: The folder.
        wanted: The run's settings. What they leave open is the folder's; so is the path, where they name none.

    Raises:
        DataError: They name another autoencoder or other statistics, or ask for draws from a posterior that the folder
            does not hold.
    """
    latents, own = read_latents(path), space_of(path)
    for name in ("digest", "channels", "factor", "mean", "std"):
        asked, held = getattr(wanted, name), getattr(own, name)
        if asked is not None and asked != held:
            raise DataError(
                f"the latents of {path} are not of the autoencoder that is asked for: autoencoder.{name} is {asked}, "
                f"theirs {held}; leave the autoencoder's settings out, or prepare latents by the other one"
            )
    if wanted.posterior == "sample" and not latents.settings.has_std:
        raise DataError(
            f"{path} holds no spread to draw from (autoencoder.posterior=sample): prepare latents with --posterior, or "
            "take autoencoder.posterior=mean"
        )
    update = {name: getattr(wanted, name) for name in ("is_carried", "posterior", "tile")}
    return own.model_copy(update={**update, "path": wanted.path or own.path})


class LatentFolder:
    """Latents of the captioned pictures of a split, read from their shards when they are asked for."""

    def __init__(self, path: Path, *, split: str | None = None, hold_out: float | None = 0.0) -> None:
        """Read which there are, and what is said of them; shards are checked by ``verify``.

        Args:
            path: The folder.
            split: See ``splits.choose``.
            hold_out: See ``splits.choose``.

        Raises:
            DataError: It is damaged, there is no such split, or no picture of it is whole.
        """
        self.path = path
        self.latents = read_latents(path)
        records = _records(path, self.latents)
        rows = [record.row for record in records]
        pictures = len({row.file for row in rows})
        told = Found(str(path), "latents", pictures=pictures, captions=len(rows))
        every = Told(self.latents.layout, rows, self.latents.quarantine, told)
        read = chosen_captions(path, every, split, hold_out)
        self.left_for_others, self.is_marked, self.hold_out = read.left_for_others, read.is_marked, read.hold_out
        places = {(record.row.file, record.row.number): record.place for record in records}
        kept = [(row, place) for row in read.rows if (place := places[row.file, row.number]) is not None]
        broken = {file: reason for shard in self.latents.shards for file, reason in shard.broken.items()}
        self.quarantine = {
            **read.quarantine,
            **{name: broken[name] for row in read.rows if (name := plain(row.file)) in broken},
        }
        if not kept:
            raise DataError(f"none of the {len(read.rows)} pictures of {path} could be read when it was prepared")
        self.captions: list[CaptionRow] = [row for row, _ in kept]
        self._places = [place for _, place in kept]
        self.found: Found = replace(read.found, records=len(kept))

    @property
    def size(self) -> Size:
        """Height and width of the pictures that were encoded."""
        return self.latents.settings.size

    def verify(self) -> None:
        """Check every shard.

        Raises:
            DataError: One is missing or damaged.
        """
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda number: check_shard(self.path, self.latents, number), range(len(self.latents.shards))))

    def view(self, index: int, view: View) -> Moments:
        """Return the latent of what a view shows of the picture of a record.

        Raises:
            DataError: Its shard cannot be read now.
        """
        assert view.box is None, "the reader refuses crops"
        shard, row = self._places[index]
        prefix = "flipped_" if view.is_flipped else ""
        file = self.path / shard_name(shard)
        try:
            with safe_open(file, "pt") as tensors:
                mean, *std = [
                    tensors.get_slice(name)[row : row + 1][0].float().clone()
                    for name in (f"{prefix}mean", f"{prefix}std")
                    if name in self.latents.settings.parts
                ]
        except (OSError, SafetensorError) as error:
            raise DataError(f"{file} cannot be read now ({error})") from error
        return Moments(mean, *std)

    def digest(self) -> str:
        """Name latents and captions, so that changed data are noticed."""
        chosen = [(row.file, row.text) for row in self.captions]
        found = hashlib.sha256(json.dumps([self.latents.digest, chosen]).encode())
        return f"latents:{found.hexdigest()}"


def check_shard(path: Path, latents: Latents, number: int) -> None:
    """Check a shard against what ``latents.json`` says.

    Raises:
        DataError: It is missing or damaged.
    """
    file, shard = path / shard_name(number), latents.shards[number]
    check_file(file, shard)
    try:
        with safe_open(file, "pt") as tensors:
            for name in latents.settings.parts:
                found = tensors.get_slice(name)
                wanted = [shard.count, *latents.shape]
                if list(found.get_shape()) != wanted or found.get_dtype() != _WRITTEN[latents.settings.dtype]:
                    raise DataError(f"{file}: {name} is {found.get_dtype()} {found.get_shape()}, not {wanted}; {AGAIN}")
    except (SafetensorError, OSError) as error:
        raise DataError(f"{file} is damaged ({error}); {AGAIN}") from error


def check_file(file: Path, facts: FileFacts) -> None:
    """Check a file against its size and SHA-256.

    Raises:
        DataError: It is missing, or another.
    """
    try:
        found = file.stat()
        if found.st_size != facts.bytes:
            raise DataError(f"{file} has {found.st_size} bytes, not {facts.bytes}; {AGAIN}")
        if _sha256(file, found.st_size, found.st_mtime_ns) != facts.sha256:
            raise DataError(f"{file} is damaged: its SHA-256 is not that of {LATENTS_FILE}; {AGAIN}")
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror}); {AGAIN}") from error


@lru_cache(maxsize=100_000)
def _sha256(file: Path, size: int, written_ns: int) -> str:
    """Hash a file, once for all that open it in this process."""
    del size, written_ns
    return sha256_of(file)


_WRITTEN = {"fp32": "F32", "fp16": "F16", "bf16": "BF16"}  # as safetensors names them


def row_of_record(row: CaptionRow, place: Place | None) -> dict[str, object]:
    """Write a record as its row of JSON."""
    named = {"file": row.file, "text": row.text, "number": row.number, "split": row.split}
    return {**named, **({"broken": True} if place is None else place._asdict())}


def _records(path: Path, latents: Latents) -> list[Record]:
    """Read the records.

    Raises:
        DataError: They are damaged.
    """
    file = path / RECORDS_FILE
    if RECORDS_FILE not in latents.files:
        raise DataError(f"{path / LATENTS_FILE} does not name {RECORDS_FILE}; {AGAIN}")
    check_file(file, latents.files[RECORDS_FILE])
    return [_record(row, latents.shards, f"{file}, row {number}") for number, row in enumerate(read_rows(file), 1)]


def _record(row: Mapping[str, object], shards: Sequence[Shard], where: str) -> Record:
    file, text, number, split = (row.get(name) for name in ("file", "text", "number", "split"))
    if not isinstance(file, str) or not isinstance(text, str) or type(number) is not int:
        raise DataError(f"{where}: expected 'file', 'text' and 'number'; got {row!s:.80}; {AGAIN}")
    if split is not None and not isinstance(split, str):
        raise DataError(f"{where}: expected a name as 'split'; got {split!r:.80}; {AGAIN}")
    found = CaptionRow(file, text, number, split)
    if row.get("broken") is True and any(plain(file) in shard.broken for shard in shards):
        return Record(found, None)
    shard, place = row.get("shard"), row.get("row")
    is_there = type(shard) is int and type(place) is int and 0 <= shard < len(shards)
    if not is_there or not 0 <= place < shards[shard].count:  # pyright: ignore[reportOperatorIssue, reportCallIssue, reportArgumentType]
        raise DataError(f"{where}: no shard has the latents of row {place!s:.20} of shard {shard!s:.20}; {AGAIN}")
    return Record(found, Place(shard, place))  # pyright: ignore[reportArgumentType]


def settled_data(config: FolderConfig, folder: LatentFolder) -> FolderConfig:
    """Return settings of data with nothing left open, for a folder of latents, whose size of pictures is taken.

    Raises:
        DataError: They ask for what it does not hold: crops, or flips.
    """
    if config.resolution != FolderConfig.model_fields["resolution"].default and config.size != folder.size:
        _log.info(
            "%s holds latents of pictures of %s, and not of %s as data.resolution says: taken as they are (for others: "
            "transfusion prepare latents --resolution %s)",
            *(config.path, _sides(folder.size), _sides(config.size), _sides(config.size)),
        )
    if config.crop < 1:
        raise DataError(
            f"data.crop={config.crop} of {config.path}: each visit has a crop of its own, of which no latents are "
            "stored; leave it out, or train on the pictures, which are then encoded on the fly"
        )
    if config.flip and not folder.latents.settings.has_flip:
        raise DataError(
            f"data.flip=true of {config.path}, which holds no latents of flipped pictures (a flipped latent is not the "
            "latent of a flipped picture): prepare latents with --flip, or leave it out"
        )
    height, width = folder.size
    resolution = height if height == width else folder.size
    return config.model_copy(update={"layout": "latents", "hold_out": folder.hold_out, "resolution": resolution})


def _sides(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
