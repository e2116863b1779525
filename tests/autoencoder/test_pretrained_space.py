"""The space of a pretrained autoencoder: normalised, refused when it is another, right for every class and size."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from elsewhere import ELSEWHERE, Elsewhere
from small_autoencoders import CLASSES, made_pictures, small_module

from transfusion.autoencoder.networks import wrapped
from transfusion.autoencoder.pretrained import PretrainedSpace, settled
from transfusion.autoencoder.reconstruction import psnr, reconstruct
from transfusion.autoencoder.settings import PretrainedConfig
from transfusion.autoencoder.space import LatentSpace, SpaceError, measure

PICTURES = made_pictures(4, 16, 24)


def space_of(name: str, *, channels: int = 4, **changes: Any) -> PretrainedSpace:
    """Make a settled space over a small random network."""
    network = wrapped(small_module(name, channels=channels))
    return PretrainedSpace(settled(PretrainedConfig(path="here", **changes), network, PICTURES), network)


@pytest.mark.parametrize("channels", [4, 32])
@pytest.mark.parametrize("name", CLASSES)
def test_latents_have_mean_zero_and_spread_one_in_every_channel(name: str, channels: int) -> None:
    space: LatentSpace = space_of(name, channels=channels)
    found = [space.moments(picture) for picture in PICTURES]
    assert space.channels == channels and space.is_network and space.range is None
    assert space.name == f"{name} of here"
    for each in found:
        assert each.mean.shape == space.shape((16, 24)) and each.mean.dtype == torch.float32
        assert (each.std is None) == (name != "AutoencoderKL")
    flat = torch.stack([each.mean for each in found]).transpose(0, 1).flatten(1)
    # statistics have seven digits
    torch.testing.assert_close(flat.mean(1), torch.zeros(channels), rtol=0, atol=1e-4)
    torch.testing.assert_close(flat.std(1, correction=0), torch.ones(channels), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", CLASSES)
def test_normalising_and_back_is_exact(name: str) -> None:
    space = space_of(name)
    scaled = torch.from_numpy(PICTURES[0]).permute(2, 0, 1)[None].float() / 127.5 - 1
    raw = space.network.encode(scaled)
    found = space.moments(PICTURES[0])
    back = space.normalisation.invert(found.mean)
    torch.testing.assert_close(back, raw.mean[0], rtol=1e-5, atol=1e-5)
    if raw.std is not None and found.std is not None:
        spread = torch.tensor(space.config.std).view(-1, 1, 1) * found.std
        torch.testing.assert_close(spread, raw.std[0], rtol=1e-5, atol=1e-5)
    # a picture decoded through the space is the one decoded at the network's own scale
    plain = raw.mean if space.num_codes is None else space.network.vectors(space.network.codes(raw.mean))
    direct = ((space.network.decode(plain)[0] + 1) * 127.5).round().clamp(0, 255).permute(1, 2, 0).numpy()
    assert psnr(space.decode(found.mean), direct.astype(np.uint8)) > 55  # a value at the edge of rounding, at most


@pytest.mark.parametrize("name", CLASSES)
def test_a_picture_by_itself_and_any_device_and_dtype(name: str) -> None:
    space = space_of(name)
    latent = space.moments(PICTURES[0]).mean
    again = [space.moments(picture).mean for picture in PICTURES]
    assert torch.equal(again[0], latent)
    assert np.array_equal(space.decode(latent.double()), space.decode(latent))
    assert space.decode(latent.bfloat16()).shape == (16, 24, 3)
    assert space.decode(latent.clone().requires_grad_()).dtype == np.uint8


def test_the_network_works_elsewhere() -> None:
    space = space_of("AutoencoderTiny")
    here = space.moments(PICTURES[0]).mean
    picture = space.decode(here)
    with Elsewhere():
        moved = space.to(ELSEWHERE)
        assert moved is space and space.network.device.type == ELSEWHERE.type
        found = space.moments(PICTURES[0]).mean
        assert found.device.type == "cpu"
        torch.testing.assert_close(found, here)
        np.testing.assert_array_equal(space.decode(found.to(ELSEWHERE)), picture)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((18, 24), "18 x 24 pixels do not fit AutoencoderTiny of here: the height is no multiple of 4; use 16 or 20"),
        ((16, 3), "16 x 3 pixels .*the width is no multiple of 4; use 4$"),
        ((0, 8), "0 x 8 pixels .*the height is no multiple of 4; use 4$"),
    ],
)
def test_a_size_that_does_not_fit_is_refused(size: tuple[int, int], message: str) -> None:
    space = space_of("AutoencoderTiny")
    with pytest.raises(SpaceError, match=message):
        space.shape(size)
    with pytest.raises(SpaceError, match=message):
        space.moments(np.zeros((*size, 3), dtype=np.uint8))


def test_a_latent_of_another_space_is_refused() -> None:
    space = space_of("AutoencoderKL")
    for shape in ((3, 8, 8), (4, 8), (1, 4, 8, 8)):
        with pytest.raises(SpaceError, match=r"is none of AutoencoderKL of here; expected \[4, height, width\]"):
            space.decode(torch.zeros(shape))
    with pytest.raises(SpaceError, match=r"a picture of \[16, 24\]; expected \[height, width, 3\]"):
        space.moments(PICTURES[0, :, :, 0])


def test_codes_name_what_is_decoded() -> None:
    space = space_of("VQModel")
    codes = space.codes(PICTURES[0])
    assert codes.shape == (8, 12) and codes.dtype == np.int64 and space.num_codes == 16
    assert len(np.unique(codes)) > 4
    np.testing.assert_array_equal(space.picture(codes), space.decode(space.moments(PICTURES[0]).mean))
    nudged = space.moments(PICTURES[0]).mean + 1e-3
    assert psnr(space.decode(nudged), space.picture(codes)) > 30  # snapped: all but ties give the same codes
    with pytest.raises(SpaceError, match="codes from 0 to 16; expected 0 to 15"):
        space.picture(np.array([[0, 16]]))
    with pytest.raises(SpaceError, match="codes from -1 to 0; expected 0 to 15"):
        space.picture(np.array([[0, -1]]))
    for call in (lambda s: s.codes(PICTURES[0]), lambda s: s.picture(codes)):
        with pytest.raises(SpaceError, match="AutoencoderKL has no codebook; take a VQModel"):
            call(space_of("AutoencoderKL"))


def test_what_is_found_is_filled_in_and_what_is_given_is_kept() -> None:
    network = wrapped(small_module("AutoencoderKL"))
    given = PretrainedConfig(path="here", mean=(1.0,) * 4, std=(2.0,) * 4, posterior="sample", tile=64)
    config = settled(given, network, PICTURES[:0])
    assert (config.digest, config.channels, config.factor) == (network.digest, 4, 2)
    assert config.model_copy(update={"digest": None, "channels": None, "factor": None}) == given
    assert settled(config, network, PICTURES) == config
    measured = settled(PretrainedConfig(path="here"), network, PICTURES)
    assert settled(measured, network, PICTURES[:1]) == measured
    assert PretrainedConfig.model_validate_json(measured.model_dump_json()) == measured


def test_drawn_latents_are_measured_as_they_are_drawn() -> None:
    """A posterior's own spread belongs to what training sees: mean² apart, 1 = Var[mean] + E[std²]."""
    space = space_of("AutoencoderKL", posterior="sample")
    found = [space.moments(picture) for picture in PICTURES]
    means = torch.stack([each.mean for each in found]).transpose(0, 1).flatten(1)
    spread = torch.stack([each.std for each in found if each.std is not None]).transpose(0, 1).flatten(1)
    total = means.var(1, correction=0) + spread.square().mean(1)
    torch.testing.assert_close(total, torch.ones(4), rtol=0, atol=0.25)  # 384 draws a channel: 1 ± 0.07 each
    assert float(spread.square().mean()) > 0.5  # random networks spread wider than they differ


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"digest": "f" * 64},
            "here is not the autoencoder of these settings: its digest is {digest}, theirs ffff",
        ),
        ({"channels": 8}, "here has 4 channels, and the settings say 8 .autoencoder.channels."),
        ({"factor": 8}, "here has 2 pixels for each element, and the settings say 8 .autoencoder.factor."),
        ({"mean": (0.0,) * 3, "std": (1.0,) * 3}, "here has 4 channels of mean and std, and the settings say 3"),
    ],
)
def test_another_network_is_refused(given: dict[str, Any], message: str) -> None:
    network = wrapped(small_module("AutoencoderKL"))
    expected = message.format(digest=network.digest)
    with pytest.raises(SpaceError, match=expected):
        settled(PretrainedConfig(path="here", **given), network, PICTURES)
    known = settled(PretrainedConfig(path="here"), network, PICTURES)
    with pytest.raises(SpaceError, match=expected):
        PretrainedSpace(known.model_copy(update={"channels": None, "factor": None, **given}), network)


