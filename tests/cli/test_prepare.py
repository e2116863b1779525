"""`transfusion prepare latents`, and a run on what it wrote."""

import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_autoencoders import made_pictures, save_small
from test_cli import call
from tiny import small

from transfusion.autoencoder.pretrained import open_pretrained
from transfusion.autoencoder.reconstruction import reconstruct
from transfusion.autoencoder.settings import PretrainedConfig
from transfusion.cli.prepare import Wanted, prepare_latents, size_of, told
from transfusion.cli.verbs import Use, score
from transfusion.config import ConfigError, override
from transfusion.data.decode import open_picture
from transfusion.data.errors import DataError
from transfusion.data.latents import space_of
from transfusion.data.sources import FolderConfig
from transfusion.pretrained import Transfusion
from transfusion.recipes import RECIPES
from transfusion.run import open_run, train_run
from transfusion.train.init import begun_from
from transfusion.train.manifest import CheckpointError

SETTINGS = (
    "model.trunk.dim=16",
    "model.trunk.depth=1",
    "model.trunk.num_heads=2",
    "model.modalities.0.patch_size=[2,2]",
    "tokenizer.kind=bytes",
    "train.batch_size=4",
    "train.steps=2",
    "train.precision=fp32",
    "train.log_every=1",
    "train.evaluate_every=1",
    "train.preview_every=0",
    "train.num_workers=0",
    "data.flip=true",
)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for number, picture in enumerate(made_pictures(8, 20, 30)):
        part = folder / ("test" if number < 3 else "train")
        part.mkdir(exist_ok=True)
        Image.fromarray(picture).save(part / f"p{number}.png")
        (part / f"p{number}.txt").write_text(f"number {number}")
    (folder / "train" / "p8.png").write_bytes(b"broken")
    (folder / "train" / "p8.txt").write_text("broken")
    return folder


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small(tmp_path_factory.mktemp("kl"), "AutoencoderKL")


def asked(data: Path, autoencoder: Path, to: Path, **more: object) -> Wanted:
    plain = Wanted(data, str(autoencoder), to, "16x24", True, False, "fp32", "cpu", 1)
    return plain._replace(**more)  # pyright: ignore[reportArgumentType]


def losses(run: Path, *settings: str) -> list[str]:
    """Train, and return the losses of training and of what is held out."""
    init = [text for text in settings if text.startswith("train.init=")]
    config = begun_from(override(RECIPES["photos"](), init), [*SETTINGS, *settings])
    state, source = open_run(config, run, is_resumed=True, device="cpu")
    list(train_run(state, source, run, threading.Event()))
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    names = {name for row in rows for name in row if "text" in name or "image" in name}
    assert any("held" in name for name in names)
    return [f"{row['step']} {name} {row[name]!r}" for row in rows for name in sorted(names) if name in row]


def test_latents_give_the_losses_of_pictures(tmp_path: Path, pictures: Path, autoencoder: Path) -> None:
    kept = shutil.copytree(autoencoder, tmp_path / "kl")
    made = prepare_latents(asked(pictures, kept, tmp_path / "latents"))
    assert made["pictures"] == 8 and made["shape"] == [4, 8, 12] and list(made["left_out"]) == ["train/p8.png"]
    assert "8 pictures as latents of 4x8x12, fp32" in told(made) and "p8.png" in told(made)
    on_the_fly = losses(tmp_path / "a", f"data.path={pictures}", f"autoencoder.path={kept}", "data.resolution=[16,24]")
    shutil.rmtree(kept)  # the folder of latents carries it
    assert losses(tmp_path / "b", f"data.path={tmp_path / 'latents'}", "data.resolution=32") == on_the_fly
    model = Transfusion.from_pretrained(tmp_path / "b", device="cpu")
    config = model.config
    assert isinstance(config.autoencoder, PretrainedConfig) and isinstance(config.data, FolderConfig)
    assert (config.data.layout, config.data.resolution, config.autoencoder.channels) == ("latents", (16, 24), 4)
    assert model.generate_images("number 1").size == (24, 16)


