"""Opening by path or name: every form gives the same network, and what is wrong is told."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_autoencoders import CLASSES, save_small, small_module

from transfusion.autoencoder.carried import save_carried
from transfusion.autoencoder.networks import wrapped
from transfusion.autoencoder.opening import open_network
from transfusion.autoencoder.space import SpaceError
from transfusion.train.manifest import seal

WEIGHTS = "diffusion_pytorch_model.safetensors"
PICTURE = torch.rand(1, 3, 8, 12, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("name", CLASSES)
def test_a_folder_of_diffusers_is_opened(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = torch.get_rng_state()
    with caplog.at_level(logging.WARNING):
        network = open_network(str(save_small(tmp_path / "kl", name)))
    assert network.kind.name == name and not caplog.records
    assert torch.equal(torch.get_rng_state(), before)
    plain = wrapped(small_module(name))
    assert network.digest == plain.digest
    assert torch.equal(network.encode(PICTURE).mean, plain.encode(PICTURE).mean)
    assert not network.module.training


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_form_of_a_network_has_one_digest(dtype: torch.dtype, tmp_path: Path) -> None:
    module = small_module("AutoencoderKL").to(dtype)
    module.save_pretrained(tmp_path / "pipeline" / "vae")
    (tmp_path / "pipeline" / "model_index.json").write_text("{}")
    module.save_pretrained(tmp_path / "pickled", safe_serialization=False)
    module.save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    network = open_network(tmp_path / "pipeline" / "vae")
    assert network.dtype == dtype
    save_carried(tmp_path / "pair", network)
    assert {value.dtype for value in load_file(tmp_path / "pair" / "autoencoder.safetensors").values()} == {dtype}
    forms = ("pipeline", "pickled", "sharded", "pair")
    assert {open_network(tmp_path / form).digest for form in forms} == {network.digest}
    assert network.digest != wrapped(module.float()).digest
    assert all(each.dtype == torch.float32 for each in network.module.parameters())


def test_weights_under_the_names_they_once_had_are_read(tmp_path: Path) -> None:
    folder = save_small(tmp_path / "kl", "AutoencoderKL")
    digest = open_network(folder).digest
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    weights = load_file(folder / WEIGHTS)
    for new, former in old.items():
        weights = {name.replace(f".{new}.", f".{former}."): value for name, value in weights.items()}
    assert any(".query." in name for name in weights)
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    assert open_network(folder).digest == digest


def test_a_run_gives_its_best_checkpoint_or_its_newest(tmp_path: Path) -> None:
    networks = {step: wrapped(small_module("VQModel", seed=step)) for step in (9, 10, 100)}
    for step, network in networks.items():
        save_carried(tmp_path / "checkpoints" / f"step_{step:08d}", network)
        seal(tmp_path / "checkpoints" / f"step_{step:08d}")
    (tmp_path / "checkpoints" / "step_00000200").mkdir()  # without an autoencoder
    assert open_network(tmp_path).digest == networks[100].digest
    for content, step in (('{"step": 9}', 9), ('{"step": 200}', 100), ('{"step": "9"}', 100), ("{}", 100)):
        (tmp_path / "best.json").write_text(content)
        assert open_network(tmp_path).digest == networks[step].digest
    assert open_network(tmp_path / "checkpoints" / "step_00000010").digest == networks[10].digest
    weights = tmp_path / "checkpoints" / "step_00000100" / "autoencoder.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    assert open_network(tmp_path).digest == networks[10].digest  # the newest that is whole
    (tmp_path / "best.json").write_text("[" * 100_000)
    with pytest.raises(SpaceError, match="best.json is damaged"):
        open_network(tmp_path)


def test_a_name_is_fetched_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache of the hub, laid out by hand, stands in for it: nothing here reaches a network."""
    for repository, part in (("us/plain", "."), ("us/pipeline", "vae")):
        folder = tmp_path / f"models--{repository.replace('/', '--')}"
        save_small(folder / "snapshots" / ("0" * 40) / part, "AutoencoderTiny")
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text("0" * 40)
        missing = folder / ".no_exist" / ("0" * 40) / "config.json"
        if part == "vae":
            missing.parent.mkdir(parents=True)
            missing.touch()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.file_download.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("diffusers.models.modeling_utils.HF_HUB_OFFLINE", True, raising=False)
    for repository in ("us/plain", "us/pipeline"):
        assert open_network(repository).digest == wrapped(small_module("AutoencoderTiny")).digest
    with pytest.raises(SpaceError, match="us/none lies nowhere here, and cannot be fetched from the hub: "):
        open_network("us/none")


def test_a_mistyped_path_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub is not asked: what looks like a name on it has a folder here for its first part, or is a run's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: pytest.fail("the hub was asked"))
    save_small(Path("nets") / "kl", "AutoencoderTiny")
    with pytest.raises(SpaceError, match=r"no autoencoder at nets/kll: .*/nets has no kll \(but kl\)\. .* hub"):
        open_network("nets/kll")
    with pytest.raises(SpaceError, match=r"no autoencoder at runs/kl: .*/runs is not there"):
        open_network("runs/kl")


