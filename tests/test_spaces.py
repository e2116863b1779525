"""Every consumer on latent spaces other than pixels: more channels, other axes, pictures that are no squares."""

import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_autoencoders import CLASSES, save_small
from spaces import Blocks

from transfusion.asking import Score
from transfusion.autoencoder.settings import PretrainedConfig
from transfusion.autoencoder.space import SpaceError
from transfusion.cli.export import export
from transfusion.config import ConfigError, RunConfig, override
from transfusion.data.encode import IMAGE
from transfusion.pretrained import Transfusion
from transfusion.recipes import RECIPES
from transfusion.run import open_run, train_run
from transfusion.segments import Latent
from transfusion.train.init import begun_from
from transfusion.train.manifest import CheckpointError
from transfusion.train.state import TrainState

SMALL = (
    "model.trunk.dim=32",
    "model.trunk.depth=1",
    "denoising.num_steps=2",
    "tokenizer.kind=bytes",
    "train.batch_size=2",
    "train.steps=2",
    "train.precision=fp32",
    "train.preview_every=2",
    "train.evaluate_every=2",
    "train.optimizer.warmup_steps=1",
)
PATCHES = {1: [2], 2: [1, 2], 3: [3, 1, 2]}
CASES = [Blocks(1), Blocks(2, copies=11), Blocks(3, copies=2)]  # 3, 33 and 2 channels


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(4):
        Image.new("RGB", (48, 20), (60 * number, 30, 200)).save(folder / f"p{number}.png")
        (folder / f"p{number}.txt").write_text(f"number {number}")
    return folder


def settings(space: Blocks, folder: Path, *more: str) -> RunConfig:
    """A recipe for pictures of 16 x 32 pixels in a space."""
    patches = [f"model.modalities.0.patch_size={PATCHES[space.axes]}"]
    patches += [f"model.modalities.0.max_grid={[0] * space.axes}", "model.modalities.0.patches.kind=linear"]
    data = ["data.kind=folder", f"data.path={folder}", "data.resolution=[16,32]", "data.hold_out=0.3"]
    return override(RECIPES["tiny"](), [*SMALL, *patches, *data, "encode.caption_first=0.5", *more])


def train(config: RunConfig, space: Blocks, run: Path, *, steps: int = 2) -> TrainState:
    state, source = open_run(config, run, is_resumed=True, device="cpu", space=space)
    stop = threading.Event()
    for report in train_run(state, source, run, stop):
        if report.step.step == steps:
            stop.set()
    return state


