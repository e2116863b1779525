"""Tables of captions: by any name, with columns called in any usual way; nothing of them is lost in silence."""

import json
from pathlib import Path

import pytest
from PIL import Image

from transfusion.autoencoder.settings import PretrainedConfig
from transfusion.config import ConfigError, RunConfig, override
from transfusion.data.captions import FolderCaptions, folder_captions
from transfusion.data.encode import EncodeConfig, Encoder
from transfusion.data.errors import DataError
from transfusion.data.latents_index import LatentsSettings
from transfusion.data.prepare import make_plan
from transfusion.data.settings import FolderConfig, SourceConfig
from transfusion.data.sources import open_reader
from transfusion.tokenizer import ByteTokenizer
from transfusion.train.autoencoder.pictures import picture_rows

ENCODER = Encoder(ByteTokenizer(), EncodeConfig(), 0)
TOLD = [("0.png", "a cat"), ("1.png", "two dogs")]
NAMES = ("0.png", "1.png")


def save(folder: Path, *names: str) -> Path:
    """Write pictures of their own colours."""
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / name)
    return folder


def lines(*rows: object) -> str:
    """Write rows as lines of JSON."""
    return "\n".join(map(json.dumps, rows))


def rows(found: FolderCaptions) -> list[tuple[str, str]]:
    """Return pictures and captions."""
    return [(row.file, row.text) for row in found.rows]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "captions.json", "captions.jsonl", "metadata.jsonl"])
@pytest.mark.parametrize(("picture", "text"), [("file", "text"), ("file_name", "text"), ("image", "caption")])
def test_rows_that_name_pictures_are_captioned_pictures(tmp_path: Path, name: str, picture: str, text: str) -> None:
    table = [{picture: file, text: caption} for file, caption in TOLD]
    own = save(tmp_path / "own", *NAMES)
    (own / "captions.jsonl").write_text(lines(*({"file": file, "text": caption} for file, caption in TOLD)))
    folder = save(tmp_path / "d", *NAMES)
    (folder / name).write_text(json.dumps(table) if name.endswith("json") else lines(*table))
    reader = open_reader(FolderConfig(path=folder / name, resolution=8))
    source = reader.source(ENCODER, 99)
    assert source.found.layout == name.partition(".")[0].replace("rows", "captions")
    assert str(folder / name) in source.found.line() and "not taken" not in source.found.line()
    assert source.size == 2 and list(reader.texts()) == [caption for _, caption in TOLD]
    assert reader.digest() == open_reader(FolderConfig(path=own, resolution=8)).digest()
    pictures = reader.sample_pictures()
    assert pictures is not None and len(pictures) == 2
    settled = reader.config
    assert open_reader(settled).digest() == reader.digest()  # as a run that goes on opens them
    assert len(picture_rows(FolderConfig(path=folder / name)).rows) == 2


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "metadata.csv"])
@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_tables_of_fields_may_be_named(tmp_path: Path, name: str, mark: str) -> None:
    save(tmp_path, *NAMES)
    told = [("image", "caption"), *TOLD]
    (tmp_path / name).write_text("\n".join(mark.join(fields) for fields in told))
    assert rows(folder_captions(tmp_path / name)) == TOLD
    if name == "metadata.csv":
        assert rows(folder_captions(tmp_path)) == TOLD


def test_pictures_of_a_named_table_are_prepared(tmp_path: Path) -> None:
    save(tmp_path / "d", *NAMES)
    (tmp_path / "d" / "rows.jsonl").write_text(lines(*({"file": file, "text": text} for file, text in TOLD)))
    assert folder_captions(tmp_path / "d" / "rows.jsonl").path == tmp_path / "d"
    settings = LatentsSettings(size=(8, 8), autoencoder=PretrainedConfig())
    plan = make_plan(tmp_path / "d" / "rows.jsonl", tmp_path / "to", settings)
    assert all((plan.source / file).is_file() for file in plan.files)


def test_a_folder_with_an_array_of_captions(tmp_path: Path) -> None:
    table = json.dumps([{"file": file, "text": text} for file, text in TOLD])
    for folder in (tmp_path / "d", tmp_path / "s" / "train", tmp_path / "s" / "test"):
        (save(folder, *NAMES) / "captions.json").write_text(table)
    found = folder_captions(tmp_path / "d")
    assert rows(found) == TOLD and found.layout == "captions" and not found.found.unknown
    assert folder_captions(tmp_path / "s").left_for_others == {"test": 2}
    (save(tmp_path / "one", "images/0.png") / "captions.json").write_text(table.replace("0.png", "images/0.png"))
    with pytest.raises(DataError, match=r"two layouts at once, of captions \(captions.json\) and of classes"):
        folder_captions(tmp_path / "one")
    (save(tmp_path / "classes", "cat/0.png", "dog/1.png") / "captions.json").write_text("{}")
    assert folder_captions(tmp_path / "classes").layout == "classes"


