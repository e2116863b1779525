"""What checkpoints carry of an autoencoder: two flat files that need nothing else, and are refused when damaged."""

import json
import os
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_autoencoders import CLASSES, made_pictures, save_small, small_module

from transfusion.autoencoder.carried import SETTINGS_FILE, WEIGHTS_FILE, has_carried, read_carried, save_carried
from transfusion.autoencoder.networks import wrapped
from transfusion.autoencoder.opening import open_network
from transfusion.autoencoder.pretrained import PretrainedSpace, open_pretrained, settled
from transfusion.autoencoder.settings import PretrainedConfig
from transfusion.autoencoder.space import SpaceError
from transfusion.autoencoder.taesd import Taesd

PICTURES = made_pictures()  # 16 x 24: also for TAESD, which divides by 8


@pytest.mark.parametrize("name", CLASSES)
def test_a_carried_network_is_the_same_to_the_bit(name: str, tmp_path: Path) -> None:
    network = wrapped(small_module(name, channels=32))
    save_carried(tmp_path, network)
    assert sorted(file.name for file in tmp_path.iterdir()) == [SETTINGS_FILE, WEIGHTS_FILE] and has_carried(tmp_path)
    again = read_carried(tmp_path)
    assert again.digest == network.digest and again.settings == network.settings and again.kind == network.kind
    picture = torch.rand(1, 3, 8, 12) * 2 - 1
    latent = network.encode(picture).mean
    assert torch.equal(again.encode(picture).mean, latent)
    assert torch.equal(again.decode(latent), network.decode(latent))


def test_taesd_is_carried_without_diffusers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_carried(tmp_path, wrapped(Taesd(32, has_pool=True), torch.float16))
    monkeypatch.setitem(sys.modules, "diffusers", None)
    assert read_carried(tmp_path).dtype == torch.float16


PROGRAM = """
import hashlib, sys
from pathlib import Path
import numpy as np
import transfusion, transfusion.cli
from transfusion.autoencoder.pretrained import open_pretrained
from transfusion.autoencoder.settings import PretrainedConfig
folder = Path(sys.argv[1])
space = open_pretrained(PretrainedConfig.model_validate_json((folder / "config.json").read_text()), folder)
latent = space.moments(np.load(folder / "picture.npy")).mean
print(hashlib.sha256(latent.numpy().tobytes() + space.decode(latent).tobytes()).hexdigest(), "diffusers" in sys.modules)
"""


def test_a_fresh_process_needs_the_checkpoint_alone_and_no_diffusers_for_taesd(tmp_path: Path) -> None:
    source, checkpoint = tmp_path / "source", tmp_path / "checkpoint"
    source.mkdir()
    save_carried(source, wrapped(Taesd(4, has_pool=True), torch.float16))
    network = open_network(source)
    config = settled(PretrainedConfig(path=str(source)), network, PICTURES)
    space = PretrainedSpace(config, network)
    space.save(checkpoint)
    (checkpoint / "config.json").write_text(config.model_dump_json())
    np.save(checkpoint / "picture.npy", PICTURES[0])
    latent = space.moments(PICTURES[0]).mean
    digest = sha256(latent.numpy().tobytes() + space.decode(latent).tobytes()).hexdigest()
    shutil.rmtree(source)
    moved = checkpoint.rename(tmp_path / "moved")
    command = [sys.executable, "-c", PROGRAM, str(moved)]
    told = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=dict(os.environ))
    assert told.returncode == 0, told.stderr
    assert told.stdout.split() == [digest, "False"]


@pytest.mark.parametrize("name", CLASSES)
def test_a_checkpoint_opens_with_its_source_gone(name: str, tmp_path: Path) -> None:
    source = save_small(tmp_path / "source", name)
    network = open_network(source)
    config = settled(PretrainedConfig(path=str(source)), network, PICTURES)
    space = PretrainedSpace(config, network)
    space.save(tmp_path / "checkpoint")
    shutil.rmtree(source)
    again = open_pretrained(config, tmp_path / "checkpoint")
    one, other = space.moments(PICTURES[0]), again.moments(PICTURES[0])
    assert torch.equal(one.mean, other.mean)
    assert (one.std is None) == (other.std is None)
    assert one.std is None or other.std is None or torch.equal(one.std, other.std)
    np.testing.assert_array_equal(space.decode(one.mean), again.decode(one.mean))
    with pytest.raises(SpaceError, match="no autoencoder at"):
        open_pretrained(config, tmp_path)


def test_what_is_not_carried_is_found_at_its_path(tmp_path: Path) -> None:
    source = save_small(tmp_path / "source", "AutoencoderTiny")
    network = open_network(source)
    config = settled(PretrainedConfig(path=str(source), is_carried=False), network, PICTURES)
    PretrainedSpace(config, network).save(tmp_path / "checkpoint")
    assert not (tmp_path / "checkpoint").exists()
    assert open_pretrained(config, tmp_path / "checkpoint").network.digest == network.digest
    save_small(source, "AutoencoderTiny", seed=1)
    with pytest.raises(SpaceError, match=f"its digest is [0-9a-f]{{64}}, theirs {network.digest}"):
        open_pretrained(config, tmp_path / "checkpoint")


