"""What ``latents.json`` says of a folder of latents. It must not read files."""

import builtins
import hashlib
import json
import math
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from transfusion.autoencoder.reconstruction import mean_psnr
from transfusion.autoencoder.settings import PretrainedConfig
from transfusion.data.settings import Layout


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class LatentsSettings(_Facts):
    """What decides the latents of a folder of pictures.

    Attributes:
        size: Height and width to which pictures are brought.
        dtype: In which latents are stored.
        has_std: Whether the spread of the posterior is stored.
        has_flip: Whether latents of the flipped pictures are stored.
        device: Kind of the device that encodes.
        per_shard: Pictures of a shard.
        autoencoder: What encodes, settled.
    """

    size: tuple[int, int]
    dtype: Literal["fp32", "fp16", "bf16"] = "fp32"
    has_std: bool = False
    has_flip: bool = False
    device: str = "cpu"
    per_shard: int = Field(default=256, gt=0)
    autoencoder: PretrainedConfig

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the tensors of a shard."""
        kinds = ("mean", "std") if self.has_std else ("mean",)
        return (*kinds, *(f"flipped_{kind}" for kind in kinds if self.has_flip))


class FileFacts(_Facts):
    """Size and SHA-256 of a file."""

    bytes: int
    sha256: str

    @classmethod
    def of(cls, data: "builtins.bytes") -> "FileFacts":
        """Take them of what a file holds."""
        return cls(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


class Shard(FileFacts):
    """A shard.

    Attributes:
        count: Pictures in it.
        broken: Pictures that it would have, by their plain names, which cannot be read, and why.
        pixels: SHA-256 of its pictures, decoded.
    """

    count: int = Field(ge=0)
    broken: dict[str, str]
    pixels: str


class Psnr(_Facts):
    """What the autoencoder itself loses of some of the pictures, in dB; None is infinity: nothing is lost.

    Attributes:
        pictures: How many were tried.
        mean: Average over those that are not kept exactly.
        least: Of the worst.
        most: Of the best.
    """

    pictures: int = Field(gt=0)
    mean: float | None
    least: float | None
    most: float | None

    @classmethod
    def of(cls, found: Sequence[float]) -> "Psnr":
        """Summarise what was measured of each picture."""
        numbers = {"mean": mean_psnr(found), "least": min(found), "most": max(found)}
        known = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
        return cls.model_validate({"pictures": len(found), **known})

    def __str__(self) -> str:
        """Tell it."""
        mean, least, most = (math.inf if value is None else value for value in (self.mean, self.least, self.most))
        return f"{self.pictures} pictures {mean:.1f} dB on average, {least:.1f} to {most:.1f}"


class Latents(_Facts):
    """What ``latents.json`` says.

    Attributes:
        version: Of the format.
        space: Name of what encoded them, for a person.
        settings: What decided them.
        shape: Of a latent, (C, *axes).
        layout: Of the folder of pictures.
        quarantine: Captions that could not be read, and why.
        source: Names captions and pictures, as they were decoded.
        plan: Names captions and pictures, by their files.
        shards: In order.
        files: The other files.
        psnr: What the autoencoder itself loses; None where that was not measured.
        digest: SHA-256 of all the rest.
    """

    version: Literal[1] = 1
    space: str
    settings: LatentsSettings
    shape: tuple[int, ...]
    layout: Layout
    quarantine: dict[str, str]
    source: str
    plan: str
    shards: tuple[Shard, ...]
    files: dict[str, FileFacts]
    psnr: Psnr | None = None
    digest: str = ""

    def named(self) -> str:
        """Return the digest that it should have."""
        unsaid = {"digest"} if self.psnr is not None else {"digest", "psnr"}  # folders that were made without it
        rest = self.model_dump(mode="json", exclude=unsaid)
        return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
