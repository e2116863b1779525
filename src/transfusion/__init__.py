"""Transfusion (arXiv 2408.11039): one transformer that predicts text and denoises continuous data.

``from transfusion import Transfusion`` is the way in, with the errors that a user meets; everything else is imported
from its module.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transfusion.config import ConfigError
    from transfusion.data.errors import DataError
    from transfusion.pretrained import Transfusion
    from transfusion.train.manifest import CheckpointError

__all__ = ["CheckpointError", "ConfigError", "DataError", "Transfusion"]
_MODULES = {
    "CheckpointError": "transfusion.train.manifest",
    "ConfigError": "transfusion.config",
    "DataError": "transfusion.data.errors",
    "Transfusion": "transfusion.pretrained",
}


def __getattr__(name: str) -> object:
    """Import a name when it is first asked for, so that ``import transfusion`` stays light."""
    if name not in _MODULES:
        raise AttributeError(f"module 'transfusion' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