def test_what_is_carried_comes_before_the_path(tmp_path: Path) -> None:
    source = save_small(tmp_path / "source", "AutoencoderTiny")
    network = open_network(source)
    config = settled(PretrainedConfig(path=str(source)), network, PICTURES)
    PretrainedSpace(config, network).save(tmp_path / "checkpoint")
    save_small(source, "AutoencoderTiny", seed=1)  # another network has taken its place
    assert open_pretrained(config, tmp_path / "checkpoint").network.digest == network.digest


ROWS: list[tuple[Any, str]] = [
    ("[" * 100_000, "autoencoder.json is damaged .RecursionError"),
    ("", "autoencoder.json is damaged .JSONDecodeError"),
    ("null", "autoencoder.json holds no object"),
    ({}, "class 'None' is unknown"),
    ({"class": "os.system", "settings": {}}, "class 'os.system' is unknown"),
    ({"class": "diffusers.AutoencoderKL", "settings": {}}, "class 'diffusers.AutoencoderKL' is unknown"),
    ({"class": "../../AutoencoderKL", "settings": {}}, "class '../../AutoencoderKL' is unknown"),
    ({"class": {"a": 1}, "settings": {}}, "is unknown .*autoencoder.json"),
    ({"class": "AutoencoderKL"}, "holds no settings; expected an object .*got None"),
    ({"class": "AutoencoderKL", "settings": [1]}, r"holds no settings; expected an object .*got \[1\]"),
    ({"class": "AutoencoderKL", "settings": {"self": 1}}, "AutoencoderKL cannot be built from the settings"),
    ({"class": "AutoencoderKL", "settings": {"latent_channels": "4"}}, "cannot be built from the settings"),
    ({"class": "AutoencoderKL", "settings": {"block_out_channels": []}}, "cannot be built from the settings"),
    ({"class": "AutoencoderTiny", "settings": {"num_encoder_blocks": None}}, "cannot be built from the settings"),
    ({"class": "VQModel", "settings": {"num_vq_embeddings": -1}}, "cannot be built from the settings"),
    ({"class": "AutoencoderDC", "settings": {"attention_head_dim": 0}}, "not those of its settings"),
    ({"class": "Taesd", "settings": {}}, "Taesd cannot be built from the settings"),
    ({"class": "VQModel", "settings": {}}, "not those of its settings: .*missing"),
    *(
        ({"class": name, "settings": settings}, f"asks for {next(iter(settings))} .*, where at most")
        for name, settings in (
            ("AutoencoderKL", {"layers_per_block": 10**9}),
            ("AutoencoderKL", {"layers_per_block": -(10**9)}),
            ("AutoencoderKL", {"latent_channels": 10**9}),
            ("AutoencoderKL", {"latent_channels": 10**400}),
            ("AutoencoderKL", {"block_out_channels": [8] * 1000}),
            ("VQModel", {"num_vq_embeddings": 10**9}),
            ("AutoencoderTiny", {"num_decoder_blocks": [1, 1, 10**9]}),
            ("AutoencoderTiny", {"upsampling_scaling_factor": 1e300}),
            ("AutoencoderDC", {"encoder_layers_per_block": [1, 10**6]}),
            ("AutoencoderDC", {"encoder_qkv_multiscales": [[], [3] * 10**4]}),
            ("Taesd", {"latent_channels": 10**9}),
        )
    ),
]


@pytest.mark.parametrize(("row", "message"), ROWS)
def test_hostile_settings_are_told(row: Any, message: str, tmp_path: Path) -> None:
    save_carried(tmp_path, wrapped(small_module("AutoencoderKL")))
    (tmp_path / SETTINGS_FILE).write_text(row if isinstance(row, str) else json.dumps(row))
    with pytest.raises(SpaceError, match=message):
        read_carried(tmp_path)


def test_half_a_pair_and_damage_are_told(tmp_path: Path) -> None:
    save_carried(tmp_path, wrapped(small_module("AutoencoderTiny")))
    data = (tmp_path / WEIGHTS_FILE).read_bytes()
    for content in (b"", data[:100], data[:-1], b"\xff" * 8 + data[8:]):
        (tmp_path / WEIGHTS_FILE).write_bytes(content)
        with pytest.raises(SpaceError, match="autoencoder.safetensors is damaged .*; copy it again"):
            read_carried(tmp_path)
    (tmp_path / WEIGHTS_FILE).unlink()
    with pytest.raises(SpaceError, match="autoencoder.safetensors is missing; an autoencoder is autoencoder.json and"):
        open_network(tmp_path)
    (tmp_path / WEIGHTS_FILE).write_bytes(data)
    (tmp_path / SETTINGS_FILE).unlink()
    with pytest.raises(SpaceError, match="autoencoder.json cannot be read"):
        open_network(tmp_path)
