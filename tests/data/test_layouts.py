"""Layouts: every picture has its caption, what is left out is counted, and two layouts at once are refused."""

import json
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from PIL import Image

from transfusion.data.captions import folder_captions, read_captions
from transfusion.data.encode import EncodeConfig, Encoder
from transfusion.data.errors import DataError
from transfusion.data.found import Found
from transfusion.data.layouts import is_note, lay_out, layout_of
from transfusion.data.loader import Source
from transfusion.data.readers import ImageFolder, TextFile
from transfusion.data.settings import Layout
from transfusion.data.sources import FolderConfig, open_reader, open_source
from transfusion.data.tree import scan
from transfusion.tokenizer import ByteTokenizer

ENCODER = Encoder(ByteTokenizer(), EncodeConfig(), 0)


def fill(folder: Path, *names: str, **texts: str) -> Path:
    """Write files: pictures, each of another grey, texts that say their name, or what is given by stem."""
    for i, name in enumerate(names):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix.lower() in (".png", ".jpg", ".webp"):
            Image.fromarray(np.full((8, 8, 3), i, np.uint8)).save(file)
        else:
            file.write_text(texts.get(file.stem, f"this is {name}"))
    return folder


def rows(folder: Path, layout: Layout = "auto") -> list[tuple[str, str, str | None]]:
    """Read a folder's captions of all splits, as (file, text, split)."""
    splits = folder_captions(folder, hold_out=None, layout=layout).found.splits or [None]
    return [
        (row.file, row.text, row.split) for split in splits for row in read_captions(folder, split, None, layout=layout)
    ]


def opened(folder: Path, **settings: object) -> Source:
    """Open a folder as training does."""
    return open_source(FolderConfig.model_validate({"path": folder, "resolution": 8, **settings}), ENCODER, 99)


def test_pairs_are_captioned_pictures(tmp_path: Path) -> None:
    fill(tmp_path, "a0.png", "a0.txt", "a1.JPG", "a1.TXT", "sub/a.b.webp", "sub/a.b.txt", a0="a cat\n  on a sofa \n\n")
    assert rows(tmp_path) == [
        ("a0.png", "a cat on a sofa", None),
        ("a1.JPG", "this is a1.TXT", None),
        ("sub/a.b.webp", "this is sub/a.b.txt", None),
    ]
    source = opened(tmp_path)
    assert source.size == 3 and next(iter(source.texts())) == "a cat on a sofa"
    assert (source.found.pictures, source.found.captions, source.found.texts) == (3, 3, 3) and not source.found.left_out


def test_what_pairs_leave_out_is_counted(tmp_path: Path) -> None:
    fill(tmp_path, "a.png", "a.txt", "b.png", "notes.txt", "c.txt", "a.json", "a.caption", "x.json", ".hidden.png")
    found = opened(tmp_path).found
    assert found.left_out == {
        "picture without a caption": 1,
        "text without a picture": 2,
        "name beginning with a dot": 1,
    }
    assert found.unknown == {".json": 2, ".caption": 1} and found.records == 1
    assert found.line() == (
        f"found in {tmp_path} (layout pairs): 2 pictures, 1 caption, 3 texts, no splits; trains on 1 record; "
        "nothing is held out (1 record, fewer than 50; data.hold_out=0.1 holds some out); "
        "not taken: 1 picture without a caption, 2 texts without a picture, 1 name beginning with a dot, "
        "3 files of no known kind (.json 2, .caption)"
    )


def test_one_text_serves_pictures_of_several_endings_on_one_side(tmp_path: Path) -> None:
    fill(tmp_path, *(f"{i}.{ending}" for i in range(30) for ending in ("png", "jpg", "txt")))
    sides = [{Path(row.file).stem for row in read_captions(tmp_path, split, 0.3)} for split in ("train", "test")]
    assert not sides[0] & sides[1] and len(sides[0] | sides[1]) == 30 and len(read_captions(tmp_path)) == 60


