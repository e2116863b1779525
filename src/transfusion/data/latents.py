"""A folder of latents: pictures that were encoded once, with their captions, as training reads them.

    latents.json               what decided the latents, the shards with their SHA-256; written last, names itself
    records.jsonl              a row for each caption of every split, in the order of the pictures' folder
    latents_00000.safetensors  mean, and as asked std, flipped_mean, flipped_std: (pictures, C, *axes), normalised
    autoencoder.*              what encoded them
    reconstructions.png        some of the pictures, and below each what the autoencoder makes of it

Latents are stored normalised, by the statistics that stand in ``latents.json``: in fp32 they are to the bit what
encoding on the fly makes. A model that has others reads them brought to its own, to a rounding. A flipped
latent is not the latent of a flipped picture, so both are encoded. ``prepare`` writes such folders. It must not know
how latents are made.
"""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from transfusion.autoencoder.settings import PretrainedConfig
from transfusion.autoencoder.space import CARRIED_FILES, Moments, Normalisation, Size, renormalised
from transfusion.data.augment import View
from transfusion.data.captions import CaptionRow, Told, chosen_captions
from transfusion.data.errors import DataError, plain
from transfusion.data.found import Found
from transfusion.data.latents_index import FileFacts, Latents, Shard
from transfusion.data.layouts import LATENTS_FILE
from transfusion.data.settings import FolderConfig
from transfusion.files import read_rows, sha256_of

RECORDS_FILE, SHEET_FILE = "records.jsonl", "reconstructions.png"
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
AGAIN = "the same `transfusion prepare latents` again mends it"
ANEW = "copy it again, or delete its folder and prepare the latents anew"

_log = logging.getLogger(__name__)


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


def agreed_space(path: Path, wanted: PretrainedConfig, *, like: Path | None = None) -> PretrainedConfig:
    """Return the settled settings of a run that trains on a folder of latents.

    Args:
        path: The folder.
        wanted: The run's settings. What they leave open is the folder's; so is the path, where they name none. Other
            statistics than the folder's are those to which its latents are brought when they are read.
        like: The checkpoint from which the run begins, for messages.

    Raises:
        DataError: They name another autoencoder, or ask for draws from a posterior that the folder does not hold.
    """
    latents, own = read_latents(path), space_of(path)
    _check_autoencoder(path, own, wanted, like)
    if wanted.posterior == "sample" and not latents.settings.has_std:
        raise DataError(
            f"{path} holds no spread to draw from (autoencoder.posterior=sample): prepare latents with --posterior, or "
            "take autoencoder.posterior=mean"
        )
    update = {name: getattr(wanted, name) for name in ("is_carried", "posterior", "tile")}
    if wanted.mean is not None and normalisation_of(wanted) != normalisation_of(own):
        update |= {"mean": wanted.mean, "std": wanted.std}
        _log.info("latents of %s are brought from their own mean and spread to those of the run", path)
    return own.model_copy(update={**update, "path": wanted.path or own.path})


def _check_autoencoder(path: Path, own: PretrainedConfig, wanted: PretrainedConfig, like: Path | None = None) -> None:
    for name in ("digest", "channels", "factor"):
        asked, held = getattr(wanted, name), getattr(own, name)
        if asked is not None and asked != held:
            raise DataError(
                f"the latents of {path} are not of the autoencoder that is asked for: autoencoder.{name} is {asked}, "
                f"theirs {held}; encode the pictures by the right one: transfusion prepare latents PICTURES --like "
                f"{like or 'RUN'} --to NEW"
            )


def normalisation_of(config: PretrainedConfig) -> Normalisation:
    """Return the statistics of settled settings."""
    return Normalisation(config.mean or (), config.std or ())


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
        self._normalisations: tuple[Normalisation, Normalisation] | None = None  # those held, those wanted
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

    def read_for(self, space: PretrainedConfig) -> "LatentFolder":
        """Return the folder as a model reads it whose latents have other statistics.

        Raises:
            DataError: They are of another autoencoder.
        """
        own = self.latents.settings.autoencoder
        _check_autoencoder(self.path, own, space)
        found = copy(self)
        found._normalisations = normalisation_of(own), normalisation_of(space)
        return found

    @property
    def size(self) -> Size:
        """Height and width of the pictures that were encoded."""
        return self.latents.settings.size

    def sheet(self) -> bytes | None:
        """Return the picture that shows reconstructions; None where none was drawn.

        Raises:
            DataError: It is damaged.
        """
        file, facts = self.path / SHEET_FILE, self.latents.files.get(SHEET_FILE)
        if facts is None:
            return None
        check_file(file, facts)
        return file.read_bytes()

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
        moments = Moments(mean, *std)
        return moments if self._normalisations is None else renormalised(moments, *self._normalisations)

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
    named: dict[str, object] = {"file": row.file, "text": row.text, "number": row.number, "split": row.split}
    named |= {"same": row.same} if row.same else {}
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
    same = row.get("same")
    found = CaptionRow(file, text, number, split, same if isinstance(same, str) else None)
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
