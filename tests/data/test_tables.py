"""Tables: Parquet files and what the ``datasets`` library saves; which columns are read; rows that cannot be told."""

import io
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

datasets = pytest.importorskip("datasets")
import pyarrow.parquet  # noqa: E402

from transfusion.data.decode import Held, open_picture  # noqa: E402
from transfusion.data.encode import EncodeConfig, Encoder  # noqa: E402
from transfusion.data.errors import DataError  # noqa: E402
from transfusion.data.fit import FittedSource  # noqa: E402
from transfusion.data.limit import Limit  # noqa: E402
from transfusion.data.records.detect import format_of  # noqa: E402
from transfusion.data.records.record import Captioned, Interleaved  # noqa: E402
from transfusion.data.records.table import Table  # noqa: E402
from transfusion.data.sources import FolderConfig, open_reader  # noqa: E402
from transfusion.segments import Latent, Modality, Vocabulary  # noqa: E402
from transfusion.tokenizer import ByteTokenizer  # noqa: E402

FASHION = Path(__file__).parents[3] / "shared" / "data" / "fashion"
Rows = Mapping[str, list[Any]]
IMAGES = datasets.Image()


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / ".cache")


def png(number: int) -> bytes:
    """Make a picture of one colour."""
    stream = io.BytesIO()
    Image.new("RGB", (20, 20), (number * 7 % 256, 40, 90)).save(stream, "PNG")
    return stream.getvalue()


def images(*numbers: int) -> list[dict[str, object]]:
    """Make the pictures of a column."""
    return [{"bytes": png(number), "path": f"{number}.png"} for number in numbers]


def made(rows: Rows, **features: object) -> Any:
    """Make a table; types that are not given follow from the values."""
    table = datasets.Dataset.from_dict(dict(rows))
    for name, feature in features.items():
        table = table.cast_column(name, feature)
    return table


def parquet(file: Path, rows: Rows, **features: object) -> Path:
    """Write a table as Parquet."""
    file.parent.mkdir(parents=True, exist_ok=True)
    made(rows, **features).to_parquet(str(file))
    return file


def told(path: Path, **settings: object) -> list[str]:
    """Return the texts that are trained on."""
    return list(open_reader(FolderConfig.model_validate({"path": path, "resolution": 16, **settings})).texts())


def test_rows_of_parquet_are_captioned_pictures(tmp_path: Path) -> None:
    rows = {"image": images(1, 2, 3), "text": [" a cat\non a sofa ", "two", "three"], "width": [1, 2, 3]}
    file = parquet(tmp_path / "pets.parquet", rows, image=IMAGES)
    table = Table(file)
    record = table[1]
    assert isinstance(record, Captioned) and (record.name, record.text) == ("row:1", "two")
    assert isinstance(record.picture, Held) and record.picture.data == png(2)  # as it is stored, undecoded
    np.testing.assert_array_equal(open_picture(record.picture, 8)[0, 0], [14, 40, 90])
    assert told(file) == told(tmp_path) == ["a cat on a sofa", "two", "three"]
    assert "3 pictures, 3 captions" in table.found.line() and "columns 'image' and 'text'" in table.found.line()


def test_files_and_folders_called_as_splits_are_these(tmp_path: Path) -> None:
    for name in ("data/train-00000-of-00002", "data/train-00001-of-00002", "data/test-00000-of-00001"):
        parquet(tmp_path / "hub" / f"{name}.parquet", {"image": images(1), "text": [name[5:16]]}, image=IMAGES)
    (tmp_path / "hub" / "README.md").write_text("a card")
    assert told(tmp_path / "hub") == ["train-00000", "train-00001"]
    assert told(tmp_path / "hub", split="test") == ["test-00000-"]
    for split in ("train", "validation"):
        parquet(tmp_path / "folders" / split / "0.parquet", {"image": images(1), "text": [split]}, image=IMAGES)
    assert told(tmp_path / "folders") == ["train"] and told(tmp_path / "folders", split="validation") == ["validation"]


