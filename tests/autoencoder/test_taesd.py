"""The TAESD family: diffusers' network where it has one, the original files, and TAEF2 on photographs."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file

from transfusion.autoencoder.networks import TAESD, wrapped
from transfusion.autoencoder.opening import open_network
from transfusion.autoencoder.pretrained import PretrainedSpace, settled
from transfusion.autoencoder.reconstruction import reconstruct
from transfusion.autoencoder.settings import PretrainedConfig
from transfusion.autoencoder.space import SpaceError
from transfusion.autoencoder.taesd import Taesd, settings_of

DATA = next(
    (up / "shared" / "data" for up in Path(__file__).parents if (up / "shared" / "data").is_dir()), Path("data")
)
WEIGHTS, PHOTOS = DATA / "weights", DATA / "photos" / "caltech101"
NUM_PHOTOS = 6


def a_network(has_pool: bool = True, channels: int = 32) -> Taesd:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Taesd(channels, has_pool)


def write_pair(folder: Path, network: Taesd, *, ending: str = ".pth", name: str = "taef2") -> Path:
    """Write a network as its authors do: one file for each half, in float16."""
    folder.mkdir(exist_ok=True)
    for half, module in (("encoder", network.encoder), ("decoder", network.decoder)):
        weights = {key: value.half() for key, value in module.state_dict().items()}
        file = folder / f"{name}_{half}{ending}"
        if ending == ".pth":
            torch.save(weights, file)
        else:
            save_file(weights, file)
    return folder


def test_without_pools_it_is_the_network_of_diffusers() -> None:
    from diffusers import AutoencoderTiny

    ours, theirs = a_network(has_pool=False, channels=16), AutoencoderTiny(latent_channels=16).eval()
    renamed = {f"encoder.layers.{key}": value for key, value in ours.encoder.state_dict().items()}
    for key, value in ours.decoder.state_dict().items():
        index, rest = key.split(".", 1)
        renamed[f"decoder.layers.{int(index) - 1}.{rest}"] = value  # the bend before its layers has no number there
    theirs.load_state_dict(renamed)
    picture = torch.rand(1, 3, 32, 48) * 2 - 1
    one, other = wrapped(ours), wrapped(theirs)
    latent = one.encode(picture).mean
    assert latent.shape == (1, 16, 4, 6) and one.factor == other.factor == 8
    torch.testing.assert_close(latent, other.encode(picture).mean, rtol=0, atol=1e-6)
    far = latent * 100  # where the decoder bends
    torch.testing.assert_close(one.decode(far), other.decode(far), rtol=0, atol=1e-5)


def pooled_blocks(half: torch.nn.Sequential) -> list[int]:
    return [index for index, block in enumerate(half) if getattr(block, "pool", None) is not None]


def test_a_pool_adds_to_what_enters_the_block() -> None:
    network = a_network()
    assert pooled_blocks(network.encoder) == [11, 12, 13] and pooled_blocks(network.decoder) == [3, 4, 5]
    block, x = network.encoder[11], torch.randn(1, 64, 4, 6)
    with torch.no_grad():
        wide = torch.nn.functional.conv2d(x, block.pool[0].weight)
        groups = wide.view(1, 4, -1)
        normal = (groups - groups.mean(-1, keepdim=True)) / (groups.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        entered = x + torch.nn.functional.conv2d(normal.view_as(wide).relu(), block.pool[3].weight)
        torch.testing.assert_close(block(x), (block.conv(entered) + entered).relu(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_original_files_are_opened(ending: str, tmp_path: Path) -> None:
    made = a_network()
    network = open_network(write_pair(tmp_path / "files", made, ending=ending))
    assert (network.kind, network.channels, network.factor, network.dtype) == (TAESD, 32, 8, torch.float16)
    assert network.digest == wrapped(made, torch.float16).digest
    assert all(each.dtype == torch.float32 for each in network.module.parameters())


@pytest.mark.parametrize(("channels", "has_pool"), [(4, False), (16, False), (32, True)])
def test_the_weights_tell_which_of_the_family_it_is(channels: int, has_pool: bool) -> None:
    assert settings_of(a_network(has_pool, channels).encoder.state_dict()) == {
        "latent_channels": channels,
        "has_pool": has_pool,
    }


def test_files_that_are_not_of_one_network_are_refused(tmp_path: Path) -> None:
    folder = write_pair(tmp_path / "files", a_network())
    decoder = folder / "taef2_decoder.pth"
    torch.save({"0.weight": torch.zeros(3, 3)}, decoder)
    with pytest.raises(SpaceError, match=r"not those of its settings: 79 missing, such as decoder\.1\.bias.*1 unexpec"):
        open_network(folder)
    torch.save([1, 2], decoder)
    with pytest.raises(SpaceError, match="holds no weights by their names"):
        open_network(folder)
    decoder.unlink()
    with pytest.raises(SpaceError, match="no decoder beside it; expected taef2_decoder.safetensors or taef2_dec"):
        open_network(folder)
    write_pair(folder, a_network(), name="taesd")
    with pytest.raises(SpaceError, match="several encoders: taef2_encoder, taesd_encoder; put one pair"):
        open_network(folder)


class Evil:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("import pathlib; pathlib.Path('evil').touch()",)


def test_a_file_that_holds_code_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = write_pair(tmp_path / "files", a_network())
    torch.save({"0.weight": Evil()}, folder / "taef2_encoder.pth")
    with pytest.raises(SpaceError, match="taef2_encoder.pth is damaged, or holds more than weights"):
        open_network(folder)
    assert not (tmp_path / "evil").exists()
    for content in (b"", b"version https://git-lfs.github.com/spec/v1\n", b"\x80\x02", bytes(100)):
        (folder / "taef2_encoder.pth").write_bytes(content)
        with pytest.raises(SpaceError, match="taef2_encoder.pth is damaged"):
            open_network(folder)


def photos() -> NDArray[np.uint8]:
    """Read the first photograph of each of some archives."""
    found: list[NDArray[np.uint8]] = []
    for archive in sorted(PHOTOS.glob("*.tar"))[:NUM_PHOTOS]:
        with tarfile.open(archive) as members:
            for member in members:
                data = members.extractfile(member) if member.name.endswith(".jpg") else None
                if data is not None:
                    found.append(np.asarray(Image.open(io.BytesIO(data.read())).convert("RGB")))
                    break
    return np.stack(found)


@pytest.mark.skipif(
    not (WEIGHTS / "taef2_encoder.pth").is_file() or not PHOTOS.is_dir(),
    reason="needs TAEF2's weights and the photographs of Caltech-101 in shared/data",
)
def test_taef2_keeps_photographs() -> None:
    pictures, network = photos(), open_network(WEIGHTS)
    config = settled(PretrainedConfig(path=str(WEIGHTS)), network, pictures)
    measured = json.loads((WEIGHTS / "taef2_latent_stats.json").read_text())["caltech101@128"]
    space = PretrainedSpace(config, network)
    # 18.8 to 31.9 dB on 192 photographs; pictures of another range give less than 15
    assert all(18 < each.psnr < 33 for each in reconstruct(space, pictures[:2]))
    # a few photographs tell a mean to about 0.2 and a spread to about a fifth
    assert config.mean is not None and config.std is not None
    np.testing.assert_allclose(config.mean, measured["mean"], atol=0.35)
    np.testing.assert_allclose(config.std, measured["std"], rtol=0.3)
