"""Where several pictures go: one file as a sheet, or a file each."""

import contextlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

from transfusion.cli.output import check_picture
from transfusion.config import ConfigError

PLACE = "{}"  # in a name: the number of the picture, from 1


def targets(output: str, count: int) -> list[Path]:
    """Return the files of ``count`` pictures, checked: one for all where the name is that of a file.

    Args:
        output: A picture's name; one with ``{}`` for the number of each; or a folder, which is there or ends with a
            slash and in which no picture is written over.
        count: How many pictures.

    Raises:
        ConfigError: A file cannot be written, or its ending names no format.
    """
    if not output:
        raise ConfigError("the output is empty; name a file such as star.png, or a folder such as out/")
    if PLACE in output:
        files = [Path(output.replace(PLACE, str(number))) for number in range(1, count + 1)]
    elif is_folder(output):
        files = list(itertools.islice(free_numbers(Path(output)), count))
    else:
        files = [Path(output)]
    for file in files:
        check_picture(file)
    return files


def is_folder(output: str) -> bool:
    """Return whether pictures go into a folder, under free numbers."""
    return PLACE not in output and (output.endswith(("/", os.sep)) or Path(output).is_dir())


def claim(file: Path) -> Path:
    """Make a numbered file that was free, or the next that is where another process took it meanwhile."""
    file.parent.mkdir(parents=True, exist_ok=True)
    for free in itertools.chain([file], free_numbers(file.parent)):
        with contextlib.suppress(FileExistsError):
            free.open("xb").close()
            return free
    raise AssertionError("numbers have no end")


def free_numbers(folder: Path) -> Iterator[Path]:
    """Yield numbered names behind those that a folder has: none that is there."""
    taken = [int(file.stem) for file in folder.glob("*.png") if file.stem.isdecimal()]
    for number in itertools.count(max(taken, default=0) + 1):
        if not os.path.lexists(file := folder / f"{number:03d}.png"):
            yield file
