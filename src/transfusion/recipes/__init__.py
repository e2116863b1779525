"""Recipes: functions that return a ``RunConfig``. The first line of each docstring is its question."""

from collections.abc import Callable

from transfusion.config import RunConfig
from transfusion.recipes.folder import folder
from transfusion.recipes.paper import paper
from transfusion.recipes.photos import photos
from transfusion.recipes.shapes import small, tiny

RECIPES: dict[str, Callable[[], RunConfig]] = {
    recipe.__name__: recipe for recipe in (tiny, small, folder, photos, paper)
}
