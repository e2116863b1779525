"""What every record of the data holds, written down once; and what of it is another later.

    {"settings": "{...}"}                   a file of digests: the settings of the data, then a line for each record
    {"name": "a.png", "digest": "5d41..."}
    {"name": "b.png", "broken": "cannot be decoded"}

While it is made it is called ``FILE.part``, and the same command goes on with it.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from transfusion.autoencoder.pixels import PixelConfig
from transfusion.cli.output import check_folder
from transfusion.cli.progress import counting
from transfusion.cli.training import find_config
from transfusion.config import ConfigError
from transfusion.data.encode import IMAGE, EncodeConfig, Encoder
from transfusion.data.errors import BrokenPicture
from transfusion.data.loader import Source
from transfusion.data.settings import DataConfig, unaugmented
from transfusion.data.sources import open_reader
from transfusion.files import read_rows
from transfusion.segments import Document, Modality, Text
from transfusion.tokenizer import ByteTokenizer

CHUNK = 4095  # bytes of a piece of text; a picture counts as one
ROWS_AT_ONCE = 256  # of a file, between two writes
NUM_NAMED = 5
Digests = dict[str, str | None]  # of records by their names; None of those that are broken


class Verified(TypedDict):
    """What was read, and what of it is another than it was.

    Attributes:
        is_new: Whether there was nothing to compare with, and ``file`` was written.
        changed: Records that hold something else than they did.
        broken: Records that cannot be read any more.
        gone: Records that are not there any more.
        added: Records that were not there.
    """

    file: str
    is_new: bool
    records: int
    unreadable: int
    changed: list[str]
    broken: list[str]
    gone: list[str]
    added: list[str]


def is_alike(found: Verified) -> bool:
    """Return whether nothing is another than it was."""
    return not any((found["changed"], found["broken"], found["gone"], found["added"]))


def verify(name: str, overrides: Sequence[str], file: Path) -> Verified:
    """Read every record as a training of these settings would, pictures seen whole; write digests, or compare them.

    Args:
        name: Recipe, file of settings or folder of a run.
        overrides: Settings.
        file: The digests: compared with where it is there, else written.

    Raises:
        ConfigError: A setting is bad, the data have no end, or the file is none of digests, or of other settings.
        DataError: The data cannot be read.
    """
    config = find_config(name, overrides)
    data = unaugmented(config.data)
    settings = data.model_dump_json()
    check_folder(file)
    old = _read(file, settings) if file.exists() else None
    source = _opened(data, config.train.seed)
    part = file.with_name(f"{file.name}.part")
    new = _written(source, part, settings)
    unreadable = sum(digest is None for digest in new.values())
    if old is None:
        part.replace(file)
    else:
        part.unlink()
    before = new if old is None else old
    return Verified(
        file=str(file),
        is_new=old is None,
        records=len(new),
        unreadable=unreadable,
        changed=[name for name, digest in new.items() if digest is not None and before.get(name, digest) != digest],
        broken=[name for name, digest in new.items() if digest is None and before.get(name) is not None],
        gone=[name for name in before if name not in new],
        added=[name for name in new if name not in before],
    )


def told(found: Verified) -> str:
    """Say what was found."""
    lines = [f"read {found['records']:,} records, {found['unreadable']:,} of them broken"]
    if found["is_new"]:
        return "\n".join([*lines, f"wrote {found['file']}: the same command compares with it"])
    for what in ("changed", "broken", "gone", "added"):
        names = found[what]
        more = f" and {len(names) - NUM_NAMED} more" if len(names) > NUM_NAMED else ""
        lines += [f"{what}: {', '.join(names[:NUM_NAMED])}{more}"] if names else []
    return "\n".join(lines if len(lines) > 1 else [*lines, f"all as {found['file']} has it"])


def _opened(config: DataConfig, seed: int) -> Source:
    """Open the records, told by bytes and plain pixels: what is measured on the data or learnt from them changes with
    any of them.
    """
    plain = EncodeConfig(pixels=PixelConfig(), caption_dropout=0.0)
    encoder = Encoder(ByteTokenizer(), plain, seed, modality=Modality(IMAGE, 3, config.size))
    source = open_reader(config, seed).source(encoder, CHUNK)
    if source.size is None:
        raise ConfigError("the data have no end, and no records of their own: there is nothing to verify")
    return source


def _written(source: Source, part: Path, settings: str) -> Digests:
    """Read what is not read yet, and write it down as it comes."""
    found = _begun(part, settings)
    assert source.size is not None, "data without an end are refused before"
    names = _names(source, source.size)
    if list(found) != names[: len(found)]:
        found = {}  # other records than those that were read
    if not found:
        part.write_text(json.dumps({"settings": settings}) + "\n")
    with part.open("a") as stream, counting("reading", source.size) as advance:
        for index in range(len(found), source.size):
            row = {"name": names[index], **_digest(source, index)}
            found[names[index]] = row.get("digest")
            stream.write(json.dumps(row) + "\n")
            if index % ROWS_AT_ONCE == 0:
                stream.flush()
                advance(index)
    return found


def _names(source: Source, size: int) -> list[str]:
    """Name every record; those that are called alike get numbers."""
    counts, names = Counter[str](), list[str]()
    for index in range(size):
        name = source.name(index)
        counts[name] += 1
        names.append(name if counts[name] == 1 else f"{name} ({counts[name]})")
    return names


def _begun(part: Path, settings: str) -> Digests:
    """Read what was read before; nothing where that was of other settings."""
    if part.exists():  # a row that was cut is read again
        os.truncate(part, part.read_bytes().rfind(b"\n") + 1)
    rows = read_rows(part)
    if not rows or rows[0].get("settings") != settings:
        return {}
    return _digests(rows[1:])


def _digests(rows: Sequence[Mapping[str, object]]) -> Digests:
    return {str(row["name"]): str(row["digest"]) if "digest" in row else None for row in rows if "name" in row}


def _read(file: Path, settings: str) -> Digests:
    """Read a file of digests.

    Raises:
        ConfigError: It is none, or of other settings.
    """
    rows = read_rows(file)
    if not rows or "settings" not in rows[0]:
        raise ConfigError(f"--to {file} is there and holds no digests; name another file")
    if rows[0]["settings"] != settings:
        raise ConfigError(
            f"--to {file} holds digests of data read by {rows[0]['settings']}, and asked for is {settings}: what "
            "records hold follows from the settings; give the same, or name another file"
        )
    return _digests(rows[1:])


def _digest(source: Source, index: int) -> dict[str, str]:
    try:
        return {"digest": hashlib.sha256(b"".join(_parts(source.document(index, 0)))).hexdigest()}
    except BrokenPicture as error:
        return {"broken": str(error)}


def _parts(document: Document) -> Iterator[bytes]:
    """Yield all that a document holds, each part with its kind and length."""
    for segment in document.segments:
        if isinstance(segment, Text):
            yield f"text {segment.is_target} {segment.tokens}".encode()
        else:
            values = segment.values.float().contiguous()
            yield f"{segment.modality} {segment.is_target} {tuple(values.shape)}".encode() + values.numpy().tobytes()
