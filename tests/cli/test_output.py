"""Outputs are tried before the work, and trying changes nothing."""

import os
from pathlib import Path

import pytest
from PIL import Image

from transfusion.cli.output import PICTURE_SUFFIXES, check_file, check_picture
from transfusion.cli.verbs import save
from transfusion.config import ConfigError


def test_trying_changes_nothing(tmp_path: Path) -> None:
    old = tmp_path / "old.json"
    old.write_text("mine")
    check_file(old)
    check_file(tmp_path / "a" / "b" / "new.json")
    assert old.read_text() == "mine" and list((tmp_path / "a" / "b").iterdir()) == []


def test_links_and_pipes_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "link.json").symlink_to(tmp_path / "real" / "x.json")
    os.mkfifo(tmp_path / "pipe")
    check_file(tmp_path / "link.json")
    check_file(tmp_path / "pipe")  # would wait for a reader for ever
    if Path("/dev/stdout").exists():
        check_file(Path("/dev/stdout"))
    assert (tmp_path / "link.json").is_symlink() and list((tmp_path / "real").iterdir()) == []


def test_what_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for bad in (tmp_path, tmp_path / "file" / "x.png", Path("/proc/nothing/x.png"), Path("/proc/x.png")):
        with pytest.raises(ConfigError, match="cannot write to .* name another file"):
            check_file(bad)
    if os.geteuid():  # root may write anywhere
        (tmp_path / "file").chmod(0o400)
        with pytest.raises(ConfigError, match="Permission"):
            check_file(tmp_path / "file")


@pytest.mark.parametrize("suffix", [".psd", ".h5", ".pdf", ".txt", ""])
def test_formats_without_a_writer_are_refused(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(ConfigError, match="ends with .png"):
        check_picture(tmp_path / f"x{suffix}")


@pytest.mark.parametrize("suffix", [*PICTURE_SUFFIXES, ".PNG"])
def test_every_format_that_is_taken_can_be_written(tmp_path: Path, suffix: str) -> None:
    check_picture(tmp_path / f"x{suffix}")
    assert Image.open(save([Image.new("RGB", (8, 8))], tmp_path / f"x{suffix}")).size == (8, 8)
