"""On which side of training records stand: folders of splits in every format, and pictures that several share."""

import json
import os
import tarfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from transfusion.data.decode import Slice
from transfusion.data.errors import DataError
from transfusion.data.records.mapped import part_name
from transfusion.data.records.own import own
from transfusion.data.records.record import Record, Records, pictures
from transfusion.data.records.sides import Sides
from transfusion.data.settings import Layout
from transfusion.data.sources import FolderConfig, open_reader
from transfusion.data.splits import IN_BOTH, apart, by_folders, choose, hold_out_fraction, split_around, strictest

Make = Callable[[Path, list[list[str]]], Path]
OWN = """
from transfusion.data.records import Edit

def record(row):
    *prompt, picture = row["pictures"]
    return Edit(str(row["number"]), (*map(Path, prompt), "x"), picture)
"""


def conversation(names: list[str]) -> dict[str, object]:
    """Make a conversation about pictures."""
    asked = {"from": "human", "value": "<image>" * len(names) + "What?"}
    return {"image": names, "conversations": [asked, {"from": "gpt", "value": "A star."}]}


def message(names: list[str]) -> dict[str, object]:
    """Make messages about pictures."""
    asked = [*({"type": "image", "image": name} for name in names), {"type": "text", "text": "What?"}]
    return {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": "A star."}]}


def edit(names: list[str]) -> dict[str, object]:
    """Make an edit whose last picture is drawn."""
    return {"instruction": "blue", "input_images": names[:-1], "output_image": names[-1]}


def document(names: list[str]) -> dict[str, object]:
    """Make a document of pictures, each with a text."""
    found = [each for name in names for each in ({"type": "text", "text": "a"}, {"type": "image", "file": name})]
    return {"segments": found}


def rows(name: str, row: Callable[[list[str]], dict[str, object]]) -> Make:
    """Return what writes rows of a kind into a file."""

    def write(folder: Path, records: list[list[str]]) -> Path:
        (folder / name).write_text("\n".join(json.dumps(row(names)) for names in records), encoding="utf-8")
        return folder

    return write


ROWS = {
    "conversations": rows("conversations.jsonl", conversation),
    "messages": rows("conversations.jsonl", message),
    "edits": rows("edits.jsonl", edit),
    "interleaved": rows("documents.jsonl", document),
}


def kept(config: FolderConfig) -> list[list[str]]:
    """Return the pictures of each record that is trained on, relative to the data."""
    reader = open_reader(config)
    records: Records = reader._records  # type: ignore # pyright: ignore
    return [_names(records[place], config.path) for place in reader._chosen.places]  # type: ignore # pyright: ignore


def _names(record: Record, path: Path) -> list[str]:
    return [str(each.relative_to(path)) for each in pictures(record) if isinstance(each, Path)]


@pytest.mark.parametrize("kind", ROWS)
def test_rows_are_of_the_split_in_whose_folder_their_pictures_lie(tmp_path: Path, kind: str) -> None:
    path = ROWS[kind](tmp_path, [["train/1.png"], ["Test/2.png"], ["a/val/3.png"], ["4.png"], ["x/5.png"]])
    config = FolderConfig(path=path)
    assert kept(config) == [["train/1.png"], ["4.png"], ["x/5.png"]]
    assert kept(config.model_copy(update={"split": "test"})) == [["Test/2.png"]]
    assert kept(config.model_copy(update={"split": "val"})) == [["a/val/3.png"]]


@pytest.mark.parametrize("kind", ROWS)
def test_a_record_that_touches_the_test_is_never_trained_on(tmp_path: Path, kind: str) -> None:
    records = [["train/1.png", "test/2.png"], ["val/3.png", "train/1.png", "test/4.png"], ["train/5.png", "6.png"]]
    config = FolderConfig(path=ROWS[kind](tmp_path, [*records, ["val/3.png", "train/7.png"]]))
    assert kept(config) == [records[2]]
    assert kept(config.model_copy(update={"split": "test"})) == records[:2]
    noted = open_reader(config)._records.found.line()  # type: ignore # pyright: ignore
    assert "3 records with pictures in several splits, of which they are held out as the strictest" in noted


def test_rows_that_mark_a_split_go_before_folders(tmp_path: Path) -> None:
    marked = [{**conversation([f"{folder}/1.png"]), "split": mark} for folder, mark in (("test", ""), ("a", "test"))]
    (tmp_path / "conversations.json").write_text(json.dumps(marked))
    assert kept(FolderConfig(path=tmp_path)) == [["test/1.png"]]  # the data say themselves what is held out
    marked[1]["split"] = "train"
    (tmp_path / "conversations.json").write_text(json.dumps(marked))
    assert kept(FolderConfig(path=tmp_path)) == [["a/1.png"]]  # train alone is no mark


def test_what_is_marked_for_both_is_told_by_name(tmp_path: Path) -> None:
    made = [{**conversation([name]), "split": split} for split in ("train", "test") for name in ("1.png", "2.png")]
    (tmp_path / "conversations.jsonl").write_text("\n".join(map(json.dumps, made)))
    told = open_reader(FolderConfig(path=tmp_path))._chosen.told  # type: ignore # pyright: ignore
    assert told == "in 'train' and in another split at once: conversations.jsonl:2, conversations.jsonl:3"


def test_pictures_of_a_format_of_ones_own_and_of_another_folder(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(f"from pathlib import Path\n{OWN}")
    made = [{"number": number, "pictures": names} for number, names in enumerate((["train/1.png"], ["test/1.png"]))]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, made)))
    images = tmp_path / "dev" / "pictures"  # a folder around them tells nothing
    config = FolderConfig(
        path=tmp_path / "rows.jsonl", layout="own", reader=f"{tmp_path}/mine.py:record", images=images
    )
    found = open_reader(config)._records  # type: ignore # pyright: ignore
    assert list(found.splits) == ["train", "test"]