@pytest.mark.parametrize("is_split", [False, True])
def test_what_the_library_saves_is_read_as_it_was_chosen(tmp_path: Path, is_split: bool) -> None:
    rows = made({"img": images(*range(6)), "caption": [f"pet {i}" for i in range(6)]}, img=IMAGES).select([5, 0, 3])
    saved = datasets.DatasetDict({"train": rows, "test": rows.select([1])}) if is_split else rows
    saved.save_to_disk(str(tmp_path / "saved"))
    assert format_of(tmp_path / "saved") == "table"
    assert told(tmp_path / "saved") == ["pet 5", "pet 0", "pet 3"]
    if is_split:
        assert told(tmp_path / "saved", split="test") == ["pet 0"]
    record = Table(tmp_path / "saved")[0]
    assert isinstance(record, Captioned) and isinstance(record.picture, Held) and record.picture.data == png(5)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("picture", [{"bytes": png(1), "path": None}]),  # a struct, without the type that the library writes
        ("anything", [{"bytes": png(1), "path": "1.png"}]),
        ("jpg", [png(1)]),
    ],
)
def test_pictures_of_every_type(tmp_path: Path, column: str, values: list[object]) -> None:
    record = Table(parquet(tmp_path / "a.parquet", {column: values, "txt": ["one"]}))[0]
    assert isinstance(record, Captioned) and isinstance(record.picture, Held) and record.picture.data == png(1)


def test_pictures_may_be_named_relative_to_the_table(tmp_path: Path) -> None:
    rows = {"image": [{"bytes": None, "path": name} for name in ("a/1.png", "../1.png")], "text": ["one", "two"]}
    (tmp_path / "data").mkdir()
    file, kind = (
        tmp_path / "data" / "a.parquet",
        pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())]),
    )
    held = {"image": pyarrow.array(rows["image"], kind), "text": rows["text"]}
    pyarrow.parquet.write_table(pyarrow.table(held), file)  # the library itself puts the files in
    for folder in (tmp_path / "data" / "a", tmp_path / "b" / "a"):
        folder.mkdir(parents=True)
        (folder / "1.png").write_bytes(png(1))
    for images_folder in (None, tmp_path / "b"):
        table = Table(file, images=images_folder)
        record = table[0]
        assert isinstance(record, Captioned) and open_picture(record.picture, 8)[0, 0, 0] == 7
    assert len(table.splits) == 1 and "'../1.png' lies outside" in table.quarantine["row:1"]


def test_captions_in_a_list_are_a_record_each_and_stay_together(tmp_path: Path) -> None:
    rows = {"image": images(1, 2), "captions": [["one", " ", "two"], ["three"]]}
    table = Table(parquet(tmp_path / "a.parquet", rows, image=IMAGES))
    found = [table[index] for index in range(3)]
    assert [(record.name, *record.parts[:1]) for record in found] == [
        ("row:0", "one"),
        ("row:0, caption 3", "two"),
        ("row:1", "three"),
    ]
    assert table.groups[0] == table.groups[1] != table.groups[2]


def test_class_labels_are_told_by_their_names(tmp_path: Path) -> None:
    labels = datasets.ClassLabel(names=["cat", "polar_bear"])
    rows = {"image": images(1, 2, 3), "label": [1, 0, None]}
    assert told(parquet(tmp_path / "a.parquet", rows, image=IMAGES, label=labels)) == ["polar bear", "cat"]


def test_a_column_marks_splits(tmp_path: Path) -> None:
    rows = {"image": images(1, 2), "text": ["one", "two"], "split": ["Training", "test"]}
    file = parquet(tmp_path / "a.parquet", rows, image=IMAGES)
    assert told(file) == ["one"] and told(file, split="test") == ["two"]


def test_a_class_label_marks_splits_and_captions_nothing(tmp_path: Path) -> None:
    labels = datasets.ClassLabel(names=["Training", "test"])
    rows = {"image": images(1, 2, 3), "text": ["one", "two", "three"], "split": [0, 1, None]}
    file = parquet(tmp_path / "a.parquet", rows, image=IMAGES, split=labels)
    assert told(file) == ["one", "three"] and told(file, split="test") == ["two"]
    kinds = datasets.ClassLabel(names=["cat", "dog"])
    rows = {"image": images(1, 2), "kind": [1, 0], "split": [0, 1]}
    assert told(parquet(tmp_path / "b.parquet", rows, image=IMAGES, split=labels, kind=kinds)) == ["dog"]


