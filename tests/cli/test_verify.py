"""What every record holds, written down once and compared later."""

from pathlib import Path

import pytest
from PIL import Image
from tiny import write_pairs
from typer.testing import CliRunner

from transfusion.cli.app import app
from transfusion.cli.verify import told, verify
from transfusion.config import ConfigError
from transfusion.files import read_rows

SMALL = ("model.trunk.dim=32", "model.trunk.depth=1")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Make captioned pictures."""
    return write_pairs(tmp_path / "data", [f"red {number}" for number in range(6)])


def arguments(data: Path) -> list[str]:
    """Make settings."""
    return [f"data.path={data}", "data.hold_out=0", *SMALL]


def test_what_changed_broke_went_and_came_is_named(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "digests.jsonl"
    first = verify("folder", arguments(data), file)
    assert first["is_new"] and first["records"] == 6 and "the same command compares with it" in told(first)
    assert told(verify("folder", arguments(data), file)).endswith(f"all as {file} has it")
    (data / "1.txt").write_text("blue 1")
    Image.new("RGB", (32, 32), (0, 9, 0)).save(data / "2.png")
    (data / "3.png").write_bytes((data / "3.png").read_bytes()[:50])
    (data / "4.png").rename(data / "9.png")
    (data / "4.txt").rename(data / "9.txt")
    second = verify("folder", arguments(data), file)
    assert second["changed"] == ["1.png", "2.png"] and second["gone"] == ["3.png", "4.png"]  # what is broken at once
    assert second["added"] == ["9.png"] and not second["is_new"]
    assert "gone: 3.png, 4.png" in told(second) and len(file.read_text().splitlines()) == 7


def test_what_is_met_broken_is_said(tmp_path: Path) -> None:
    """Pictures of rows are decoded when their turn comes."""
    (tmp_path / "rows.jsonl").write_text(
        "".join(
            f'{{"segments": [{{"type": "image", "file": "{n}.png"}}, {{"type": "text", "text": "a"}}]}}\n'
            for n in range(3)
        )
    )
    for number in range(3):
        Image.new("RGB", (32, 32), (40 * number, 0, 0)).save(tmp_path / f"{number}.png")
    settings = [f"data.path={tmp_path / 'rows.jsonl'}", "data.layout=interleaved", "data.hold_out=0", *SMALL]
    file = tmp_path / "digests.jsonl"
    assert verify("folder", settings, file)["unreadable"] == 0
    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:50])
    found = verify("folder", settings, file)
    assert len(found["broken"]) == 1 and found["unreadable"] == 1 and not found["changed"]


def test_it_goes_on_where_it_was_interrupted(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "digests.jsonl"
    verify("folder", arguments(data), file)
    whole = file.read_text()
    lines = whole.splitlines(keepends=True)
    part = tmp_path / "digests.jsonl.part"
    part.write_text("".join([*lines[:3], lines[3][:20]]))  # cut within a row
    file.unlink()
    (data / "0.txt").write_text("changed since")  # it was read before: it is not read again
    verify("folder", arguments(data), file)
    assert file.read_text().splitlines()[1] == lines[1].strip() and not part.exists()
    assert [line for line in file.read_text().splitlines() if line] == whole.splitlines()
    part.write_text("".join(lines[:3]))
    (data / "0.png").unlink()
    file.unlink()
    verify("folder", arguments(data), file)  # other records: it begins anew
    assert [row.get("name") for row in read_rows(file)][1:] == [f"{number}.png" for number in range(1, 6)]


def test_another_file_is_not_written_over(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("mine")
    with pytest.raises(ConfigError, match="holds no digests; name another file"):
        verify("folder", arguments(data), file)
    assert file.read_text() == "mine"
    other = tmp_path / "digests.jsonl"
    verify("folder", arguments(data), other)
    with pytest.raises(ConfigError, match="holds digests of .*follows from the settings"):
        verify("folder", [*arguments(data), "data.resolution=16"], other)
    with pytest.raises(ConfigError, match="the data have no end"):
        verify("tiny", ["model.trunk.dim=32"], tmp_path / "t.jsonl")


def test_the_exit_code_says_whether_all_is_as_it_was(data: Path, tmp_path: Path) -> None:
    command = ["prepare", "verify", "folder", *arguments(data), "--to", str(tmp_path / "d.jsonl")]
    assert CliRunner().invoke(app, command).exit_code == 0
    assert CliRunner().invoke(app, command).exit_code == 0
    (data / "0.txt").write_text("another")
    result = CliRunner().invoke(app, [*command, "--json"])
    assert result.exit_code == 1 and '"changed": ["0.png"]' in " ".join(result.output.split()).replace(
        "[ ", "["
    ).replace(" ]", "]")
