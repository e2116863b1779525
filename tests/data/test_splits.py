"""Splits: as marked, by a stable hash, or refused where there are none."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from transfusion.data.encode import EncodeConfig, Encoder
from transfusion.data.errors import DataError
from transfusion.data.readers import ImageFolder, TextFile, read_captions
from transfusion.data.sources import (
    FolderConfig,
    FolderSource,
    ShapesConfig,
    TextSource,
    held_out_config,
    of_other_data,
    open_reader,
    open_source,
)
from transfusion.data.splits import choose, default_share, hold_out_fraction
from transfusion.tokenizer import ByteTokenizer

ENCODER = Encoder(ByteTokenizer(), EncodeConfig(), 0)
HERE = Path("data")


def test_marked_records_are_chosen_and_the_others_counted() -> None:
    names, marks = ["a", "b", "c", "d"], ["train", "test", None, "val"]
    found = choose(names, marks, None, 0.0, where=HERE)
    assert (found.places, found.split, found.left) == ([0, 2], "train", {"test": 1, "val": 1})
    assert choose(names, marks, "val", 0.0, where=HERE).places == [3]


def test_without_splits_everything_is_taken() -> None:
    assert choose(["a", "b"], [None, None], None, 0.0, where=HERE) == choose(
        ["a", "b"], [None] * 2, None, 0, where=HERE
    )
    assert choose(["a", "b"], [None, None], None, 0.0, where=HERE).places == [0, 1]


@pytest.mark.parametrize(
    ("marks", "split", "hold_out", "message"),
    [
        ([None, None], "test", 0.0, r"data has no splits.*data.hold_out=0.05"),
        (["train", "val"], "test", 0.0, r"no records of split 'test'; it has 'train' \(1\), 'val' \(1\).*data.split"),
        (["training", "val"], None, 0.0, r"no records of split 'train'; it has 'training' \(1\)"),
        (["train", "val"], None, 0.5, r"marks its splits itself.*data.hold_out=0"),
        ([None, None], "test", 1e-9, r"data.hold_out=1e-09 holds out none of 2 records of data; hold more out"),
        ([None, None], None, 1e-9, r"holds out none of 2 records"),
    ],
)
def test_splits_that_do_not_exist_are_refused(
    marks: list[str | None], split: str | None, hold_out: float, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        choose(["a", "b"], marks, split, hold_out, where=HERE)


def test_a_held_out_share_is_stable_and_disjoint() -> None:
    names = [f"{i}.png" for i in range(2000)]
    test = choose(names, [None] * 2000, "test", 0.1, where=HERE)
    train = choose(names, [None] * 2000, "train", 0.1, where=HERE)
    assert sorted(test.places + train.places) == list(range(2000))
    assert 140 < len(test.places) < 260  # 200, within five deviations of a share of 0.1
    backwards = choose(names[::-1], [None] * 2000, "test", 0.1, where=HERE)
    assert {names[i] for i in test.places} == {names[::-1][i] for i in backwards.places}
    assert set(test.places) < set(choose(names, [None] * 2000, "test", 0.3, where=HERE).places)


def test_by_default_two_per_cent_and_at_most_five_hundred_are_held_out() -> None:
    def held(count: int) -> set[str]:
        names = [f"{i}.png" for i in range(count)]
        chosen = choose(names, [None] * count, None, None, where=HERE)
        assert len(chosen.places) + sum(chosen.left.values()) == count
        kept = choose(names, [None] * count, "test", chosen.hold_out, where=HERE).places if chosen.left else []
        assert len(kept) == chosen.left.get("test", 0)
        return {names[place] for place in kept}

    assert held(49) == set() and len(held(50)) >= 1 and 90 < len(held(5000)) < 110
    assert held(3000) < held(5000) and len(held(26_000)) == len(held(40_000)) == 500
    assert not {name for name in held(40_000) if int(name[:-4]) < 26_000} - held(26_000)  # none was trained on
    assert choose(["a"] * 60, [None] * 60, None, None, where=HERE).left == {}  # one name is on one side
    marked = choose(["a", "b"], ["train", "val"], None, None, where=HERE)
    assert (marked.left, marked.hold_out, marked.told) == ({"val": 1}, 0.0, "")


def test_one_at_least_is_held_out() -> None:
    for start in range(0, 4000, 60):
        names = [f"{start + i}.png" for i in range(60)]
        share = default_share(names)
        found = choose(names, [None] * 60, "test", share, where=HERE)
        assert len(found.places) >= 1 and (share == 0.02 or len(found.places) == 1)


def test_a_name_of_more_records_than_are_held_out_is_trained_on() -> None:
    names = sorted((f"{number}.png" for number in range(3000)), key=hold_out_fraction)
    for share in (None, 0.1):
        found = choose([names[0]] * 1300 + names, [None] * 4300, None, share, where=HERE)
        assert set(range(1301)) <= {*found.places} and 0 < found.left["test"] <= 0.1 * 4300
    kept = choose([names[0]] * 499 + names, [None] * 3499, "test", 0.0001 + hold_out_fraction(names[0]), where=HERE)
    assert set(range(500)) <= {*kept.places}  # not more than 500


@pytest.mark.parametrize("marks", [["train"] * 60, ["train", *[None] * 59]])
def test_where_train_alone_is_marked_a_share_is_held_out(marks: list[str | None]) -> None:
    names = [f"train/{number}.png" for number in range(60)]
    unmarked = [None] * 60
    for hold_out in (None, 0.1):
        found, same = (choose(names, each, None, hold_out, where=HERE) for each in (marks, unmarked))
        assert found == same and found.left and "held out as split 'test'" in found.told
        assert choose(names, marks, "test", found.hold_out, where=HERE).places
    settled = choose(names, marks, None, 0.0, where=HERE)  # as runs from before this have it
    assert settled == choose(names, marks, "train", 0.0, where=HERE)
    assert (len(settled.places), settled.split, settled.counts) == (60, "train", {"train": 60})
    assert settled.told == "nothing is held out (data.hold_out=0)"


def test_a_folder_train_alone_is_held_out_of(tmp_path: Path) -> None:
    path = classes(tmp_path / "train", 60).parent
    config = open_reader(FolderConfig(path=path, resolution=8)).config
    assert isinstance(config, FolderConfig) and config.hold_out and held_out_config(config) is not None
    source = open_source(config, ENCODER, 9)
    assert source.size == 60 - source.found.splits["test"] and "held out as split 'test'" in source.found.line()


def test_the_held_out_split_of_a_training(tmp_path: Path) -> None:
    data = FolderConfig(path=classes(tmp_path / "d", 60), resolution=8)
    settled, held = open_reader(data).config, held_out_config(data)
    assert isinstance(settled, FolderConfig) and isinstance(held, FolderConfig)
    assert settled.layout == "classes" and settled.hold_out and open_reader(settled).config == settled
    assert held == settled.model_copy(update={"split": "test"}) and held_out_config(settled) == held
    parts = [open_source(part, ENCODER, 10) for part in (data, held)]
    files = [{part.name(i) for i in range(part.size or 0)} for part in parts]
    assert not files[0] & files[1] and len(files[0] | files[1]) == 60
    for none in ({"hold_out": 0}, {"split": "test"}):
        assert held_out_config(data.model_copy(update=none)) is None
    rows = [{"file": f"cat/{i}.png", "text": "c", "split": ("train", "test", "val")[i % 3]} for i in range(60)]
    (data.path / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    marked = held_out_config(data)
    assert isinstance(marked, FolderConfig) and (marked.split, marked.hold_out) == ("val", 0.0)
    with pytest.raises(DataError, match="marks its splits itself"):
        held_out_config(settled.model_copy(update={"layout": "captions"}))
    assert of_other_data(settled, {"hold_out"}).hold_out == settled.hold_out
    assert of_other_data(settled, ()).hold_out == 0 and of_other_data(settled, ()).layout == "auto"
    trained = settled.model_copy(update={"split": "train"})
    assert of_other_data(trained, ()).split is None and of_other_data(trained, {"split"}).split == "train"
    shapes = held_out_config(ShapesConfig(num_documents=9))
    assert shapes == ShapesConfig() and held_out_config(ShapesConfig()) == ShapesConfig()


def test_text_is_held_out_by_default(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("".join(f"line {i} of a book that has many of them\n" for i in range(3000)))
    text = FolderConfig(path=tmp_path / "a.txt")
    held = held_out_config(text)
    assert isinstance(held, FolderConfig) and (held.layout, held.split) == ("text", "test")
    source = open_source(text, ENCODER, 100)
    assert source.left_for_others["test"] == source.found.splits["test"] >= 1
    assert "blocks held out as split 'test'" in source.found.line()
    whole = TextFile(tmp_path, hold_out=0).documents()
    assert whole == [(tmp_path / "a.txt").read_text()] and TextFile(tmp_path).digest() != source.digest()


def classes(path: Path, count: int) -> Path:
    """Write a folder of classes."""
    (path / "cat").mkdir(parents=True)
    for i in range(count):
        Image.fromarray(np.full((8, 8, 3), i, np.uint8)).save(path / "cat" / f"{i}.png")
    return path


def test_class_folders_and_captions_know_splits(tmp_path: Path) -> None:
    data = classes(tmp_path / "d", 20)
    with pytest.raises(DataError, match="has no splits"):
        open_source(FolderConfig(path=data, split="test"), ENCODER, 10)
    parts = [ImageFolder(data, 8, split=split, hold_out=0.3) for split in (None, "test")]
    files = [{row.file for row in part.captions} for part in parts]
    assert not files[0] & files[1] and len(files[0] | files[1]) == 20 and all(files)
    assert parts[0].left_for_others == {"test": len(files[1])}
    rows = [{"file": f"cat/{i}.png", "text": "c", "split": "test" if i < 3 else "train"} for i in range(20)]
    (data / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = open_source(FolderConfig(path=data, resolution=8), ENCODER, 10)
    assert isinstance(source, FolderSource) and source.size == 17 and source.left_for_others == {"test": 3}
    rows[0]["split"] = 3  # type: ignore[assignment]
    (data / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match="line 1: expected a string as 'split'"):
        ImageFolder(data, 8)


def test_captions_of_one_picture_stay_together(tmp_path: Path) -> None:
    data = classes(tmp_path / "d", 12)
    rows = [{"file": f"cat/{i // 3 % 12}.png", "text": f"caption {i}"} for i in range(36)]
    (data / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    parts = [{row.file for row in ImageFolder(data, 8, split=s, hold_out=0.4).captions} for s in ("train", "test")]
    assert not parts[0] & parts[1]


def test_one_picture_has_one_name(tmp_path: Path) -> None:
    data = classes(tmp_path / "d", 20)
    names = [f"{prefix}cat/{i}.png" for i in range(20) for prefix in ("", "./", "cat/../")]
    (data / "captions.jsonl").write_text("".join(json.dumps({"file": n, "text": "a"}) + "\n" for n in names))
    rows = [{(row.file, row.number) for row in read_captions(data, split, 0.4)} for split in ("train", "test")]
    assert rows[0] | rows[1] == {(f"cat/{i}.png", number) for i in range(20) for number in range(3)}
    assert not {file for file, _ in rows[0]} & {file for file, _ in rows[1]}


@pytest.mark.parametrize("line", ["[" * 100_000, '{"file": "a", "text": ' + "1" * 5000 + "}"], ids=["deep", "long"])
def test_lines_that_json_chokes_on_are_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "captions.jsonl").write_text(line)
    with pytest.raises(DataError, match="(line|element) 1: not JSON"):
        read_captions(tmp_path)


def test_a_link_that_leads_to_itself_is_a_broken_picture(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "captions.jsonl").write_text(json.dumps({"file": "loop/a.png", "text": "a"}))
    with pytest.raises(DataError, match="none of the 1 pictures"):
        ImageFolder(tmp_path, 8)


def test_text_is_held_out_in_blocks(tmp_path: Path) -> None:
    lines = [f"line {i} of a book that has many of them, some sixty letters\n" for i in range(2000)]
    (tmp_path / "a.txt").write_text("".join(lines[:1500]))
    (tmp_path / "b.txt").write_text("".join(lines[1500:]))
    with pytest.raises(DataError, match="has no splits"):
        open_source(FolderConfig(path=tmp_path, split="test", hold_out=0), ENCODER, 100)
    train, test = (TextFile(tmp_path, split=split, hold_out=0.2) for split in ("train", "test"))
    kept = [line for part in (train, test) for text in part.documents() for line in text.splitlines(keepends=True)]
    assert sorted(kept) == sorted(lines)  # no line is lost, cut or doubled
    assert 0.1 < sum(map(len, test.documents())) / sum(map(len, lines)) < 0.3
    assert sum(p.begins for part in (train, test) for p in part.passages) == 2
    assert sum(p.ends for part in (train, test) for p in part.passages) == 2
    assert train.digest() != test.digest() and set(train.left_for_others) == {"test"}
    source = open_source(FolderConfig(path=tmp_path, split="test", hold_out=0.2), ENCODER, 100)
    assert isinstance(source, TextSource) and source.texts() is not None


def test_what_is_not_held_out_is_told_why() -> None:
    """A run that has settled its share says the same as before it did."""
    names = {count: [str(number) for number in range(count)] for count in (3, 60)}
    few, many = (choose(found, [None] * len(found), None, 0.0, where=Path("x")) for found in names.values())
    assert choose(["0", "1", "2"], [None] * 3, None, None, where=Path("x")).told == few.told
    assert "3 records, fewer than 50" in few.told and many.told == "nothing is held out (data.hold_out=0)"


def test_a_share_is_not_held_out_of_texts_that_are_splits(tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        (tmp_path / f"{split}.txt").write_text("".join(f"{split} line {i} of the text\n" for i in range(400)))
    settled = open_reader(FolderConfig(path=tmp_path)).config
    with pytest.raises(DataError, match="marks its splits itself"):
        open_reader(settled.model_copy(update={"hold_out": 0.1}))
