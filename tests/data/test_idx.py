"""Files of MNIST: pictures and labels by number, compressed or not; damage is named."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from transfusion.data.decode import open_picture
from transfusion.data.errors import DataError
from transfusion.data.records.idx import IdxFiles, read_idx
from transfusion.data.sources import FolderConfig, open_reader

DATA = next(
    (up / "shared" / "data" for up in Path(__file__).parents if (up / "shared" / "data").is_dir()), Path("data")
)
FASHION = DATA / "fashion"
GZ = ".gz"
NAMES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]


def idx(values: NDArray[np.uint8]) -> bytes:
    """Write bytes as idx."""
    shape = np.array(values.shape, ">u4").tobytes()
    return b"\0\0\x08" + bytes([values.ndim]) + shape + values.tobytes()


def write(folder: Path, name: str, count: int, *, ending: str = "", seed: int = 0) -> NDArray[np.uint8]:
    """Write random pictures and their labels, the number modulo 3."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = np.random.default_rng(seed).integers(0, 256, (count, 10, 12), np.uint8)
    labels = np.arange(count, dtype=np.uint8) % 3
    for kind, values in (("images-idx3", pictures), ("labels-idx1", labels)):
        data = gzip.compress(idx(values)) if ending else idx(values)
        (folder / f"{name}{kind}-ubyte{ending}").write_bytes(data)
    return pictures


@pytest.mark.parametrize("ending", ["", GZ])
def test_pictures_and_labels_are_read_by_number(tmp_path: Path, ending: str) -> None:
    test = write(tmp_path, "t10k-", 4, ending=ending, seed=1)
    train = write(tmp_path, "train-", 5, ending=ending)
    (tmp_path / "labels.txt").write_text("cat\npolar bear\nT-shirt/top\n")
    data = IdxFiles(tmp_path)
    assert list(data.splits) == ["test"] * 4 + ["train"] * 5
    found, trained = [data[index] for index in range(9)], ["cat", "polar bear", "T-shirt/top", "cat", "polar bear"]
    assert [record.text for record in found] == ["cat", "polar bear", "T-shirt/top", "cat", *trained]
    assert [found[place].name for place in (0, 4, 8)] == [
        "t10k-images-idx3-ubyte:0",
        "train-images-idx3-ubyte:0",
        "train-images-idx3-ubyte:4",
    ]
    for record, values in zip(found, [*test, *train], strict=True):
        np.testing.assert_array_equal(open_picture(record.picture, (10, 12)), np.repeat(values[..., None], 3, axis=2))
    reader = open_reader(FolderConfig(path=tmp_path, resolution=16))
    assert list(reader.texts()) == trained
    assert reader.held_out is not None


def test_without_names_the_captions_are_numbers(tmp_path: Path) -> None:
    write(tmp_path / "mnist" / "raw", "", 4)
    reader = open_reader(FolderConfig(path=tmp_path, resolution=16))  # looked into
    assert list(reader.texts()) == ["0", "1", "2", "0"]
    line = IdxFiles(tmp_path).found.line()
    assert "layout idx" in line and "the captions are '0', '1', '2'" in line


def test_one_file_may_be_named_and_one_that_lies_twice_is_read_once(tmp_path: Path) -> None:
    write(tmp_path, "train-", 4)
    write(tmp_path, "train-", 4, ending=GZ)
    write(tmp_path, "t10k-", 3)
    assert len(IdxFiles(tmp_path).splits) == 7
    assert list(IdxFiles(tmp_path / "t10k-images-idx3-ubyte").splits) == ["test"] * 3


def test_folders_of_splits_are_these_and_each_is_read(tmp_path: Path) -> None:
    for split, count, ending in (("train", 4, ""), ("test", 3, GZ)):
        write(tmp_path / split, "", count, ending=ending)
    (tmp_path / "labels.txt").write_text("a\nb\nc\n")
    data = IdxFiles(tmp_path)
    assert list(data.splits) == ["test"] * 3 + ["train"] * 4
    assert len({data[index].name for index in range(7)}) == 7 and data[0].text == "a"