def test_a_caption_that_cannot_be_read_is_quarantined_by_name(tmp_path: Path) -> None:
    fill(tmp_path, "a.png", "a.txt", "b.png", "b.txt", "s/c.png", "s/c.txt", b=" \n ")
    (tmp_path / "s" / "c.txt").write_bytes(b"caf\xe9")
    source = opened(tmp_path)
    assert source.size == 1 and set(source.quarantine) == {"b.txt", "s/c.txt"}
    assert "the caption of 'b.png' is empty" in source.quarantine["b.txt"]
    assert "line 1: byte 3 is not UTF-8" in source.quarantine["s/c.txt"]
    assert source.found.left_out["caption that cannot be read"] == 2
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(DataError, match=r"holds no captioned pictures; the first: .*a.txt: the caption of 'a.png' is"):
        opened(tmp_path)


def test_captions_that_name_half_of_the_pictures_say_so(tmp_path: Path) -> None:
    fill(tmp_path, *(f"{i}.png" for i in range(8)))
    lines = [json.dumps({"file": f"{i}.png", "text": "a"}) for i in range(4)]
    (tmp_path / "captions.jsonl").write_text("\n".join(lines))
    found = opened(tmp_path).found
    assert (found.layout, found.pictures, found.captions, found.records) == ("captions", 8, 4, 4)
    assert "4 pictures without a caption" in found.line() and found.unknown == {}


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv"])
def test_metadata_as_image_folders_have_it(tmp_path: Path, name: str) -> None:
    fill(tmp_path, "a.png", "b/c.png", "d.png")
    told = [{"file_name": "a.png", "text": 'a "cat", sitting', "n": 1}, {"file_name": "./b/c.png", "text": "a dog"}]
    text = "\n".join(map(json.dumps, told))
    table = 'file_name,text,n\na.png,"a ""cat"", sitting",1\n./b/c.png,a dog,\n'
    (tmp_path / name).write_text(table if name.endswith("csv") else text)
    assert rows(tmp_path) == [("a.png", 'a "cat", sitting', None), ("b/c.png", "a dog", None)]
    assert opened(tmp_path).found.left_out == {"picture without a caption": 1}
    (tmp_path / name).write_text("file_name,prompt\na.png,a\n" if name.endswith("csv") else '{"file_name": "a.png"}')
    with pytest.raises(DataError, match=rf"{name}, line \d: expected an object with strings 'file_name' and 'text'"):
        opened(tmp_path)


def test_folders_of_splits_hold_any_layout(tmp_path: Path) -> None:
    classes = fill(tmp_path / "c", "train/cat/1.png", "train/dog/1.png", "test/cat/2.png", "README.txt")
    assert rows(classes) == [
        ("train/cat/1.png", "cat", "train"), ("train/dog/1.png", "dog", "train"), ("test/cat/2.png", "cat", "test")
    ]  # fmt: skip
    source = opened(classes)
    assert source.size == 2 and source.left_for_others == {"test": 1} and source.found.splits == {"train": 2, "test": 1}
    assert opened(classes, split="test", layout="classes").size == 1
    tables = fill(tmp_path / "m", "train/1.png", "validation/2.png")
    for folder, number in (("train", 1), ("validation", 2)):
        (tables / folder / "metadata.jsonl").write_text(json.dumps({"file_name": f"{number}.png", "text": folder}))
    assert rows(tables) == [("train/1.png", "train", "train"), ("validation/2.png", "validation", "validation")]
    assert opened(tables).found.left_out == {} and opened(tables).found.unknown == {}
    texts = fill(tmp_path / "t", "train/a.txt", "val/a.txt")
    assert TextFile(texts).documents() == ["this is train/a.txt"]
    assert TextFile(texts, split="val").documents() == ["this is val/a.txt"] and opened(texts).left_for_others
    with pytest.raises(DataError, match=r"no blocks of split 'test'; it has 'train' \(1\), 'val' \(1\)"):
        TextFile(texts, split="test")


