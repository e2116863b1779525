"""The networks that are trained: sizes, keyed weights and draws, KL's closed form, the same outputs by diffusers."""

import json
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from torch.distributions import Normal, kl_divergence

from transfusion.autoencoder.architecture import (
    Draw,
    KLConfig,
    KLNetwork,
    Posterior,
    VQConfig,
    VQNetwork,
    build_network,
    diffusers_config,
    kl_to_normal,
    num_parameters,
)

SIZE = {"widths": (8, 16), "blocks_per_level": 1, "norm_groups": 4}
KL = KLConfig.model_validate({**SIZE, "channels": 3})
VQ = VQConfig.model_validate({**SIZE, "channels": 6, "num_codes": 12, "code_dim": 4})
PAPER = 86e6


def pictures(count: int = 2, height: int = 8, width: int = 12) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize(("config", "expected"), [(KLConfig(), 83_709_419), (VQConfig(), 86_093_451)])
def test_the_papers_size(config: KLConfig | VQConfig, expected: int) -> None:
    assert num_parameters(config) == expected and abs(expected - PAPER) / PAPER < 0.03 and config.factor == 8


def test_kl_has_its_closed_form() -> None:
    draw = torch.Generator().manual_seed(0)
    mean, logvar = torch.randn(3, 4, 2, 2, generator=draw), torch.randn(3, 4, 2, 2, generator=draw)
    closed = kl_divergence(Normal(mean, (0.5 * logvar).exp()), Normal(0.0, 1.0)).sum((1, 2, 3))
    assert torch.allclose(kl_to_normal(Posterior(mean, logvar)), closed, rtol=1e-5)
    network = build_network(KL, 8, 0)
    assert isinstance(network, KLNetwork)
    passed = network(pictures())
    expected = kl_to_normal(network.posterior(pictures())).mean() / (3 * 8 * 12)
    assert torch.equal(passed.losses["kl"], expected)


def test_the_posteriors_draw_is_keyed_and_follows_its_spread() -> None:
    network = build_network(KL, 8, 0)
    once, again, other = (network(pictures(), Draw(0, step)).pictures for step in (3, 3, 4))
    assert torch.equal(once, again) and not torch.equal(once, other)
    assert not torch.equal(once, network(pictures(), Draw(1, 3)).pictures)
    with torch.no_grad():
        bias = network.network.quant_conv.bias
        bias[len(bias) // 2 :] = -40.0  # no spread is left
    mean = network(pictures()).pictures
    assert torch.allclose(network(pictures(), Draw(0, 3)).pictures, mean, atol=1e-4)


@pytest.mark.parametrize("config", [KL, VQ], ids=["kl", "vq"])
def test_weights_are_keyed_and_no_generator_moves(config: KLConfig | VQConfig) -> None:
    before = torch.get_rng_state()
    one, same, other = (build_network(config, 8, seed) for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    for (name, a), b, c in zip(one.named_parameters(), same.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b), name
        assert a.ndim < 2 or not torch.equal(a, c), name
    assert one(pictures()).pictures.std() > 1e-3


@pytest.mark.parametrize("config", [KL, VQ], ids=["kl", "vq"])
def test_diffusers_loads_the_pair_and_agrees(config: KLConfig | VQConfig, tmp_path: Path) -> None:
    import diffusers

    network = build_network(config, 8, 0).eval()
    if isinstance(network, VQNetwork):
        with torch.no_grad():
            network.codebook.copy_(torch.randn(12, 4, generator=torch.Generator().manual_seed(1)))
    (tmp_path / "config.json").write_text(json.dumps(diffusers_config(config, 8)))
    save_file(network.network.state_dict(), str(tmp_path / "diffusion_pytorch_model.safetensors"))
    kind = diffusers.AutoencoderKL if isinstance(config, KLConfig) else diffusers.VQModel
    loaded = kind.from_pretrained(tmp_path)
    with torch.no_grad():
        theirs = loaded(pictures()).sample
        ours = network(pictures())
    assert torch.equal(ours.pictures, theirs)
    if ours.codes is not None:
        assert len(set(ours.codes.tolist())) > 2


def test_an_averaged_codebook_has_no_loss_and_no_gradient() -> None:
    network = build_network(VQ.model_copy(update={"codebook": "average"}), 8, 0)
    assert isinstance(network, VQNetwork) and not network.codebook.requires_grad
    assert network(pictures()).losses.keys() == {"commitment"}


def test_widths_that_cannot_be_grouped_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"widths \[10\] are no multiples of norm_groups 4"):
        KLConfig(widths=(8, 10), norm_groups=4)