def test_alike_pictures_are_of_one_group_and_changes_move_the_digest(tmp_path: Path) -> None:
    write(tmp_path, "train-", 4)
    first = IdxFiles(tmp_path).digest()
    file = tmp_path / "train-images-idx3-ubyte"
    data = bytearray(file.read_bytes())
    data[16 + 120 : 16 + 240] = data[16 : 16 + 120]
    file.write_bytes(data)
    second = IdxFiles(tmp_path)
    assert second.groups[0] == second.groups[1] != second.groups[2] and first != second.digest()
    (tmp_path / "classes.txt").write_text("a\nb\nc\n")
    assert IdxFiles(tmp_path).digest() != second.digest()


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("images-idx3-ubyte", lambda data: b"", "begins with nothing; expected 00 00 08 03"),
        ("images-idx3-ubyte", lambda data: data[:9], "begins with 00 00 08 03; expected|is cut short"),
        ("images-idx3-ubyte", lambda data: b"\0\0\x0d\x03" + data[4:], "begins with 00 00 0d 03"),
        ("images-idx3-ubyte", lambda data: data[:-1], "says that it holds 4 x 10 x 12 bytes, and has 479"),
        ("images-idx3-ubyte", lambda data: data + b"1", "and has 481"),
        ("images-idx3-ubyte", lambda data: gzip.compress(data)[:-20], "gzip cannot read it"),
        ("images-idx3-ubyte", lambda data: data[:4] + b"\xff" * 12 + data[16:], "says that it holds 4294967295 x"),
        ("labels-idx1-ubyte", lambda data: idx(np.zeros(3, np.uint8)), "4 pictures and .* 3 labels"),
        ("labels-idx1-ubyte", lambda data: idx(np.zeros((4, 1), np.uint8)), "expected 00 00 08 01"),
        ("labels-idx1-ubyte", None, "there is no such file of labels"),
        ("labels.txt", lambda data: b"a\nb\n", "labels.txt names 2 classes, a line each; expected 3"),
        ("labels.txt", lambda data: b"a\n\nb\n", "none of them blank"),
        ("classes.txt", lambda data: b"a\nb\nc\n", "holds both labels.txt and classes.txt"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, name: str, change: object, message: str) -> None:
    write(tmp_path, "", 4)
    (tmp_path / "labels.txt").write_text("a\nb\nc\n")
    file = tmp_path / name
    data = file.read_bytes() if file.is_file() else b""
    file.unlink(missing_ok=True)
    if callable(change):
        file.write_bytes(change(data))
    with pytest.raises(DataError, match=message):
        IdxFiles(tmp_path)


def test_bits_that_flip_in_what_is_compressed_are_noticed(tmp_path: Path) -> None:
    whole, rng = gzip.compress(idx(np.arange(250, dtype=np.uint8))), np.random.default_rng(0)
    expected = np.arange(250, dtype=np.uint8)
    for place in rng.integers(0, len(whole), 200).tolist():
        data = bytearray(whole)
        data[place] ^= 1 << int(rng.integers(8))
        (tmp_path / "a").write_bytes(data)
        try:
            np.testing.assert_array_equal(read_idx(tmp_path / "a", 1), expected)  # of gzip's own header no one asks
        except DataError:
            continue


@pytest.mark.skipif(not FASHION.is_dir(), reason="needs Fashion-MNIST in shared/data")
def test_fashion(tmp_path: Path) -> None:
    for file in FASHION.glob("t10k-*"):
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "labels.txt").write_text("\n".join(NAMES))
    data = IdxFiles(tmp_path)
    assert len(data.splits) == 10_000 and set(data.splits) == {"test"}
    assert (data[0].text, data[1].text) == ("Ankle boot", "Pullover")
    assert open_picture(data[0].picture, 28).any() and not data.quarantine