def test_classes_may_be_called_as_splits(tmp_path: Path) -> None:
    fill(tmp_path, "train/1.png", "test/2.png")
    with pytest.raises(DataError, match="data.layout=classes makes captions"):
        opened(tmp_path)
    assert [row[:2] for row in rows(tmp_path, "classes")] == [("test/2.png", "test"), ("train/1.png", "train")]
    fill(tmp_path, "bus/3.png")
    assert [row[1] for row in rows(tmp_path)] == ["bus", "test", "train"]


TWO = [
    (["captions.jsonl", "metadata.jsonl", "a.png"], ["captions", "metadata"], ["metadata.jsonl"]),
    (["captions.jsonl", "a.png", "a.txt"], ["captions", "pairs"], ["captions.jsonl", "pairs"]),
    (["metadata.jsonl", "a.png", "a.txt"], ["metadata", "pairs"], ["a.png with a.txt"]),
    (["cat/1.png", "a.png", "a.txt"], ["pairs", "classes"], ["cat/1.png"]),
    (["cat/1.png", "cat/1.txt", "dog/2.png"], ["pairs", "classes"], ["cat/1.png with cat/1.txt"]),
    (["cat/1.png", "book.txt"], ["classes", "text"], ["book.txt"]),
    (["a.png", "b.png", "story.txt"], ["text", "pairs"], ["2 pictures", "story.txt", "NAME.png, NAME.txt"]),
]


@pytest.mark.parametrize(("names", "layouts", "told"), TWO, ids=[" ".join(names) for names, _, _ in TWO])
def test_two_layouts_at_once_are_named_and_settled(
    tmp_path: Path, names: list[str], layouts: list[Layout], told: list[str]
) -> None:
    table = {"captions": '{"file": "a.png", "text": "x"}', "metadata": '{"file_name": "a.png", "text": "x"}'}
    fill(tmp_path, *names, **table)
    with pytest.raises(DataError, match="two layouts at once") as caught:
        opened(tmp_path)
    assert all(text in str(caught.value) for text in (*layouts, *told, "data.layout="))
    for layout in layouts:
        if not (layout == "pairs" and "story.txt" in names):
            assert opened(tmp_path, layout=layout).found.layout == layout


def test_splits_are_laid_out_alike_and_one_table_tells(tmp_path: Path) -> None:
    fill(tmp_path, "train/cat/1.png", "test/1.png", "test/1.txt")
    with pytest.raises(DataError, match=r"different ways: .*train \(classes\), .*test \(pairs\)"):
        opened(tmp_path)
    fill(tmp_path / "m", "metadata.jsonl", "metadata.csv", "a.png")
    with pytest.raises(DataError, match=r"both metadata.jsonl and metadata.csv"):
        opened(tmp_path / "m")


def test_a_layout_that_is_not_there_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, "cat/1.png")
    with pytest.raises(DataError, match=r"not the layout data.layout=pairs: it holds 1 picture in sub-folders"):
        opened(tmp_path, layout="pairs")
    with pytest.raises(DataError, match="holds no captioned pictures: its layout is text"):
        read_captions(fill(tmp_path / "t", "a.txt"))
    with pytest.raises(DataError, match=r"no captioned pictures and no text: it holds 2 pictures without a caption"):
        opened(fill(tmp_path / "p", "a.png", "b.png", "README.txt"))
    with pytest.raises(DataError, match=r"1 file of no known kind \(.npz\).*expected pictures with a captions.jsonl"):
        opened(fill(tmp_path / "n", "a.npz"))
    with pytest.raises(DataError, match=r"book.md is not a folder; .*data.layout=text reads any one file"):
        opened(fill(tmp_path / "b", "book.md") / "book.md")
    assert opened(tmp_path / "b" / "book.md", layout="text").size == 1


