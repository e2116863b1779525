"""Settings of the latent space: which one, and what is measured of it when a run begins. It must not read anything."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

MOST_LEVELS, MOST_LAYERS, MOST_COUNT = 12, 32, 2**24
"""Bounds of what settings of a network may ask for, far above any that there is: levels, layers of one, and other
counts. Settings that somebody else wrote cost nothing before they are checked.
"""


class PixelsConfig(BaseModel):
    """Pixels are the latents; how they are standardised stands in ``encode.pixels``."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["pixels"] = "pixels"


class PretrainedConfig(BaseModel):
    """A trained autoencoder: a KL, VQ or plain one."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["pretrained"] = "pretrained"
    path: str = Field(
        default="",
        description="A folder that diffusers saved (AutoencoderKL, AutoencoderTiny, AutoencoderDC, VQModel), a pair of "
        "TAESD files as their folder, a run of `transfusion train autoencoder/kl` or `/vq`, or a name on the hub",
    )
    is_carried: bool = Field(
        default=True, description="Whether checkpoints carry its weights; if not, path and digest must still hold"
    )
    posterior: Literal["mean", "sample"] = Field(
        default="mean", description="What training sees of a picture's latent: the mean, or a keyed draw at each visit"
    )
    tile: int = Field(
        default=512, ge=0, description="Pictures of a longer side are decoded in tiles of so many pixels; 0: never"
    )
    digest: str | None = Field(
        default=None, description="SHA-256 of its settings and weights; None: found when a run begins"
    )
    channels: int | None = Field(default=None, gt=0, description="Channels of its latents; None: found, as the digest")
    factor: int | None = Field(
        default=None, gt=0, description="Pixels along a side of a picture for each element of its latent; None: found"
    )
    mean: tuple[float, ...] | None = Field(
        default=None, description="Mean of each channel before normalisation; None: measured on the data, once"
    )
    std: tuple[float, ...] | None = Field(
        default=None, description="Spread of each channel before normalisation; None: measured on the data, once"
    )

    @model_validator(mode="after")
    def _check(self) -> "PretrainedConfig":
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std are given together, a number of each for each channel, or measured")
        if self.mean is not None and self.std is not None:
            if len(self.mean) != len(self.std) or self.channels not in (None, len(self.mean)):
                raise ValueError(f"{len(self.mean)} means and {len(self.std)} spreads of {self.channels} channels")
            if min(self.std, default=1.0) <= 0:
                raise ValueError("a spread of 0 or less; give positive numbers, or leave mean and std out")
        return self


class GivenConfig(BaseModel):
    """A latent space of one's own, handed over as an object from Python (``space=``)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["given"] = "given"
    name: str = Field(default="", description="Its name; another one is not taken for it")
    shape: tuple[int, ...] | None = Field(
        default=None, description="Shape (C, *axes) of the latents of the run's pictures; None: found when a run begins"
    )


AutoencoderConfig = PixelsConfig | PretrainedConfig | GivenConfig


def draws_posterior(config: AutoencoderConfig) -> bool:
    """Return whether training sees draws from the posterior of latents that come with its spread."""
    return not isinstance(config, PretrainedConfig) or config.posterior == "sample"


SETTLED = ("digest", "channels", "factor", "mean", "std")  # what is found of an autoencoder when a run begins


def filled(config: AutoencoderConfig, settled: AutoencoderConfig) -> AutoencoderConfig:
    """Fill in what settings leave open by those of a run, or of weights, that has settled it."""
    if isinstance(config, GivenConfig) and isinstance(settled, GivenConfig) and config.name == settled.name:
        return settled if config.shape is None else config
    if not isinstance(config, PretrainedConfig) or not isinstance(settled, PretrainedConfig):
        return config
    open_ones = [name for name in SETTLED if getattr(config, name) is None] + ([] if config.path else ["path"])
    return config.model_copy(update={name: getattr(settled, name) for name in open_ones})


def opened(config: AutoencoderConfig) -> AutoencoderConfig:
    """Return settings in which what is found of an autoencoder is open again: for another one at its path."""
    if not isinstance(config, PretrainedConfig):
        return config
    return config.model_copy(update=dict.fromkeys(SETTLED))