def test_a_blank_caption_of_a_table_is_left_out_and_named(tmp_path: Path) -> None:
    save(tmp_path, *NAMES)
    for name, text in {
        "captions.jsonl": lines({"file": "0.png", "text": "a cat"}, {"file": "1.png", "text": "  "}),
        "captions.json": json.dumps([{"file": "0.png", "text": "a cat"}, {"file": "1.png", "text": None}]),
        "metadata.csv": "file_name,text\n0.png,a cat\n1.png,\n,\n",
    }.items():
        (tmp_path / name).write_text(text)
        found = folder_captions(tmp_path)
        assert rows(found) == TOLD[:1] and found.found.left_out["caption that cannot be read"] == 1
        place = "element 2" if name.endswith("json") else "line 3" if name.endswith("csv") else "line 2"
        assert list(found.quarantine) == [f"{name}, {place}"]
        assert "the caption of '1.png' is empty" in found.quarantine[f"{name}, {place}"]
        (tmp_path / name).unlink()
    (tmp_path / "captions.jsonl").write_text(lines({"file": "0.png", "text": ""}))
    with pytest.raises(DataError, match=r"no captioned pictures; the first: .*line 1: the caption of '0.png' is empty"):
        folder_captions(tmp_path)


def test_columns_of_one_meaning_agree(tmp_path: Path) -> None:
    save(tmp_path, *NAMES)
    table = tmp_path / "captions.jsonl"
    same = {"file": "0.png", "image": "./0.png", "text": "a cat ", "caption": "a cat"}
    table.write_text(lines(same, {"file": "1.png", "text": "two dogs", "caption": ""}))
    assert rows(folder_captions(tmp_path)) == TOLD
    for other, named in (({"image": "1.png"}, "'file' and 'image'"), ({"caption": "x"}, "'text' and 'caption'")):
        table.write_text(lines({**same, **other}))
        with pytest.raises(DataError, match=rf"line 1: columns {named} mean the same"):
            folder_captions(tmp_path)


def test_a_list_is_several_captions(tmp_path: Path) -> None:
    save(tmp_path, *NAMES)
    (tmp_path / "captions.jsonl").write_text(lines({"file": "0.png", "text": ["a cat", "a grey cat"]}))
    assert [(row.text, row.number) for row in folder_captions(tmp_path).rows] == [("a cat", 0), ("a grey cat", 1)]
    (tmp_path / "captions.jsonl").write_text(lines({"file": "0.png", "text": ["a cat", 3]}))
    with pytest.raises(DataError, match="line 1: expected an object with strings 'file' and 'text'"):
        folder_captions(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("captions.jsonl", '{"file": "0.png", "prompt": "a"}', "its columns are 'file', 'prompt': rename"),
        ("metadata.csv", "picture,text\n0.png,a", "its columns are 'picture', 'text': rename"),
        ("rows.jsonl", '{"file": "0.png", "prompt": "a"}', "its columns are 'file', 'prompt': rename"),
    ],
)
def test_other_columns_are_listed(tmp_path: Path, name: str, text: str, message: str) -> None:
    (save(tmp_path, *NAMES) / name).write_text(text)
    with pytest.raises(DataError, match=message):
        open_reader(FolderConfig(path=tmp_path / name))


def test_rows_of_text_alone_say_which_pictures_are_not_taken(tmp_path: Path) -> None:
    table = save(tmp_path, *NAMES) / "rows.jsonl"
    table.write_text(lines(*({"file": file, "text": text} for file, text in TOLD), {"text": "alone"}))
    found = open_reader(FolderConfig(path=table, layout="lines")).source(ENCODER, 99).found
    assert found.layout == "lines" and "2 rows name pictures that are not taken" in found.line()
    with pytest.raises(DataError, match="line 3: expected an object with strings 'file' and 'text'"):
        open_reader(FolderConfig(path=table))
    table.write_text(lines({"text": "alone"}, {"file": "0.png", "text": "a cat"}))
    told = open_reader(FolderConfig(path=table)).source(ENCODER, 99).found.line()
    assert "1 row names pictures that are not taken" in told
    table.write_text(lines({"file": "src/main.py", "text": "import this"}))
    assert "not taken" not in open_reader(FolderConfig(path=table)).source(ENCODER, 99).found.line()
    table.write_text(lines({"image": "0.png", "text": "a", "messages": []}))
    with pytest.raises(DataError, match=r"layouts at once, of conversations .* and of captions \(rows with 'image'"):
        open_reader(FolderConfig(path=table))


def test_a_picture_that_is_not_there_is_said_to_be_missing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path, "0.png")
    (tmp_path / "captions.jsonl").write_text(lines(*({"file": file, "text": text} for file, text in TOLD)))
    with caplog.at_level("WARNING"):
        source = open_reader(FolderConfig(path=tmp_path, resolution=8)).source(ENCODER, 99)
    assert "1.png: there is no such file" in caplog.text and "broken" not in caplog.text
    assert source.found.left_out == {"picture whose file is not there": 1}


def test_an_empty_path_is_refused_and_home_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for given in ("data.path=", "data.path= ", "data.images="):
        with pytest.raises(ConfigError, match="is empty; name a folder"):
            override(RunConfig(data=FolderConfig()), [given])
    with pytest.raises(ValueError, match="is empty"):
        SourceConfig.model_validate({"name": "a", "path": ""})
    monkeypatch.setenv("HOME", str(tmp_path))
    assert FolderConfig.model_validate({"path": "~/pets"}).path == tmp_path / "pets"
    assert FolderConfig(path=Path("~"), images=Path("~/a")).images == tmp_path / "a"
    assert FolderConfig(path=Path("~pets/~")).path == Path("~pets/~")


def test_folders_of_classes_without_files_are_counted(tmp_path: Path) -> None:
    save(tmp_path, "cat/0.png")
    (tmp_path / "dog").mkdir()
    (tmp_path / "cow").mkdir()
    (tmp_path / ".a").touch()
    (tmp_path / ".b").touch()
    line = folder_captions(tmp_path).found.line()
    assert line.endswith("not taken: 2 folders without files, 2 names beginning with a dot")
