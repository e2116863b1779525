"""A format of one's own: functions of rows and of a path, what they may give, and what is said where they fail."""

import json
import shutil
import threading
from pathlib import Path

import pytest
from PIL import Image

from transfusion.config import override
from transfusion.data.errors import DataError
from transfusion.data.sources import FolderConfig, open_reader
from transfusion.pretrained import Transfusion
from transfusion.recipes import RECIPES
from transfusion.run import open_run, train_run

ROWS = """
from transfusion.data.records import Captioned

def record(row):
    return Captioned(row["key"], row["title"], row["picture"]) if row["title"] else None
"""
PATHS = """
from pathlib import Path
from transfusion.data.records import Conversation, Turn

class Talks:
    def __init__(self, path):
        self.files = sorted(path.glob("*.png"))
    def __len__(self):
        return len(self.files)
    def __getitem__(self, index):
        file = self.files[index]
        asked = Turn("person", (Path(file.name), "What is it?"))
        return Conversation(file.stem, (asked, Turn("model", (file.stem,))))

def records(path: Path) -> Talks:
    return Talks(path)
"""


def data(folder: Path, code: str = ROWS, **more: object) -> Path:
    """Write pictures, rows about them, and a file of code."""
    folder.mkdir(exist_ok=True)
    for name, colour in (("red", (255, 0, 0)), ("blue", (0, 0, 255))):
        Image.new("RGB", (20, 20), colour).save(folder / f"{name}.png")
    rows = [
        {"key": f"k{i}", "title": t, "picture": f"{t or 'red'}.png", **more} for i, t in enumerate(("red", "", "blue"))
    ]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (folder / "mine.py").write_text(code, encoding="utf-8")
    return folder


def opened(folder: Path, function: str = "record", path: str = "rows.jsonl", **settings: object) -> FolderConfig:
    """Return settings for the function of a file."""
    reader = f"{folder / 'mine.py'}:{function}"
    tree = {"path": folder / path, "layout": "own", "reader": reader, "resolution": 16, "hold_out": 0.0, **settings}
    return FolderConfig.model_validate(tree)


def test_a_function_of_rows_makes_records_and_leaves_rows_out(tmp_path: Path) -> None:
    for path in ("rows.jsonl", ""):  # the file, or the folder that it lies in
        marked = ROWS.replace("(row)", "(row: dict)")
        reader = open_reader(opened(data(tmp_path, marked), path=path))
        assert list(reader.texts()) == ["red", "blue"]
        assert reader.sample_pictures()[1, 0, 0].tolist() == [0, 0, 255]  # pyright: ignore


def test_a_function_of_a_path_makes_all_records(tmp_path: Path) -> None:
    reader = open_reader(opened(data(tmp_path, PATHS), "records", ""))
    assert list(reader.texts()) == ["What is it?", "blue", "What is it?", "red"]