def test_members_of_a_tar_in_folders_of_splits(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for number, folder in enumerate(("train", "./test", "x")):
            stream = BytesIO()
            Image.new("RGB", (8, 8), (number, 0, 0)).save(stream, "PNG")
            for ending, data in (("png", stream.getvalue()), ("txt", folder.encode())):
                member = tarfile.TarInfo(f"{folder}/{number}.{ending}")
                member.size = len(data)
                tar.addfile(member, BytesIO(data))
    assert list(open_reader(FolderConfig(path=tmp_path)).texts()) == ["train", "x"]


def sides(path: Path) -> Iterator[set[str]]:
    """Yield the files of the pictures that are trained on, and of those that are held out."""
    for split in ("train", "test"):
        config = FolderConfig(path=path, hold_out=0.3, split=split)
        yield {os.path.realpath(path / name) for names in kept(config) for name in names}


CHAINS: dict[str, Callable[[int], list[list[str]]]] = {
    "an edit of an edit": lambda i: [[f"x{i}.png", f"y{i}.png"], [f"y{i}.png", f"z{i}.png"]],
    "a later picture": lambda i: [[f"a{i}.png", f"b{i}.png"], [f"b{i}.png", f"b{i}.png"]],
    "a last picture": lambda i: [[f"a{i}.png", f"c{i}.png"], [f"b{i}.png", f"c{i}.png"]],
    "a link": lambda i: [[f"a{i}.png", f"r{i}.png"], [f"link/a{i}.png", f"q{i}.png"]],
    "a link to a picture": lambda i: [[f"a{i}.png", f"r{i}.png"], [f"s{i}.png", f"q{i}.png"]],
    "a hard link": lambda i: [[f"p{i}.png", f"a{i}.png"], [f"q{i}.png", f"h{i}.png"]],
}


@pytest.mark.parametrize("kind", ["conversations", "messages", "edits"])
@pytest.mark.parametrize("chain", CHAINS)
def test_records_that_share_a_picture_are_on_one_side(tmp_path: Path, kind: str, chain: str) -> None:
    for number in range(40):
        (tmp_path / f"a{number}.png").write_bytes(b"")
        (tmp_path / f"h{number}.png").hardlink_to(tmp_path / f"a{number}.png")
        (tmp_path / f"s{number}.png").symlink_to(f"a{number}.png")
    (tmp_path / "link").symlink_to(".")
    ROWS[kind](tmp_path, [names for number in range(40) for names in CHAINS[chain](number)])
    trained, held_out = sides(tmp_path)
    inodes = [{os.stat(name).st_ino if Path(name).exists() else name for name in side} for side in (trained, held_out)]
    assert trained and held_out and not inodes[0] & inodes[1]


def test_a_picture_that_many_documents_show_does_not_tie_them(tmp_path: Path) -> None:
    logo = {"type": "image", "file": "logo.png"}
    made = [{"segments": [logo, {"type": "text", "text": str(number)}]} for number in range(60)]
    (tmp_path / "documents.jsonl").write_text("\n".join(map(json.dumps, made)))
    assert len(kept(FolderConfig(path=tmp_path, split="test"))) >= 1


def test_the_groups_of_records_do_not_depend_on_their_order(tmp_path: Path) -> None:
    records = [(f"{number:016x}", [tmp_path / f"{number}", tmp_path / f"{number + 3}"]) for number in range(9)]
    records.append(("00000000000000ff", []))

    def groups(order: list[int]) -> dict[str, str]:
        found = Sides(tmp_path)
        for number in order:
            found.add(records[number][0], None, records[number][1])
        return dict(zip([records[number][0] for number in order], found.groups, strict=True))

    names = [f"{number:016x}" for number in range(9)]
    last = [max(names[first::3], key=hold_out_fraction) for first in range(3)]  # each: where all of its own hashes are
    expected = {name: last[number % 3] for number, name in enumerate(names)} | {"00000000000000ff": f"{255:016x}"}
    assert groups(list(range(10))) == groups([9, 4, 8, 0, 3, 6, 1, 7, 2, 5]) == expected


def test_what_most_records_share_is_trained_on_and_the_rest_still_held_out() -> None:
    """A logo ties all that show it; the hash would hold out all of them, or more than is asked for."""
    names = [*["logo"] * 100, *map(str, range(60))]
    for logo in map(str, range(300, 400)):
        told = [logo if name == "logo" else name for name in names]
        for share in (None, 0.05):
            found = choose(told, [None] * 160, None, share, where=Path("d"))
            assert set(range(100)) <= set(found.places) and found.left["test"] >= 1
    few = choose(["logo"] * 100, [None] * 100, None, None, where=Path("d"))
    assert "nothing is held out (100 records that share pictures or texts: 1 group, fewer than 50" in few.told


OWN_DOCUMENTS = """
from pathlib import Path
from transfusion.data.records import Interleaved

def record(row):
    parts = [each.get("text") or HERE / each["file"] for each in row["segments"]]
    return Interleaved(parts[0], tuple(parts))
"""


def own_documents(folder: Path, count: int, logo: bool = False) -> FolderConfig:
    """Write documents, and a format of one's own that names their pictures absolutely."""
    folder.mkdir()
    made = [
        {"segments": [{"type": "text", "text": f"{i}"}, {"type": "image", "file": "0.png" if logo else f"{i}.png"}]}
        for i in range(count)
    ]
    (folder / "documents.jsonl").write_text("\n".join(map(json.dumps, made)))
    (folder / "mine.py").write_text(OWN_DOCUMENTS.replace("HERE", f"Path({str(folder)!r})"))
    reader = f"{folder}/mine.py:record"
    return FolderConfig(path=folder / "documents.jsonl", layout="own", reader=reader)


def test_records_stay_on_their_side_wherever_the_data_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configs = [own_documents(tmp_path / name, 60) for name in ("here", "there")]
    (tmp_path / "link").symlink_to("here")
    monkeypatch.chdir(tmp_path)
    paths = [*(config.path for config in configs), Path("here"), Path("here/../there"), Path("link/documents.jsonl")]
    documents = [open_reader(FolderConfig(path=path, layout="interleaved")) for path in paths]
    assert len({reader.digest() for reader in documents}) == 1
    for path in (Path("here/documents.jsonl"), Path("./link/documents.jsonl")):
        configs.append(configs[0].model_copy(update={"path": path}))
    groups = [list(own(each.path, each.path.parent, each.reader).groups) for each in configs]
    assert all(each == groups[0] for each in groups) and len({*groups[0]}) == 60
    assert groups[0] == list(documents[0]._records.groups)  # type: ignore # pyright: ignore


def test_a_logo_ties_no_documents_of_a_format_of_ones_own(tmp_path: Path) -> None:
    config = own_documents(tmp_path / "data", 60, logo=True)
    assert len({*own(config.path, config.path.parent, config.reader).groups}) == 60


def test_links_that_become_files_are_other_data(tmp_path: Path) -> None:
    """By links two records are one group, and by copies two; what they say is the same."""
    digests = list[str]()
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name in ("a.png", "b.png"):
            (folder / name).write_bytes(b"")
        if number:
            (folder / "b.png").unlink()
            (folder / "b.png").hardlink_to(folder / "a.png")
        rows("edits.jsonl", edit)(folder, [["a.png"], ["b.png"]])
        digests.append(open_reader(FolderConfig(path=folder)).digest())
    assert digests[0] != digests[1]


@pytest.mark.parametrize("kind", ROWS)
def test_folders_tell_splits_however_the_data_are_named(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ROWS[kind](tmp_path, [["train/1.png"], ["test/2.png"]])
    (tmp_path / "train").mkdir()
    file = next(tmp_path.glob("*.jsonl")).name
    for folder, names in (("", (".", file, f"./{file}", f"../{tmp_path.name}")), ("train", ("..", f"../{file}"))):
        monkeypatch.chdir(tmp_path / folder)
        for name in names:
            found = open_reader(FolderConfig(path=Path(name)))._records  # type: ignore # pyright: ignore
            assert list(found.splits) == ["train", "test"], name


def test_absolute_pictures_and_parts_of_files_tell_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(".")
    for images in (Path(), Path("."), tmp_path, tmp_path / "link", Path("link")):
        found = Sides(images)
        for number, split in enumerate(("train", "test", "test")):
            file = tmp_path / split / f"{number}.tar"
            found.add(f"{number:016x}", None, [Slice(file, 0, 9, "x") if number == 2 else file])
        assert found.splits == ["train", "test", "test"], images


@pytest.mark.parametrize("share", [0.05, None])
def test_more_data_never_hold_out_what_was_trained_on(tmp_path: Path, share: float | None) -> None:
    """Records that come share pictures with those that there are, and are the first of all to be held out, or last."""
    path = tmp_path / "conversations.jsonl"

    def trained(records: list[list[str]]) -> set[str]:
        rows(path.name, message)(tmp_path, records)
        return {names[-1] for names in kept(FolderConfig(path=tmp_path, layout="conversations", hold_out=share))}

    before = trained([[f"{number}.png"] for number in range(300)])
    more = [[f"{number + shift}.png", f"{number}.png"] for shift in (300, 600) for number in range(300)]
    after = trained([[f"{number}.png"] for number in range(300)] + more)
    assert len(before) < 300 and before <= after


def test_the_default_share_falls_though_groups_become_one() -> None:
    single = sorted((f"{number:016x}" for number in range(30_000)), key=hold_out_fraction)
    first = choose(single, [None] * 30_000, None, None, where=Path("d"))
    assert first.left == {"test": 500}
    tied = [*[single[-1]] * 400, *single[400:]]  # 400 that were held out share pictures with one that was not
    found = choose(tied, [None] * 30_000, None, None, where=Path("d"), own=single)
    assert found.left == {"test": 100} and {*first.places} <= {*found.places}
    tied, alone = [*[single[-1]] * 10, *single[-100:]], [*single[:10], *single[-100:]]
    for share in (None, 0.1):
        none = choose(tied, [None] * 110, None, share, where=Path("d"), own=alone)
        assert (none.left, none.hold_out) == ({}, 0.0)
        assert "nothing is held out (all that would be share pictures with others" in none.told
    with pytest.raises(DataError, match="holds out none of 100 records"):
        choose(single[-100:], [None] * 100, None, 0.1, where=Path("d"), own=single[-100:])


@pytest.mark.parametrize("kind", ["conversations", "messages", "edits"])
def test_what_shares_a_picture_with_the_test_is_not_trained_on(tmp_path: Path, kind: str) -> None:
    for folder, name in (("train", "9.png"), ("test", "3.png")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_bytes(b"")
    (tmp_path / "train/9.png").unlink()
    (tmp_path / "train/9.png").hardlink_to(tmp_path / "test/3.png")
    records = [["train/0.png"], ["train/0.png", "test/0.png"], ["train/1.png"], ["train/9.png"], ["test/3.png"]]
    config = FolderConfig(path=ROWS[kind](tmp_path, records))
    assert kept(config) == [["train/1.png"]]
    assert kept(config.model_copy(update={"split": "test"})) == [records[1], records[4]]
    chosen = open_reader(config)._chosen  # type: ignore # pyright: ignore
    file = next(tmp_path.glob("*.jsonl")).name
    told = "2 records of 'train' not trained on, in another split by pictures or texts"
    assert chosen.told == f"{told}: {file}:0, {file}:3" and chosen.left == {"test": 2, IN_BOTH: 2}
    large = apart(["logo"] * 501 + ["a", "a"], ["test", *["train"] * 501, "val"])
    assert large == ["test", *["train"] * 500, IN_BOTH, "val"]  # a logo leaves what to train on


def test_words_of_folders_and_which_of_several_counts() -> None:
    assert split_around("a/Testing/train") == "testing" and split_around("test.png") is None
    assert strictest(["train", None, "val", "test"]) == "test" and strictest(["dev", "train"]) == "dev"
    assert strictest([None]) is None
    assert by_folders([None, None], {0: "train"}) == [None, None]
    assert by_folders([None, None, "train"], {0: "train", 1: "test", 2: "test"}) == ["train", "test", "train"]
    assert by_folders([None, "val"], {0: "test"}) == [None, "val"]


def test_a_part_of_a_file_is_called_alike_wherever_the_data_lie() -> None:
    names = {part_name(Slice(Path(folder, "a.tar"), 3, 9, "one"), Path(folder)) for folder in ("here", "/there")}
    assert len(names) == 1 and part_name(Slice(Path("here/a.tar"), 4, 9, "one"), Path("here")) not in names


@pytest.mark.parametrize(("layout", "stem"), [("conversations", "conversations"), ("edits", "edits")])
def test_two_files_of_one_format_are_refused(tmp_path: Path, layout: Layout, stem: str) -> None:
    for ending in ("json", "jsonl"):
        made = conversation(["1.png"]) if stem == "conversations" else edit(["1.png", "2.png"])
        (tmp_path / f"{stem}.{ending}").write_text(json.dumps(made))
    for asked in ("auto", layout):
        with pytest.raises(DataError, match=rf"holds both {stem}.json and {stem}.jsonl; take one of them away, or"):
            open_reader(FolderConfig.model_validate({"path": tmp_path, "layout": asked}))
    assert list(open_reader(FolderConfig(path=tmp_path / f"{stem}.json")).texts())
