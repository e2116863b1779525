"""Tars of captioned pictures: members by key, by place; captions of every kind; damage is named and never decoded."""

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from transfusion.data.decode import Slice, open_picture
from transfusion.data.errors import DataError
from transfusion.data.records.detect import format_of
from transfusion.data.records.record import Captioned
from transfusion.data.records.shards import Shards
from transfusion.data.records.tally import mark_of_picture
from transfusion.data.records.tar import Member, members
from transfusion.data.sources import FolderConfig, open_reader

DATA = next(
    (up / "shared" / "data" for up in Path(__file__).parents if (up / "shared" / "data").is_dir()), Path("data")
)
PHOTOS = DATA / "photos" / "caltech101"
Members = Sequence[tuple[str, bytes]]


def png(number: int, ending: str = "PNG") -> bytes:
    """Make a picture of one colour."""
    stream = io.BytesIO()
    Image.new("RGB", (20, 20), (number * 7 % 256, number * 13 % 256, 90)).save(stream, ending)
    return stream.getvalue()


def write_tar(file: Path, held: Members, style: int = tarfile.PAX_FORMAT) -> Path:
    """Write a tar of members in order."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w", format=style) as stream:
        for name, data in held:
            told = tarfile.TarInfo(name)
            told.size = len(data)
            stream.addfile(told, io.BytesIO(data))
    return file


def pets(numbers: Sequence[int], split: str | None = None) -> list[tuple[str, bytes]]:
    """Make members of captioned pictures."""
    held: list[tuple[str, bytes]] = []
    for number in numbers:
        held += [(f"{number:04}.png", png(number)), (f"{number:04}.txt", f"pet {number}".encode())]
        held += [(f"{number:04}.json", json.dumps({"split": split}).encode())] if split else []
    return held


def records(path: Path) -> list[Captioned]:
    """Return all records."""
    shards = Shards(path)
    return [shards[index] for index in range(len(shards.splits))]


def told(path: Path) -> list[str]:
    """Return all captions."""
    return [record.text for record in records(path)]


def test_members_of_a_key_are_a_record_wherever_they_stand(tmp_path: Path) -> None:
    held = [
        ("a/1.2.png", png(1)),  # the key ends at the first dot of the last part
        ("a/1.txt", b"one\n of these "),
        ("b/1.caption", b"two"),
        ("b/1.JPG", png(2, "JPEG")),
        ("readme", b"x"),
        (".DS_Store", b"x"),
        ("c.d/1.json", b'{"text": "three", "width": 3}'),
        ("2.txt", b"no picture"),
        ("3.png", png(4)),  # no caption
        ("c.d/1.webp", png(3, "WEBP")),
    ]
    write_tar(tmp_path / "pets-0.tar", held)
    found = records(tmp_path)
    assert [(record.name, record.text) for record in found] == [
        ("pets-0.tar/a/1.2.png", "one of these"),
        ("pets-0.tar/b/1.JPG", "two"),
        ("pets-0.tar/c.d/1.webp", "three"),
    ]
    for number, record in enumerate(found, start=1):
        expected = np.array([number * 7, number * 13, 90])
        assert abs(open_picture(record.picture, 8).astype(int) - expected).max() <= 4  # JPEG and WebP
    line = Shards(tmp_path).found.line()
    assert "4 pictures, 3 captions" in line and "1 picture without a caption" in line
    assert "2 members of no record" in line and "1 member without a picture" in line


@pytest.mark.parametrize("side", [96, 200])
def test_pictures_of_one_border_are_several(tmp_path: Path, side: int) -> None:
    """Their first and last bytes are alike where they are not compressed."""
    rng, held = np.random.default_rng(0), list[tuple[str, bytes]]()
    for number in range(20):
        pixels, stream = np.full((side, side, 3), 255, np.uint8), io.BytesIO()
        pixels[20:-20, 20:-20] = rng.integers(0, 255, (side - 40, side - 40, 3))
        Image.fromarray(pixels).save(stream, "BMP")
        held += [(f"{number}.bmp", stream.getvalue()), (f"{number}.txt", b"one"), (f"{number}.json", b"{}")]
    groups = Shards(write_tar(tmp_path / "a.tar", [*held, ("copy.bmp", held[0][1]), ("copy.txt", b"two")])).groups
    assert len({*groups}) == 20 and groups[0] == groups[20]
    small = [mark_of_picture(memoryview(bytes(place) + b"1" + bytes(9999 - place))) for place in range(0, 10_000, 97)]
    assert len({*small}) == len(small)  # of few bytes, each counts


def test_captions_in_a_list_are_a_record_each(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"caption": ["one", "two"]}, {"captions": ["three"], "split": "Val"}]
    held = [(f"{i}.{end}", data) for i, row in enumerate(rows) for end, data in row_members(i, row)]
    shards = Shards(write_tar(tmp_path / "a.tar", held))
    found = [shards[index] for index in range(3)]
    assert [record.text for record in found] == ["one", "two", "three"]
    assert len({record.name for record in found}) == 3 and found[0].picture == found[1].picture
    assert list(shards.splits) == [None, None, "val"] and shards.groups[0] == shards.groups[1] != shards.groups[2]


def row_members(number: int, row: Mapping[str, object]) -> list[tuple[str, bytes]]:
    """Make the members of a key, by endings."""
    return [("json", json.dumps(row).encode()), ("png", png(number))]


def test_a_picture_is_told_by_its_content_where_its_ending_is_none(tmp_path: Path) -> None:
    held = [("1.img", png(1)), ("1.txt", b"one"), ("1.cls", b"3"), ("2.bin", b"\0\1"), ("2.txt", b"two")]
    assert told(write_tar(tmp_path / "a.tar", held)) == ["one"]


@pytest.mark.parametrize("style", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_of_every_style_of_tar(tmp_path: Path, style: int) -> None:
    long = "b" * 60 + "/" + ("c" * 90 if style == tarfile.USTAR_FORMAT else "ü" * 150)
    held = [(f"{name}.{end}", data) for name in ("a", long) for end, data in (("png", png(1)), ("txt", b"one"))]
    file = write_tar(tmp_path / "a.tar", held, style)
    with tarfile.open(file, "a", format=style) as stream:
        folder, link = tarfile.TarInfo("folder"), tarfile.TarInfo("c.png")
        folder.type, link.type, link.linkname = tarfile.DIRTYPE, tarfile.SYMTYPE, "d" * 120 if style else "a.png"
        for each in (folder, link):
            stream.addfile(each)
        stream.addfile(tarfile.TarInfo("last.txt"))
    with tarfile.open(file) as stream:
        expected = [Member(each.name, each.offset_data, each.size) for each in stream if each.isreg()]
    assert list(members(file)) == expected
    assert [record.name for record in records(file)] == ["a.tar/a.png", f"a.tar/{long}.png"]


@pytest.mark.parametrize(
    ("names", "split"),
    [
        (("train/0.tar", "val/0.tar"), "val"),
        (("pets/Training/0.tar", "pets/test/0.tar"), "test"),
        (("pets-train-000.tar", "pets-val-000.tar"), "val"),
        (("train.tar", "test-0.tar"), "test"),
    ],
)
def test_folders_and_tars_called_as_splits_are_these(tmp_path: Path, names: tuple[str, str], split: str) -> None:
    for number, name in enumerate(names):
        write_tar(tmp_path / name, pets([number]))
    source = {
        wanted: open_reader(FolderConfig(path=tmp_path, split=wanted, resolution=16)).texts()
        for wanted in (None, split)
    }
    assert list(source[None]) == ["pet 0"] and list(source[split]) == ["pet 1"]


def test_what_json_says_of_a_split_goes_before_the_name_of_the_tar(tmp_path: Path) -> None:
    write_tar(tmp_path / "train" / "0.tar", [*pets([0]), *pets([1], "test")])
    write_tar(tmp_path / "test" / "0.tar", pets([2]))
    assert sorted(map(str, Shards(tmp_path).splits)) == ["test", "test", "train"]


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (("1.txt", b" \n"), "the caption is empty"),
        (("1.txt", b"caf\xe9"), "byte 3 of its caption is not UTF-8"),
        (("1.json", b'{"caption": 3}'), "expected a caption, or a list of them; got 3"),
        (("1.json", b'{"caption": ["a", ""]}'), "expected a caption, or a list of them"),
        (("1.json", b'{"caption": "\\ud800"}'), "half a surrogate pair"),
        (("1.json", b"[1]"), "expected a JSON object"),
        (("1.json", b"{"), "its JSON cannot be read"),
        (("1.jpg", png(1)), "expected one picture of a key; got 1.png, 1.jpg"),
        (("1.png", png(1)), "two members of one name"),
    ],
)
def test_bad_members_are_named_and_left_out(tmp_path: Path, member: tuple[str, bytes], message: str) -> None:
    shards = Shards(write_tar(tmp_path / "a.tar", [("1.png", png(1)), member, *pets([2, 3])]))
    assert [shards[index].text for index in range(2)] == ["pet 2", "pet 3"] and len(shards.groups) == 2
    ((name, why),) = shards.quarantine.items()
    assert name == "a.tar/1" and message in why and "a.tar" in why


def test_compressed_tars_are_refused_by_name(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as stream:
        stream.addfile(tarfile.TarInfo("1.png"))
    with pytest.raises(DataError, match=r"a.tar.gz is compressed \(gzip\).*gunzip"):
        open_reader(FolderConfig(path=tmp_path))
    (tmp_path / "a.tar.gz").rename(tmp_path / "b.tar")  # whatever it is called
    with pytest.raises(DataError, match="b.tar is compressed"):
        Shards(tmp_path)


@pytest.mark.parametrize("held", [[], [("1.txt", b"one")], [("1.png", png(1))]])
def test_tars_without_captioned_pictures_are_refused(tmp_path: Path, held: Members) -> None:
    with pytest.raises(DataError, match=r"holds no captioned pictures in its tars; expected members such as 0001.jpg"):
        Shards(write_tar(tmp_path / "a.tar", held))


def test_tars_beside_other_data_are_none(tmp_path: Path) -> None:
    write_tar(tmp_path / "raw.tar", pets([1]))
    (tmp_path / "a.png").write_bytes(png(2))
    (tmp_path / "a.txt").write_text("two")
    assert list(open_reader(FolderConfig(path=tmp_path, resolution=16)).texts()) == ["two"]
    assert list(open_reader(FolderConfig(path=tmp_path, resolution=16, layout="shards")).texts()) == ["pet 1"]


def test_tars_in_several_folders_are_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_tar(tmp_path / name / "0.tar", pets([1]))
    with pytest.raises(DataError, match=r"holds data in several folders \(a/, b/; first: a/0.tar\); name one"):
        open_reader(FolderConfig(path=tmp_path))


def test_copies_are_held_out_together_and_changes_move_the_digest(tmp_path: Path) -> None:
    held = [(f"{i}.{end}", data) for i in range(120) for end, data in (("png", png(i % 60)), ("txt", b"one"))]
    file = write_tar(tmp_path / "a.tar", held)
    config = FolderConfig(path=file, hold_out=0.3)
    sides = [open_reader(config.model_copy(update={"split": split})) for split in ("train", "test")]
    assert sum(len(list(side.texts())) for side in sides) == 120
    shards, digests = Shards(file), {open_reader(config).digest()}
    assert [shards.groups[i] for i in range(60)] == [shards.groups[i + 60] for i in range(60)]
    for change in (("5.txt", b"two"), ("5.png", png(100))):
        write_tar(file, [change if name == change[0] else (name, data) for name, data in held])
        digests.add(open_reader(config).digest())
    assert len(digests) == 3


def test_what_was_cut_off_is_lost_and_told_and_nothing_else(tmp_path: Path) -> None:
    """A truncation anywhere keeps whole records alone: never a picture of other bytes, never a test's row."""
    held = [*pets(range(4)), *pets(range(4, 8), "test")]
    file = write_tar(tmp_path / "a.tar", held)
    whole, pictures = file.read_bytes(), dict(held)
    splits = {record.text: split for record, split in zip(records(file), Shards(file).splits, strict=True)}
    ends = [member.begin for member in members(file)]
    rng = np.random.default_rng(0)
    at = {*rng.integers(0, len(whole), 120).tolist(), *ends, *(end - 512 for end in ends)}
    for size in at:
        file.write_bytes(whole[:size])
        try:
            shards = Shards(file)
        except DataError:
            continue
        found = [shards[index] for index in range(len(shards.groups))]
        assert 0 < len(found) <= 8
        for record, split in zip(found, shards.splits, strict=True):
            picture = record.picture
            assert isinstance(picture, Slice) and splits[record.text] == split
            assert whole[picture.begin : picture.begin + picture.size] == pictures[f"{record.text[4:].zfill(4)}.png"]
        is_cut = size < ends[-1] + 1024
        assert ("cut short" in " ".join(shards.quarantine.values())) >= (is_cut and len(found) < 8)
        assert bool(shards.quarantine) == bool(shards.found.left_out)


