"""What the verbs on a trained model do beside what the command line shows."""

from pathlib import Path

import pytest
from PIL import Image
from test_cli import call

from transfusion.cli.verbs import save


def test_a_sheet_beyond_the_largest_side_of_its_format_is_kept_as_png(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = save([Image.new("RGB", (2, 17_000), "red")], tmp_path / "long.webp")
    assert kept == tmp_path / "long.webp.png" and Image.open(kept).height >= 17_000
    assert "written as PNG" in capsys.readouterr().err and not (tmp_path / "long.webp").exists()


def test_what_is_misspelt_is_told_where_it_belongs(tmp_path: Path) -> None:
    call("train", "tiny", "data.path=x", "--run", tmp_path / "r", code=2)
    assert "it is one of data.kind=folder" in call("config", "tiny", "data.path=x", code=2).stderr
    assert "did you mean 'folder'" in call("config", "foldr", code=2).stderr
    assert "comes before the settings" in call("config", "train.steps=3", "folder", code=2).stderr
    assert "take 32 or 40" in call("train", "tiny", "data.resolution=33", "--run", tmp_path / "r", code=2).stderr
