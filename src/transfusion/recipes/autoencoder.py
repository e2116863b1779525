"""Recipes of autoencoders, for ``transfusion train autoencoder/kl`` and its like."""

from transfusion.autoencoder.architecture import KLConfig, VQConfig
from transfusion.autoencoder.losses import LossConfig
from transfusion.data.settings import ShapesConfig
from transfusion.train.autoencoder.settings import AugmentConfig, AutoencoderRun, AutoencoderTrainConfig
from transfusion.train.optimizer import OptimizerConfig

SIDE, CROP = 128, 64
WIDTHS = (16, 32, 96, 192)  # most of the time goes into the levels of most pixels, most of the weights into the last


def kl() -> AutoencoderRun:
    """How well do 8 channels at an eighth of the side keep photographs of 128 pixels, after an hour of two cores?

    Command: ``transfusion train autoencoder/kl`` on the built-in world, or with ``data.path=DIR``, where DIR holds
    pictures, with captions or without. A discriminator is left out: it costs PSNR, and much of the hour.
    """
    return _small("autoencoder-kl", KLConfig(widths=WIDTHS, blocks_per_level=1, norm_groups=8, use_attention=False))


def vq() -> AutoencoderRun:
    """How well do 1,024 codes at an eighth of the side keep photographs of 128 pixels, after an hour of two cores?

    Command: ``transfusion train autoencoder/vq`` on the built-in world, or with ``data.path=DIR``, where DIR holds
    pictures, with captions or without.
    """
    network = VQConfig(
        widths=WIDTHS,
        blocks_per_level=1,
        norm_groups=8,
        use_attention=False,
        channels=64,
        num_codes=1024,
        revive_after=50,
    )
    return _small("autoencoder-vq", network)


def paper_kl() -> AutoencoderRun:
    """Does the paper's VAE (86 M parameters, 8 channels at an eighth of the side) train here as published?

    Command: ``transfusion train autoencoder/paper-kl`` with ``data.path=DIR``, and ``backbones.perceptual.path``,
    ``backbones.linear.path`` and ``backbones.identity.path`` for the losses of features. 83.7 M parameters; the paper
    names no rates, batch or data.
    """
    return _paper("autoencoder-paper-kl", KLConfig())


def paper_vq() -> AutoencoderRun:
    """Does the paper's VQ-VAE (16,384 codes of 8 numbers at an eighth of the side) train here as published?

    Command: ``transfusion train autoencoder/paper-vq`` with ``data.path=DIR``, and ``backbones.perceptual.path``,
    ``backbones.linear.path`` and ``backbones.identity.path`` for the losses of features. 86.1 M parameters.
    """
    return _paper("autoencoder-paper-vq", VQConfig())


AUTOENCODERS = {
    "autoencoder/kl": kl,
    "autoencoder/vq": vq,
    "autoencoder/paper-kl": paper_kl,
    "autoencoder/paper-vq": paper_vq,
}


def _small(name: str, network: KLConfig | VQConfig) -> AutoencoderRun:
    optimizer = OptimizerConfig(
        lr=2e-3,
        betas=(0.9, 0.99),
        weight_decay=0.0,
        warmup_steps=100,
        schedule="constant",
        cooldown=0.4,
        final_ratio=0.02,
    )
    return AutoencoderRun(
        name=name,
        network=network,
        losses=LossConfig(gan=0.0),
        data=ShapesConfig(resolution=SIDE),
        augment=AugmentConfig(crop=CROP),
        train=AutoencoderTrainConfig(steps=4000, batch_size=16, optimizer=optimizer, ema_decay=0.995),
    )


def _paper(name: str, network: KLConfig | VQConfig) -> AutoencoderRun:
    return AutoencoderRun(
        name=name,
        network=network,
        data=ShapesConfig(resolution=256),
        train=AutoencoderTrainConfig(checkpoint_every=5000, preview_every=5000, ema_decay=0.9999),
    )