def test_rows_mark_their_splits(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no records of split 'train'; it has 'test' \\(2\\)"):
        open_reader(opened(data(tmp_path, split="test")))


def test_files_and_folders_called_as_splits_are_these(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from transfusion.data.records import Interleaved\n"
        "def record(row: dict): return Interleaved(row['t'], (row['t'],))"
    )
    for names in (("train.jsonl", "test.jsonl", "rest.jsonl"), ("train/a.json", "test/a.json", "val/a.json")):
        for name in names:
            (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
            told = [{"t": f"{name} {number}", "split": "test" if number else None} for number in range(2)]
            (tmp_path / "in" / name).write_text("\n".join(map(json.dumps, told)))
        config = opened(tmp_path, path="in")
        assert list(open_reader(config).texts()) == [f"{names[0]} 0"]
        held_out = list(open_reader(config.model_copy(update={"split": "test"})).texts())
        assert set(held_out) == {f"{names[1]} 0", *(f"{name} 1" for name in names)}
        shutil.rmtree(tmp_path / "in")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def record(row): return row['nothing']", "line 1: .*mine.py:record fails: KeyError: 'nothing'"),
        ("def record(row): return row", "line 1: .*mine.py:record returned .*expected Captioned, Interleaved"),
        (ROWS.replace('row["picture"])', "3)"), "line 1: .*gave 3 as a picture; expected a Path"),
        (ROWS.replace('row["title"],', "4,"), "line 1: .*gave 4 as words; expected a string"),
        ("1 / 0", "the file fails: ZeroDivisionError"),
        ("record = 3", "has no function 'record'"),
        ("def record(): return 3", "takes no argument"),
        ("def record(row): return None", "gives no records"),
        (
            "from transfusion.data.records import *\n"
            "def record(row): return "
            "Interleaved('i', ('b',)) if row['key'] == 'k2' else Captioned(row['key'], 'b', 'c.png')",
            "line 3 is Interleaved, and those before are Captioned",
        ),
    ],
)
def test_what_fails_is_named_with_its_row(tmp_path: Path, code: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_reader(opened(data(tmp_path, code)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reader": None}, "name it, as data.reader=my_format.py:record"),
        ({"reader": "no.py:record"}, "there is no file 'no.py'"),
        ({"layout": "auto"}, "data.reader reaches nothing with data.layout=auto"),
        ({"path": "no"}, "there is no no; data.path"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(tmp_path: Path, settings: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_reader(
            opened(data(tmp_path)).model_copy(
                update={**settings, **({"path": Path("no")} if "path" in settings else {})}
            )
        )  # type: ignore


def test_what_a_function_s_file_holds_is_part_of_the_data(tmp_path: Path) -> None:
    digests = {open_reader(opened(data(tmp_path, code))).digest() for code in (ROWS, ROWS, f"{ROWS}# changed\n")}
    talks = {open_reader(opened(data(tmp_path, PATHS), "records", "")).digest() for _ in range(2)}
    assert len(digests) == 2 and len(talks) == 1


def test_a_run_goes_on_by_the_function_and_a_model_needs_none(tmp_path: Path) -> None:
    folder = data(tmp_path / "data", PATHS)
    small = ["data.resolution=16", "model.trunk.dim=32", "model.trunk.depth=1", "train.row_length=96"]
    small += ["train.steps=2", "train.batch_size=4", "tokenizer.kind=bytes", f"data.path={folder}", "data.layout=own"]
    config = override(RECIPES["folder"](), [*small, f"data.reader={folder / 'mine.py'}:records"])
    state, source = open_run(config, tmp_path / "run", is_resumed=False, device="cpu")
    list(train_run(state, source, tmp_path / "run", threading.Event()))
    again, _ = open_run(config, tmp_path / "run", is_resumed=True, device="cpu")
    assert again.step == 2
    (folder / "mine.py").write_text("raise SystemExit('imported')")
    assert isinstance(Transfusion.from_pretrained(tmp_path / "run").ask(folder / "red.png", "What is it?"), str)


def test_records_of_one_name_are_refused(tmp_path: Path) -> None:
    imported = "from transfusion.data.records import Interleaved\n"
    (tmp_path / "mine.py").write_text(f"{imported}def record(row):\n    return Interleaved('a', (row['t'],))\n")
    (tmp_path / "rows.jsonl").write_text('{"t": "one"}\n{"t": "two"}\n')
    config = FolderConfig(path=tmp_path / "rows.jsonl", layout="own", reader=f"{tmp_path / 'mine.py'}:record")
    with pytest.raises(DataError, match="line 2: a record before it is called 'a', too"):
        open_reader(config)


def test_another_function_of_the_file_makes_other_data(tmp_path: Path) -> None:
    code = "from transfusion.data.records import Interleaved\ndef {}(row):\n    return Interleaved(row['t'], ('{}',))\n"
    (tmp_path / "mine.py").write_text(code.format("one", "one") + code.format("two", "two"))
    (tmp_path / "rows.jsonl").write_text('{"t": "one"}\n{"t": "two"}\n')
    names = (f"{tmp_path / 'mine.py'}:{name}" for name in ("one", "two"))
    readers = [open_reader(FolderConfig(path=tmp_path / "rows.jsonl", layout="own", reader=name)) for name in names]
    assert readers[0].digest() != readers[1].digest()


COUNTED = """
from pathlib import Path
from transfusion.data.records import Interleaved

def note(folder, what):
    with (folder / "calls.txt").open("a") as calls:
        calls.write(f"{what}\\n")

class All:
    def __init__(self, path):
        note(path, "all")
        self.path = path
    def __len__(self):
        return 40
    def __getitem__(self, i):
        note(self.path, i)
        return Interleaved(str(i), (f"text {i}",))

def records(path: Path):
    return All(path)

def record(row: dict):
    note(Path(__file__).parent, row["i"])
    return Interleaved(str(row["i"]), (f"text {row['i']}",))
"""


@pytest.mark.parametrize("function", ["records", "record"])
def test_a_start_reads_data_once_and_what_is_held_out_with_them(tmp_path: Path, function: str) -> None:
    folder = data(tmp_path / "data", COUNTED)
    (folder / "rows.jsonl").write_text("\n".join(f'{{"i": {i}}}' for i in range(40)))
    small = ["data.resolution=16", "model.trunk.dim=32", "model.trunk.depth=1", "train.row_length=96", "train.steps=1"]
    small += ["train.batch_size=4", "tokenizer.kind=bytes", f"data.path={folder}", "data.layout=own"]
    small += ["data.hold_out=0.3", "train.evaluate_every=1", f"data.reader={folder / 'mine.py'}:{function}"]
    for is_resumed in (False, True):
        (folder / "calls.txt").unlink(missing_ok=True)
        config = override(RECIPES["folder"](), small)
        state, source = open_run(config, tmp_path / "run", is_resumed=is_resumed, device="cpu")
        assert 20 < (source.size or 0) < 40 and state.held_out is not None
        reports = list(train_run(state, source, tmp_path / "run", threading.Event()))
        assert is_resumed or reports[0].held_out
        calls = (folder / "calls.txt").read_text().split()
        every = [str(i) for i in range(40)]  # in their order; what else is asked for are records of one split
        times = sum(calls[place : place + 40] == every for place in range(len(calls)))
        assert (calls.count("all"), times) == ((1, 2) if function == "records" else (0, 1))  # its digest takes them all
