"""Sizes that follow from the data where the settings leave them open (0): positions for its pictures, slots of a row.

They are settled once, when a run begins, and stand in its settings from then on.
"""

from math import ceil, lcm, prod

from transfusion.config import ConfigError, RunConfig
from transfusion.data.encode import IMAGE
from transfusion.data.tasks import most_pictures
from transfusion.model.patchify import ModalityConfig

LEAST_ROW = 128
ROW_STEP = 64  # rows are a multiple of so many slots
TEXT_SLOTS = 62  # room for text beside the pictures of a document
SLOTS_AROUND = 2  # what begins a picture and what ends it


def sized(config: RunConfig, settled: RunConfig | None = None) -> RunConfig:
    """Fill in the sizes that settings leave open.

    Args:
        config: The settings.
        settled: Those of the run that goes on: what it has settled stays.

    Raises:
        ConfigError: The grid of a modality is open, and the data say nothing of it; or pictures are no whole patches.
    """
    for modality in config.model.modalities:
        _check_side(modality, config.data.resolution)
    modalities = tuple(_sized(modality, config.data.resolution) for modality in config.model.modalities)
    row_length = config.train.row_length or (_row_length(config) if settled is None else settled.train.row_length)
    return config.model_copy(
        update={
            "model": config.model.model_copy(update={"modalities": modalities}),
            "train": config.train.model_copy(update={"row_length": row_length}),
        }
    )


def _sized(modality: ModalityConfig, resolution: int) -> ModalityConfig:
    """Give a modality positions along each axis that is open, for pictures of a side of ``resolution``."""
    if modality.max_grid is None or all(modality.max_grid):
        return modality
    if modality.name != IMAGE:
        raise ConfigError(
            f"max_grid of modality {modality.name!r} is {list(modality.max_grid)}, and the data say nothing of it: "
            "name how many patches it has along each axis"
        )
    sides = (ceil(resolution / patch) for patch in modality.patch_size)
    grid = tuple(given or found for given, found in zip(modality.max_grid, sides, strict=True))
    return modality.model_copy(update={"max_grid": grid})


def _check_side(modality: ModalityConfig, resolution: int) -> None:
    """Refuse pictures that are not cut into whole patches."""
    if modality.name != IMAGE or len(modality.patch_size) != 2:
        return
    step = lcm(*modality.patch_size)
    if resolution % step:
        lower, upper = resolution // step * step, (resolution // step + 1) * step
        raise ConfigError(
            f"data.resolution={resolution} does not fit the model: sides are not positive multiples of its patches' "
            f"{step} pixels; take " + (f"{lower} or {upper}" if lower else f"{upper}")
        )


def _row_length(config: RunConfig) -> int:
    """Return how many slots a row needs for the pictures of a document, and text beside them."""
    resolution = config.data.resolution
    patches = [
        prod(ceil(resolution / patch) for patch in modality.patch_size)
        for modality in config.model.modalities
        if modality.name == IMAGE
    ]
    num_pictures = most_pictures(config.data)
    needed = num_pictures * (sum(patches) + SLOTS_AROUND) + TEXT_SLOTS
    return max(LEAST_ROW, ceil(needed / ROW_STEP) * ROW_STEP)
