"""Pictures with class labels in idx files, as MNIST and Fashion-MNIST come; compressed by gzip or not.

    train-images-idx3-ubyte.gz    pictures, grey: 28 x 28 bytes each
    train-labels-idx1-ubyte.gz    a number each
    t10k-images-idx3-ubyte.gz     "t10k" or "test" in the name is the split test; folders train/, test/ are, too
    t10k-labels-idx1-ubyte.gz
    labels.txt                    names of the classes, a line each, which are the captions; or classes.txt; in the
                                  folder of the pictures or in that which is named

Without names the captions are the numbers. A file that is not compressed is mapped, one that is stands in memory:
47 MB for the 60,000 of MNIST.
"""

import gzip
import hashlib
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from transfusion.data.captions import utf8
from transfusion.data.decode import Pixels
from transfusion.data.errors import DataError
from transfusion.data.found import Found, listed
from transfusion.data.records.places import Place, find_files, splits_named
from transfusion.data.records.record import Captioned
from transfusion.data.records.tally import Marks, mark_of

IMAGES = re.compile(r".*?[-._]?images?[-._]idx3[-._]ubyte(\.gz)?", re.IGNORECASE)
NAMES_FILES = ("labels.txt", "classes.txt")
UNSIGNED = b"\0\0\x08"  # how an idx file of bytes begins; behind it stands the number of its dimensions
GZ = ".gz"


class _Set(NamedTuple):
    """Pictures of one file, (count, H, W) uint8, and their labels, (count,) uint8."""

    name: str
    split: str | None
    pictures: NDArray[np.uint8]
    labels: NDArray[np.uint8]


def is_images(name: str) -> bool:
    """Return whether a file is called as the pictures of a set are."""
    return IMAGES.fullmatch(name) is not None


class IdxFiles:
    """The pictures of idx files."""

    kind = Captioned
    quarantine: dict[str, str] = {}

    def __init__(self, path: Path, *, is_named: bool = False) -> None:
        """Read the files.

        Args:
            path: A folder of them, or the file of pictures.
            is_named: See ``find_files``.

        Raises:
            DataError: There are none, or one is no such file; names it.
        """
        places = find_files(path, is_images, is_named=is_named)
        whole = {place.name for place in places}
        found = [place for place in places if place.name.removesuffix(GZ) not in whole - {place.name}]
        if not found:
            raise DataError(f"{path} holds no idx files of pictures; expected files such as train-images-idx3-ubyte.gz")
        if not path.is_dir():  # a set is one by its file's name, also where that alone is named
            found = [place._replace(split=splits_named([place.name]).get(place.name)) for place in found]
        self._sets = [_read_set(place) for place in found]
        self._ends = np.cumsum([len(each.labels) for each in self._sets])
        self._names = _class_names(
            _folder_of_names(found[0].file.parent, path), max(int(each.labels.max()) for each in self._sets)
        )
        self.splits: Sequence[str | None] = [each.split for each in self._sets for _ in range(len(each.labels))]
        marks = [mark_of(picture.data) for each in self._sets for picture in each.pictures]
        self.groups: Sequence[str] = Marks(np.array(marks, dtype=np.uint64))
        self.own = self.groups
        told = f"the captions are {listed([repr(name) for name in self._names])}"
        count = len(self.splits)
        self.found = Found(str(path), "idx", pictures=count, captions=count, noted=told)

    def __getitem__(self, index: int) -> Captioned:
        """Return a captioned picture."""
        number = int(np.searchsorted(self._ends, index, side="right"))
        held = self._sets[number]
        place = index - int(self._ends[number]) + len(held.labels)
        name = f"{held.name}:{place}"
        return Captioned(name, self._names[int(held.labels[place])], Pixels(held.pictures[place], name))

    def digest(self) -> str:
        """Name pictures, labels and names."""
        digest = hashlib.sha256("\n".join(self._names).encode())
        for each in self._sets:
            digest.update(f"{each.name} {each.pictures.shape}".encode())
            digest.update(np.ascontiguousarray(each.pictures).data)
            digest.update(np.ascontiguousarray(each.labels).data)
        return f"idx:{digest.hexdigest()}"