def test_notes_beside_pictures_are_counted_and_no_text(tmp_path: Path) -> None:
    fill(tmp_path, "cat/1.png", "cat/about-it.txt", "README.txt", "LICENSE-images.txt", "loose.png")
    source = opened(tmp_path)
    assert source.size == 1 and source.found.layout == "classes"
    assert source.found.left_out == {"picture in no class folder": 1, "text beside the pictures": 3}


@pytest.mark.parametrize(
    ("name", "expected"),
    [("README", True), ("classes", True), ("readme-images", True), ("LICENSE-2.0", True), ("NOTICE_data", True),
     ("notes", True), ("book", False), ("Notes from Underground", False), ("notes-on-life", False), ("train", False),
     ("Names on the Land", False), ("Licence-Renewed", False), ("License to Kill", False), ("About a Boy", False)],
)  # fmt: skip
def test_titles_are_no_notes(tmp_path: Path, name: str, expected: bool) -> None:
    assert is_note(PurePosixPath(f"{name}.txt")) == expected
    source = opened(
        fill(tmp_path, "train.txt", "test.txt", f"{name}.txt") if expected else fill(tmp_path, f"{name}.txt")
    )
    assert source.size == 1 and source.found.left_out == ({"text beside the splits": 1} if expected else {})


TITLES = [
    ["Train to Pakistan", "Test Pilot", "Notes from Underground", "Names on the Land", "Credits Roll"],
    ["train-of-thought", "the-acid-test", "notes-on-life"],
    ["training-day", "evaluation-of-man"],
    ["Night Train", "Acid Test"],
]


@pytest.mark.parametrize("names", TITLES, ids=[names[0] for names in TITLES])
def test_a_word_of_a_title_makes_no_split(tmp_path: Path, names: list[str]) -> None:
    source = opened(fill(tmp_path, *(f"{name}.txt" for name in names)))
    assert not source.found.splits and not source.found.left_out
    assert sorted(source.texts()) == sorted(f"this is {name}.txt" for name in names)
    assert opened(tmp_path, layout="text").digest() == source.digest()


def test_texts_beside_folders_of_splits_are_refused(tmp_path: Path) -> None:
    fill(tmp_path, "train/a.txt", "valid.txt", "test.txt", "README.txt")
    with pytest.raises(
        DataError, match=r"splits \(train/\) and of data beside them \(test.txt, valid.txt\); .*valid/valid"
    ):
        opened(tmp_path)
    for split in ("valid", "test"):
        (tmp_path / split).mkdir()
        (tmp_path / f"{split}.txt").rename(tmp_path / split / f"{split}.txt")
    assert opened(tmp_path).found.splits == {"train": 1, "valid": 1, "test": 1}
    assert opened(tmp_path).found.left_out == {"text beside the splits": 1}
    fill(tmp_path / "c", "train/cat/1.png", "test/cat/2.png", "train.txt", "test_list.txt")  # lists of files
    assert opened(tmp_path / "c").found.left_out == {"text beside the pictures": 2}


@pytest.mark.parametrize("mark", ["runs/x/metrics.jsonl", "runs/x/checkpoints/step_00000002/state.json"])
def test_a_run_beside_the_data_is_no_class(tmp_path: Path, mark: str) -> None:
    fill(tmp_path, "poems.txt", "runs/x/samples/step_00000002.png", mark)
    source = opened(tmp_path)
    assert source.found.layout == "text" and source.found.left_out == {"folder of a run": 1}
    fill(tmp_path / "p", "cat/1.png", "runs/x/samples/step_00000002.png", mark)
    assert [row[0] for row in rows(tmp_path / "p")] == ["cat/1.png"]
    fill(tmp_path / "s", "train/cat/1.png", "test/cat/1.png", "runs/x/samples/step_00000002.png", mark)
    assert opened(tmp_path / "s").found.splits == {"train": 1, "test": 1}