def test_the_same_again_goes_on_and_other_settings_are_refused(
    tmp_path: Path, pictures: Path, autoencoder: Path
) -> None:
    wanted = asked(pictures, autoencoder, tmp_path / "latents")
    first = prepare_latents(wanted)
    before = {file.name: file.read_bytes() for file in wanted.to.iterdir()}
    assert prepare_latents(wanted) | {"seconds": 0.0} == first | {"seconds": 0.0}
    assert before == {file.name: file.read_bytes() for file in wanted.to.iterdir()}
    with pytest.raises(DataError, match="--dtype fp32, and fp16 is asked for"):
        prepare_latents(wanted._replace(dtype="fp16"))
    with pytest.raises(DataError, match="--posterior False, and True is asked for"):
        prepare_latents(wanted._replace(has_std=True))
    other = save_small(tmp_path / "other", "AutoencoderKL", seed=1)
    with pytest.raises(DataError, match="an autoencoder of digest"):
        prepare_latents(wanted._replace(autoencoder=str(other)))


def test_going_on_measures_nothing_anew(
    tmp_path: Path, pictures: Path, autoencoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = asked(pictures, autoencoder, tmp_path / "latents")
    first = prepare_latents(wanted)
    monkeypatch.setattr("transfusion.cli.prepare.measured_pictures", lambda _: made_pictures(2, 16, 24))  # of others
    assert prepare_latents(wanted)["pictures"] == first["pictures"]


def test_an_autoencoder_without_a_spread_and_no_pictures_are_refused(
    tmp_path: Path, pictures: Path, autoencoder: Path
) -> None:
    tiny = save_small(tmp_path / "tiny", "AutoencoderTiny")
    with pytest.raises(ConfigError, match="knows no spread to draw from"):
        prepare_latents(asked(pictures, tiny, tmp_path / "a" / "b", has_std=True))
    assert not (tmp_path / "a").exists()
    with pytest.raises(ConfigError, match="no autoencoder at"):
        prepare_latents(asked(pictures, tmp_path / "no", tmp_path / "a"))
    with pytest.raises(ConfigError, match="no multiple of 2"):
        prepare_latents(asked(pictures, autoencoder, tmp_path / "a", resolution="16x25"))
    with pytest.raises(ConfigError, match="--dtype 'int8' is unknown; expected fp32, fp16, bf16"):
        prepare_latents(asked(pictures, autoencoder, tmp_path / "a", dtype="int8"))


@pytest.mark.parametrize("text", ["", "x", "16x", "7", "16x16x16", "-8", "1e3"])
def test_sizes_are_a_side_or_two(text: str) -> None:
    with pytest.raises(ConfigError, match="expected a side as 128, or height x width as 96x128"):
        size_of(text)


def test_a_run_in_pixels_on_latents_is_refused(tmp_path: Path, pictures: Path, autoencoder: Path) -> None:
    made = prepare_latents(asked(pictures, autoencoder, tmp_path / "latents", has_flip=False))
    assert "splits 'test' 3, 'train' 6" in made["found"]
    config = override(RECIPES["folder"](), [f"data.path={made['folder']}"])
    with pytest.raises(ConfigError, match="autoencoder.kind is pixels; take a recipe for latents"):
        open_run(config, tmp_path / "run", is_resumed=False, device="cpu")
    config = override(
        RECIPES["photos"](), [f"data.path={made['folder']}", "data.resolution=32", "autoencoder.digest=x"]
    )
    with pytest.raises((ConfigError, DataError), match="autoencoder.digest is x, theirs"):
        open_run(config, tmp_path / "run", is_resumed=False, device="cpu")
    assert np.prod(made["shape"]) == 4 * 8 * 12


def test_evaluation_takes_latents_of_the_models_space_alone(tmp_path: Path, pictures: Path, autoencoder: Path) -> None:
    latents = tmp_path / "latents"
    prepare_latents(asked(pictures, autoencoder, latents))
    other = save_small(tmp_path / "other", "AutoencoderKL", seed=1)
    prepare_latents(asked(pictures, other, tmp_path / "others"))
    run = tmp_path / "run"
    state, source = open_run(override(RECIPES["photos"](), [*SETTINGS, f"data.path={latents}"]), run, is_resumed=False)
    for _ in train_run(state, source, run, threading.Event()):
        pass
    use = Use(run, "cpu", "fp32")
    told = score(use, ["data.split=test"], num_prompts=1, seed=0)[0]
    assert json.loads(told)["records"] == 3
    with pytest.raises(DataError, match="not of the autoencoder that is asked for"):
        score(use, [f"data.path={tmp_path / 'others'}"], num_prompts=1, seed=0)


def others(folder: Path) -> Path:
    """Write pictures that are much darker than the first."""
    for number, picture in enumerate(made_pictures(6, 16, 24)):
        part = folder / ("test" if number < 2 else "train")
        part.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture // 4).save(part / f"o{number}.png")
        (part / f"o{number}.txt").write_text(f"number {number}")
    return folder


def test_a_trained_model_goes_on_with_latents_of_other_data(tmp_path: Path, pictures: Path, autoencoder: Path) -> None:
    """Prepared like the run to the bit, and as they were prepared for themselves to a rounding."""
    latents, run, new = tmp_path / "latents", tmp_path / "run", others(tmp_path / "new")
    kept = shutil.copytree(autoencoder, tmp_path / "kl")
    prepare_latents(asked(pictures, kept, latents))
    losses(run, f"data.path={latents}")
    begun = (f"train.init={run}", "data.resolution=[16,24]")
    on_the_fly = losses(tmp_path / "a", *begun, f"data.path={new}", f"autoencoder.path={kept}")
    shutil.rmtree(kept)  # the run carries it
    like = Wanted(new, "", tmp_path / "like", None, True, False, "fp32", "cpu", 1, like=run)
    made = prepare_latents(like)
    assert made["shape"] == [4, 8, 12] and prepare_latents(like)["bytes"] == made["bytes"]
    assert losses(tmp_path / "b", *begun, f"data.path={like.to}") == on_the_fly
    own = space_of(like.to)
    assert own.mean == space_of(latents).mean and own.std == space_of(latents).std
    prepare_latents(asked(new, latents, tmp_path / "alone"))  # a folder of latents carries an autoencoder too
    assert space_of(tmp_path / "alone").mean != own.mean
    brought = losses(tmp_path / "c", *begun, f"data.path={tmp_path / 'alone'}")
    for one, other in zip(brought, on_the_fly, strict=True):
        *named, value = one.split()
        *other_named, other_value = other.split()
        assert named == other_named and float(value) == pytest.approx(float(other_value), rel=1e-4)
    config = Transfusion.from_pretrained(tmp_path / "c", device="cpu").config.autoencoder
    assert isinstance(config, PretrainedConfig) and config.mean == own.mean
    again = prepare_latents(like._replace(to=tmp_path / "again", like=latents))  # a folder of latents is one to follow
    assert again["shape"] == made["shape"] and space_of(tmp_path / "again").mean == own.mean


def test_latents_of_another_autoencoder_are_refused_with_what_to_do(
    tmp_path: Path, pictures: Path, autoencoder: Path
) -> None:
    latents, run = tmp_path / "latents", tmp_path / "run"
    prepare_latents(asked(pictures, autoencoder, latents))
    losses(run, f"data.path={latents}")
    prepare_latents(asked(pictures, save_small(tmp_path / "kl", "AutoencoderKL", seed=1), tmp_path / "others"))
    with pytest.raises(DataError, match=f"--like {run}/checkpoints/step_00000002 --to NEW") as refused:
        losses(tmp_path / "b", f"train.init={run}", f"data.path={tmp_path / 'others'}")
    words = (
        str(refused.value).rpartition(": ")[2].replace("PICTURES", str(pictures)).replace("NEW", str(tmp_path / "new"))
    )
    assert "PSNR of" in call(*words.split()[1:], "--flip", "--device", "cpu").stdout
    assert losses(tmp_path / "b", f"train.init={run}", f"data.path={tmp_path / 'new'}")


def test_whose_space_is_taken_is_said_once(tmp_path: Path, pictures: Path, autoencoder: Path) -> None:
    wanted = asked(pictures, autoencoder, tmp_path / "latents")
    with pytest.raises(ConfigError, match="--like names the autoencoder; leave --autoencoder out"):
        prepare_latents(wanted._replace(like=tmp_path))
    with pytest.raises(ConfigError, match="no autoencoder is named: give --autoencoder, or --like RUN"):
        prepare_latents(wanted._replace(autoencoder=""))
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        prepare_latents(wanted._replace(autoencoder="", like=tmp_path))
    model = small().save_pretrained(tmp_path / "pixels")
    with pytest.raises(ConfigError, match="autoencoder.kind=pixels, and no autoencoder to encode pictures by"):
        prepare_latents(wanted._replace(autoencoder="", like=model))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("transfusion.hub.fetch", lambda name, **more: {"people/model": model}[name])  # pyright: ignore
        with pytest.raises(ConfigError, match="--like people/model: that model has autoencoder.kind=pixels"):
            prepare_latents(wanted._replace(autoencoder="", like="people/model"))
        with pytest.raises(CheckpointError, match="no checkpoint at people/model"):
            prepare_latents(wanted._replace(autoencoder="", like=Path("people/model")))
    prepare_latents(wanted)
    with pytest.raises(ConfigError, match="holds latents, and no pictures; expected a folder of captioned pictures"):
        prepare_latents(wanted._replace(data=wanted.to, to=tmp_path / "b"))
    with pytest.raises(DataError, match="holds latents of pictures, and pictures are needed here"):
        prepare_latents(wanted._replace(data=wanted.to, to=tmp_path / "b", autoencoder="", like=wanted.to))


def test_what_the_autoencoder_loses_is_told_once_more_when_a_run_begins(
    tmp_path: Path, pictures: Path, autoencoder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of eight pictures that a run on pictures measures just so."""
    made = prepare_latents(asked(pictures, autoencoder, tmp_path / "latents"))
    space = open_pretrained(space_of(tmp_path / "latents"))
    files = sorted(file for file in pictures.rglob("*.png") if file.name != "p8.png")
    found = [each.psnr for each in reconstruct(space, [open_picture(file, (16, 24)) for file in files])]
    assert made["psnr"] == {
        "pictures": 8,
        "mean": pytest.approx(np.mean(found)),
        "least": pytest.approx(min(found)),
        "most": pytest.approx(max(found)),
    }
    assert f"PSNR of 8 pictures {np.mean(found):.1f} dB on average, {min(found):.1f} to {max(found):.1f}" in told(made)
    sheet = tmp_path / "latents" / "reconstructions.png"
    assert Image.open(sheet).width > 8 * 24
    run = tmp_path / "run"
    with caplog.at_level("INFO"):
        losses(run, f"data.path={tmp_path / 'latents'}")
    assert f"PSNR of 8 pictures {np.mean(found):.1f} dB on average" in caplog.text
    assert (run / "samples" / "reconstructions.png").read_bytes() == sheet.read_bytes()
    sheet.write_bytes(b"another")
    losses(tmp_path / "b", f"data.path={tmp_path / 'latents'}")
    assert "reconstructions.png has 7 bytes, not" in caplog.text
    within = prepare_latents(asked(pictures, autoencoder, pictures / "latents"))
    assert within["psnr"] == made["psnr"] and not list((pictures / "latents").glob("*.png"))
    shutil.rmtree(pictures / "latents")
