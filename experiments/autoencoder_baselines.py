"""What linear and nearest-block codes lose of photographs: the floor that a trained autoencoder is held against.

    python experiments/autoencoder_baselines.py DATA [--side 128] [--block 8] [--values 8] [--centres 1024]

DATA is a folder of pictures, or of tar shards with KEY.jpg and KEY.json {"split": ...}. Prints the PSNR of pictures
held out, as 8 bits show them, of PCA of their blocks with so many values, and of k-means of the blocks with
so many centres, fitted on the others. Needs numpy and Pillow alone.
"""

import argparse
import io
import json
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float32]
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
SHARE = 0.1  # held out of a folder that marks no splits
NUM_ROUNDS = 12


class Photo(NamedTuple):
    """A picture (side, side, 3) uint8, and whether it is held out."""

    picture: NDArray[np.uint8]
    is_held_out: bool


def photos(data: Path, side: int) -> Iterator[Photo]:
    """Read all pictures of a folder or of its tar shards, in order of their names."""
    shards = sorted(data.glob("*.tar"))
    for shard in shards:
        with tarfile.open(shard) as archive:
            files = {member.name: archive.extractfile(member) for member in archive.getmembers() if member.isfile()}
            read = {name: stream.read() for name, stream in files.items() if stream is not None}
        for name in sorted(read):
            if Path(name).suffix in SUFFIXES:
                told = json.loads(read.get(str(Path(name).with_suffix(".json")), b"{}"))
                yield Photo(decoded(io.BytesIO(read[name]), side), is_held_out(name, told.get("split")))
    for file in [] if shards else sorted(path for path in data.rglob("*") if path.suffix.lower() in SUFFIXES):
        yield Photo(decoded(file, side), is_held_out(file.name, None))


def is_held_out(name: str, split: str | None) -> bool:
    """Take the split that the data mark, or a stable hash of the name."""
    return split != "train" if split else zlib.crc32(name.encode()) / 2**32 < SHARE


def decoded(source: Path | io.BytesIO, side: int) -> NDArray[np.uint8]:
    """Decode a picture, its centre square brought to a side."""
    picture = Image.open(source).convert("RGB")
    short = min(picture.size)
    left, top = (picture.width - short) // 2, (picture.height - short) // 2
    square = picture.crop((left, top, left + short, top + short))
    return np.asarray(square if short == side else square.resize((side, side), Image.Resampling.LANCZOS))


def blocks(pictures: NDArray[np.uint8], block: int) -> Floats:
    """Cut pictures (N, side, side, 3) into rows of blocks, (N * places, block * block * 3) in [0, 255]."""
    count, side = pictures.shape[:2]
    cut = pictures.reshape(count, side // block, block, side // block, block, 3).transpose(0, 1, 3, 2, 4, 5)
    return cut.reshape(-1, block * block * 3).astype(np.float32)


def psnr(made: Floats, real: Floats, count: int) -> dict[str, float]:
    """Return the PSNR in dB of rows of blocks of ``count`` pictures: the mean of each one's, and of the mean error."""
    error = np.square(made.round().clip(0, 255) - real).reshape(count, -1).mean(1)
    each = 10 * np.log10(255**2 / np.maximum(error, 1e-9))
    return {"of each": round(float(each.mean()), 2), "of all": round(float(10 * np.log10(255**2 / error.mean())), 2)}


def nearest(rows: Floats, centres: Floats) -> NDArray[np.int64]:
    """Return the number of the nearest centre of each row."""
    norms = np.square(centres).sum(1) / 2
    parts = np.array_split(rows, max(1, len(rows) // 8192))
    return np.concatenate([(norms - part @ centres.T).argmin(1) for part in parts])


def fit_centres(rows: Floats, count: int, rng: np.random.Generator) -> Floats:
    """Fit k-means by Lloyd's rounds from a draw of rows; a centre without any is drawn anew."""
    centres = rows[rng.choice(len(rows), count, replace=False)]
    for _ in range(NUM_ROUNDS):
        found = nearest(rows, centres)
        sizes = np.bincount(found, minlength=count)
        order = np.argsort(found, kind="stable")
        begins = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        used = sizes > 0
        centres[used] = np.add.reduceat(rows[order], begins[used]) / sizes[used, None]
        centres[~used] = rows[rng.choice(len(rows), int((~used).sum()))]
    return centres


def main() -> None:
    """Measure and print both as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    for name, value in (("side", 128), ("block", 8), ("values", 8), ("centres", 1024), ("most", 200_000)):
        parser.add_argument(f"--{name}", type=int, default=value, help="rows to fit on" if name == "most" else None)
    asked = parser.parse_args()
    read = list(photos(asked.data, asked.side))
    training = np.stack([photo.picture for photo in read if not photo.is_held_out])
    held_out = np.stack([photo.picture for photo in read if photo.is_held_out])
    rng = np.random.default_rng(0)
    rows, real = blocks(training, asked.block), blocks(held_out, asked.block)
    rows = rows[rng.choice(len(rows), min(asked.most, len(rows)), replace=False)]
    mean = rows.mean(0)
    axes = np.linalg.eigh(np.cov((rows - mean).T))[1][:, -asked.values :].astype(np.float32)
    projected = (real - mean) @ axes @ axes.T + mean
    centres = fit_centres(rows, asked.centres, rng)
    found = nearest(real, centres)
    told = {
        "pictures": [len(training), len(held_out)],
        f"PCA of {asked.values} values, dB": psnr(projected, real, len(held_out)),
        f"k-means of {asked.centres} centres, dB": psnr(centres[found], real, len(held_out)),
        "centres in use": round(len(np.unique(found)) / asked.centres, 3),
    }
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