def test_hidden_files_and_circles_of_links(tmp_path: Path) -> None:
    fill(tmp_path / "d", "cat/1.png", "cat/._1.png", ".git/a.png", ".DS_Store.txt")
    (tmp_path / "d" / "cat" / "up").symlink_to(tmp_path / "d")
    (tmp_path / "d" / "dog").symlink_to(fill(tmp_path / "elsewhere", "2.png"))
    tree = scan(tmp_path / "d")
    assert [str(file) for file in tree.pictures] == ["cat/1.png", "dog/2.png"] and tree.num_hidden == 3
    assert layout_of(tmp_path / "d") == "classes"


def test_a_text_that_is_not_unicode_is_left_out_by_name(tmp_path: Path) -> None:
    fill(tmp_path, "a.txt", "b.txt", "sub/c.txt")
    (tmp_path / "b.txt").write_bytes(b"caf\xe9")
    source = opened(tmp_path)
    assert source.size == 1 and list(source.quarantine) == ["b.txt"] and "not UTF-8" in source.quarantine["b.txt"]
    assert source.found.left_out == {"text in sub-folders": 1, "text that is not UTF-8": 1}
    assert source.found.letters == len("this is a.txt")
    (tmp_path / "a.txt").write_bytes(b"\xff")
    with pytest.raises(DataError, match=r"holds no text; the first: .*a.txt, line 1: byte 0 is not UTF-8"):
        opened(tmp_path)


def test_what_is_broken_or_too_long_is_counted(tmp_path: Path) -> None:
    fill(tmp_path, "a.png", "a.txt", "b.png", "b.txt")
    (tmp_path / "b.png").write_bytes(b"broken")
    assert opened(tmp_path).found.left_out == {"picture that cannot be read": 1}
    line = Found("the built-in world", "shapes", left_out={"record too long for a row, of the first 64": 3}).line()
    assert line == (
        "found: the built-in world; trains on records without end; "
        "not taken: 3 records too long for a row, of the first 64"
    )


def test_a_digest_names_the_data_and_not_what_lies_beside(tmp_path: Path) -> None:
    fill(tmp_path, "a.png", "a.txt", "b.png", "b.txt")
    digest = opened(tmp_path).digest()
    fill(tmp_path, ".hidden", "x.json")
    assert opened(tmp_path, layout="pairs").digest() == digest == ImageFolder(tmp_path, 8).digest()
    (tmp_path / "b.txt").write_text("another")
    assert opened(tmp_path).digest() != digest


@pytest.mark.parametrize(
    "names",
    [("train", "valid"), ("Train", "Test"), ("TRAIN", "dev"), ("train", "eval"), ("training", "testing"),
     ("train", "Evaluation"), ("train", "val"), ("train", "validation")],
)  # fmt: skip
def test_folders_are_splits_by_any_of_their_names(tmp_path: Path, names: tuple[str, str]) -> None:
    fill(tmp_path, *(f"{split}/{kind}/{number}.png" for split in names for kind in ("cat", "dog") for number in (1, 2)))
    source = opened(tmp_path)
    assert sorted(set(source.texts())) == ["cat", "dog"] and source.size == 4
    assert source.left_for_others == {names[1].lower(): 4}


WRAPPED: list[tuple[list[str], list[tuple[str, str, str | None]]]] = [
    (["images/cat/1.png", "images/dog/2.png", "README.txt"],
     [("images/cat/1.png", "cat", None), ("images/dog/2.png", "dog", None)]),
    (["a/b/cat/1.png", "a/b/dog/2.png"], [("a/b/cat/1.png", "cat", None), ("a/b/dog/2.png", "dog", None)]),
    (["data/train/cat/1.png", "data/test/dog/2.png", "docs/about.txt"],
     [("data/train/cat/1.png", "cat", "train"), ("data/test/dog/2.png", "dog", "test")]),
    (["train/images/cat/1.png", "test/images/dog/2.png"],
     [("train/images/cat/1.png", "cat", "train"), ("test/images/dog/2.png", "dog", "test")]),
    (["images/1.png", "images/1.txt"], [("images/1.png", "this is images/1.txt", None)]),
    (["n1/images/1.png", "n2/images/2.png"], [("n1/images/1.png", "n1", None), ("n2/images/2.png", "n2", None)]),
    (["cat/1.png", "cat/2.png"], [("cat/1.png", "cat", None), ("cat/2.png", "cat", None)]),
]  # fmt: skip


