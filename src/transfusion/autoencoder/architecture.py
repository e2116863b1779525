"""The networks of autoencoders that are trained here: diffusers' architectures, a KL and a VQ one, with one forward.

    pictures (B, 3, H, W) ──▶ encoder ──▶ KL: mean, logvar ──▶ a draw of the posterior ──┐
                                          VQ: vectors ──▶ the nearest codes ─────────────┴──▶ decoder ──▶ pictures

Pictures are in [-1, 1]. H, W: pixels; h, w: elements of a latent; C: channels; D: numbers of a code; K: codes. What is
saved of them is what diffusers loads (``diffusers_config``). They must not know losses, optimizers or files.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, cast

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from transfusion.autoencoder.pixels import COLOURS
from transfusion.autoencoder.quantise import CodeUse, quantise
from transfusion.autoencoder.settings import MOST_COUNT, MOST_LAYERS, MOST_LEVELS
from transfusion.keyed import normal, subseed

LEAST_LOGVAR, MOST_LOGVAR = -30.0, 20.0  # as diffusers clamps them
Width = Annotated[int, Field(gt=0, le=MOST_COUNT)]


class NetworkConfig(BaseModel):
    """Encoder and decoder, as diffusers' Encoder and Decoder are built."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    widths: tuple[Width, ...] = Field(
        default=(128, 256, 512, 512),
        min_length=1,
        max_length=MOST_LEVELS,
        description="Channels of each level; all but the last halve a side",
    )
    blocks_per_level: int = Field(
        default=2,
        gt=0,
        le=MOST_LAYERS,
        description="Residual blocks of each of the encoder's levels; the decoder's have one more",
    )
    norm_groups: int = Field(default=32, gt=0, description="Groups of channels that are normalised together")
    use_attention: bool = Field(default=True, description="Attention between all places at the lowest level")

    @model_validator(mode="after")
    def _check(self) -> "NetworkConfig":
        odd = [width for width in self.widths if width % self.norm_groups]
        if odd:
            raise ValueError(f"widths {odd} are no multiples of norm_groups {self.norm_groups}; change either")
        return self

    @property
    def factor(self) -> int:
        """Pixels along a side of a picture for each element of its latent."""
        return 2 ** (len(self.widths) - 1)


class KLConfig(NetworkConfig):
    """A variational autoencoder: latents drawn of a posterior, held near a normal distribution."""

    kind: Literal["kl"] = "kl"
    channels: int = Field(default=8, gt=0, le=MOST_COUNT, description="Channels of the latents")


class VQConfig(NetworkConfig):
    """A vector-quantised autoencoder: each place of a latent is one of so many codes."""

    kind: Literal["vq"] = "vq"
    channels: int = Field(
        default=256, gt=0, le=MOST_COUNT, description="Channels of the encoder before the projection to a code"
    )
    num_codes: int = Field(default=16_384, gt=1, le=MOST_COUNT, description="Codes of the codebook")
    code_dim: int = Field(default=8, gt=0, le=MOST_COUNT, description="Numbers of a code")
    codebook: Literal["loss", "average"] = Field(
        default="loss", description="How codes follow the vectors: by a loss, or as moving averages of what is theirs"
    )
    codebook_decay: float = Field(default=0.99, ge=0, lt=1, description="Decay of those averages")
    revive_after: int = Field(
        default=200,
        ge=0,
        description="Steps without use after which a code is put where a vector of the batch is; 0: never. In the "
        "first step all unused ones are, so that codes begin where vectors are",
    )


class Passed(NamedTuple):
    """What a forward makes of pictures.

    Attributes:
        pictures: Reconstructions, (B, 3, H, W) float32.
        losses: Scalars by name: ``kl``; or ``codebook`` (none where codes are averages) and ``commitment``.
        vectors: (B·h·w, D) float32 before the quantiser, without gradient; None of a KL network.
        codes: (B·h·w,) int64, the code of each; None of a KL network.
    """

    pictures: Tensor
    losses: dict[str, Tensor]
    vectors: Tensor | None = None
    codes: Tensor | None = None


class Draw(NamedTuple):
    """Key of the posterior's draws in a step."""

    seed: int
    step: int


class Posterior(NamedTuple):
    """Mean and logarithm of the variance of latents, each (B, C, h, w) float32."""

    mean: Tensor
    logvar: Tensor


def kl_to_normal(posterior: Posterior) -> Tensor:
    """Return the divergence of each picture's posterior from N(0, I) in nats, (B,)."""
    mean, logvar = posterior
    return 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).flatten(1).sum(1)


class KLNetwork(nn.Module):
    """diffusers' AutoencoderKL."""

    def __init__(self, config: KLConfig, resolution: int) -> None:
        """Build it for pictures of a side, its weights as they come."""
        super().__init__()
        self.config = config
        self.network: Any = _built("AutoencoderKL", diffusers_config(config, resolution))

    @property
    def last_weight(self) -> nn.Parameter:
        """The weight of the decoder's last layer."""
        return self.network.decoder.conv_out.weight

    def posterior(self, pictures: Tensor) -> Posterior:
        """Encode pictures (B, 3, H, W)."""
        moments = self.network.quant_conv(self.network.encoder(pictures)).float()
        mean, logvar = moments.chunk(2, dim=1)
        return Posterior(mean, logvar.clamp(LEAST_LOGVAR, MOST_LOGVAR))

    def forward(self, pictures: Tensor, draw: Draw | None = None) -> Passed:
        """Reconstruct pictures (B, 3, H, W), from a keyed draw of the posterior, or from its mean.

        The loss ``kl`` is in nats over the values of a picture, as L1 is a mean over them: the two have the ratio that
        they have in latent diffusion (arXiv 2112.10752), where both are sums.
        """
        posterior = self.posterior(pictures)
        latents = posterior.mean
        if draw is not None:
            noise = normal(tuple(latents.shape), draw.seed, "posterior", draw.step).to(latents.device)
            latents = latents + (0.5 * posterior.logvar).exp() * noise
        kl = kl_to_normal(posterior).mean() / pictures[0].numel()
        return Passed(self.network.decoder(self.network.post_quant_conv(latents)).float(), {"kl": kl})