def test_members_end_where_the_tar_does(tmp_path: Path) -> None:
    file = write_tar(tmp_path / "a.tar", pets([1, 2]))
    whole, every = file.read_bytes(), list(members(file))
    for count, member in enumerate(every):
        for size in (member.begin - 512, member.begin, member.begin + member.size - 1):
            file.write_bytes(whole[:size])
            found: list[Member] = []
            with pytest.raises(DataError, match="cut short"):
                for each in members(file):
                    found.append(each)  # what comes before the error counts
            assert found == every[:count]


def test_a_header_that_is_damaged_is_noticed_by_its_sum(tmp_path: Path) -> None:
    file = write_tar(tmp_path / "a.tar", pets([1, 2, 3]))
    data = bytearray(file.read_bytes())
    data[list(members(file))[4].begin - 512] ^= 1  # of the name of 0003.png
    file.write_bytes(data)
    shards = Shards(file)
    assert [record.text for record in records(file)] == ["pet 1"]
    assert "its sum is another" in shards.quarantine["a.tar"] and "1 records before" in shards.quarantine["a.tar"]


def test_bits_that_flip_are_noticed_or_harm_what_they_lie_in_alone(tmp_path: Path) -> None:
    held = pets(range(6))
    file = write_tar(tmp_path / "a.tar", held)
    whole, rng = file.read_bytes(), np.random.default_rng(1)
    for place in rng.integers(0, len(whole), 200).tolist():
        data = bytearray(whole)
        data[place] ^= 1 << int(rng.integers(8))
        file.write_bytes(data)
        try:
            found = records(file)
        except DataError:
            continue
        texts = {f"pet {number}" for number in range(6)}
        assert sum(record.text not in texts for record in found) <= 1
        for record in found:
            assert isinstance(record.picture, Slice) and record.picture.size == len(png(int(record.picture.name[:4])))