@pytest.mark.parametrize(
    ("values", "kind"), [([0, 1], "int64"), ([True, False], "bool"), ([["train"], ["test"]], "List")]
)
def test_a_column_that_cannot_mark_splits_is_refused(tmp_path: Path, values: list[object], kind: str) -> None:
    file = parquet(tmp_path / "a.parquet", {"text": ["one", "two"], "split": values})
    with pytest.raises(DataError, match=rf"column 'split' holds {kind}.*expected strings, such as 'train'"):
        told(file)


def test_a_column_of_splits_without_values_marks_none(tmp_path: Path) -> None:
    file = parquet(tmp_path / "a.parquet", {"text": ["one", "two"], "split": [None, None]})
    assert told(file) == ["one", "two"]


def test_strings_of_a_dictionary_mark_splits(tmp_path: Path) -> None:
    marks = pyarrow.array(["train", "test"]).dictionary_encode()
    pyarrow.parquet.write_table(pyarrow.table({"text": ["one", "two"], "split": marks}), tmp_path / "a.parquet")
    assert told(tmp_path / "a.parquet") == ["one"]


def test_every_part_of_what_the_library_saves_has_its_own_column_of_splits(tmp_path: Path) -> None:
    parts = {"a": made({"text": ["one"]}), "b": made({"text": ["two", "three"], "split": ["train", "test"]})}
    datasets.DatasetDict({"Train": parts["a"], "more": parts["b"]}).save_to_disk(str(tmp_path / "d"))
    assert told(tmp_path / "d") == ["one", "two"]


def test_saved_splits_are_known_in_any_case(tmp_path: Path) -> None:
    saved = {name: made({"text": [name]}) for name in ("Train", "Test", "fold1")}
    datasets.DatasetDict(saved).save_to_disk(str(tmp_path / "d"))
    assert told(tmp_path / "d") == ["Train"] and told(tmp_path / "d", split="test") == ["Test"]


def test_pictures_named_in_folders_of_splits(tmp_path: Path) -> None:
    names = ["train/1.png", "./test/2.png", "/dev/3.png"]
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    held = pyarrow.array([{"bytes": None, "path": name} for name in names], kind)
    pyarrow.parquet.write_table(pyarrow.table({"image": held, "text": ["one", "two", "three"]}), tmp_path / "a.parquet")
    table = Table(tmp_path / "a.parquet")
    assert list(table.splits) == ["train", "test"] and "row:2" in table.quarantine  # that lies outside


def test_names_of_one_picture_are_one_picture(tmp_path: Path) -> None:
    for name in ("1.png", "2.png"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "hard.png").hardlink_to(tmp_path / "1.png")
    (tmp_path / "link").symlink_to(".")
    names = ["1.png", "./1.png", "a/../1.png", "link/1.png", "hard.png", "2.png", "train/../test/3.png"]
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    held = pyarrow.array([{"bytes": None, "path": name} for name in names], kind)
    pyarrow.parquet.write_table(pyarrow.table({"image": held, "text": list("abcdefg")}), tmp_path / "a.parquet")
    table = Table(tmp_path / "a.parquet")
    assert len({*table.groups[:5]}) == 1 and len({*table.groups}) == 3
    assert len({*table.own[:3]}) == 1 and list(table.splits) == [None] * 6 + ["test"]


def test_classes_are_told_by_the_names_of_their_own_files(tmp_path: Path) -> None:
    def write(folder: str, name: str, classes: list[str]) -> Any:
        rows = {"image": images(*range(len(classes), 2 * len(classes))), "label": list(range(len(classes)))}
        label = datasets.ClassLabel(names=classes)
        parquet(tmp_path / folder / f"{name}.parquet", rows, image=IMAGES, label=label)
        return made(rows, image=IMAGES, label=label)

    test, train = write("pq", "test-00000", ["dog", "cat"]), write("pq", "train-00000", ["cat", "dog"])
    datasets.DatasetDict({"test": test, "train": train}).save_to_disk(str(tmp_path / "saved"))
    for name in ("pq", "saved"):
        assert told(tmp_path / name) == ["cat", "dog"] and told(tmp_path / name, split="test") == ["dog", "cat"]
        table = Table(tmp_path / name)
        assert sorted(table.glance(index).text for index in range(4)) == ["cat", "cat", "dog", "dog"]
    for number, classes in enumerate((["ant", "bee"], ["bee", "ant"], ["ant", "bee"])):
        write("one", f"part-{number}", classes)
    for number, classes in enumerate((["ant"], ["bee", "ant"])):
        write("more", f"part-{number}", classes)
    assert told(tmp_path / "more") == ["ant", "bee", "ant"]
    table = Table(tmp_path / "one")
    assert [table[index].text for index in range(6)] == ["ant", "bee", "ant", "bee", "bee", "ant"]
    assert [table[index].name for index in range(6)] == [f"row:{index}" for index in range(6)]