def _read_set(place: Place) -> _Set:
    """Read pictures and the labels beside them."""
    file = place.file
    beside = re.sub("idx3", "idx1", re.sub("image(s?)", r"label\1", file.name))
    other = beside.removesuffix(GZ) if beside.endswith(GZ) else beside + GZ
    labels = next((file.parent / name for name in (beside, other) if (file.parent / name).is_file()), None)
    if labels is None:
        raise DataError(f"{file.parent / beside}: there is no such file of labels, and {file.name} needs one")
    pictures, numbers = read_idx(file, 3), read_idx(labels, 1)
    if len(pictures) != len(numbers) or not pictures.size:
        raise DataError(f"{file} holds {len(pictures)} pictures and {labels} {len(numbers)} labels; expected one each")
    return _Set(place.name.removesuffix(GZ), place.split, pictures, numbers)


def read_idx(file: Path, num_dimensions: int) -> NDArray[np.uint8]:
    """Read a file of bytes in idx, compressed by gzip or not.

    Args:
        file: The file; its ending says nothing of whether it is compressed.
        num_dimensions: 3 of pictures, 1 of labels.

    Returns:
        uint8 of the shape that the file names; mapped where it is not compressed.

    Raises:
        DataError: It is no such file, damaged, or not of the length that it names.
    """
    with file.open("rb") as stream:
        is_compressed = stream.read(2) == b"\x1f\x8b"
    try:
        values = np.frombuffer(gzip.decompress(file.read_bytes()), np.uint8) if is_compressed else _mapped(file)
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{file}: gzip cannot read it ({error}); it is damaged or cut short: copy it again") from error
    head = values[:4].tobytes()
    expected = UNSIGNED + bytes([num_dimensions])
    begin = 4 + 4 * num_dimensions
    if head != expected or len(values) < begin:
        raise DataError(
            f"{file} begins with {head.hex(' ') or 'nothing'}; expected {expected.hex(' ')}: idx, unsigned bytes in "
            f"{num_dimensions} dimension{'s' if num_dimensions > 1 else ''}"
        )
    shape = tuple(int(size) for size in np.frombuffer(values[4:begin].tobytes(), ">u4"))
    size = int(np.prod(shape, dtype=object))
    if len(values) - begin != size:
        told = " x ".join(map(str, shape))
        raise DataError(f"{file} says that it holds {told} bytes, and has {len(values) - begin}; copy it again")
    return values[begin:].reshape(shape)


def _mapped(file: Path) -> NDArray[np.uint8]:
    """Map a file; an empty one cannot be."""
    return np.memmap(file, np.uint8, mode="r") if file.stat().st_size else np.zeros(0, np.uint8)


def _folder_of_names(folder: Path, path: Path) -> Path:
    """Return the folder that has the names of the classes: that of the pictures, or the one that is named."""
    return next((each for each in (folder, path) if any((each / name).is_file() for name in NAMES_FILES)), folder)


def _class_names(folder: Path, largest: int) -> list[str]:
    """Return what the classes are called.

    Raises:
        DataError: Fewer are named than there are, or there are two files of names.
    """
    files = [folder / name for name in NAMES_FILES if (folder / name).is_file()]
    if not files:
        return [str(number) for number in range(largest + 1)]
    if len(files) > 1:
        raise DataError(f"{folder} holds both {' and '.join(NAMES_FILES)}; take one of them away")
    names = [line.strip() for line in utf8(files[0]).rstrip().splitlines()]
    if len(names) <= largest or not all(names):
        raise DataError(
            f"{files[0]} names {len(names)} classes, a line each; expected {largest + 1}, none of them blank"
        )
    return names
