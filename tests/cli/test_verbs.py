"""What the verbs on a trained model do beside what the command line shows."""

from pathlib import Path

import pytest
from PIL import Image
from test_cli import call
from tiny import small, write_pairs

from transfusion.cli.verbs import Use, save, score


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


def test_losses_on_what_a_model_was_trained_on_are_called_so(tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "data", [f"red {number}" for number in range(60)])
    model = small("data.kind=folder", f"data.path={data}", "data.hold_out=0.2", "train.row_length=128")
    model.save_pretrained(tmp_path / "model")
    seen, held_out = (
        score(Use(tmp_path / "model", "cpu"), overrides, num_prompts=1, seed=0)
        for overrides in ([], ["data.split=test"])
    )
    assert ", which the model was trained on; data.split=test takes those held out\n" in seen[1]
    assert '"trained_on": true' in seen[0] and "trained on" not in held_out[1] and "trained_on" not in held_out[0]
