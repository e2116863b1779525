"""Losses by closed cases, the discriminator, feature networks, and the measures of reconstructions."""

import math

import pytest
import torch
from tiny import mobile_tensors
from torch import Tensor, nn

from transfusion.autoencoder.discriminator import Discriminator, DiscriminatorConfig
from transfusion.autoencoder.features import FeatureError, MobileNetV2, feature_network
from transfusion.autoencoder.losses import (
    FeatureLoss,
    LossConfig,
    balance,
    hinge_loss,
    judged_loss,
    l1_loss,
    total_loss,
)
from transfusion.autoencoder.measures import kernel_distance, perplexity, psnr, share_in_use, ssim


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_weights_are_the_papers() -> None:
    config = LossConfig()
    assert (config.l1, config.perceptual, config.gan, config.identity, config.kl) == (1.0, 1.0, 0.5, 0.2, 1e-6)
    assert (config.codebook, config.commitment, config.gan_start) == (1.0, 0.25, 50_000)
    losses = {name: torch.tensor(2.0) for name in ("l1", "lpips", "gan", "kl", "commitment")}
    assert float(total_loss(losses, config)) == pytest.approx(2 * (1 + 1 + 0.5 + 1e-6 + 0.25))


def test_losses_have_their_closed_values() -> None:
    assert float(l1_loss(torch.ones(2, 3), torch.zeros(2, 3))) == 1.0
    assert float(judged_loss(torch.tensor([1.0, 3.0]))) == -2.0
    real, made = torch.tensor([2.0, 0.5]), torch.tensor([-2.0, 0.5])  # hinges 0, 0.5 and 0, 1.5
    assert float(hinge_loss(real, made)) == pytest.approx(0.5 * (0.25 + 0.75))


def test_the_balance_is_the_ratio_of_gradients() -> None:
    last = nn.Parameter(torch.tensor([1.0, 2.0]))
    ratio = balance(last.sum() * 3.0, last.sum() * 0.5, last)
    assert float(ratio) == pytest.approx(6.0, rel=1e-3) and not ratio.requires_grad


def test_the_discriminator_judges_patches_each_picture_by_itself() -> None:
    network = Discriminator(DiscriminatorConfig(width=8, depth=2))
    pictures = drawn(3, 3, 32, 48)
    found = network(pictures)
    assert found.shape == (3, 1, 6, 10)
    assert torch.allclose(found[:1], network(pictures[:1]), atol=1e-5)


def test_features_of_a_picture_and_their_distance() -> None:
    network = feature_network(mobile_tensors())
    assert isinstance(network, MobileNetV2) and not any(p.requires_grad for p in network.parameters())
    pictures = drawn(2, 3, 64, 64).clamp(-1, 1)
    features = network(pictures)
    assert [layer.shape[-1] for layer in features.layers] == [32, 16, 8, 4, 2] and features.pooled.shape == (2, 8)
    assert [layer.shape[1] for layer in features.layers] == network.layer_channels
    loss = FeatureLoss(network)
    made = (pictures + 0.3 * drawn(2, 3, 64, 64, seed=5)).requires_grad_(True)
    distance = loss(made, pictures)
    distance.backward()
    distance = distance.detach()
    assert loss.name == "perceptual" and float(loss(pictures, pictures)) == 0.0 and float(distance) > 1e-3
    assert made.grad is not None and float(made.grad.abs().sum()) > 0
    doubled = FeatureLoss(network, [torch.full((n,), 2.0) for n in network.layer_channels])
    assert doubled.name == "lpips" and float(doubled(made, pictures).detach()) == pytest.approx(
        2 * float(distance), rel=1e-5
    )
    with pytest.raises(ValueError, match=r"weights of \[3\] channels; the network's layers have \[4, "):
        FeatureLoss(network, [torch.ones(3)])


def test_layers_before_each_halving_by_hand() -> None:
    """The first layers of MobileNetV2, padded at the bottom and the right as TensorFlow does, with torch's own."""
    tensors = {name: value.float() for name, value in mobile_tensors().items()}
    pictures = drawn(1, 3, 16, 16).clamp(-1, 1)
    x = ((pictures + 1) * 127.5 - 128) / 128
    pad = nn.ZeroPad2d((0, 1, 0, 1))
    x = torch.conv2d(pad(x), tensors["conv00.weight"], tensors["conv00.bias"], 2).clamp(0, 6)
    x = torch.conv2d(x, tensors["conv01.weight"], tensors["conv01.bias"], padding=1, groups=4).clamp(0, 6)
    x = torch.conv2d(x, tensors["conv02.weight"], tensors["conv02.bias"])
    assert torch.allclose(feature_network(mobile_tensors())(pictures).layers[0], x, atol=1e-5)


def test_unknown_tensors_are_refused() -> None:
    with pytest.raises(FeatureError, match=r"tensors a \.\.\. are of no network that is known"):
        feature_network({"a": torch.ones(1)})
    tensors = mobile_tensors()
    del tensors["conv30.bias"]
    with pytest.raises(FeatureError, match=r"a MobileNetV2 without conv30\.bias"):
        feature_network(tensors)


def test_psnr_of_a_constant_error() -> None:
    black = torch.full((2, 3, 4, 4), -1.0)
    made = black.clone()
    made[1] += 2 * 51 / 255  # a fifth of the range
    found = psnr(made, black)
    assert math.isinf(found[0]) and float(found[1]) == pytest.approx(20 * math.log10(5), abs=1e-4)
    assert math.isinf(psnr(black - 3.0, black)[0])  # what a file cannot show is no error


def test_ssim_of_equal_and_of_constant_pictures() -> None:
    pictures = drawn(2, 3, 16, 20).clamp(-1, 1)
    assert torch.allclose(ssim(pictures, pictures), torch.ones(2), atol=1e-5)
    a, b = 51 / 255, 153 / 255
    flat = [torch.full((1, 3, 16, 16), 2 * value - 1) for value in (a, b)]
    expected = (2 * a * b + 1e-4) / (a * a + b * b + 1e-4)
    assert float(ssim(flat[0], flat[1])) == pytest.approx(expected, abs=1e-4)
    assert float(ssim(-pictures, pictures).max()) < 0


def test_the_kernel_distance_is_without_bias() -> None:
    """Of two halves of one distribution it is about zero on average; of a moved one the kernel's own difference."""
    same = [kernel_distance(drawn(40, 4, seed=2 * i), drawn(40, 4, seed=2 * i + 1)) for i in range(40)]
    assert abs(sum(same) / len(same)) < 0.05  # six times its standard error
    assert kernel_distance(drawn(40, 4), drawn(40, 4, seed=1) + 2.0) > 10 * max(same)
    x, y = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [1.0]])
    cross = (1 + 1 + 2**3 + 3**3) / 4  # (ab + 1)^3 of 1·0, 2·0, 1·1, 2·1
    assert kernel_distance(x, y) == pytest.approx(3**3 + 1 - 2 * cross)


def test_codes_in_use() -> None:
    counts = torch.tensor([5, 5, 0, 0])
    assert perplexity(counts) == pytest.approx(2.0) and share_in_use(counts) == 0.5
