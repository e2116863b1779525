"""The examples of the documentation, run as they stand: a page that lies fails here."""

import re
import shlex
from pathlib import Path

import pytest
from cli.test_cli import SMALL, call
from PIL import Image

ROOT = Path(__file__).parents[1]
DATA = (ROOT / "docs" / "data.md").read_text()
API = (ROOT / "docs" / "api.md").read_text()
LAYOUT = re.compile(
    r"### (?P<title>[^\n]+)\n(?:(?!### ).)*?```(?P<kind>files|python)\n(?P<files>.*?)```.*?```sh\n(?P<command>.*?)```"
    r".*?```text\n(?P<told>.*?)```",
    re.S,
)
QUICK = ["train.steps=1", "train.batch_size=2", "model.trunk.dim=32", "model.trunk.depth=1"]


def blocks(page: str, language: str) -> list[str]:
    """Return the blocks of a page in a language."""
    return re.findall(rf"```{language}\n(.*?)```", page, re.S)


def lay_out(listing: str, folder: Path) -> None:
    """Make the files that a listing names: pictures by their ending, others with the text behind two blanks."""
    for number, line in enumerate(listing.strip().split("\n")):
        name, _, text = line.strip().partition("  ")
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix in (".png", ".jpg"):
            Image.new("RGB", (40, 30), (20 * number % 256, 90, 160)).save(file)
        else:
            with file.open("a") as stream:
                stream.write(text.strip() + "\n")


@pytest.mark.parametrize("found", list(LAYOUT.finditer(DATA)), ids=lambda found: found["title"])
def test_every_layout_of_the_data_page(found: re.Match[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if found["kind"] == "python":
        exec(found["files"], {})
    else:
        lay_out(found["files"], tmp_path)
    _, *arguments = shlex.split(found["command"])
    row = [] if any("row_length" in argument for argument in arguments) else ["train.row_length=256"]
    told = call(*arguments, *row, *QUICK).stderr
    for line in found["told"].strip().split("\n"):
        assert line in told


def test_the_pages_have_examples() -> None:
    assert len(list(LAYOUT.finditer(DATA))) == DATA.count("```files") + DATA.count("```python") >= 15
    assert len(blocks(API, "python")) >= 5


def test_every_example_from_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    call("train", "tiny", "--run", "runs/demo", *SMALL)
    names: dict[str, object] = {}
    for block in blocks(API, "python"):
        exec(block, names)
    assert Path("star.png").exists() and len(names["pictures"]) == 4  # pyright: ignore