@pytest.mark.parametrize("space", CASES, ids=lambda space: f"{space.axes} axes")
def test_every_consumer_goes_through_the_space(space: Blocks, pictures: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    state = train(settings(space, pictures), space, run)
    shape = space.shape((16, 32))
    assert state.config.model.modalities[0].channels == space.channels
    assert state.config.model.modalities[0].max_grid == tuple(
        side // patch for side, patch in zip(shape[1:], PATCHES[space.axes], strict=True)
    )
    assert list((run / "samples").glob("step_*.png"))  # previews were drawn
    model = Transfusion.from_pretrained(run, device="cpu", space=space)
    drawn = model.generate_images("number 1")
    assert drawn.size == (32, 16)
    assert isinstance(model.caption(drawn), str)
    assert isinstance(model.ask(drawn, "what is it"), str)
    assert model.edit(drawn, "make it red").size == (32, 16)
    assert model.image(next(iter(model.generate([drawn, "a"]).segments))).size == (32, 16)  # pyright: ignore
    scored = model.score(["number", drawn])
    assert isinstance(scored, Score) and scored.denoising[IMAGE] > 0
    copy = model.save_pretrained(tmp_path / "copy")
    again = Transfusion.from_pretrained(copy, device="cpu", space=space).generate_images("number 1")
    assert np.array_equal(np.asarray(again), np.asarray(drawn))


@pytest.mark.parametrize("space", CASES, ids=lambda space: f"{space.axes} axes")
def test_a_run_goes_on_to_the_same_bits(space: Blocks, pictures: Path, tmp_path: Path) -> None:
    config = settings(space, pictures)
    whole = train(config, space, tmp_path / "whole")
    train(config, space, tmp_path / "halves", steps=1)
    resumed = train(config, space, tmp_path / "halves")
    assert resumed.step == 2
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_a_space_of_ones_own_is_wanted_and_checked(pictures: Path, tmp_path: Path) -> None:
    space, run = Blocks(2), tmp_path / "run"
    train(settings(space, pictures), space, run)
    with pytest.raises(CheckpointError, match="hand it over from Python"):
        Transfusion.from_pretrained(run)
    with pytest.raises(CheckpointError, match="'blocks', and 'others' was handed over"):
        Transfusion.from_pretrained(run, space=Blocks(2, name="others"))
    with pytest.raises(ConfigError, match="'others' was handed over"):
        open_run(settings(space, pictures, "autoencoder.kind=given", "autoencoder.name=blocks"), tmp_path / "b",
                 is_resumed=False, device="cpu", space=Blocks(2, name="others"))  # fmt: skip
    with pytest.raises(CheckpointError, match="was handed over, and the settings name 'pixels'"):
        pixels = tmp_path / "pixels"
        train(settings(space, pictures, "model.modalities.0.patch_size=[8,8]"), None, pixels)  # pyright: ignore
        Transfusion.from_pretrained(pixels, space=space)


def test_sizes_and_channels_that_do_not_fit_are_refused(pictures: Path, tmp_path: Path) -> None:
    space = Blocks(2, copies=2)
    with pytest.raises(ConfigError, match="has 3 channels, and the latents of pictures have 6"):
        open_run(settings(space, pictures, "model.modalities.0.channels=3"), tmp_path, is_resumed=False, space=space)
    with pytest.raises(ConfigError, match="no multiple of 8"):
        open_run(settings(space, pictures, "data.resolution=[20,32]"), tmp_path, is_resumed=False, space=space)
    with pytest.raises(ConfigError, match=r"data.resolution=\[16,24\] .* take 16 or 24 and 16 or 32"):
        open_run(settings(space, pictures, "data.resolution=[16,24]"), tmp_path, is_resumed=False, space=space)
    given = ["autoencoder.kind=given", "autoencoder.name=blocks", "autoencoder.shape=[9,9,9]"]
    with pytest.raises(ConfigError, match=r"latents of \(6, 2, 4\), and autoencoder.shape is \(9, 9, 9\)"):
        open_run(settings(space, pictures, *given), tmp_path, is_resumed=False, space=space)
    with pytest.raises(SpaceError):
        space.shape((15, 16))


def test_pictures_that_are_no_squares_are_read_and_drawn_in_pixels(pictures: Path, tmp_path: Path) -> None:
    config = settings(Blocks(2), pictures, "model.modalities.0.patch_size=[8,8]")
    state = train(config, None, tmp_path / "run")  # pyright: ignore
    model = Transfusion.from_pretrained(tmp_path / "run", device="cpu")
    assert state.config.model.modalities[0].max_grid == (2, 4) and model.resolution == (16, 32)
    assert model.picture(Image.new("RGB", (100, 100))).shape == (16, 32, 3)
    assert model.generate_images("number 2").size == (32, 16)


def in_latents(folder: Path, network: Path, *more: str) -> RunConfig:
    """A recipe for pictures of 16 x 32 pixels in the latents of a network."""
    named = [
        "autoencoder.kind=pretrained",
        f"autoencoder.path={'' if network == Path() else network}",
        "model.modalities.0.patch_size=[2,2]",
    ]
    return settings(Blocks(2), folder, *named, *more)


def open_in(config: RunConfig, run: Path) -> TrainState:
    return open_run(config, run, is_resumed=True, device="cpu")[0]


@pytest.mark.parametrize("name", CLASSES)
def test_a_run_carries_its_autoencoder(name: str, pictures: Path, tmp_path: Path) -> None:
    network, run = save_small(tmp_path / "network", name, channels=32), tmp_path / "run"
    state = train(in_latents(pictures, network), None, run)  # pyright: ignore
    assert state.config.model.modalities[0].channels == 32
    assert (run / "samples" / "reconstructions.png").is_file() and list((run / "samples").glob("step_*.png"))
    drawn = Transfusion.from_pretrained(run, device="cpu").generate_images("number 1", seed=3)
    network.rename(tmp_path / "gone")
    moved = run.rename(tmp_path / "moved")
    fresh = subprocess.run(
        [sys.executable, "-c", FRESH, str(moved), str(tmp_path / "drawn.png")], capture_output=True, text=True
    )
    assert fresh.returncode == 0, fresh.stderr
    assert np.array_equal(np.asarray(Image.open(tmp_path / "drawn.png")), np.asarray(drawn))
    assert open_in(in_latents(pictures, network), moved).step == 2  # nor does going on need it
    assert open_in(in_latents(pictures, Path()), moved).step == 2  # or its path
    exported = tmp_path / "exported"
    export(moved, exported, weights=None, dtype="fp32")
    again = Transfusion.from_pretrained(exported, device="cpu").generate_images("number 1", seed=3)
    assert np.array_equal(np.asarray(again), np.asarray(drawn))


FRESH = """
import sys
from transfusion import Transfusion
Transfusion.from_pretrained(sys.argv[1], device="cpu").generate_images("number 1", seed=3).save(sys.argv[2])
"""


def test_an_autoencoder_that_is_not_carried_must_be_the_same(pictures: Path, tmp_path: Path) -> None:
    network, run = save_small(tmp_path / "network", "AutoencoderKL"), tmp_path / "run"
    train(in_latents(pictures, network, "autoencoder.is_carried=false"), None, run)  # pyright: ignore
    assert not list(run.rglob("autoencoder.*"))
    assert Transfusion.from_pretrained(run, device="cpu").generate_images("number 1").size == (32, 16)
    network.rename(tmp_path / "gone")
    with pytest.raises(CheckpointError, match="network"):
        Transfusion.from_pretrained(run, device="cpu")
    save_small(network, "AutoencoderKL", seed=1)
    with pytest.raises(CheckpointError, match="its digest is"):
        Transfusion.from_pretrained(run, device="cpu")
    moved = in_latents(pictures, tmp_path / "gone", "autoencoder.is_carried=false")
    assert open_in(moved, run).step == 2  # where it lies may change, what it is may not


def test_an_autoencoder_that_is_not_carried_is_found_from_every_folder(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Named by a relative path, when the run begins, when it goes on, and when another begins from its weights."""
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    network, run = save_small(Path("nets") / "a", "AutoencoderKL"), tmp_path / "run"
    config = in_latents(pictures, network, "autoencoder.is_carried=false")
    for steps in (1, 2):
        train(config, None, run, steps=steps)  # pyright: ignore
    init = begun_from(override(config, [f"train.init={run}"]), [f"autoencoder.path={network}"])
    train(init, None, tmp_path / "b")  # pyright: ignore
    monkeypatch.chdir(tmp_path / "there")
    folders = [*(run / "checkpoints").iterdir(), tmp_path / "b"]
    assert len(folders) == 3
    for folder in folders:
        found = Transfusion.from_pretrained(folder, device="cpu").config.autoencoder
        assert isinstance(found, PretrainedConfig) and found.path == str(tmp_path / "here" / network)


def test_a_run_that_goes_on_takes_no_other_autoencoder(pictures: Path, tmp_path: Path) -> None:
    network, other = (save_small(tmp_path / f"n{seed}", "AutoencoderKL", seed=seed) for seed in (0, 1))
    run = tmp_path / "run"
    first = train(in_latents(pictures, network), None, run)  # pyright: ignore
    with pytest.raises(ConfigError, match="its digest is"):
        open_in(in_latents(pictures, other), run)
    init = override(in_latents(pictures, other), [f"train.init={run}"])
    with pytest.raises(ConfigError, match="autoencoder"):
        open_in(begun_from(init, [f"autoencoder.path={other}"]), tmp_path / "b")
    same = open_in(begun_from(override(in_latents(pictures, network), [f"train.init={run}"]), []), tmp_path / "c")
    assert same.config.autoencoder == first.config.autoencoder
    allowed = begun_from(init, [f"autoencoder.path={other}", "train.new_parts=true"])
    anew = open_in(allowed, tmp_path / "d")
    assert anew.config.autoencoder.digest != first.config.autoencoder.digest  # pyright: ignore
    assert any("patches" in part.name for part in anew.parts)


def test_workers_do_not_encode(pictures: Path, tmp_path: Path) -> None:
    network = save_small(tmp_path / "network", "AutoencoderTiny")
    with pytest.raises(ConfigError, match="train.num_workers=2 cannot encode pictures by AutoencoderTiny"):
        open_in(in_latents(pictures, network, "train.num_workers=2", "model.modalities.0.patch_size=[2,2]"), tmp_path)


def test_draws_of_a_posterior_are_keyed_by_the_visit(pictures: Path, tmp_path: Path) -> None:
    network = save_small(tmp_path / "network", "AutoencoderKL")
    config = in_latents(pictures, network, "autoencoder.posterior=sample", "encode.caption_dropout=0")
    state, source = open_run(config, tmp_path / "run", is_resumed=False, device="cpu")
    told = [source.document(0, visit).segments for visit in (0, 1, 0)]
    seen = [next(part.values for part in parts if isinstance(part, Latent)) for parts in told]
    assert torch.equal(seen[0], seen[2]) and not torch.equal(seen[0], seen[1])
    picture = np.asarray(Image.open(pictures / source.name(0)).resize((32, 16)))
    prompt = [state.encoder.caption_prompt(picture).segments[0] for _ in range(2)]
    assert all(torch.equal(part.values, state.latents.moments(picture).mean) for part in prompt)  # pyright: ignore


@dataclass(frozen=True)
class Features(Blocks):
    """A network's features, from which no picture comes back."""

    is_network: bool = True

    def decode(self, latent: torch.Tensor) -> np.ndarray:
        raise SpaceError("features have no decoder")


def test_a_space_without_a_decoder_is_trained_on(
    pictures: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    space = Features(2)
    assert train(settings(space, pictures), space, tmp_path / "run").step == 2
    assert "features have no decoder" in caplog.text
    model = Transfusion.from_pretrained(tmp_path / "run", device="cpu", space=space)
    with pytest.raises(ConfigError, match="features have no decoder"):
        model.generate_images("number 1")
    assert isinstance(model.caption(np.zeros((16, 32, 3), np.uint8)), str)
