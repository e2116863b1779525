"""Transfusion (arXiv 2408.11039): one transformer that predicts text and denoises continuous data.

``from transfusion import Transfusion`` is the way in; everything else is imported from its module.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transfusion.pretrained import Transfusion

__all__ = ["Transfusion"]


def __getattr__(name: str) -> object:
    """Import the model class when it is first asked for, so that ``import transfusion`` stays light."""
    if name != "Transfusion":
        raise AttributeError(f"module 'transfusion' has no attribute {name!r}")
    from transfusion.pretrained import Transfusion

    return Transfusion