def test_a_space_needs_settled_settings() -> None:
    network = wrapped(small_module("AutoencoderTiny"))
    with pytest.raises(SpaceError, match="are not settled: digest, channels, factor, mean and std are found when"):
        PretrainedSpace(PretrainedConfig(path="here"), network)
    with pytest.raises(SpaceError, match="no pictures to measure"):
        settled(PretrainedConfig(path="here"), network, PICTURES[:0])
    with pytest.raises(SpaceError, match="16 x 22 pixels do not fit"):
        settled(PretrainedConfig(path="here"), network, PICTURES[:, :, :22])


@pytest.mark.parametrize("name", ["VQModel", "AutoencoderTiny", "AutoencoderDC"])
def test_a_point_cannot_be_drawn_from(name: str) -> None:
    network = wrapped(small_module(name))
    for facts in ({}, {"mean": (0.0,) * 4, "std": (1.0,) * 4}):
        with pytest.raises(SpaceError, match=f"{name} knows no spread .*autoencoder.posterior.; use posterior=mean"):
            settled(PretrainedConfig(path="here", posterior="sample", **facts), network, PICTURES)


def test_reconstructions_of_pictures_of_several_sizes() -> None:
    space = space_of("AutoencoderKL")
    pictures = [PICTURES[0], made_pictures(1, 8, 4)[0]]
    found = reconstruct(space, pictures)
    assert [each.reconstruction.shape for each in found] == [(16, 24, 3), (8, 4, 3)]
    assert all(each.psnr == psnr(each.picture, each.reconstruction) > 0 for each in found)


def test_nothing_is_written_where_nothing_is_carried(tmp_path: Path) -> None:
    space_of("AutoencoderTiny", is_carried=False).save(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_channel_that_never_changes_but_by_rounding_keeps_its_scale() -> None:
    still = [torch.full((1, 4, 4), 0.1 + (i % 2) * 1e-8) for i in range(37)]
    latents = [torch.cat([one, torch.full((1, 4, 4), float(i))]) for i, one in enumerate(still)]
    found = measure(latents)
    assert found.std[0] == 1.0 and all(abs(found.apply(one)[0]).max() < 1e-6 for one in latents)
    assert found.std[1] == pytest.approx(np.arange(37).std(), rel=1e-6)
