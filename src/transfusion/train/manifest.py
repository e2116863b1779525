"""What a checkpoint's folder holds, and the manifest that proves it whole: names, sizes and SHA-256.

It must not know how a folder is put in its place, nor runs.
"""

import json
from collections.abc import Collection, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError

from transfusion.autoencoder.space import CARRIED_FILES
from transfusion.config import CONFIG_FILE
from transfusion.files import sha256_of, sync
from transfusion.tokenizer import TOKENIZER_FILE

MANIFEST = "manifest.json"
MODEL_FILE = "model.safetensors"
EMA_FILE = "ema.safetensors"
OPTIMIZER_FILE = "optimizer.safetensors"
STATE_FILE = "state.json"
DISCRIMINATOR_FILE = "discriminator.safetensors"
RESUMED_FILES = frozenset({OPTIMIZER_FILE, STATE_FILE})
OWN_FILES = frozenset(
    {MODEL_FILE, EMA_FILE, OPTIMIZER_FILE, STATE_FILE, CONFIG_FILE, TOKENIZER_FILE, DISCRIMINATOR_FILE, *CARRIED_FILES}
)
DAMAGE = (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError, SafetensorError)


class CheckpointError(Exception):
    """A checkpoint is missing, incomplete or damaged; the message says which file and why."""


def seal(folder: Path) -> None:
    """Write the manifest of a folder and bring all of it to the disk."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    manifest = {path.name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)} for path in files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))
    for path in (*files, folder / MANIFEST, folder):
        sync(path)


class FileFacts(NamedTuple):
    """What a manifest says of a file."""

    bytes: int
    sha256: str


def read_manifest(directory: Path) -> dict[str, FileFacts]:
    """Read a manifest.

    Raises:
        CheckpointError: It is missing, or is not what ``publish`` wrote.
    """
    file = directory / MANIFEST
    with reading(file):
        if not file.exists():
            raise CheckpointError(f"{directory} has no {MANIFEST}: it is no checkpoint, or was not written whole")
        try:
            rows = json.loads(file.read_bytes().decode())
        except json.JSONDecodeError as error:
            raise CheckpointError(f"{file} is not JSON: {error}") from error
    if not isinstance(rows, dict) or not rows:
        raise CheckpointError(f"{file} holds no object of file names; the file is damaged")
    for name, facts in rows.items():
        if not name or name in (".", "..") or any(character in name for character in "/\\\0"):
            raise CheckpointError(f"{file} names {name!r}, which is no plain file name; the file is damaged")
        if not isinstance(facts, dict) or facts.keys() != {"bytes", "sha256"}:
            raise CheckpointError(f"{file} does not give bytes and sha256 of {name}; the file is damaged")
        if type(facts["bytes"]) is not int or not isinstance(facts["sha256"], str):
            told = f"{facts['bytes']!s:.40} bytes and sha256 {facts['sha256']!r:.40}"
            raise CheckpointError(f"{directory / name}: its manifest says {told}; {file} is damaged")
    return {name: FileFacts(facts["bytes"], facts["sha256"]) for name, facts in rows.items()}


def verify(directory: Path, *, hashed: Collection[str] | None = None, unneeded: Collection[str] = ()) -> None:
    """Check every file of a checkpoint against its manifest.

    Args:
        directory: The checkpoint.
        hashed: Files of which the content is checked; of the others existence and size. None: of all.
        unneeded: Files that may be gone or damaged.

    Raises:
        CheckpointError: The manifest or a file is missing, damaged or unreadable, or differs in size or content.
    """
    with reading(directory):
        for name, expected in read_manifest(directory).items():
            if name in unneeded:
                continue
            file = directory / name
            if not file.is_file():
                raise CheckpointError(f"{directory} lacks {name}, which its manifest names")
            if file.stat().st_size != expected.bytes:
                raise CheckpointError(f"{file} has {file.stat().st_size} bytes; its manifest says {expected.bytes}")
            if (hashed is None or name in hashed) and sha256_of(file) != expected.sha256:
                raise CheckpointError(f"{file} differs from its manifest's SHA-256; the file is damaged")


@contextmanager
def reading(file: Path) -> Generator[None]:
    """Make one kind of all that reading a file of a checkpoint may raise.

    Raises:
        CheckpointError: The file cannot be read, or does not hold what it should.
    """
    try:
        yield
    except DAMAGE as error:
        raise CheckpointError(f"{file} cannot be used: {error or type(error).__name__}") from error