def test_a_tar_whose_records_are_not_in_turn_is_lost_where_it_is_cut(tmp_path: Path) -> None:
    pictures, texts = pets(range(3))[::2], pets(range(3))[1::2]
    splits = [(f"{number:04}.json", b'{"split": "test"}') for number in range(3)]
    file = write_tar(tmp_path / "a" / "0.tar", [*pictures, *texts, *splits])
    file.write_bytes(file.read_bytes()[: list(members(file))[-2].begin])
    write_tar(tmp_path / "a" / "1.tar", pets([9]))
    assert told(tmp_path / "a") == ["pet 9"]


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="needs the photographs of Caltech-101 in shared/data")
def test_photographs_of_caltech() -> None:
    assert format_of(PHOTOS) == format_of(PHOTOS.parent) == "shards"
    shards = Shards(PHOTOS)
    assert len(shards.splits) == 6239 and set(shards.splits) == {"train", "test"} and not shards.quarantine
    first = shards[0]
    assert (first.text, shards.splits[0]) == ("kangaroo", "test")
    assert open_picture(first.picture, (128, 128)).shape == (128, 128, 3)


@pytest.mark.parametrize("row", [{"caption": None, "text": "a cat"}, {"text": None, "captions": ["a cat"]}])
def test_a_null_is_no_caption(tmp_path: Path, row: object) -> None:
    held = [("1.png", png(1)), ("1.json", json.dumps(row).encode()), ("2.png", png(2)), ("2.json", b'{"text": null}')]
    shards = Shards(write_tar(tmp_path / "a.tar", held))
    assert shards[0].text == "a cat" and len(shards.splits) == 1
    assert shards.found.left_out == {"picture without a caption": 1} and not shards.quarantine
