"""An empty name is not the present folder."""

from pathlib import Path

import pytest
from test_going_on import call


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", "tiny", "--run", ""),
        ("train", ""),
        ("demo", "--run", ""),
        ("export", "runs/demo", ""),
        ("prepare", "latents", "data", "--autoencoder", "kl", "--to", ""),
    ],
)
def test_an_empty_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]) -> None:
    monkeypatch.chdir(tmp_path)
    assert "expected the name of a folder, given ''; the present folder is ." in call(*arguments, code=2)
    assert list(tmp_path.iterdir()) == []
