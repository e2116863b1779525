"""The patch discriminator (arXiv 1611.07004): which patches of a picture look made. It must not know losses."""

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

SLOPE = 0.2
GROUPS = 8  # normalised by picture, so that no picture's judgement depends on the others of a batch


class DiscriminatorConfig(BaseModel):
    """The network that tells pictures from reconstructions, patch by patch."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    width: int = Field(default=64, gt=0, multiple_of=GROUPS, description="Channels of its first layer")
    depth: int = Field(default=3, gt=0, description="Layers that halve a side; each has up to twice the channels")
    lr: float = Field(default=1e-4, gt=0, description="Peak rate; all else is as the autoencoder's optimizer has it")


class Discriminator(nn.Module):
    """Convolutions that judge overlapping patches."""

    def __init__(self, config: DiscriminatorConfig) -> None:
        """Build it, its weights as they come."""
        super().__init__()
        width = config.width
        layers: list[nn.Module] = [nn.Conv2d(3, width, 4, stride=2, padding=1), nn.LeakyReLU(SLOPE)]
        for level in range(1, config.depth + 1):
            wider = config.width * min(2**level, 8)
            stride = 2 if level < config.depth else 1
            layers += [
                nn.Conv2d(width, wider, 4, stride=stride, padding=1, bias=False),
                nn.GroupNorm(GROUPS, wider),
                nn.LeakyReLU(SLOPE),
            ]
            width = wider
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, 1, 4, padding=1))

    def forward(self, pictures: Tensor) -> Tensor:
        """Judge pictures (B, 3, H, W) in [-1, 1]: (B, 1, patches, patches), large where they look real."""
        return self.layers(pictures)
