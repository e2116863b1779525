"""Encodes the pictures of a folder once, into a folder of latents (``latents``).

    captions ──▶ every picture once, in order ──▶ shards of so many ──encode, one picture at a time──▶ latents.json

A shard is written whole or not at all, and told of in ``preparing.jsonl`` when it is; what a kill leaves is gone on
with, shards that stand are checked and skipped. Pictures are encoded one by one, so neither the size of a shard nor the
number of processes moves a bit. It must not know which latent space it is that encodes.
"""

import hashlib
import json
import logging
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from multiprocessing import active_children, connection, get_context, parent_process
from pathlib import Path
from typing import NamedTuple

import torch
from pydantic import ValidationError
from safetensors.torch import save
from torch import Tensor

from transfusion.autoencoder.reconstruction import Reconstruction, reconstruct
from transfusion.autoencoder.space import CARRIED_FILES, LatentSpace, Moments, SpaceError
from transfusion.data.augment import WHOLE, View, seen
from transfusion.data.captions import Told, all_captions, folder_of
from transfusion.data.decode import open_picture
from transfusion.data.errors import BrokenPicture, DataError, plain
from transfusion.data.latents import (
    DTYPES,
    RECORDS_FILE,
    SHEET_FILE,
    Place,
    check_file,
    check_shard,
    read_latents,
    row_of_record,
    shard_name,
)
from transfusion.data.latents_index import FileFacts, Latents, LatentsSettings, Psnr, Shard
from transfusion.data.layouts import LATENTS_FILE, UNFINISHED_FILE
from transfusion.data.records.detect import check_in_files
from transfusion.data.settings import Layout
from transfusion.data.splits import spread
from transfusion.files import PARTIAL, append_row, beside, read_rows, sha256_of, write_whole

FLIPPED = View(is_flipped=True)
NUM_SHOWN = 32  # pictures of which reconstructions are measured
Opener = Callable[[], LatentSpace]
Drawer = Callable[[Sequence[Reconstruction]], bytes | None]
_log = logging.getLogger(__name__)


class Progress(NamedTuple):
    """How far it has come.

    Attributes:
        done: Pictures that are encoded, or broken.
        total: All pictures.
        encoded: Those of ``done`` that this call encoded.
    """

    done: int
    total: int
    encoded: int


@dataclass(frozen=True)
class Plan:
    """What is to be encoded, and how.

    Attributes:
        source: The folder of pictures.
        told: Its captions, of every split.
        settings: What decides the latents.
        to: Where they go.
    """

    source: Path
    told: Told
    settings: LatentsSettings
    to: Path

    @cached_property
    def files(self) -> list[str]:
        """The pictures, each once, in order."""
        return list(dict.fromkeys(row.file for row in self.told.rows))

    @cached_property
    def shards(self) -> list[tuple[str, ...]]:
        """The pictures of each shard."""
        most = self.settings.per_shard
        return [tuple(self.files[start : start + most]) for start in range(0, len(self.files), most)]

    @cached_property
    def digest(self) -> str:
        """Name captions and pictures by what their files hold, so that other data are noticed."""
        rows = [(row.file, row.text, row.number, row.split) for row in self.told.rows]
        facts = [self.told.layout, rows, self.told.quarantine, [_named(self.source / file) for file in self.files]]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def make_plan(source: Path, to: Path, settings: LatentsSettings, *, layout: Layout = "auto") -> Plan:
    """Look at what there is to encode.

    Args:
        source: A folder of captioned pictures.
        to: Where latents go: nothing, an empty folder, or one that was prepared from these pictures.
        settings: What decides the latents.
        layout: How the pictures' folder is laid out.

    Raises:
        DataError: There are no captioned pictures, or ``to`` holds something else, or latents of other settings.
    """
    check_in_files(source, layout)
    found = Plan(folder_of(source), all_captions(source, layout), settings, to)
    if (held := held_settings(to)) is not None:
        _check_same(found, held)
    elif to.is_dir() and any(not file.name.startswith(".") for file in to.iterdir()):
        raise DataError(f"{to} holds other files; name an empty folder, or one that is not there (--to)")
    return found


