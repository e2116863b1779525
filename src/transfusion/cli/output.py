"""Files that a verb will write: whether they can be is found out before the work, and not after it."""

import os
from pathlib import Path
from tempfile import TemporaryFile

from transfusion.config import ConfigError
from transfusion.files import is_stream

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm")


def check_picture(file: Path) -> None:
    """Refuse a file that no picture can be written to; folders on the way to it are made.

    Raises:
        ConfigError: It is a folder, cannot be written, or its ending names no format.
    """
    if file.suffix.lower() not in PICTURE_SUFFIXES:
        raise ConfigError(f"cannot write a picture to {str(file)!r}; name a file that ends with .png or .jpg")
    check_file(file)


def check_file(file: Path) -> None:
    """Refuse a file that cannot be written; folders on the way to it are made. A pipe is not asked: to open it would
    tell its reader that all is said.

    Raises:
        ConfigError: It is a folder, or the system refuses; says why.
    """
    if is_stream(file):
        return
    target = file.resolve()  # a link stays one
    try:
        if target.exists():
            os.close(os.open(target, os.O_WRONLY | os.O_APPEND))  # changes nothing of it, and makes none
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=target.parent):  # by no name that another process may write meanwhile
            pass
    except OSError as error:
        raise ConfigError(f"cannot write to {str(file)!r}: {error.strerror}; name another file") from error


def check_folder(file: Path) -> None:
    """Refuse a file that is to be written into a folder that is not there.

    Raises:
        ConfigError: It is not.
    """
    if not file.parent.is_dir():
        raise ConfigError(f"--to {file}: there is no folder {file.parent}; make it, or name another file")
