"""The frozen networks that judge reconstructions, read from their files."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from transfusion.autoencoder.features import FeatureError, FeatureNetwork, feature_network
from transfusion.autoencoder.losses import FeatureLoss
from transfusion.config import ConfigError
from transfusion.files import sha256_of
from transfusion.train.autoencoder.settings import BackboneConfig, BackbonesConfig
from transfusion.train.manifest import CheckpointError
from transfusion.train.tensors import load_tensors

NAMES = ("perceptual", "linear", "identity", "judge")


@dataclass(frozen=True)
class Judges:
    """What reconstructions are judged by, each where its weights are given."""

    perceptual: FeatureLoss | None = None
    identity: FeatureLoss | None = None
    judge: FeatureNetwork | None = None


def settled_backbones(config: BackbonesConfig) -> BackbonesConfig:
    """Fill in the digests of the files that are named.

    Raises:
        ConfigError: A file is not there, or another than when the run began.
    """
    found: dict[str, BackboneConfig] = {}
    for name in NAMES:
        backbone: BackboneConfig = getattr(config, name)
        digest = None if backbone.path is None else _digest(backbone.path, name)
        if backbone.digest is not None and digest is not None and digest != backbone.digest:
            raise ConfigError(
                f"backbones.{name}.path={backbone.path} is another file than before (SHA-256 {digest[:12]}..., was "
                f"{backbone.digest[:12]}...); restore it, or begin anew in another folder (--run)"
            )
        found[name] = backbone.model_copy(update={"digest": digest})
    return config.model_copy(update=found)


def load_judges(config: BackbonesConfig, device: torch.device) -> Judges:
    """Read the networks.

    Raises:
        ConfigError: A file holds no network that is known, or linear weights that do not fit it.
    """
    perceptual = _network(config, "perceptual")
    identity, judge = _network(config, "identity"), _network(config, "judge")
    weights = None
    if config.linear.path is not None:
        weights = _linear(_tensors(config.linear.path, "linear"))
    try:
        loss = None if perceptual is None else FeatureLoss(perceptual, weights).to(device)
    except ValueError as error:
        raise ConfigError(f"backbones.linear.path={config.linear.path}: {error}") from error
    return Judges(
        loss,
        None if identity is None else FeatureLoss(identity).to(device),
        None if judge is None else judge.to(device),
    )


def _network(config: BackbonesConfig, name: str) -> FeatureNetwork | None:
    path: Path | None = getattr(config, name).path
    if path is None:
        return None
    try:
        return feature_network(_tensors(path, name))
    except FeatureError as error:
        raise ConfigError(f"backbones.{name}.path={path}: {error}") from error


def _linear(tensors: Mapping[str, Tensor]) -> list[Tensor]:
    """Return the weights of LPIPS's layers, named lin0... to linN..., each (channels,)."""
    named = {int(name[3:].split(".")[0]): value for name, value in tensors.items() if name[:3] == "lin"}
    return [named[number].float().flatten() for number in sorted(named)]


def _tensors(path: Path, name: str) -> dict[str, Tensor]:
    try:
        return load_tensors(path)
    except CheckpointError as error:
        raise ConfigError(f"backbones.{name}.path: {error}; expected a file of safetensors") from error


def _digest(path: Path, name: str) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise ConfigError(f"backbones.{name}.path={path} cannot be read ({error.strerror})") from error