class Held(NamedTuple):
    """What a folder says of latents that it holds, or has begun to hold."""

    settings: LatentsSettings
    plan: str
    shards: Mapping[int, Shard]


def held_settings(to: Path) -> Held | None:
    """Return what a folder was prepared with, finished or not; None where it holds no latents.

    Raises:
        DataError: It is damaged.
    """
    if (to / LATENTS_FILE).is_file():
        latents = read_latents(to)
        return Held(latents.settings, latents.plan, dict(enumerate(latents.shards)))
    file = to / UNFINISHED_FILE
    if not file.is_file():
        return None
    first, *others = read_rows(file) or [{}]
    try:
        settings = LatentsSettings.model_validate(first.get("settings"))
        shards = {int(row["shard"]): Shard.model_validate(row["facts"]) for row in others}
        return Held(settings, str(first["plan"]), shards)
    except (ValidationError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{file} is damaged ({str(error).splitlines()[0]}); delete {to} and begin again") from error


def _check_same(plan: Plan, held: Held) -> None:
    asked, known = (_told(settings) for settings in (plan.settings, held.settings))
    for name, value in asked.items():
        if known[name] != value:
            raise DataError(
                f"{plan.to} holds latents prepared with {name} {known[name]}, and {value} is asked for; ask for the "
                "same, or name another folder (--to)"
            )
    if held.plan != plan.digest:
        raise DataError(
            f"{plan.to} holds latents of other data than {plan.source}: captions or pictures differ, or this version "
            "reads them otherwise; name "
            "another folder (--to)"
        )


def _told(settings: LatentsSettings) -> dict[str, object]:
    """Say settings by the options that name them."""
    own = settings.autoencoder
    return {
        "--resolution": "x".join(map(str, settings.size)),
        "--dtype": settings.dtype,
        "--posterior": settings.has_std,
        "--flip": settings.has_flip,
        "--device": settings.device,
        "pictures of a shard": settings.per_shard,
        "an autoencoder of digest": own.digest,
        "a mean of": own.mean,
        "a spread of": own.std,
    }


def prepare(
    plan: Plan, open_space: Opener, *, processes: int = 1, draw: Drawer | None = None
) -> Generator[Progress, None, Latents]:
    """Encode what is not encoded yet, and finish the folder. Its lock must be held.

    Args:
        plan: What, how, and where to.
        open_space: Opens the latent space; with several processes each calls it, so it must be picklable.
        processes: How many work at once.
        draw: Makes a sheet, if it will, of some of the pictures and what the space makes of them, of which the PSNR is
            stored too; None: nothing is decoded.

    Yields:
        Progress at first and after every shard.

    Returns:
        What the folder says of itself.

    Raises:
        DataError: No picture is whole, the space has no spread that shall be stored, or a file cannot be written.
        UnreadableFile: The file system fails to give a picture.
        SpaceError: The space cannot be had, or holds no pictures of this size.
    """
    plan.to.mkdir(parents=True, exist_ok=True)
    for file in plan.to.glob(beside(plan.to / "*", PARTIAL).name):
        file.unlink()
    shards = _standing(plan)
    total, names = len(plan.files), plan.shards
    first = done = sum(len(names[number]) for number in shards)
    yield Progress(done, total, 0)
    left = [number for number in range(len(names)) if number not in shards]
    if left:
        _begin(plan, shards)
    for number, shard in _encoded(plan, open_space, left, processes):
        with _writing(plan.to):
            append_row(plan.to / UNFINISHED_FILE, {"shard": number, "facts": shard.model_dump()})
        shards[number] = shard
        done += len(names[number])
        yield Progress(done, total, done - first)
    return _finish(plan, open_space, [shards[number] for number in range(len(names))], draw)


def _standing(plan: Plan) -> dict[int, Shard]:
    """Return the shards that stand whole."""
    held = held_settings(plan.to)
    found: dict[int, Shard] = {}
    for number, shard in {} if held is None else held.shards.items():
        try:
            check_file(plan.to / shard_name(number), shard)
        except DataError:
            continue
        found[number] = shard
    return {number: found[number] for number in sorted(found) if 0 <= number < len(plan.shards)}


def _begin(plan: Plan, standing: Mapping[int, Shard]) -> None:
    """Write down what is begun; a folder that was finished is so no longer."""
    rows: list[object] = [{"settings": plan.settings.model_dump(mode="json"), "plan": plan.digest}]
    rows += [{"shard": number, "facts": shard.model_dump()} for number, shard in standing.items()]
    with _writing(plan.to):
        write_whole(plan.to / UNFINISHED_FILE, "".join(json.dumps(row) + "\n" for row in rows))
        (plan.to / LATENTS_FILE).unlink(missing_ok=True)


def _finish(plan: Plan, open_space: Opener, shards: Sequence[Shard], draw: Drawer | None) -> Latents:
    """Write the records, the autoencoder, a sheet and at last ``latents.json``, where they do not stand."""
    if (plan.to / LATENTS_FILE).is_file():
        latents = read_latents(plan.to)
        try:
            for name, facts in latents.files.items():
                check_file(plan.to / name, facts)
            (plan.to / UNFINISHED_FILE).unlink(missing_ok=True)
            return latents
        except DataError:
            _begin(plan, dict(enumerate(shards)))
    if not any(shard.count for shard in shards):
        first = next((reason for shard in shards for reason in shard.broken.values()), "")
        raise DataError(f"none of the {len(plan.files)} pictures of {plan.source} can be read; the first: {first}")
    space = open_space()
    with _writing(plan.to):
        write_whole(plan.to / RECORDS_FILE, "".join(json.dumps(row) + "\n" for row in _rows(plan, shards)))
        space.save(plan.to)
        psnr = None if draw is None else _shown(plan, space, shards, draw)
        names = [RECORDS_FILE, *(name for name in (*CARRIED_FILES, SHEET_FILE) if (plan.to / name).is_file())]
        source = hashlib.sha256("".join([plan.digest, *(shard.pixels for shard in shards)]).encode()).hexdigest()
        latents = Latents(
            space=space.name,
            settings=plan.settings,
            shape=space.shape(plan.settings.size),
            layout=plan.told.layout,
            quarantine=plan.told.quarantine,
            source=f"folder:{source}",
            plan=plan.digest,
            shards=tuple(shards),
            files={name: FileFacts.of((plan.to / name).read_bytes()) for name in names},
            psnr=psnr,
        )
        latents = latents.model_copy(update={"digest": latents.named()})
        write_whole(plan.to / LATENTS_FILE, latents.model_dump_json(indent=1) + "\n")
        (plan.to / UNFINISHED_FILE).unlink(missing_ok=True)
    for number in range(len(shards)):
        check_shard(plan.to, latents, number)
    return latents


def _shown(plan: Plan, space: LatentSpace, shards: Sequence[Shard], draw: Drawer) -> Psnr | None:
    """Measure what the space itself loses of pictures spread over all, and write the sheet; None where it cannot."""
    broken = {file for shard in shards for file in shard.broken}
    whole = [file for file in plan.files if file not in broken]
    chosen = [whole[place] for place in spread(len(whole), NUM_SHOWN)]
    try:
        found = reconstruct(space, (open_picture(plan.source / file, plan.settings.size) for file in chosen))
    except (SpaceError, BrokenPicture) as error:
        _log.warning("what the autoencoder loses is not measured: %s", error)
        return None
    if (sheet := draw(found)) is not None:
        write_whole(plan.to / SHEET_FILE, sheet)
    return Psnr.of([each.psnr for each in found])


def _rows(plan: Plan, shards: Sequence[Shard]) -> Iterator[dict[str, object]]:
    places: dict[str, Place] = {}
    for number, (files, shard) in enumerate(zip(plan.shards, shards, strict=True)):
        whole = [file for file in files if plain(file) not in shard.broken]
        places |= {file: Place(number, row) for row, file in enumerate(whole)}
    return (row_of_record(row, places.get(row.file)) for row in plan.told.rows)


def _encoded(plan: Plan, open_space: Opener, numbers: Sequence[int], processes: int) -> Iterator[tuple[int, Shard]]:
    """Encode shards, and yield each as it is done."""
    if not numbers:
        return
    if processes == 1:
        space = open_space()
        for number in numbers:
            yield number, _encode_shard(plan, space, number)
        return
    processes = min(processes, len(numbers))
    pool = ProcessPoolExecutor(
        processes, get_context("spawn"), initializer=_start, initargs=(plan, open_space, processes)
    )
    before = set(active_children())
    try:
        waited: dict[Future[Shard], int] = {pool.submit(_work, number): number for number in numbers}
        for future in as_completed(waited):
            yield waited[future], future.result()
    except BaseException as error:
        for child in set(active_children()) - before:
            child.terminate()  # what it has in hand is not waited for, and is made again
        if isinstance(error, BrokenProcessPool):
            raise DataError(
                "a process that encodes was ended, perhaps for want of memory; what is finished stays: the same "
                "command goes on, with fewer --processes if it must"
            ) from error
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class _Worker(NamedTuple):
    """What a process of several works with."""

    plan: Plan
    space: LatentSpace


_worker: list[_Worker] = []


def _start(plan: Plan, open_space: Opener, processes: int) -> None:
    """Make a process one of several: it shares the processors, leaves Ctrl-C to its parent, and ends with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(max(1, torch.get_num_threads() // processes))
    _worker[:] = [_Worker(plan, open_space())]


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _work(number: int) -> Shard:
    (worker,) = _worker
    return _encode_shard(worker.plan, worker.space, number)


def _encode_shard(plan: Plan, space: LatentSpace, number: int) -> Shard:
    """Encode the pictures of a shard and write it."""
    settings = plan.settings
    columns: dict[str, list[Tensor]] = {name: [] for name in settings.parts}
    broken: dict[str, str] = {}
    pixels = hashlib.sha256()
    for file in plan.shards[number]:
        try:
            picture = open_picture(plan.source / file, settings.size)
        except BrokenPicture as error:
            broken[plain(file)] = str(error)
            continue
        pixels.update(picture.data)
        for prefix, view in (("", WHOLE), ("flipped_", FLIPPED)):
            if f"{prefix}mean" in columns:
                moments = space.moments(seen(picture, view, settings.size))
                for name, value in _stored(moments, settings, prefix, plan.source / file).items():
                    columns[name].append(value)
    none = torch.empty((0, *space.shape(settings.size)), dtype=DTYPES[settings.dtype])
    data = save({name: torch.stack(values) if values else none for name, values in columns.items()})
    with _writing(plan.to):
        write_whole(plan.to / shard_name(number), data)
    facts = FileFacts.of(data)
    count = len(plan.shards[number]) - len(broken)
    return Shard(bytes=facts.bytes, sha256=facts.sha256, count=count, broken=broken, pixels=pixels.hexdigest())


def _stored(moments: Moments, settings: LatentsSettings, prefix: str, file: Path) -> dict[str, Tensor]:
    """Return what is stored of a picture's latent, by name.

    Raises:
        DataError: It has no spread and one shall be stored, or holds a number that the dtype does not.
    """
    parts = {"mean": moments.mean}
    if settings.has_std:
        if moments.std is None:
            raise DataError("this autoencoder knows no spread to store (--posterior); leave that out")
        parts["std"] = moments.std
    stored = {f"{prefix}{name}": value.cpu().to(DTYPES[settings.dtype]).contiguous() for name, value in parts.items()}
    if not all(bool(value.isfinite().all()) for value in stored.values()):
        raise DataError(f"{file}: its latent is not finite in {settings.dtype}; take --dtype fp32, or the picture away")
    return stored


def _named(file: Path) -> str:
    try:
        return sha256_of(file)
    except (OSError, ValueError):  # it is named when it is opened
        return ""


@contextmanager
def _writing(to: Path) -> Generator[None]:
    """Say what to do where a file cannot be written.

    Raises:
        DataError: It cannot.
    """
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{to} cannot be written to ({error.strerror or error}); what is finished stays: make room, and the same "
            "command goes on"
        ) from error