def test_texts_without_pictures_are_texts(tmp_path: Path) -> None:
    file = parquet(tmp_path / "a.parquet", {"text": ["one\n two", "", "three"]})
    reader = open_reader(FolderConfig(path=file, resolution=16))
    assert isinstance(reader.config, FolderConfig) and reader.config.layout == "table_text"
    assert list(reader.texts()) == ["one\n two", "three"] and reader.sample_pictures() is None
    table = Table(file, has_pictures=False)
    assert table.kind is Interleaved and table.found.left_out == {"row that holds nothing": 1} and not table.quarantine
    source = reader.source(
        Encoder(ByteTokenizer(), EncodeConfig(), 0, modality=Modality("image", 3, (8, 8), (2, 2))), 9
    )
    assert source.size == 2
    with pytest.raises(DataError, match="has no column of pictures; data.layout=table_text"):
        told(file, layout="table")
    pictured = parquet(tmp_path / "b.parquet", {"image": images(1), "text": ["four"]}, image=IMAGES)
    assert told(pictured, layout="table_text") == ["four"]


TWO = {"image": images(1), "other": images(2), "text": ["one"], "caption": ["two"], "size": [1]}


@pytest.mark.parametrize(
    ("rows", "settings", "expected"),
    [
        (TWO, {"text_column": "text"}, "several columns of pictures.*data.picture_column=image or .*=other"),
        (TWO, {"picture_column": "image"}, "several columns of texts.*data.text_column=text or .*=caption"),
        (TWO, {"picture_column": "other", "text_column": "caption"}, None),
        (TWO, {"picture_column": "text"}, r"column 'text' holds no pictures \(data.picture_column\)"),
        (TWO, {"text_column": "size"}, r"column 'size' holds no texts \(data.text_column\)"),
        (TWO, {"text_column": "no"}, r"has no column 'no' \(data.text_column\); it has image, other, text"),
        (
            {"image": images(1), "title": ["two"]},
            {},
            "no column called text.*it has title: name one .data.text_column=t",
        ),
        ({"image": images(1), "title": ["two"]}, {"text_column": "title"}, None),
        ({"image": images(1), "size": [1]}, {}, "it has no texts"),
    ],
)
def test_which_columns_are_read(tmp_path: Path, rows: Rows, settings: dict[str, str], expected: str | None) -> None:
    file = parquet(tmp_path / "a.parquet", rows)
    if expected is None:
        assert told(file, **settings) == ["two"]
        return
    with pytest.raises(DataError, match=expected):
        told(file, **settings)


def test_columns_of_what_is_no_table_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one")
    with pytest.raises(DataError, match="is no table, its layout is text: data.picture_column and data.text_column"):
        told(tmp_path, text_column="caption")


def test_rows_that_cannot_be_told_are_named_and_left_out(tmp_path: Path) -> None:
    rows = {
        "image": [*images(1, 2, 3), {"bytes": None, "path": None}, None],
        "text": ["one", " ", None, "four", "five"],
    }
    table = Table(parquet(tmp_path / "a.parquet", rows, image=IMAGES))
    assert len(table.splits) == 1 and sorted(table.quarantine) == ["row:1", "row:2", "row:3", "row:4"]
    assert table.found.left_out == {"row without a caption": 2, "row without a picture": 2}


@pytest.mark.parametrize("size", [0, 40, -10, -200])
def test_damaged_parquet_is_named(tmp_path: Path, size: int) -> None:
    file = parquet(tmp_path / "a.parquet", {"image": images(1), "text": ["one"]})
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(DataError, match=r"a.parquet: no Parquet file, or damaged"):
        told(tmp_path)
    with pytest.raises(DataError, match=r"the datasets library cannot read it"):
        told(file, layout="table")


