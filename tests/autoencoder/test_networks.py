"""Networks behind one face: each class does what diffusers does with it, and is known by its digest."""

import pickle
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from small_autoencoders import CLASSES, FACTOR, small_module

from transfusion.autoencoder.networks import VQ, built, kind_named, loaded, wrapped
from transfusion.autoencoder.space import SpaceError
from transfusion.autoencoder.taesd import Taesd

PICTURE = torch.rand(1, 3, 16, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1


def theirs(name: str, module: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Encode and decode as diffusers documents it."""
    with torch.no_grad():
        found = module.encode(PICTURE)
        latent = {"AutoencoderKL": lambda: found.latent_dist.mean, "AutoencoderDC": lambda: found.latent}.get(
            name, lambda: found.latents
        )()
        return latent, module.decode(latent).sample


@pytest.mark.parametrize("name", CLASSES)
def test_each_class_encodes_and_decodes_as_diffusers_does(name: str) -> None:
    module = small_module(name, channels=32)
    network = wrapped(module)
    latent, picture = theirs(name, module)
    found = network.encode(PICTURE).mean
    torch.testing.assert_close(found, latent, rtol=0, atol=0)
    assert (network.channels, network.factor, network.has_spread) == (32, FACTOR[name], name == "AutoencoderKL")
    assert found.shape == (1, 32, 16 // network.factor, 24 // network.factor)
    raw = network.vectors(network.codes(found)) if network.kind == VQ else found
    # diffusers' straight-through sum z + (q - z) rounds what is q here
    torch.testing.assert_close(network.decode(raw), picture, rtol=0, atol=1e-5 if network.kind == VQ else 0)


def test_a_posterior_is_the_one_of_diffusers() -> None:
    module = small_module("AutoencoderKL")
    with torch.no_grad():
        posterior = module.encode(PICTURE).latent_dist
    found = wrapped(module).encode(PICTURE)
    assert found.std is not None
    torch.testing.assert_close(found.std, posterior.std, rtol=0, atol=0)
    assert float(found.std.min()) > 0


def test_codes_are_the_nearest_vectors() -> None:
    network = wrapped(small_module("VQModel", num_codes=16))
    latent = network.encode(PICTURE).mean
    book: Any = network.weights()["quantize.embedding.weight"]
    brute = (latent.permute(0, 2, 3, 1)[..., None, :] - book).square().sum(-1).argmin(-1)
    codes = network.codes(latent)
    assert codes.dtype == torch.int64 and codes.shape == (1, 8, 12) and network.num_codes == 16
    torch.testing.assert_close(codes, brute)
    assert len(codes.unique()) > 4
    torch.testing.assert_close(network.vectors(codes), book[brute].permute(0, 3, 1, 2))


@pytest.mark.parametrize("name", CLASSES)
def test_a_network_goes_to_another_process(name: str) -> None:
    network = wrapped(small_module(name))
    again = pickle.loads(pickle.dumps(network))
    assert again.digest == network.digest and again.has_spread == network.has_spread
    assert again.num_codes == network.num_codes
    assert torch.equal(again.encode(PICTURE).mean, network.encode(PICTURE).mean)


def test_what_has_no_codebook_says_so() -> None:
    network = wrapped(small_module("AutoencoderTiny"))
    assert network.num_codes is None
    with pytest.raises(SpaceError, match="AutoencoderTiny has no codebook; take a VQModel"):
        network.codes(torch.zeros(1, 4, 2, 2))


def test_autocasting_moves_no_bit() -> None:
    network = wrapped(small_module("AutoencoderKL"))
    plain = network.encode(PICTURE).mean
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(network.encode(PICTURE).mean, plain)
        decoded = network.decode(plain)
    assert torch.equal(network.decode(plain), decoded)


@pytest.mark.parametrize("name", CLASSES)
def test_a_network_is_built_from_its_settings_without_a_random_number(name: str) -> None:
    network = wrapped(small_module(name))
    before = torch.get_rng_state()
    again = built(network.kind, network.settings, network.weights(), "memory")
    assert torch.equal(torch.get_rng_state(), before)
    assert again.digest == network.digest and again.settings == network.settings
    assert torch.equal(again.encode(PICTURE).mean, network.encode(PICTURE).mean)
    assert not any(each.requires_grad or each.device.type == "meta" for each in again.module.parameters())


def test_the_digest_is_of_weights_settings_class_and_dtype() -> None:
    def digest(change: Callable[[Any], object] = lambda _: None, dtype: torch.dtype = torch.float32) -> str:
        module = Taesd(4, has_pool=False)
        with torch.no_grad():
            for index, each in enumerate(module.parameters()):
                each.copy_((torch.arange(each.numel()) % 5 + index % 3).view(each.shape) / 8)  # exact in every dtype
        change(module)
        return wrapped(module, dtype).digest

    def nudge(module: Any) -> None:
        module.decoder[1].bias.data[0] += 0.125

    def rename(module: Any) -> None:
        module.settings["has_pool"] = True

    same = digest()
    assert digest() == same and len(same) == 64
    assert len({same, digest(nudge), digest(rename), digest(dtype=torch.float16), digest(dtype=torch.bfloat16)}) == 5


def test_settings_at_their_defaults_do_not_count() -> None:
    module = small_module("AutoencoderKL")
    network = wrapped(module)
    older = {name: value for name, value in network.settings.items() if name != "latents_mean"}
    assert replace(network, settings=older).digest == network.digest  # as a diffusers without that setting tells it
    assert built(network.kind, older, network.weights(), "an older file").digest == network.digest
    module.register_to_config(scaling_factor=0.5)
    assert wrapped(module).digest != network.digest


def test_a_network_in_training_stays_so() -> None:
    module = small_module("AutoencoderKL").train()
    wrapped(module).weights()
    assert module.training and all(each.requires_grad for each in module.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm_num_groups": 7}, "AutoencoderKL cannot be built from the settings of here: ValueError"),
        ({"block_out_channels": 8}, "cannot be built from the settings of here: TypeError"),
        ({"act_fn": ["silu"]}, "cannot be built from the settings of here"),
        ({"down_block_types": ["os.system", "x"]}, "cannot be built from the settings of here"),
        ({"colour": 1}, "unexpected keyword argument 'colour'"),
        ({"latent_channels": 10**7}, "7 of another shape, such as encoder.conv_out.weight of"),
        ({"use_quant_conv": False}, "2 unexpected, such as quant_conv.bias, quant_conv.weight"),
        ({"layers_per_block": 2}, "32 missing, such as decoder.up_blocks.0.resnets.2.conv1.bias"),
    ],
)
def test_settings_of_another_network_are_refused(change: dict[str, Any], message: str) -> None:
    network = wrapped(small_module("AutoencoderKL"))
    with pytest.raises(SpaceError, match=message):
        built(network.kind, {**network.settings, **change}, network.weights(), "here")


@pytest.mark.parametrize(
    "name", ["os.system", "../AutoencoderKL", "", None, ["AutoencoderKL"], "UNet2DModel", "x" * 99]
)
def test_an_unknown_class_is_refused(name: object) -> None:
    with pytest.raises(SpaceError, match="is unknown .*; expected AutoencoderKL, VQModel, AutoencoderTiny, Autoenc"):
        kind_named(name, "config.json")


def test_pictures_must_have_three_colours_and_keep_their_size() -> None:
    from diffusers import AutoencoderTiny

    def tiny(**changes: Any) -> Any:
        facts = {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8)}
        return AutoencoderTiny(**{**facts, "num_encoder_blocks": (1, 1), "num_decoder_blocks": (1, 1), **changes})

    with pytest.raises(SpaceError, match=r"four is for pictures of \[3, 4\] channels; expected 3"):
        wrapped(tiny(in_channels=4), where="four")
    with pytest.raises(SpaceError, match="larger divides sides by 2 and multiplies them by 4; both must agree"):
        wrapped(tiny(upsampling_scaling_factor=4), where="larger")


def test_weights_that_are_not_finite_are_refused() -> None:
    module = small_module("VQModel", num_codes=64)
    module.quantize.embedding.weight.data[0, 0] = torch.nan
    with pytest.raises(SpaceError, match="quantize.embedding.weight of here holds numbers that are not finite"):
        loaded(module, torch.float32, "here")


def test_without_diffusers_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    for name in CLASSES:
        with pytest.raises(SpaceError, match=r"needs diffusers: pip install 'transfusion\[autoencoder\]'"):
            kind_named(name, "").module()
    assert wrapped(Taesd(4, has_pool=False)).channels == 4


def test_a_deep_network_counts_the_levels_that_change_the_size() -> None:
    factor = kind_named("AutoencoderDC", "").factor
    layers = [[1, 1], [0, 1], [0, 1, 1], [2, 0, 1]]
    expected = [2, 2, 4, 2]
    for each, sides in zip(layers, expected, strict=True):
        assert factor({"encoder_layers_per_block": each, "decoder_layers_per_block": each}) == (sides, sides)


def test_codes_far_from_zero_are_their_own() -> None:
    module = small_module("VQModel", num_codes=64)
    codebook = 300 + 0.02 * torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    module.quantize.embedding.weight.data.copy_(codebook)
    network, codes = wrapped(module), torch.arange(64).view(1, 8, 8)
    assert torch.equal(network.codes(network.vectors(codes)), codes)