@pytest.mark.parametrize(("names", "expected"), WRAPPED, ids=[names[0] for names, _ in WRAPPED])
def test_a_folder_around_the_data_is_looked_into(
    tmp_path: Path, names: list[str], expected: list[tuple[str, str, str | None]]
) -> None:
    fill(tmp_path, *names)
    assert sorted(rows(tmp_path)) == sorted(expected)
    source = opened(tmp_path)
    settled = opened(tmp_path, layout=source.found.layout)  # as a run that goes on opens them
    assert settled.digest() == source.digest() and settled.found == source.found
    assert ("the data lie in" in source.found.line()) == names[0].startswith(("images/cat", "a/b", "data", "train/im"))


def test_texts_in_a_folder_are_looked_for_there(tmp_path: Path) -> None:
    source = opened(fill(tmp_path, "verse/a.txt", "verse/b.txt"))
    assert list(source.texts()) == ["this is verse/a.txt", "this is verse/b.txt"]
    assert "the data lie in verse/" in source.found.line() and not source.found.left_out


@pytest.mark.parametrize("table", ["captions.jsonl", "metadata.jsonl", "metadata.csv"])
@pytest.mark.parametrize(
    ("folders", "splits"),
    [(["images"], {}), (["data/train"], {"train": 1}), (["cats", "dogs"], {}),
     (["train/x", "val/x"], {"train": 1, "val": 1})],
)  # fmt: skip
def test_a_table_below_is_read(tmp_path: Path, table: str, folders: list[str], splits: dict[str, int]) -> None:
    key = "file" if table == "captions.jsonl" else "file_name"
    for folder in folders:
        fill(tmp_path, f"{folder}/1.png")
        told = f"file_name,text\n1.png,in {folder}\n" if table.endswith("csv") else None
        (tmp_path / folder / table).write_text(told or json.dumps({key: "1.png", "text": f"in {folder}"}))
    assert [row[:2] for row in rows(tmp_path)] == [(f"{folder}/1.png", f"in {folder}") for folder in folders]
    found = opened(tmp_path).found
    assert (found.layout, found.splits) == ("captions" if key == "file" else "metadata", splits)
    assert not found.unknown and not found.left_out


def test_a_table_below_names_files_without_an_ending(tmp_path: Path) -> None:
    fill(tmp_path, "images/1.png", "README.txt", "images/captions.jsonl", captions='{"file": "1", "text": "a cat"}')
    (tmp_path / "images" / "1.png").rename(tmp_path / "images" / "1")
    assert rows(tmp_path) == [("images/1", "a cat", None)] and opened(tmp_path).size == 1


