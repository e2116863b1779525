"""Sizes that follow from the data where the settings leave them open (0): channels of the latents of its pictures,
positions for them, slots of a row.

They are settled once, when a run begins, and stand in its settings from then on.
"""

from collections.abc import Sequence
from math import ceil, lcm, prod

from transfusion.autoencoder.spaces import latent_shape
from transfusion.config import ConfigError, RunConfig
from transfusion.data.encode import IMAGE
from transfusion.data.tasks import most_pictures
from transfusion.model.patchify import ModalityConfig

LEAST_ROW = 128
ROW_STEP = 64  # rows are a multiple of so many slots
TEXT_SLOTS = 62  # room for text beside the pictures of a document
SLOTS_AROUND = 2  # what begins a picture and what ends it


def sized(config: RunConfig, settled: RunConfig | None = None, *, shape: Sequence[int] | None = None) -> RunConfig:
    """Fill in the sizes that settings leave open.

    Args:
        config: The settings.
        settled: Those of the run that goes on: what it has settled stays.
        shape: (C, *axes) of the latent of a picture of the data's size; None: as the settings tell it.

    Raises:
        ConfigError: The grid of a modality is open, and the data say nothing of it; or pictures are no whole patches.
    """
    shape = shape or latent_shape(config.autoencoder, config.data.size)
    assert shape is not None, f"what pictures become in {config.autoencoder} is not known"
    modalities = tuple(_sized(modality, config, tuple(shape)) for modality in config.model.modalities)
    open_length = _row_length(config, shape[1:]) if settled is None else settled.train.row_length
    row_length = config.train.row_length or open_length
    return config.model_copy(
        update={
            "model": config.model.model_copy(update={"modalities": modalities}),
            "train": config.train.model_copy(update={"row_length": row_length}),
        }
    )


def _sized(modality: ModalityConfig, config: RunConfig, shape: tuple[int, ...]) -> ModalityConfig:
    """Give a modality the channels and the positions along each axis that are open."""
    is_image = modality.name == IMAGE and len(shape) == len(modality.patch_size) + 1
    if is_image:
        modality = _whole(modality, config, shape)
    elif not modality.channels:
        raise ConfigError(f"modality {modality.name!r} has 0 channels, and the data say nothing of it: name how many")
    if modality.max_grid is None or all(modality.max_grid):
        return modality
    if not is_image:
        raise ConfigError(
            f"max_grid of modality {modality.name!r} is {list(modality.max_grid)}, and the data say nothing of it: "
            "name how many patches it has along each axis"
        )
    sides = (ceil(side / patch) for side, patch in zip(shape[1:], modality.patch_size, strict=True))
    grid = tuple(given or found for given, found in zip(modality.max_grid, sides, strict=True))
    return modality.model_copy(update={"max_grid": grid})


def _whole(modality: ModalityConfig, config: RunConfig, shape: tuple[int, ...]) -> ModalityConfig:
    """Fill in the channels of pictures, and refuse latents that are not cut into whole patches."""
    if any(side % patch for side, patch in zip(shape[1:], modality.patch_size, strict=True)):
        raise ConfigError(_unfit(config, shape[1:], modality.patch_size))
    return modality.model_copy(update={"channels": modality.channels or shape[0]})


def check_latents(config: RunConfig, shape: Sequence[int]) -> None:
    """Check that the latents of pictures go with their modality.

    Args:
        config: Settings that are settled.
        shape: (C, *axes) of the latent of a picture of the data's size.

    Raises:
        ConfigError: They have other channels or axes.
    """
    channels, *axes = shape
    for modality in config.model.modalities:
        if modality.name != IMAGE:
            continue
        if len(axes) != len(modality.patch_size):
            raise ConfigError(
                f"patch_size {list(modality.patch_size)} of modality {IMAGE!r} has {len(modality.patch_size)} axes, "
                f"and the latents of pictures have {len(axes)}, {axes}; give a size along each"
            )
        if modality.channels != channels:
            raise ConfigError(
                f"modality {IMAGE!r} has {modality.channels} channels, and the latents of pictures have {channels} "
                f"(autoencoder.kind={config.autoencoder.kind}); leave it open: model.modalities.0.channels=0"
            )


def _unfit(config: RunConfig, axes: Sequence[int], patches: Sequence[int]) -> str:
    """Say which sides of pictures would be cut into whole patches."""
    size = config.data.size
    if len(axes) != 2 or any(side % axis for side, axis in zip(size, axes, strict=True)):
        return f"the latents of pictures of {size} are {axes}, no positive multiples of their patches {list(patches)}"
    steps = [side // axis * patch for side, axis, patch in zip(size, axes, patches, strict=True)]
    if size[0] == size[1]:
        steps = [lcm(*steps)] * 2
    nearest = [
        [step * number for number in (side // step, side // step + 1) if number]
        for side, step in zip(size, steps, strict=True)
    ]
    told = [" or ".join(map(str, found)) for found in nearest]
    is_square = size[0] == size[1]
    shown = str(size[0]) if is_square else f"[{size[0]},{size[1]}]"
    return (
        f"data.resolution={shown} does not fit the model: sides are not positive multiples of its patches' "
        f"{steps[0] if is_square else steps} pixels; take {told[0] if is_square else ' and '.join(told)}"
    )


def _row_length(config: RunConfig, axes: Sequence[int]) -> int:
    """Return how many slots a row needs for the pictures of a document, and text beside them."""
    patches = [
        prod(ceil(side / patch) for side, patch in zip(axes, modality.patch_size, strict=True))
        for modality in config.model.modalities
        if modality.name == IMAGE and len(axes) == len(modality.patch_size)
    ]
    num_pictures = most_pictures(config.data)
    needed = num_pictures * (sum(patches) + SLOTS_AROUND) + TEXT_SLOTS
    return max(LEAST_ROW, ceil(needed / ROW_STEP) * ROW_STEP)