class VQNetwork(nn.Module):
    """diffusers' VQModel, with a quantiser of ours: its own has the weights of the two losses exchanged."""

    def __init__(self, config: VQConfig, resolution: int) -> None:
        """Build it for pictures of a side, its weights as they come."""
        super().__init__()
        self.config = config
        self.network: Any = _built("VQModel", diffusers_config(config, resolution))
        self.codebook.requires_grad_(config.codebook == "loss")
        self.use = CodeUse(config.num_codes, config.code_dim, unused=config.revive_after)

    @property
    def last_weight(self) -> nn.Parameter:
        """The weight of the decoder's last layer."""
        return self.network.decoder.conv_out.weight

    @property
    def codebook(self) -> nn.Parameter:
        """The codes, (K, D)."""
        return self.network.quantize.embedding.weight

    def vectors(self, pictures: Tensor) -> Tensor:
        """Encode pictures (B, 3, H, W) to vectors before the quantiser, (B, D, h, w) float32."""
        return self.network.quant_conv(self.network.encoder(pictures)).float()

    def forward(self, pictures: Tensor, draw: Draw | None = None) -> Passed:
        """Reconstruct pictures (B, 3, H, W) from the nearest codes; nothing is drawn."""
        del draw
        found = quantise(self.vectors(pictures), self.codebook)
        losses = {"codebook": found.codebook_loss} if self.config.codebook == "loss" else {}
        made = self.network.decoder(self.network.post_quant_conv(found.vectors)).float()
        return Passed(made, {**losses, "commitment": found.commitment_loss}, found.flat, found.codes)


Network = KLNetwork | VQNetwork


def build_network(config: KLConfig | VQConfig, resolution: int, seed: int) -> Network:
    """Build a network with keyed weights: each parameter's draw depends on (seed, its name) and on nothing before it.

    Raises:
        ModuleNotFoundError: diffusers is not installed.
    """
    with torch.device("meta"):  # nothing is drawn there, and no generator moves
        network = KLNetwork(config, resolution) if isinstance(config, KLConfig) else VQNetwork(config, resolution)
    network = network.to_empty(device="cpu")
    initialise(network, seed, "autoencoder")
    if isinstance(network, VQNetwork):
        network.use.begin()
        with torch.no_grad():
            network.codebook.mul_(1 / network.config.num_codes)
    return network


def initialise(module: nn.Module, seed: int, stream: str) -> None:
    """Fill all parameters in place: weights normal with variance 1 / fan-in, codes standard normal, norms one, biases
    zero; each by a draw of (seed, stream, its name).
    """
    with torch.no_grad():
        for prefix, part in module.named_modules():
            for name, weight in part.named_parameters(recurse=False):
                draw = torch.Generator().manual_seed(subseed(seed, stream, f"{prefix}.{name}"))
                if name == "bias":
                    weight.zero_()
                elif isinstance(part, nn.GroupNorm):
                    weight.fill_(1.0)
                else:
                    fan_in = 1 if isinstance(part, nn.Embedding) else weight[0].numel()
                    weight.normal_(generator=draw).mul_(1 / math.sqrt(fan_in))


def diffusers_config(config: KLConfig | VQConfig, resolution: int) -> dict[str, Any]:
    """Return the settings by which diffusers builds a network's like, with the name of its class."""
    levels = len(config.widths)
    shared: dict[str, Any] = {
        "in_channels": COLOURS,
        "out_channels": COLOURS,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "block_out_channels": list(config.widths),
        "layers_per_block": config.blocks_per_level,
        "norm_num_groups": config.norm_groups,
        "mid_block_add_attention": config.use_attention,
        "latent_channels": config.channels,
        "sample_size": resolution,
        "scaling_factor": 1.0,  # what normalises latents is measured by who uses them
    }
    if isinstance(config, KLConfig):
        return {"_class_name": "AutoencoderKL", **shared, "force_upcast": False}
    codes = {"num_vq_embeddings": config.num_codes, "vq_embed_dim": config.code_dim}
    return {"_class_name": "VQModel", **shared, **codes}


def num_parameters(config: KLConfig | VQConfig) -> int:
    """Count the parameters that a config makes, without making them."""
    with torch.device("meta"):
        network = _built(str(diffusers_config(config, 0)["_class_name"]), diffusers_config(config, 0))
    return sum(parameter.numel() for parameter in network.parameters())


def _built(kind: str, settings: Mapping[str, Any]) -> nn.Module:
    import diffusers  # seconds, and an extra

    classes = {"AutoencoderKL": diffusers.AutoencoderKL, "VQModel": diffusers.VQModel}
    return cast(nn.Module, classes[kind].from_config(dict(settings)))