DOUBTFUL = [
    (["images/1.png", "meta/captions.jsonl"], r"classes \(1 picture in .*\) and of captions \(meta/"),
    (["a.png", "a.txt", "b/captions.jsonl", "b/1.png"], r"pairs .* and of captions \(b/cap.*layout=pairs"),
    (["a.png", "old/metadata.csv"], r"of pictures without a caption and of metadata \(old/metadata.csv\)"),
    (["images/1.png", "captions/1.txt"], r"texts in another folder .*captions/1.txt\): .*\(images/1.txt\)"),
    (["images/train_1.png", "texts/train_1.txt"], r"texts in another folder .*texts/train_1.txt"),
    (["images/cat/1.png", "captions/cat/1.txt"], r"texts in another folder than the pictures of their names"),
    (["train/images/1.png", "train/texts/1.txt"], r"texts in another folder than the pictures of their names"),
    (["train/cat/1.png", "test/cat/2.png", "docs/fig.png"], r"splits \(test/, train/\) and .* \(docs/\); .*=classes"),
    (["train/cat/1.png", "test/cat/2.png", "logo.png"], r"of splits .* and of data beside them \(logo.png\)"),
    (["train/1.png", "train/1.txt", "test/2.png", "test/2.txt", "x/3.png"], r"of splits .* beside them \(x/\)"),
    (["data/train/cat/1.png", "data/test/cat/2.png", "data/x.png"], r"of splits .* and of data beside them \(x.png\)"),
    (["images/1.png", "images/cat/2.png"], r"upper names \(images\) or the lower ones \('cat' of .*=classes"),
    (["loose.png", "images/cat/1.png", "images/dog/2.png"], r"upper names \(images\) or the lower ones \('cat'"),
    (["images/cat/1.png", "images/dog/2.png", "extra/3.png"], r"upper names \(extra, images\) or .*\('cat'"),
    (["animals/cat/1.png", "vehicles/bus/2.png"], r"upper names \(animals, vehicles\) or the lower ones \('cat'"),
    (["train/images/cat/1.png", "val/cat/2.png"], r"in different ways: .*images \(classes\), .*val \(classes\)"),
    (["train.txt", "test.txt", "more.txt"], r"test.txt may be held out.* with more.txt, train.txt; .*=text"),
    (["valid.txt", "test.txt"], r"test.txt, valid.txt may be held out"),
    (["book.txt", "Test.txt"], r"Test.txt may be held out"),
    (["train_en.txt", "test_en.txt"], r"test_en.txt may be held out, by the name, or one text with train_en.txt"),
    (["wiki.train.txt", "wiki.test.txt", "more.txt"], r"wiki.test.txt may be held out.* with more.txt, wiki.train.txt"),
    (["wiki train.txt", "wiki test.txt"], r"wiki test.txt may be held out"),
    (["cat/1.png", "cat/test/2.png", "dog/3.png"], r"folders of splits lie in others \(cat/test\)"),
    (["a/train/1.png", "a/train/1.txt", "a/test/2.png", "a/test/2.txt", "b/train/3.png", "b/train/3.txt"],
     r"folders of splits lie in others \(a/test\).*data.layout=pairs"),
    (["train2017/1.png", "train2017/1.txt", "val2017/2.png", "val2017/2.txt"],
     r"train2017, val2017 are called as splits are; name them so"),
    (["pets_train/1.png", "pets_test/2.png"], r"pets_test, pets_train are called as splits are"),
]  # fmt: skip


@pytest.mark.parametrize(("names", "told"), DOUBTFUL, ids=[" ".join(names) for names, _ in DOUBTFUL])
def test_what_the_names_leave_open_is_refused(tmp_path: Path, names: list[str], told: str) -> None:
    fill(tmp_path, *names)
    with pytest.raises(DataError, match=told):
        opened(tmp_path)


def test_what_was_refused_is_read_as_it_is_told(tmp_path: Path) -> None:
    fill(tmp_path / "c", "train/cat/1.png", "test/cat/2.png", "docs/fig.png")
    assert [row[1] for row in rows(tmp_path / "c", "classes")] == ["docs", "test", "train"]
    fill(tmp_path / "u", "images/cat/1.png", "images/dog/2.png", "extra/3.png")
    assert [row[1] for row in rows(tmp_path / "u", "classes")] == ["extra", "images", "images"]
    fill(tmp_path / "t", "train.txt", "test.txt", "more.txt")
    assert list(opened(tmp_path / "t", layout="text").texts()) == [
        f"this is {n}.txt" for n in ("more", "test", "train")
    ]


def test_what_the_captions_are_is_said(tmp_path: Path) -> None:
    fill(tmp_path, "cat/1.png", "polar_bear/2.png", *(f"k{i}/3.png" for i in range(4)))
    assert (
        "; the names of folders are the captions ('cat', 'k0', 'k1', 'k2' and 2 more); "
        in opened(tmp_path).found.line()
    )


