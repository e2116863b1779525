"""The Python surface on an untrained model: shapes, round trips, scores, and what is refused."""

import asyncio
import hashlib
import json
from copy import deepcopy
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import equal

from transfusion.config import ConfigError, override
from transfusion.generate.options import FinishedEvent, LatentEvent
from transfusion.pretrained import Transfusion
from transfusion.recipes import RECIPES
from transfusion.segments import Document, Latent, Text
from transfusion.tokenizer import train_tokenizer
from transfusion.train.checkpoint import publish, step_directory
from transfusion.train.manifest import CheckpointError
from transfusion.train.saved import find_checkpoint, write_pretrained
from transfusion.train.state import begin
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
        averaged = Transfusion.from_pretrained(path)
        plain = Transfusion.from_pretrained(path, use_ema=False)
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
    with pytest.raises(ConfigError, match="expected a list of prompts"):
        model.generate_images("a star")
    with pytest.raises(ConfigError, match="expected a list of pictures"):
        model.caption("out.png")
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
