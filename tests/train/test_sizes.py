"""Sizes that follow the data."""

import pytest

from transfusion.config import ConfigError, RunConfig, override
from transfusion.recipes import RECIPES
from transfusion.train.sizes import sized


def sizes(recipe: str, *settings: str) -> tuple[tuple[int, ...] | None, int]:
    """Return the grid and the row of a run."""
    config = sized(override(RECIPES[recipe](), settings))
    return config.model.modalities[0].max_grid, config.train.row_length


@pytest.mark.parametrize(
    ("recipe", "settings", "grid", "row"),
    [
        ("tiny", (), (4, 4), 128),
        ("tiny", ("data.resolution=64",), (8, 8), 256),
        ("folder", (), (4, 4), 128),
        ("folder", ("data.resolution=64",), (8, 8), 128),
        ("folder", ("data.resolution=128",), (16, 16), 320),
        ("folder", ("data.resolution=128", "model.modalities.0.patch_size=[16,16]"), (8, 8), 128),
        ("folder", ("data.resolution=128", "model.modalities.0.max_grid=[8,8]", "train.row_length=99"), (8, 8), 99),
        ("folder", ("model.modalities.0.max_grid=[0,9]",), (4, 9), 128),
        ("folder", ("model.modalities.0.max_grid=null",), None, 128),
        ("paper", (), None, 4096),
    ],
)
def test_what_is_open_follows_and_what_is_said_stays(
    recipe: str, settings: tuple[str, ...], grid: tuple[int, ...] | None, row: int
) -> None:
    assert sizes(recipe, *settings) == (grid, row)


def test_sizes_that_are_settled_stay_so() -> None:
    once = sized(RECIPES["tiny"]())
    assert sized(once) == once


def test_pictures_that_are_no_whole_patches_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"data.resolution=100 does not fit the model: .* take 96 or 104"):
        sizes("folder", "data.resolution=100")


def test_a_grid_of_which_the_data_say_nothing_is_refused() -> None:
    config = override(RunConfig(), ["model.modalities.0.name=sound", "model.modalities.0.max_grid=[0,4]"])
    with pytest.raises(ConfigError, match=r"max_grid of modality 'sound' is \[0, 4\].*name how many"):
        sized(config)