@pytest.mark.parametrize(
    ("names", "splits"),
    [(("train", "valid", "test"), {"train": 1, "valid": 1, "test": 1}), (("Training", "EVAL"), {"train": 1, "eval": 1}),
     (("wiki.train", "wiki.valid"), {"train": 1, "valid": 1}),
     (("train-00000-of-00002", "train-00001-of-00002", "test-0"), {"train": 2, "test": 1})],
)  # fmt: skip
def test_texts_named_for_splits_are_these(tmp_path: Path, names: tuple[str, ...], splits: dict[str, int]) -> None:
    fill(tmp_path, *(f"{name}.txt" for name in names), "README.txt")
    source = opened(tmp_path)
    assert source.found.splits == splits and source.found.left_out == {"text beside the splits": 1}
    assert list(source.texts()) == [f"this is {name}.txt" for name in names if "train" in name.lower()]
    settled = open_reader(FolderConfig(path=tmp_path)).config
    assert isinstance(settled, FolderConfig) and (settled.layout, settled.split) == ("text", "train")
    assert open_source(settled, ENCODER, 99).digest() == source.digest()  # as a run goes on
    for hold_out in (None, 0.0):
        assert sum(1 for _ in opened(tmp_path, layout="text", hold_out=hold_out).texts()) == len(names) + 1
    assert TextFile(tmp_path, split=list(splits)[1]).documents() == [
        f"this is {names[-1] if len(splits) < 3 else 'valid'}.txt"
    ]


@pytest.mark.parametrize("names", [["train"], ["test"], ["train", "README"], ["train", "poems"]])
def test_one_text_named_for_a_split_is_a_text(tmp_path: Path, names: list[str]) -> None:
    source = opened(fill(tmp_path, *(f"{name}.txt" for name in names)))
    assert not source.found.splits and len(list(source.texts())) == len(names)


def test_folders_that_links_cross_are_read_once(tmp_path: Path) -> None:
    names = [f"d{i}" for i in range(9)]
    fill(tmp_path / "d", *(f"{name}/p.png" for name in names))
    for one in names:
        for other in names:
            (tmp_path / "d" / one / f"to_{other}").symlink_to(tmp_path / "d" / other)
    fill(tmp_path / "elsewhere", "x/1.png")
    for link in ("all", "zebra"):
        (tmp_path / "d" / link).symlink_to(tmp_path / "elsewhere" / "x")
    (tmp_path / "d" / "a_link").symlink_to(tmp_path / "d" / "d3")  # before d3 by its name, and yet d3 is d3
    assert [row[:2] for row in rows(tmp_path / "d")] == [("all/1.png", "all"), *((f"{n}/p.png", n) for n in names)]
    assert opened(tmp_path / "d").found.left_out == {"link to a folder that is read already": 83}


def test_a_table_that_is_not_read_is_told(tmp_path: Path) -> None:
    fill(tmp_path, "1.png", "old/captions.jsonl", "captions.jsonl", captions='{"file": "1.png", "text": "a"}')
    found = opened(tmp_path).found
    assert found.left_out == {"table of captions": 1} and not found.unknown


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.png,a red, big dog", "line 2: more fields than the head line names; quote"),
        ('a.png,"a 5 inch dog\nb.png,two', "not CSV"),
    ],
)
def test_a_table_loses_no_part_of_a_caption(tmp_path: Path, row: str, message: str) -> None:
    fill(tmp_path, "a.png", "b.png")
    (tmp_path / "metadata.csv").write_text(f"file_name,text\n{row}\n")
    with pytest.raises(DataError, match=message):
        folder_captions(tmp_path)


@pytest.mark.parametrize("name", ["train.jsonl", "train/conversations.jsonl"])
def test_rows_in_a_folder_are_to_be_named(tmp_path: Path, name: str) -> None:
    for file in (name, name.replace("train", "test")):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text('{"text": "a"}\n')
    with pytest.raises(
        DataError, match=rf"2 files of no known kind \(.jsonl\).*naming their file: data.path=.*/{name}"
    ):
        lay_out(tmp_path)
