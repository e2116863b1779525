"""Recipes: functions that return the settings of a run, or of an autoencoder's training.

The first line of each docstring is its question.
"""

from collections.abc import Callable

from transfusion.config import RunConfig
from transfusion.recipes.autoencoder import AUTOENCODERS
from transfusion.recipes.folder import folder
from transfusion.recipes.paper import paper
from transfusion.recipes.photos import photos
from transfusion.recipes.shapes import small, tiny

__all__ = ["AUTOENCODERS", "RECIPES"]
RECIPES: dict[str, Callable[[], RunConfig]] = {
    recipe.__name__: recipe for recipe in (tiny, small, folder, photos, paper)
}
