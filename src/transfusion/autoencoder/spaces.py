"""The one place that chooses a latent space by its settings.

    settings, folder of a checkpoint ──open_space──▶ LatentSpace

It must not know how a space works, nor what is done with one.
"""

from pathlib import Path

from transfusion.autoencoder.pixels import COLOURS, PixelConfig, PixelSpace
from transfusion.autoencoder.remembered import Remembered
from transfusion.autoencoder.settings import AutoencoderConfig, GivenConfig, PixelsConfig, PretrainedConfig
from transfusion.autoencoder.space import LatentSpace, Size, SpaceError


def open_space(
    config: AutoencoderConfig,
    pixels: PixelConfig,
    *,
    folder: Path | None = None,
    given: LatentSpace | None = None,
) -> LatentSpace:
    """Open the latent space of settings that a run has settled.

    Args:
        config: The settings.
        pixels: How pixels are standardised, where they are the latents.
        folder: A checkpoint, which may carry the space.
        given: A space of one's own, for the kind ``"given"``.

    Raises:
        SpaceError: There is none, it is another than the settings name, or one is given that they do not ask for.
    """
    if isinstance(config, GivenConfig):
        if given is None:
            raise SpaceError(
                f"the latent space {config.name!r} is one of its owner's own; hand it over from Python (space=...)"
            )
        if given.name != config.name:
            raise SpaceError(f"the latent space is {config.name!r}, and {given.name!r} was handed over")
        return given
    if given is not None:
        raise SpaceError(f"a latent space {given.name!r} was handed over, and the settings name {config.kind!r}")
    if isinstance(config, PixelsConfig):
        return PixelSpace(pixels)
    from transfusion.autoencoder.pretrained import open_pretrained

    return open_pretrained(config, folder)


def settings_of(space: LatentSpace) -> PretrainedConfig | None:
    """Return the settled settings of the network of a space; None where it has none, or is one's own."""
    from transfusion.autoencoder.pretrained import PretrainedSpace

    inner = space.space if isinstance(space, Remembered) else space
    return inner.config if isinstance(inner, PretrainedSpace) else None


def latent_shape(config: AutoencoderConfig, size: Size) -> tuple[int, ...] | None:
    """Return the shape (C, *axes) of the latent of a picture of a size, as far as settings alone tell it.

    Args:
        config: The settings.
        size: Height and width in pixels.
    """
    if isinstance(config, PixelsConfig):
        return (COLOURS, *size)
    if isinstance(config, GivenConfig):
        return config.shape
    if config.channels is None or config.factor is None:
        return None
    return (config.channels, *(side // config.factor for side in size))
