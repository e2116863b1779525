"""The latent space of a run that begins: opened, and settled by what is measured of the data.

It must not know how a run goes on.
"""

import logging
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from transfusion.autoencoder.opening import lasting
from transfusion.autoencoder.pixels import PixelConfig, measure_pixels
from transfusion.autoencoder.remembered import Remembered
from transfusion.autoencoder.settings import AutoencoderConfig, GivenConfig, PixelsConfig, PretrainedConfig
from transfusion.autoencoder.space import LatentSpace, SpaceError
from transfusion.autoencoder.spaces import open_space
from transfusion.config import ConfigError, RunConfig
from transfusion.data.latents import agreed_space, space_of
from transfusion.data.sources import Reader, latent_readers

NUM_MEASURED = 128  # pictures, about: a network takes a tenth of a second for each
Autoencoder = TypeVar("Autoencoder", bound=AutoencoderConfig)
_log = logging.getLogger(__name__)


class Settled(NamedTuple):
    """Settings in which nothing of the latent space is open, and the space."""

    config: RunConfig
    space: LatentSpace


def settle_space(
    config: RunConfig,
    reader: Reader,
    device: torch.device,
    *,
    folder: Path | None = None,
    given: LatentSpace | None = None,
) -> Settled:
    """Open the latent space of a run, and measure what its settings leave open.

    Args:
        config: The settings.
        reader: The data.
        device: Where networks run.
        folder: A checkpoint that the run begins from, which may carry the space.
        given: A space of one's own.

    Raises:
        ConfigError: There is no such space, or it does not go with the settings.
    """
    try:
        return _settled(config, reader, device, folder, given)
    except SpaceError as error:
        raise ConfigError(f"autoencoder: {error}") from error


def _settled(
    config: RunConfig, reader: Reader, device: torch.device, folder: Path | None, given: LatentSpace | None
) -> Settled:
    config = of_given(config, given)
    prepared = [each.config.path for each in latent_readers(reader)]
    if prepared and not isinstance(config.autoencoder, PretrainedConfig):
        raise SpaceError(
            f"{prepared[0]} holds latents of {space_of(prepared[0]).path}, and autoencoder.kind is "
            f"{config.autoencoder.kind}; take a recipe for latents (photos), or autoencoder.kind=pretrained"
        )
    if isinstance(config.autoencoder, GivenConfig) and given is not None:
        shape = given.shape(config.data.size)
        if config.autoencoder.shape not in (None, tuple(shape)):
            raise SpaceError(
                f"{given.name} makes latents of {shape}, and autoencoder.shape is {config.autoencoder.shape}"
            )
        config = config.model_copy(update={"autoencoder": config.autoencoder.model_copy(update={"shape": shape})})
    if isinstance(config.autoencoder, PixelsConfig):
        pixels = config.encode.pixels or _measured(reader)
        config = config.model_copy(update={"encode": config.encode.model_copy(update={"pixels": pixels})})
    if isinstance(config.autoencoder, PretrainedConfig):
        return _of_network(config, config.autoencoder, reader, device, folder)
    space = open_space(config.autoencoder, config.encode.standardisation, given=given)
    return Settled(config, remembering(space.to(device)))


def _of_network(
    config: RunConfig, wanted: PretrainedConfig, reader: Reader, device: torch.device, folder: Path | None
) -> Settled:
    """Open a network, and measure its latents of the data."""
    from transfusion.autoencoder.pretrained import PretrainedSpace, found_network, settled

    if prepared := latent_readers(reader):
        for each in prepared:
            wanted = agreed_space(each.config.path, wanted, like=folder)
        pictures = np.empty((0, *config.data.size, 3), np.uint8)
    elif (pictures := measured_pictures(reader)) is None:
        raise SpaceError("the data are text, which no autoencoder sees; leave it out (autoencoder.kind=pixels)")
    network = found_network(wanted, folder)
    network.module.to(device)
    chosen = findable(settled(wanted, network, pictures))
    config = config.model_copy(update={"autoencoder": chosen})
    return Settled(config, remembering(PretrainedSpace(chosen, network)))


def measured_pictures(reader: Reader) -> NDArray[np.uint8] | None:
    """Return the pictures on which a network's latents are measured, (count, H, W, 3) uint8; None where are none."""
    pictures = reader.sample_pictures()
    return None if pictures is None else pictures[:: max(1, len(pictures) // NUM_MEASURED)]


def remembering(space: LatentSpace) -> LatentSpace:
    """Return a space that encodes no picture twice, where encoding is dear."""
    return Remembered(space) if space.is_network else space


def of_given(config: RunConfig, given: LatentSpace | None) -> RunConfig:
    """Return settings that name the space that is handed over, if one is.

    Raises:
        ConfigError: They name another.
    """
    wanted = config.autoencoder
    if given is None:
        return config
    named = wanted.path if isinstance(wanted, PretrainedConfig) else None
    named = (wanted.name or None) if isinstance(wanted, GivenConfig) else named
    if named not in (None, given.name):
        raise ConfigError(f"{given.name!r} was handed over, and autoencoder names {named!r}; give one of them")
    shape = wanted.shape if isinstance(wanted, GivenConfig) else None
    return config.model_copy(update={"autoencoder": GivenConfig(name=given.name, shape=shape)})


def findable(config: Autoencoder) -> Autoencoder:
    """Return settings by which an autoencoder that no checkpoint carries is found from every working folder."""
    if not isinstance(config, PretrainedConfig) or config.is_carried:
        return config
    return config.model_copy(update={"path": lasting(config.path)})


def check_path(config: AutoencoderConfig, saved: AutoencoderConfig) -> None:
    """Check that a run that goes on, and carries its autoencoder, is not asked for another one.

    Raises:
        ConfigError: Another path is named than the run's, and another one lies there, or none.
    """
    if not isinstance(config, PretrainedConfig) or not isinstance(saved, PretrainedConfig) or config.path == saved.path:
        return
    try:
        open_space(config, PixelConfig())
    except SpaceError as error:
        raise ConfigError(f"autoencoder.path={config.path}: {error}") from error


def _measured(reader: Reader) -> PixelConfig | None:
    """Measure the spread of the data's pixels; text has none."""
    pictures = reader.sample_pictures()
    return None if pictures is None else measure_pixels(pictures)
