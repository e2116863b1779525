"""``train autoencoder/...`` as a user runs it: to its end, stopped and gone on with, anew, by a wrong name."""

import json
import threading
from pathlib import Path

import pytest
from PIL import Image
from test_cli import call
from tiny import small

from transfusion.cli import autoencoder
from transfusion.cli.autoencoder import find_autoencoder
from transfusion.data.settings import FolderConfig, ShapesConfig
from transfusion.recipes import AUTOENCODERS
from transfusion.train.checkpoint import checkpoints
from transfusion.train.metrics import read_metrics

SMALL = (
    *("network.widths=[8,8]", "network.norm_groups=4", "data.resolution=16", "augment.crop=null", "augment.flip=true"),
    *("train.steps=4", "train.batch_size=2", "train.precision=fp32", "train.log_every=1", "train.evaluate_every=2"),
    *("train.preview_every=2", "train.checkpoint_every=2", "data.num_documents=9"),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a tiny one."""
    folder = tmp_path_factory.mktemp("autoencoder") / "run"
    told = call("train", "autoencoder/vq", *SMALL, "network.num_codes=16", "--run", folder, "--device", "cpu").stderr
    assert "without the losses perceptual and identity" in told and "is an autoencoder now" in told
    assert "held out psnr" in told and "built-in world; trains on 9 records" in told
    return folder


def test_a_run_has_what_other_runs_have(run: Path) -> None:
    assert [folder.name for folder in checkpoints(run)] == ["step_00000002", "step_00000004"]
    rows = read_metrics(run)
    assert {row["step"] for row in rows} == {1, 2, 3, 4}
    assert {"loss/l1", "loss/codebook", "loss/commitment", "codes_revived", "lr_factor"} <= rows[0].keys()
    assert {"held_out/psnr", "held_out/ssim", "held_out/codes_in_use"} <= rows[-1].keys()
    assert sorted(file.name for file in (run / "samples").iterdir()) == ["step_00000002.png", "step_00000004.png"]
    assert any((run / "tensorboard").iterdir())


def test_a_run_goes_on_by_its_folder_and_begins_anew(run: Path) -> None:
    assert "finished: step 4 of 4" in call("train", run, "--device", "cpu").stderr
    assert "--change" in call("train", run, "train.steps=5", code=2).stderr
    assert "resuming at step 4 of 5" in call("train", run, "train.steps=5", "--change", "--device", "cpu").stderr
    (run / "mine.txt").write_text("mine")
    config = run.parent / "settings.json"
    config.write_text(call("config", run, "train.steps=2").stdout)
    assert json.loads(config.read_text())["network"]["num_codes"] == 16
    call("train", config, "--run", run, "--anew", "--device", "cpu")
    assert [folder.name for folder in checkpoints(run)] == ["step_00000002"] and (run / "mine.txt").exists()
    assert {row["step"] for row in read_metrics(run)} == {1, 2}


def test_a_checkpoint_is_gone_on_from_elsewhere(run: Path, tmp_path: Path) -> None:
    (first, *_) = checkpoints(run)
    call("train", first, "train.steps=6", "--run", tmp_path / "new", "--change", "--device", "cpu")
    assert checkpoints(tmp_path / "new")[-1].name == "step_00000006"


def test_a_signal_stops_it_and_the_same_command_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("train", "autoencoder/kl", *SMALL, "--run", tmp_path / "run", "--device", "cpu")
    heard = threading.Event()

    class Stopping:
        def __enter__(self) -> threading.Event:
            heard.set()
            return heard

        def __exit__(self, *_: object) -> None: ...

    with monkeypatch.context() as patch:
        patch.setattr(autoencoder, "stop_on_signals", Stopping)
        told = call(*arguments, code=130).stderr
    assert f"stopped after step 1; the state is saved in {tmp_path / 'run'}. Go on: transfusion train" in told
    assert "resuming at step 1 of 4" in call(*arguments).stderr


def test_pictures_of_a_folder_by_a_path_alone(tmp_path: Path) -> None:
    for index in range(4):
        (tmp_path / "data").mkdir(exist_ok=True)
        Image.new("RGB", (30, 20), (index, 0, 0)).save(tmp_path / "data" / f"{index}.png")
    given = [text for text in SMALL if not text.startswith("data.num")]
    path = f"data.path={tmp_path / 'data'}"
    told = call("train", "autoencoder/kl", *given, path, "--run", tmp_path / "run", "--device", "cpu").stderr
    assert "4 pictures" in told and "trains on 4 records" in told
    assert find_autoencoder("autoencoder/kl", [path]).data == FolderConfig(path=tmp_path / "data", resolution=128)
    assert isinstance(find_autoencoder("autoencoder/kl", ["data.kind=shapes"]).data, ShapesConfig)


def test_one_is_not_taken_for_the_other(run: Path, tmp_path: Path) -> None:
    assert "is an autoencoder's training, and no model" in call("generate", run, "a star", code=1).stderr
    assert "holds an autoencoder's training" in call("train", "tiny", "--run", run, code=2).stderr
    model = small().save_pretrained(tmp_path / "model" / "checkpoints" / "step_00000001")
    assert "holds a model's training" in call("train", "autoencoder/kl", "--run", model.parents[1], code=2).stderr
    assert "did you mean 'autoencoder/kl'?" in call("train", "autoencoder/kll", code=2).stderr
    error = call("train", "autoencoder/kl", "losses.gann=1", code=2).stderr
    assert "unknown setting 'losses.gann'; did you mean 'losses.gan'?" in error
    assert "network.kind" in call("config", "autoencoder/kl", "--explain", "network").stdout


@pytest.mark.parametrize("name", AUTOENCODERS)
def test_recipes_are_whole(name: str) -> None:
    config = AUTOENCODERS[name]()
    assert (AUTOENCODERS[name].__doc__ or "").splitlines()[0].count("?") == 1
    assert config.name == name.replace("/", "-") and config.network.factor == 8
    assert type(config).model_validate_json(config.model_dump_json()) == config
