"""What chat writes."""

from pathlib import Path

from PIL import Image

from transfusion.cli.chat import half_blocks, save_numbered


def test_no_picture_is_written_over(tmp_path: Path) -> None:
    folder = tmp_path / "chat"
    assert save_numbered(Image.new("RGB", (2, 2)), folder).name == "001.png"
    (folder / "017.png").write_text("mine")
    (folder / "notes.png").write_text("mine")
    (folder / "018.png").symlink_to("nowhere")  # taken, though nothing is there
    assert save_numbered(Image.new("RGB", (2, 2), "red"), folder).name == "019.png"
    assert (folder / "017.png").read_text() == "mine" and not (folder / "nowhere").exists()
    assert Image.open(folder / "019.png").getpixel((0, 0)) == (255, 0, 0)


def test_a_picture_wider_than_the_terminal_is_shown_smaller() -> None:
    told = half_blocks(Image.new("RGB", (128, 64)), 80).plain.split("\n")
    assert {len(line) for line in told[:-1]} == {80} and len(told) - 1 == 20
    assert len(half_blocks(Image.new("RGB", (32, 32)), 80).plain.split("\n")[0]) == 32
