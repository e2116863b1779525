"""Latents of a trained autoencoder, normalised for each channel by what was measured on the data.

    picture ──network──▶ latent ──Normalisation──▶ about 0 and 1 ... ──its inverse──▶ latent ──network──▶ picture

These statistics take the place of diffusers' ``scaling_factor`` and ``shift_factor``, which are not used. Networks
compute in float32, one picture at a time. It must not know models, records or runs.
"""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from transfusion.autoencoder.carried import has_carried, read_carried, save_carried
from transfusion.autoencoder.networks import Autoencoder
from transfusion.autoencoder.opening import open_network
from transfusion.autoencoder.pixels import COLOURS, HALF_RANGE
from transfusion.autoencoder.settings import PretrainedConfig
from transfusion.autoencoder.space import Moments, Normalisation, Picture, Size, SpaceError, measure
from transfusion.autoencoder.tiling import decode_tiled


def open_pretrained(config: PretrainedConfig, folder: Path | None = None) -> "PretrainedSpace":
    """Open the latent space of settled settings.

    Args:
        config: The settings, with all that ``settled`` fills in.
        folder: A checkpoint: what it carries comes before what lies at the path.

    Raises:
        SpaceError: The network cannot be had, or is another than the settings name.
    """
    return PretrainedSpace(config, found_network(config, folder))


def found_network(config: PretrainedConfig, folder: Path | None = None) -> Autoencoder:
    """Open the network of settings.

    Args:
        config: The settings.
        folder: A checkpoint: what it carries comes before what lies at the path, where the settings name that.

    Raises:
        SpaceError: It cannot be had.
    """
    if folder is not None and has_carried(folder):
        carried = read_carried(folder)
        if config.digest == carried.digest:
            return carried
    return open_network(config.path)


def settled(config: PretrainedConfig, network: Autoencoder, pictures: NDArray[np.uint8]) -> PretrainedConfig:
    """Fill in what settings leave open: digest, channels and factor of the network, and statistics of the data.

    Args:
        config: The settings; what they say must hold.
        network: The autoencoder they name.
        pictures: (count, H, W, 3) uint8 of the data, on which mean and spread are measured.

    Raises:
        SpaceError: The network is another than the settings say, cannot draw from a posterior as they ask, or holds no
            pictures of that size.
    """
    _check_same(config, network)
    known = config.model_copy(update={"digest": network.digest, "channels": network.channels, "factor": network.factor})
    if config.posterior == "sample" and not network.has_spread:
        name = network.kind.name
        raise SpaceError(f"{name} knows no spread to draw from (autoencoder.posterior); use posterior=mean")
    if known.mean is not None:
        return known
    if not len(pictures):
        raise SpaceError("no pictures to measure the latents' mean and spread on; give some, or set mean and std")
    plain = known.model_copy(update={"mean": (0.0,) * network.channels, "std": (1.0,) * network.channels})
    space = PretrainedSpace(plain, network)
    latents = [space.moments(picture) for picture in pictures]
    if config.posterior == "sample":
        found = measure([each.draw(np.random.default_rng(index)) for index, each in enumerate(latents)])
    else:
        found = measure([each.mean for each in latents])
    return known.model_copy(update={"mean": found.mean, "std": found.std})