def test_the_hub_is_waited_for_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    def answers(_: object, name: str, *, timeout: float) -> None:
        asked.append(timeout)
        raise TimeoutError(f"no answer about {name}")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", answers)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_: pytest.fail("it was asked for again"))
    with pytest.raises(SpaceError, match="us/none lies nowhere here, .* no answer .* path, there is no /.*us/none"):
        open_network("us/none")
    assert len(asked) == 1 and asked[0] <= 10


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "no autoencoder is named .autoencoder.path.; give a folder that diffusers saved"),
        ("nowhere", "no autoencoder at nowhere; expected a folder that diffusers saved"),
        ("../nowhere/at/all", "no autoencoder at ../nowhere/at/all; expected"),
        ("a\0b", "no autoencoder at a"),
    ],
)
def test_what_is_not_there_is_told(path: str, message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        open_network(path)


def test_what_is_no_autoencoder_is_told(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match=f"no autoencoder in {tmp_path}; expected"):
        open_network(tmp_path)
    file = tmp_path / "taef2.pth"
    file.touch()
    with pytest.raises(SpaceError, match="taef2.pth is no folder; expected"):
        open_network(file)


CONFIGS: list[tuple[Any, str]] = [
    ("{", "config.json is damaged .JSONDecodeError"),
    ('{"a":' * 100_000, "config.json is damaged .RecursionError"),
    (b"\xff\xff", "config.json is damaged .UnicodeDecodeError"),
    ("[1]", r"config.json holds no object \{...\}: \[1\]"),
    ("{}", "class 'None' is unknown"),
    ({"_class_name": "os.system"}, "class 'os.system' is unknown"),
    ({"_class_name": "../AutoencoderKL"}, "class '../AutoencoderKL' is unknown"),
    ({"_class_name": ["AutoencoderKL"]}, "is unknown .*config.json"),
    ({"_class_name": "Taesd", "latent_channels": 4}, "names Taesd, which diffusers does not know"),
    ({"_class_name": "AutoencoderKL", "block_out_channels": "wide"}, "cannot be loaded as AutoencoderKL: "),
    ({"_class_name": "AutoencoderKL", "norm_num_groups": 7}, "cannot be loaded as AutoencoderKL: "),
    ({"_class_name": "VQModel"}, "cannot be loaded as VQModel: "),
    ({"_class_name": "AutoencoderKL", "layers_per_block": 10**9}, "asks for layers_per_block 1e.09, where at most 32"),
    (
        {"_class_name": "AutoencoderKL", "block_out_channels": [2**20], "norm_num_groups": 1},
        "asks for a network of [0-9,]* numbers, and its weights have [0-9]* bytes",
    ),
]


@pytest.mark.parametrize(("content", "message"), CONFIGS)
def test_hostile_settings_are_told(content: Any, message: str, tmp_path: Path) -> None:
    folder = save_small(tmp_path / "kl", "AutoencoderKL")
    text = json.dumps(content) if isinstance(content, dict) else content
    (folder / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SpaceError, match=message):
        open_network(folder)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    folder = save_small(tmp_path / "kl", "AutoencoderKL")
    weights = load_file(folder / WEIGHTS)
    some = {name: value for name, value in weights.items() if name != "decoder.conv_in.bias"}
    save_file(some, folder / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(SpaceError, match="1 missing, such as decoder.conv_in.bias"):
        open_network(folder)
    save_file({**weights, "another": torch.zeros(1)}, folder / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(SpaceError, match="1 unexpected, such as another"):
        open_network(folder)
    save_file({**weights, "decoder.conv_in.bias": torch.zeros(3)}, folder / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(SpaceError, match="cannot be loaded as AutoencoderKL: RuntimeError.*decoder.conv_in.bias"):
        open_network(folder)


def test_damaged_and_missing_weights_are_told(tmp_path: Path) -> None:
    folder = save_small(tmp_path / "kl", "AutoencoderKL")
    data = (folder / WEIGHTS).read_bytes()
    for content in (data[: len(data) // 2], b"", b"version https://git-lfs.github.com/spec/v1\n"):
        (folder / WEIGHTS).write_bytes(content)
        with pytest.raises(SpaceError, match="kl cannot be loaded as AutoencoderKL: "):
            open_network(folder)
    (folder / WEIGHTS).unlink()
    with pytest.raises(SpaceError, match="kl cannot be loaded as AutoencoderKL: OSError.*no file named"):
        open_network(folder)
    shutil.rmtree(folder)
    folder.symlink_to(tmp_path / "gone")
    with pytest.raises(SpaceError, match="kl is no folder"):
        open_network(folder)
