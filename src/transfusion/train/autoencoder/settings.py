"""The settings of a run that trains an autoencoder: one tree, as that of the other runs. It must not read data."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from transfusion.autoencoder.architecture import KLConfig, VQConfig
from transfusion.autoencoder.discriminator import DiscriminatorConfig
from transfusion.autoencoder.losses import LossConfig
from transfusion.config import Reach, check_reach, override
from transfusion.data.settings import FolderConfig, OneData, ShapesConfig, settled_like, unaugmented
from transfusion.train.optimizer import OptimizerConfig

FREE_TRAIN_SETTINGS = ("checkpoint_every", "num_checkpoints", "log_every", "preview_every", "evaluate_every")
LEAST_PATCHES = 3  # a side of the discriminator's last map but two
NEEDS: Reach = {
    "losses.kl": ("network.kind", "kl"),
    "losses.commitment": ("network.kind", "vq"),
    "losses.codebook": ("network.kind", "vq"),
    "network.codebook_decay": ("network.codebook", "average"),
}
MOOT: Reach = {
    "losses.perceptual": ("backbones.perceptual.path", None),
    "backbones.linear.path": ("backbones.perceptual.path", None),
    "losses.identity": ("backbones.identity.path", None),
    "losses.gan_start": ("losses.gan", 0.0),
    "losses.gan_balance": ("losses.gan", 0.0),
    "discriminator.width": ("losses.gan", 0.0),
    "discriminator.depth": ("losses.gan", 0.0),
    "discriminator.lr": ("losses.gan", 0.0),
}

OF_RECORDS = ("images", "reader", "picture_column", "text_column")  # settings of other data than folders of pictures


class BackboneConfig(BaseModel):
    """A file of weights."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    path: Path | None = Field(default=None, description="A file of safetensors; None: there is none")
    digest: str | None = Field(default=None, description="Its SHA-256; None: found when a run begins")


class BackbonesConfig(BaseModel):
    """Frozen networks whose features judge reconstructions: MobileNetV2 or VGG16, known by their tensors' names."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    perceptual: BackboneConfig = Field(default=BackboneConfig(), description="Of the perceptual loss")
    linear: BackboneConfig = Field(
        default=BackboneConfig(), description="Learnt weights of its channels, lin0.weight and so on: it is LPIPS then"
    )
    identity: BackboneConfig = Field(default=BackboneConfig(), description="Of the feature loss")
    judge: BackboneConfig = Field(
        default=BackboneConfig(), description="Of the kernel distance between pictures and reconstructions"
    )


class AugmentConfig(BaseModel):
    """What each visit sees of a picture, by keyed draws."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    crop: int | None = Field(
        default=None, gt=0, description="Side of a square in pixels that is cut out of each picture; None: all of it"
    )
    flip: bool = Field(
        default=True, description="Whether half of the visits see it mirrored; no caption is there to tell"
    )


