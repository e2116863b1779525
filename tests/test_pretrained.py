"""The Python surface on an untrained model: shapes, round trips, scores, and what is refused."""

import asyncio
import hashlib
import json
import os
import stat
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import equal, small

import transfusion
from transfusion.config import ConfigError, override
from transfusion.data.errors import DataError
from transfusion.devices import choose_precision, find_device
from transfusion.generate.options import FinishedEvent, LatentEvent
from transfusion.pretrained import Transfusion
from transfusion.recipes import RECIPES
from transfusion.segments import Document, Latent, Text
from transfusion.tokenizer import train_tokenizer
from transfusion.train.checkpoint import newest, publish, step_directory
from transfusion.train.manifest import CheckpointError, verify
from transfusion.train.opening import begin
from transfusion.train.saved import find_checkpoint, write_pretrained
from transfusion.train.tensors import save_tensors

SMALL = ("model.trunk.dim=32", "model.trunk.depth=1", "denoising.num_steps=2", "tokenizer.kind=bytes")
PICTURE = Image.new("RGB", (40, 30), "red")


@pytest.fixture(scope="module")
def model() -> Transfusion:
    """Begin a run of the built-in world and take its first weights."""
    state = begin(override(RECIPES["tiny"](), SMALL), torch.device("cpu"))
    return Transfusion(state.model, state.tokenizer, state.config)


def test_pictures_and_texts_come_back(model: Transfusion) -> None:
    pictures = model.generate_images(["a star", "a circle"], steps=1, seed=3)
    assert [picture.size for picture in pictures] == [(32, 32), (32, 32)]
    assert np.array_equal(pictures[1], model.generate_images(["a circle"], steps=1, seed=4)[0])
    assert model.edit(PICTURE, "make it blue").size == (32, 32)
    assert len(model.caption([PICTURE, np.asarray(PICTURE)])) == 2
    assert model.ask(PICTURE, "how many?") == model.ask(PICTURE, " how many ")


def test_edits_are_sampled_as_asked(model: Transfusion) -> None:
    random = small()
    one, two, default = (random.edit(PICTURE, "make it blue", steps=steps) for steps in (1, 2, None))
    assert not np.array_equal(one, two) and np.array_equal(default, random.edit(PICTURE, "make it blue", steps=3))
    with pytest.raises(ConfigError, match="bad sampling options"):
        model.edit(PICTURE, "make it blue", sampler="fast")


def test_a_checkpoint_is_the_same_model(model: Transfusion, tmp_path: Path) -> None:
    again = Transfusion.from_pretrained(model.save_pretrained(tmp_path / "saved"))
    assert again.config == model.config
    assert model.score(["a star", PICTURE]) == again.score(["a star", PICTURE])


def save_whole(folder: Path, model: Transfusion, average: torch.nn.Module) -> None:
    """Write a checkpoint with averages and a tokenizer."""
    write_pretrained(folder, model.model, train_tokenizer(["a star"], 260), model.config)
    save_tensors(average.state_dict(), folder / "ema.safetensors")


def test_averages_are_read_where_there_are_some(model: Transfusion, tmp_path: Path) -> None:
    average = deepcopy(model.model)
    with torch.no_grad():
        for parameter in average.parameters():
            parameter.add_(1.0)
    config = override(model.config, ["denoising.num_steps=7"])
    changed = Transfusion(model.model, model.tokenizer, config)
    folder = publish(step_directory(tmp_path, 3), lambda folder: save_whole(folder, changed, average))
    for path in (folder, tmp_path):
        averaged = Transfusion.from_pretrained(path, precision="fp32")
        plain = Transfusion.from_pretrained(path, use_ema=False, precision="fp32")
        assert equal(averaged.model.state_dict(), average.state_dict())
        assert equal(plain.model.state_dict(), model.model.state_dict())
        assert averaged.config == config and averaged.tokenizer.encode("star") != model.tokenizer.encode("star")


