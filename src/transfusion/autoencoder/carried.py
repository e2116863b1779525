"""An autoencoder in two flat files, as checkpoints carry it: class and settings in JSON, weights beside them.

    autoencoder.json  {"class": "AutoencoderKL", "settings": {...}}      autoencoder.safetensors

Nothing in them is pickled. It must not know whose checkpoint it is.
"""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save

from transfusion.autoencoder.networks import Autoencoder, built, kind_named, told
from transfusion.autoencoder.space import CARRIED_FILES, SpaceError
from transfusion.files import write_whole

SETTINGS_FILE, WEIGHTS_FILE = CARRIED_FILES


def save_carried(folder: Path, network: Autoencoder) -> None:
    """Write a network's two files into a folder, weights in the dtype that they came in."""
    row = {"class": network.kind.name, "settings": dict(network.settings)}
    weights = {name: value.contiguous() for name, value in network.weights().items()}
    write_whole(folder / WEIGHTS_FILE, save(weights))
    write_whole(folder / SETTINGS_FILE, json.dumps(row, indent=1) + "\n")


def has_carried(folder: Path) -> bool:
    """Return whether a folder holds at least one of the two files."""
    return (folder / SETTINGS_FILE).is_file() or (folder / WEIGHTS_FILE).is_file()


def read_carried(folder: Path) -> Autoencoder:
    """Read a network from its two files.

    Raises:
        SpaceError: One of them is not there, is damaged, or names a class or settings that there are not.
    """
    file = folder / SETTINGS_FILE
    row = read_json(file)
    kind, settings = kind_named(row.get("class"), file), row.get("settings")
    if not isinstance(settings, dict):
        raise SpaceError(f"{file} holds no settings; expected an object {{...}}, got {str(settings)[:80]}")
    weights_file = folder / WEIGHTS_FILE
    if not weights_file.is_file():
        raise SpaceError(f"{weights_file} is missing; an autoencoder is {SETTINGS_FILE} and {WEIGHTS_FILE}")
    try:
        weights = load_file(weights_file)
    except (SafetensorError, OSError, ValueError) as error:
        raise SpaceError(f"{weights_file} is damaged ({told(error)}); copy it again") from error
    return built(kind, settings, weights, folder)


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        SpaceError: The file is not there, or holds no object.
    """
    try:
        row = json.loads(file.read_bytes())
    except OSError as error:
        raise SpaceError(f"{file} cannot be read: {told(error)}") from error
    except (ValueError, RecursionError) as error:  # ValueError: neither JSON nor UTF-8
        raise SpaceError(f"{file} is damaged ({told(error)}); copy it again") from error
    if not isinstance(row, dict):
        raise SpaceError(f"{file} holds no object {{...}}: {str(row)[:80]}")
    return row
