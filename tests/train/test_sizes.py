"""Sizes that follow the data."""

from itertools import islice

import pytest

from transfusion.config import ConfigError, RunConfig, override
from transfusion.data.encode import Encoder
from transfusion.data.sources import open_reader, open_source
from transfusion.layout import num_slots
from transfusion.recipes import RECIPES
from transfusion.tokenizer import Tokenizer, build_tokenizer
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
        ("tiny", ("data.tasks.story=0.1", "data.resolution=64"), (8, 8), 384),  # four pictures of 66 slots, and text
        ("tiny", ("data.tasks.story=0.1",), (4, 4), 192),
        ("tiny", ("data.tasks.edit=0", "data.resolution=64"), (8, 8), 256),
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


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """Train the recipe's tokenizer, on fewer texts."""
    config = RECIPES["tiny"]()
    return build_tokenizer(config.tokenizer, islice(open_reader(config.data).texts(), 600))


@pytest.mark.parametrize("resolution", [32, 64])
@pytest.mark.parametrize("task", ["draw", "look", "edit", "story"])
def test_every_record_of_a_task_fits_the_row_that_is_left_open(
    tokenizer: Tokenizer, task: str, resolution: int
) -> None:
    shares = [f"data.tasks.{name}={float(name == task)}" for name in ("draw", "look", "edit", "story")]
    config = override(RECIPES["tiny"](), [*shares, f"data.resolution={resolution}"])
    source = open_source(config.data, Encoder(tokenizer, config.encode, 0), 0)
    vocabulary = sized(config).model.model_copy(update={"text_vocab_size": tokenizer.size}).vocabulary()
    assert max(num_slots(source.outline(i), vocabulary) for i in range(40)) <= sized(config).train.row_length


def test_a_run_that_goes_on_keeps_the_row_that_it_settled() -> None:
    given = override(RECIPES["tiny"](), ["data.tasks.story=0.1"])
    before = override(given, ["train.row_length=128"])  # as it was settled when stories were not thought of
    assert sized(given, before).train.row_length == 128 and sized(given).train.row_length == 192
    assert sized(override(given, ["train.row_length=256"]), before).train.row_length == 256


def test_pictures_that_are_no_whole_patches_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"data.resolution=100 does not fit the model: .* take 96 or 104"):
        sizes("folder", "data.resolution=100")


def test_a_grid_of_which_the_data_say_nothing_is_refused() -> None:
    config = override(RunConfig(), ["model.modalities.0.name=sound", "model.modalities.0.max_grid=[0,4]"])
    with pytest.raises(ConfigError, match=r"max_grid of modality 'sound' is \[0, 4\].*name how many"):
        sized(config)
