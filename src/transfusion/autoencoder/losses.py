"""What an autoencoder is trained by, as in the paper: L1, LPIPS, a patch GAN, a feature loss, KL or codebook.

Each is a function of pictures or judgements. It must not know the networks that make them, nor files.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional

from transfusion.autoencoder.features import FeatureNetwork

MOST_BALANCE, SMALL = 1e4, 1e-4
EPSILON = 1e-10


class LossConfig(BaseModel):
    """Weights of the losses, as in the paper: L1 + LPIPS + 0.5 GAN + 0.2 features + 1e-6 KL, or + codebook."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    l1: float = Field(default=1.0, ge=0, description="Weight of the mean absolute difference of pixels in [-1, 1]")
    perceptual: float = Field(
        default=1.0, ge=0, description="Weight of the distance of features at several layers of backbones.perceptual"
    )
    identity: float = Field(
        default=0.2, ge=0, description="Weight of the distance of features of backbones.identity (paper: MoCo v2)"
    )
    gan: float = Field(default=0.5, ge=0, description="Weight of the discriminator's judgement; 0: there is none")
    gan_start: int = Field(
        default=50_000, gt=0, description="First step, counted from 1, with the discriminator's loss, and its training"
    )
    gan_balance: Literal["fixed", "adaptive"] = Field(
        default="fixed",
        description="fixed: the weight as it is, as in the paper; adaptive: times the ratio of the gradients of the "
        "reconstruction's losses and the judgement's at the last layer, as in VQGAN",
    )
    kl: float = Field(
        default=1e-6, ge=0, description="Weight of the divergence from N(0, I), in nats over the values of a picture"
    )
    codebook: float = Field(default=1.0, ge=0, description="Weight of what draws codes to vectors")
    commitment: float = Field(default=0.25, ge=0, description="Weight β of what draws vectors to codes")


def l1_loss(made: Tensor, pictures: Tensor) -> Tensor:
    """Return the mean absolute difference of values in [-1, 1]."""
    return (made - pictures).abs().mean()


def judged_loss(judgement: Tensor) -> Tensor:
    """Return the loss of reconstructions by their judgement: the better they pass, the lower."""
    return -judgement.float().mean()


def hinge_loss(real: Tensor, made: Tensor) -> Tensor:
    """Return the discriminator's loss by its judgement of pictures and of reconstructions (arXiv 1705.02894)."""
    return 0.5 * (functional.relu(1.0 - real.float()).mean() + functional.relu(1.0 + made.float()).mean())


def balance(reconstruction: Tensor, judged: Tensor, last: nn.Parameter) -> Tensor:
    """Return the ratio of two losses' gradients at the decoder's last weight (arXiv 2012.09841, equation 7)."""
    (of_pictures,) = torch.autograd.grad(reconstruction, last, retain_graph=True)
    (of_judgement,) = torch.autograd.grad(judged, last, retain_graph=True)
    return (of_pictures.norm() / (of_judgement.norm() + SMALL)).clamp(0.0, MOST_BALANCE).detach()


class FeatureLoss(nn.Module):
    """The distance of features of unit length at several layers of a frozen network (arXiv 1801.03924).

    With learnt weights for each channel of each layer it is LPIPS; without, every channel counts alike, and it is only
    called perceptual.
    """

    def __init__(self, network: FeatureNetwork, weights: Sequence[Tensor] | None = None) -> None:
        """Take the network, and (channels,) weights for each of its layers.

        Raises:
            ValueError: There are not as many weights as channels.
        """
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        found = [torch.ones(channels) for channels in network.layer_channels] if weights is None else list(weights)
        if [len(each) for each in found] != list(network.layer_channels):
            counts = [len(each) for each in found]
            raise ValueError(f"weights of {counts} channels; the network's layers have {list(network.layer_channels)}")
        for number, each in enumerate(found):
            self.register_buffer(f"weight_{number}", each.view(1, -1, 1, 1), persistent=False)
        self.is_learnt = weights is not None

    @property
    def name(self) -> str:
        """What it may be called."""
        return "lpips" if self.is_learnt else "perceptual"

    def forward(self, made: Tensor, pictures: Tensor) -> Tensor:
        """Return the distance of two batches (B, 3, H, W) in [-1, 1], summed over layers and a mean over pictures."""
        with torch.no_grad():
            wanted = self.network(pictures).layers
        total = made.new_zeros(())
        for number, (one, other) in enumerate(zip(self.network(made).layers, wanted, strict=True)):
            difference = (_unit(one.float()) - _unit(other.float())).square()
            total = total + (difference * self.get_buffer(f"weight_{number}")).sum(1).mean()
        return total


def _unit(features: Tensor) -> Tensor:
    """Scale the features of each place (B, C, h, w) to unit length."""
    return features / (features.square().sum(1, keepdim=True) + EPSILON).sqrt()


def total_loss(losses: Mapping[str, Tensor], config: LossConfig) -> Tensor:
    """Weigh the losses of a step and add them up: each by the weight of its name; ``lpips`` is the perceptual one."""
    weights = {**config.model_dump(), "lpips": config.perceptual}
    return torch.stack([loss * weights[name] for name, loss in losses.items()]).sum()