class AutoencoderTrainConfig(BaseModel):
    """The loop."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    steps: int = Field(default=1_000_000, gt=0, description="Steps of the whole run")
    batch_size: int = Field(default=16, gt=0, description="Pictures per step")
    seed: int = Field(default=0, description="Key of all draws: weights, order, crops, flips, posterior, revived codes")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto", description="Compute dtype; auto: bf16 where it is measured to be faster, when a run begins"
    )
    optimizer: OptimizerConfig = Field(
        default=OptimizerConfig(lr=1e-4, betas=(0.5, 0.9), weight_decay=0.0), description="Optimizer and rates"
    )
    ema_decay: float | None = Field(
        default=0.999, ge=0, lt=1, description="Decay of the averaged weights, which others load; None: no average"
    )
    checkpoint_every: int = Field(
        default=500, gt=0, description="Steps between checkpoints; the last step has one always"
    )
    num_checkpoints: int = Field(default=2, gt=0, description="Newest checkpoints that are kept")
    log_every: int = Field(default=10, gt=0, description="Steps between rows of metrics")
    preview_every: int = Field(
        default=500,
        ge=0,
        description="Steps between sheets of pictures and their reconstructions; the first come earlier. 0: none",
    )
    evaluate_every: int | None = Field(
        default=None,
        ge=0,
        description="Steps between measures on pictures held out; None: about fifty times in a run, and no more often "
        "than costs 2 % of it; 0: never",
    )


class AutoencoderRun(BaseModel):
    """Everything that decides the training of an autoencoder."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field(default="autoencoder", description="Name of the recipe; the default folder is runs/<name>")
    network: KLConfig | VQConfig = Field(default=KLConfig(), discriminator="kind", description="Encoder and decoder")
    losses: LossConfig = Field(default=LossConfig(), description="Weights of the losses")
    discriminator: DiscriminatorConfig = Field(default=DiscriminatorConfig(), description="The patch discriminator")
    backbones: BackbonesConfig = Field(default=BackbonesConfig(), description="Networks that judge, by path")
    data: OneData = Field(default=ShapesConfig(), discriminator="kind", description="The pictures; captions are unread")
    augment: AugmentConfig = Field(default=AugmentConfig(), description="Crops and flips")
    train: AutoencoderTrainConfig = Field(default=AutoencoderTrainConfig(), description="The loop")

    @property
    def side(self) -> int:
        """Side of what training sees of a picture, in pixels."""
        return self.augment.crop or self.resolution

    @property
    def resolution(self) -> int:
        """Side of the pictures, in pixels."""
        return self.data.size[0]

    @model_validator(mode="after")
    def _check(self) -> "AutoencoderRun":
        if self.data.size[0] != self.data.size[1]:
            raise ValueError(f"data.resolution {list(self.data.size)} is no square; give one side: it suits all sizes")
        if isinstance(self.data, FolderConfig) and unaugmented(self.data) != self.data:
            raise ValueError("data.crop and data.flip are of a transformer's training; use augment.crop, augment.flip")
        given = [name for name in OF_RECORDS if getattr(self.data, name, None) is not None]
        if given:
            raise ValueError(f"data.{given[0]} reaches nothing: pictures of folders are read here; leave it out")
        factor = self.network.factor
        for name, side in (("data.resolution", self.resolution), ("augment.crop", self.side)):
            if side % factor:
                near = max(factor, round(side / factor) * factor)
                raise ValueError(f"{name} {side} is no multiple of {factor} (a latent's pixels); take {near}")
        if self.side > self.resolution:
            raise ValueError(f"augment.crop {self.side} is larger than data.resolution {self.resolution}")
        least = LEAST_PATCHES * 2**self.discriminator.depth
        if self.losses.gan and self.side < least:
            raise ValueError(
                f"pictures of {self.side} are less than the {least} that the discriminator needs; lower its depth"
            )
        if self.train.optimizer.kind != "adamw":
            raise ValueError("train.optimizer.kind muon is for a transformer's matrices; leave it at adamw")
        plain = ShapesConfig()
        if isinstance(self.data, ShapesConfig) and (self.data.tasks, self.data.questions_per_picture) != (
            plain.tasks,
            plain.questions_per_picture,
        ):
            raise ValueError("data.tasks and data.questions_per_picture reach nothing: only pictures are read")
        return self


def overridden(config: AutoencoderRun, assignments: Iterable[str]) -> AutoencoderRun:
    """Change settings by assignments, as ``config.override`` does; a path of data makes them a folder's.

    Raises:
        ConfigError: A path is unknown, a value is bad, or it would reach nothing.
    """
    given = list(assignments)
    paths = [text.partition("=")[0] for text in given]
    if isinstance(config.data, ShapesConfig) and "data.path" in paths and "data.kind" not in paths:
        config = config.model_copy(update={"data": FolderConfig(resolution=config.data.resolution)})
    changed = override(config, given)
    check_reach(changed, paths, NEEDS, MOOT)
    return changed


def with_free_settings(saved: AutoencoderRun, given: AutoencoderRun) -> AutoencoderRun:
    """Return a run's settings with those of ``given`` that move no bit of training: how often it logs, saves, measures
    and previews, where the data and the backbones lie, and by which network reconstructions are judged.
    """
    train = {name: getattr(given.train, name) for name in FREE_TRAIN_SETTINGS}
    moved = {
        name: getattr(saved.backbones, name).model_copy(update={"path": getattr(given.backbones, name).path})
        for name in ("perceptual", "linear", "identity")
        if getattr(given.backbones, name).path is not None and getattr(saved.backbones, name).path is not None
    }
    backbones = saved.backbones.model_copy(update={**moved, "judge": given.backbones.judge})
    update: dict[str, object] = {"train": saved.train.model_copy(update=train), "backbones": backbones}
    if isinstance(saved.data, FolderConfig) and isinstance(given.data, FolderConfig):
        update["data"] = settled_like(saved.data, given.data).model_copy(update={"path": given.data.path})
    return saved.model_copy(update=update)