def test_a_load_hashes_each_file_once(model: Transfusion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = publish(step_directory(tmp_path, 3), lambda folder: save_whole(folder, model, model.model))
    hashed: list[str] = []
    digest = hashlib.file_digest

    def spy(stream: BinaryIO, name: str) -> object:
        hashed.append(Path(stream.name).name)
        return digest(stream, name)

    monkeypatch.setattr(hashlib, "file_digest", spy)
    for path in (folder, tmp_path):
        hashed.clear()
        Transfusion.from_pretrained(path)
        assert sorted(hashed) == ["config.json", "ema.safetensors", "model.safetensors", "tokenizer.json"]


def test_damage_is_told_and_a_kill_costs_nothing(model: Transfusion, tmp_path: Path) -> None:
    folder = model.save_pretrained(tmp_path / "saved")
    folder.rename(tmp_path / ".saved.replaced")
    assert model.score(["a star"]) == Transfusion.from_pretrained(folder).score(["a star"])
    model.save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"lacks model\.safetensors"):
        Transfusion.from_pretrained(folder)
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        Transfusion.from_pretrained(tmp_path / "nothing")
    for name, content in (("config.json", b"\xff"), ("config.json", b'{"new": 1}'), ("tokenizer.json", b"{}")):

        def write(folder: Path, name: str = name, content: bytes = content) -> None:
            write_pretrained(folder, model.model, model.tokenizer, model.config)
            (folder / name).write_bytes(content)

        with pytest.raises(CheckpointError, match=name):
            Transfusion.from_pretrained(publish(tmp_path / "other", write))


def test_a_list_is_scored_whole_and_a_document_by_its_targets(model: Transfusion) -> None:
    score = model.score(["a star", PICTURE, "yes"])
    assert score.num_tokens == len("a star") + 1 + len("yes")  # BEGIN is a target too
    assert score.log_likelihood < 0 and score.denoising["image"] > 0
    asked = model.document([PICTURE, Text((97, 98), is_target=False), Text((99,))])
    assert model.score(asked).denoising == {} and model.score(asked).num_tokens == 1


def test_generate_continues_and_stream_tells_the_same(model: Transfusion) -> None:
    options = model.options(max_tokens=3, begins_with_image=True, seed=1)
    document = model.generate(["a star"], options)
    assert isinstance(document, Document) and any(isinstance(part, Latent) for part in document.segments)

    async def events() -> list[object]:
        return [event async for event in model.stream(["a star"], options)]

    told = asyncio.run(events())
    assert any(isinstance(event, LatentEvent) for event in told)
    (last,) = [event for event in told if isinstance(event, FinishedEvent)]
    for one, other in zip(document.segments, last.result.document.segments, strict=True):
        if isinstance(one, Latent) and isinstance(other, Latent):
            assert torch.equal(one.values, other.values)
        else:
            assert one == other


def test_what_is_refused(model: Transfusion) -> None:
    with pytest.raises(ConfigError, match="a question is empty"):
        model.ask(PICTURE, "???")
    with pytest.raises(ConfigError, match="an instruction is empty"):
        model.edit(PICTURE, "")


def test_a_runs_folder_with_a_manifest_of_the_users_is_a_run(model: Transfusion, tmp_path: Path) -> None:
    folder = model.save_pretrained(step_directory(tmp_path, 1))
    (tmp_path / "manifest.json").write_text('{"name": "my web app"}')
    assert find_checkpoint(tmp_path) == folder


@pytest.mark.parametrize("change", [{"trunk": {"dim": 4_000_000}}, {"text_vocab_size": 10**13}])
def test_a_model_too_large_to_be_made_is_told(model: Transfusion, tmp_path: Path, change: dict[str, Any]) -> None:
    def write(folder: Path) -> None:
        write_pretrained(folder, model.model, model.tokenizer, model.config)
        config = json.loads((folder / "config.json").read_text())
        for name, value in change.items():
            config["model"][name] = config["model"][name] | value if isinstance(value, dict) else value
        (folder / "config.json").write_text(json.dumps(config))

    with pytest.raises(CheckpointError, match="config.json asks for a model that cannot be made here"):
        Transfusion.from_pretrained(publish(tmp_path / "model", write))


ROUNDED = "trunk.blocks.0.ffn.up.weight"