def test_alike_pictures_are_of_one_group_and_changes_move_the_digest(tmp_path: Path) -> None:
    digests: set[str] = set()
    for number, text in ((1, "two"), (1, "three"), (2, "two")):
        rows = {"image": images(1, number), "text": ["one", text]}
        table = Table(parquet(tmp_path / f"{number}{text}.parquet", rows, image=IMAGES))
        assert (table.groups[0] == table.groups[1]) == (number == 1)
        digests.add(table.digest())
    assert len(digests) == 3


def test_without_the_library_the_error_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = parquet(tmp_path / "a.parquet", {"text": ["one"]})
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"a table, which is read by the datasets library: pip install 'transfusion"):
        told(file)


@pytest.mark.skipif(not FASHION.is_dir(), reason="needs Fashion-MNIST in shared/data")
def test_fashion_as_the_hub_has_it(tmp_path: Path) -> None:
    (tmp_path / "idx").mkdir()
    for file in FASHION.glob("t10k-*"):
        (tmp_path / "idx" / file.name).symlink_to(file)
    reader = open_reader(FolderConfig(path=tmp_path / "idx", resolution=28, split="test"))
    pictures = reader.sample_pictures()
    assert pictures is not None
    rows = {"image": list(map(Image.fromarray, pictures[:20])), "label": [9] * 20}
    labels = datasets.ClassLabel(names=[*"012345678", "Ankle boot"])
    features = datasets.Features({"image": IMAGES, "label": labels})
    datasets.Dataset.from_dict(rows, features=features).to_parquet(str(tmp_path / "train-00000-of-00001.parquet"))
    table = Table(tmp_path / "train-00000-of-00001.parquet")
    record = table[3]
    assert isinstance(record, Captioned) and record.text == "Ankle boot"
    np.testing.assert_array_equal(open_picture(record.picture, 28), pictures[3])


def test_a_start_reads_no_picture_of_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {"image": images(*range(12)), "text": [f"pet {i}" for i in range(12)]}
    file = parquet(tmp_path / "a.parquet", rows, image=IMAGES)
    read: list[int] = []
    whole = Table.__getitem__
    monkeypatch.setattr(Table, "__getitem__", lambda self, index: read.append(index) or whole(self, index))  # pyright: ignore
    reader = open_reader(FolderConfig(path=file, resolution=16, hold_out=0.0))
    modality = Modality("image", 3, (8, 8), (2, 2))
    source = reader.source(Encoder(ByteTokenizer(), EncodeConfig(), 0, modality=modality), 99)
    fitted = FittedSource(source, Limit(Vocabulary(256, (modality,)), 64, "drop"), 0.0)
    assert fitted.size == 12 and len(list(reader.texts())) == 12 and fitted.preview_prompts() and fitted.name(3)
    assert read == []
    latent = next(part for part in source.document(3, 0).segments if isinstance(part, Latent))
    assert read == [3] and latent.values.shape == (3, 16, 16)
    counted: list[str] = []
    row = datasets.Dataset.__getitem__
    monkeypatch.setattr(datasets.Dataset, "__getitem__", lambda self, key: counted.append(key) or row(self, key))  # pyright: ignore
    assert len(list(reader.texts())) == 12 and counted == []  # which takes all columns of a row


@pytest.mark.parametrize("name", ["/etc/1.png", "../1.png", "a/../../1.png", "a\0.png"])
def test_a_row_that_names_a_picture_outside_is_left_out_and_the_run_goes_on(tmp_path: Path, name: str) -> None:
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    held = [*images(1, 2), {"bytes": None, "path": name}, *images(3)]
    table = pyarrow.table({"image": pyarrow.array(held, kind), "text": ["one", "two", "three", "four"]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    reader = open_reader(FolderConfig(path=tmp_path / "a.parquet", resolution=16, hold_out=0.0))
    assert list(reader.texts()) == ["one", "two", "four"] and len(reader.sample_pictures()) == 3  # pyright: ignore
    found = Table(tmp_path / "a.parquet")
    assert found.found.left_out == {"row whose picture lies outside the folder": 1} and found.found.pictures == 3
    assert list(found.quarantine) == ["row:2"] and repr(name)[1:-1] in found.quarantine["row:2"]
