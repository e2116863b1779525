"""Where several pictures go."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_cli import call
from test_write import mixed as mixed  # a fixture

from transfusion.cli.targets import claim, targets
from transfusion.config import ConfigError


def test_one_name_is_a_sheet_and_a_folder_or_a_pattern_has_a_file_each(tmp_path: Path) -> None:
    assert targets(f"{tmp_path}/a.png", 3) == [tmp_path / "a.png"]
    assert targets(f"{tmp_path}/{{}}-x.jpg", 2) == [tmp_path / "1-x.jpg", tmp_path / "2-x.jpg"]
    assert targets(f"{tmp_path}/new/", 2) == [tmp_path / "new" / "001.png", tmp_path / "new" / "002.png"]
    (tmp_path / "new" / "007.png").symlink_to("nowhere")
    assert targets(f"{tmp_path}/new", 1) == [tmp_path / "new" / "008.png"]
    for bad in ("", f"{tmp_path}/out", f"{tmp_path}/{{}}.txt"):
        with pytest.raises(ConfigError):
            targets(bad, 2)


def test_a_number_that_another_process_took_meanwhile_is_not_written_over(tmp_path: Path) -> None:
    ours, theirs = targets(f"{tmp_path}/out/", 2), targets(f"{tmp_path}/out/", 2)  # before either is written
    made = [claim(file).name for file in (ours[0], theirs[0], theirs[1], ours[1])]
    assert made == ["001.png", "002.png", "003.png", "004.png"]


def test_each_file_is_the_picture_of_its_prompt(mixed: Path, tmp_path: Path) -> None:
    told = call("generate", mixed, "a star", "a circle", "--num", "2", "-o", f"{tmp_path}/out/", "--seed", "5").stdout
    files = sorted((tmp_path / "out").iterdir())
    assert told.splitlines() == [f"wrote {file}" for file in files] and len(files) == 4
    for seed, prompt, file in zip((5, 6, 7, 8), ("a star", "a star", "a circle", "a circle"), files, strict=True):
        call("generate", mixed, prompt, "--seed", seed, "-o", tmp_path / "one.png")
        ours, alone = (np.asarray(Image.open(path)).astype(int) for path in (file, tmp_path / "one.png"))
        assert np.abs(ours - alone).max() <= 2  # in company products of matrices round elsewhere


def test_a_negative_prompt_leads_elsewhere(mixed: Path, tmp_path: Path) -> None:
    for name, options in (("a", ()), ("b", ("--negative-prompt", "a circle")), ("c", ("--negative-prompt", ""))):
        call("generate", mixed, "a star", "--guidance", "3", "-o", tmp_path / f"{name}.png", *options)
    a, b, c = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in "abc")
    assert np.array_equal(a, c) and not np.array_equal(a, b)


@pytest.mark.parametrize("output", ["out/", "out/001.png"])
def test_a_look_at_what_is_free_deletes_no_picture_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    theirs, made = tmp_path / "out" / "001.png", Path.mkdir

    def meanwhile(folder: Path, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        made(folder, mode, parents, exist_ok)
        theirs.write_bytes(b"theirs")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", meanwhile)
        assert targets(f"{tmp_path}/{output}", 1) == [theirs]
    assert [file.read_bytes() for file in theirs.parent.iterdir()] == [b"theirs"]