def test_a_model_in_bf16_is_what_autocast_makes_of_it(tmp_path: Path) -> None:
    folder = small().save_pretrained(tmp_path / "saved")
    wide, low = (Transfusion.from_pretrained(folder, precision=name) for name in ("fp32", "bf16"))
    assert (wide.dtype, low.dtype) == (torch.float32, torch.bfloat16)
    assert low.model.get_parameter(ROUNDED).dtype is torch.bfloat16
    assert wide.model.get_parameter(ROUNDED).dtype is torch.float32
    cast = Transfusion(wide.model, wide.tokenizer, wide.config, "bf16")  # weights of fp32, products of bf16
    for one, other in zip(low.generate_images(["a star", "b"]), cast.generate_images(["a star", "b"]), strict=True):
        assert one.tobytes() == other.tobytes()
    assert low.score(["a star", PICTURE]) == cast.score(["a star", PICTURE]) != wide.score(["a star", PICTURE])
    chosen = Transfusion.from_pretrained(folder)
    assert (
        chosen.precision == choose_precision("auto", find_device("auto"))
        and chosen.device.type == find_device("auto").type
    )
    with pytest.raises(ConfigError, match="precision 'fp8' is unknown"):
        Transfusion.from_pretrained(folder, precision="fp8")
    with pytest.raises(ConfigError, match="device 'tpu' is unknown"):
        Transfusion.from_pretrained(folder, device="tpu")


def test_no_bit_is_lost_by_saving_what_is_held_in_bf16(model: Transfusion, tmp_path: Path) -> None:
    folder = model.save_pretrained(tmp_path / "saved")
    low = Transfusion.from_pretrained(folder, precision="bf16")
    again = Transfusion.from_pretrained(low.save_pretrained(tmp_path / "again"), precision="fp32")
    assert equal(again.model.state_dict(), model.model.state_dict())
    with pytest.raises(CheckpointError, match="would lose weights; load it with precision 'fp32'"):
        write_pretrained(tmp_path, low.model, low.tokenizer, low.config)
    with torch.no_grad():
        low.model.get_parameter(ROUNDED).add_(1.0)
    with pytest.raises(CheckpointError, match=rf"{ROUNDED} is not as .*precision='fp32'"):
        low.save_pretrained(tmp_path / "changed")
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="where they were whole, is gone"):
        low.save_pretrained(tmp_path / "changed")
    assert not (tmp_path / "changed").exists()


def test_a_model_is_moved_in_place_and_returned(model: Transfusion) -> None:
    assert model.to("auto") is model and model.device.type == find_device("auto").type
    assert model.to("cpu") is model is model.to(torch.device("cpu")) and model.device.type == "cpu"
    with pytest.raises(ConfigError, match="device 'tpu' is unknown"):
        model.to("tpu")


def test_what_only_a_resume_needs_may_be_gone(model: Transfusion, tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        write_pretrained(folder, model.model, model.tokenizer, model.config)
        (folder / "optimizer.safetensors").write_bytes(b"moments")
        (folder / "state.json").write_text("{}")

    folder = publish(step_directory(tmp_path, 1), write)
    (folder / "optimizer.safetensors").unlink()
    for lose in (lambda: None, (folder / "state.json").unlink):
        lose()
        for path in (folder, tmp_path):
            found = Transfusion.from_pretrained(path, precision="fp32")
            assert equal(found.model.state_dict(), model.model.state_dict())
    with pytest.raises(CheckpointError, match=r"lacks optimizer\.safetensors"):
        verify(folder)
    assert newest(tmp_path) is None  # nothing to go on from
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(CheckpointError, match="SHA-256"):
        Transfusion.from_pretrained(folder)


def test_averages_that_no_manifest_names_are_not_read(model: Transfusion, tmp_path: Path) -> None:
    folder = model.save_pretrained(tmp_path / "saved")
    (folder / "ema.safetensors").write_bytes(b"another's")
    assert equal(Transfusion.from_pretrained(folder, precision="fp32").model.state_dict(), model.model.state_dict())


def test_others_may_read_what_is_saved(model: Transfusion, tmp_path: Path) -> None:
    for umask, mode in ((0o022, 0o644), (0o077, 0o600)):
        before = os.umask(umask)
        try:
            folder = model.save_pretrained(tmp_path / f"{umask:o}")
        finally:
            os.umask(before)
        assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {mode}


def test_what_the_package_exports() -> None:
    assert set(transfusion.__all__) <= set(dir(transfusion))
    assert transfusion.Transfusion is Transfusion and transfusion.ConfigError is ConfigError
    assert transfusion.CheckpointError is CheckpointError and transfusion.DataError is DataError
    with pytest.raises(AttributeError, match="has no attribute 'Transfuse'"):
        transfusion.__getattr__("Transfuse")
    code = "import sys, transfusion; dir(transfusion); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