@dataclass(frozen=True)
class PretrainedSpace:
    """The latents of a network: of an (H, W) picture, (C, H / factor, W / factor).

    Attributes:
        config: Settled settings.
        network: The network they name.

    Raises:
        SpaceError: The settings are not settled, or name another network.
    """

    config: PretrainedConfig
    network: Autoencoder

    def __post_init__(self) -> None:
        """Check that the network is the one that the settings name."""
        _check_same(self.config, self.network)
        if None in (self.config.digest, self.config.channels, self.config.factor, self.config.mean):
            raise SpaceError(
                "the settings of this latent space are not settled: digest, channels, factor, mean and std are found "
                "when a run begins"
            )

    @property
    def name(self) -> str:
        """Its class, and where it came from."""
        return f"{self.network.kind.name} of {self.config.path}"

    @property
    def channels(self) -> int:
        """Channels of its latents."""
        return self.network.channels

    @property
    def range(self) -> None:
        """There is no bound."""
        return

    @property
    def is_network(self) -> bool:
        """There is one."""
        return True

    @property
    def normalisation(self) -> Normalisation:
        """What brings its latents to mean 0 and spread 1."""
        return Normalisation(self.config.mean or (), self.config.std or ())

    @property
    def num_codes(self) -> int | None:
        """Vectors in its codebook; None where it has none."""
        return self.network.num_codes

    def shape(self, size: Size) -> tuple[int, ...]:
        """Return (C, H / factor, W / factor).

        Raises:
            SpaceError: A side is no multiple of the factor.
        """
        factor = self.network.factor
        for side, what in zip(size, ("height", "width"), strict=True):
            if side <= 0 or side % factor:
                below = side - side % factor
                near = f"{below} or {below + factor}" if below > 0 else f"{factor}"
                raise SpaceError(
                    f"pictures of {size[0]} x {size[1]} pixels do not fit {self.name}: the {what} is no multiple of "
                    f"{factor}; use {near}"
                )
        return (self.channels, size[0] // factor, size[1] // factor)

    def moments(self, picture: Picture) -> Moments:
        """Encode a picture; a quantising network's latent is the vector before the quantiser.

        Raises:
            SpaceError: As ``shape``.
        """
        shape = self.shape((picture.shape[0], picture.shape[1]))
        with _one_thread(self.network.device):
            found = self.network.encode(_to_network(picture))
        if found.mean.shape[1:] != shape:
            raise SpaceError(f"{self.name} makes latents of {list(found.mean.shape[1:])}, where {list(shape)} are due")
        normalisation = self.normalisation
        mean = normalisation.apply(found.mean[0].cpu())
        return Moments(mean, None if found.std is None else normalisation.scale(found.std[0].cpu()))

    def decode(self, latent: Tensor) -> Picture:
        """Turn a latent back into a picture; a quantising network snaps it to its codebook first.

        Raises:
            SpaceError: It has other channels or axes.
        """
        raw = self._raw(latent)
        return self._decoded(raw if self.num_codes is None else self.network.vectors(self.network.codes(raw)))

    def codes(self, picture: Picture) -> NDArray[np.int64]:
        """Name the vector of the codebook at each place of a picture's latent: (h, w) int64.

        Raises:
            SpaceError: It has no codebook, or as ``shape``.
        """
        return self.network.codes(self._raw(self.moments(picture).mean))[0].cpu().numpy()

    def picture(self, codes: NDArray[np.int64]) -> Picture:
        """Turn codes (h, w) into a picture.

        Raises:
            SpaceError: It has no codebook, or a code lies outside it.
        """
        highest = self.num_codes
        if highest is not None and codes.size and (codes.min() < 0 or codes.max() >= highest):
            raise SpaceError(f"codes from {codes.min()} to {codes.max()}; expected 0 to {highest - 1}")
        return self._decoded(self.network.vectors(torch.from_numpy(codes)[None]))

    def to(self, device: torch.device) -> "PretrainedSpace":
        """Move the network, this one, and return the space."""
        self.network.module.to(device)
        return self

    def save(self, folder: Path) -> None:
        """Write the network's two files, if the settings say that it is carried."""
        if self.config.is_carried:
            save_carried(folder, self.network)

    def _raw(self, latent: Tensor) -> Tensor:
        """Return a latent (1, C, h, w) of the network's own scale, on its device."""
        if latent.ndim != 3 or latent.shape[0] != self.channels:
            raise SpaceError(
                f"a latent of {list(latent.shape)} is none of {self.name}; expected [{self.channels}, height, width]"
            )
        return self.normalisation.invert(latent.detach().to(self.network.device))[None]

    def _decoded(self, raw: Tensor) -> Picture:
        """Decode (1, C, h, w), in tiles where the picture is longer than they are."""
        factor, tile = self.network.factor, max(self.config.tile // self.network.factor, 1)
        if 0 < self.config.tile < factor * max(raw.shape[-2:]):
            return _to_picture(decode_tiled(self.network.decode, raw, tile=tile, factor=factor))
        return _to_picture(self.network.decode(raw))


@contextmanager
def _one_thread(device: torch.device) -> Generator[None]:
    """Compute by one thread on a CPU: how many there are moves the last bits of a convolution, and a latent shall be
    the same in training, in its workers and in each of several processes.
    """
    before = torch.get_num_threads()
    if device.type != "cpu" or before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _check_same(config: PretrainedConfig, network: Autoencoder) -> None:
    where = config.path or "the autoencoder"
    if config.digest is not None and config.digest != network.digest:
        raise SpaceError(
            f"{where} is not the autoencoder of these settings: its digest is {network.digest}, theirs "
            f"{config.digest}; put the right one there, or leave out autoencoder.digest, mean and std for a new run"
        )
    for what, told, given, found in (
        ("channels", "channels", config.channels, network.channels),
        ("factor", "pixels for each element", config.factor, network.factor),
        ("mean", "channels of mean and std", None if config.mean is None else len(config.mean), network.channels),
    ):
        if given not in (None, found):
            raise SpaceError(f"{where} has {found} {told}, and the settings say {given} (autoencoder.{what})")


def _to_network(picture: Picture) -> Tensor:
    """Turn (H, W, 3) uint8 into (1, 3, H, W) float32 in [-1, 1]."""
    if picture.ndim != 3 or picture.shape[2] != COLOURS:
        raise SpaceError(f"a picture of {list(picture.shape)}; expected [height, width, {COLOURS}]")
    scaled = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float()
    return (scaled / HALF_RANGE - 1).contiguous()


def _to_picture(values: Tensor) -> Picture:
    """Turn (1, 3, H, W) in [-1, 1] into (H, W, 3) uint8, clipping what lies outside."""
    scaled = ((values[0].float().cpu() + 1) * HALF_RANGE).round().clamp(0, 255)
    return scaled.to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
