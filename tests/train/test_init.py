"""A run that begins from trained weights: what comes from there, what may be set otherwise, what is told and kept."""

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny import ToySource, documents, equal, randomise, run_config

from transfusion.batch import collate
from transfusion.config import ConfigError, RunConfig, override
from transfusion.model.transfusion import TransfusionModel
from transfusion.objective import KeyedDraw, TransfusionObjective
from transfusion.pretrained import Transfusion
from transfusion.recipes import RECIPES
from transfusion.tokenizer import ByteTokenizer, TokenizerConfig, train_tokenizer
from transfusion.train.checkpoint import newest, publish, step_directory
from transfusion.train.init import begun_from, load_trained
from transfusion.train.loop import train
from transfusion.train.manifest import CheckpointError, read_manifest
from transfusion.train.opening import begin, resume
from transfusion.train.saved import write_pretrained
from transfusion.train.state import TrainState
from transfusion.train.tensors import load_tensors

CPU = torch.device("cpu")
TABLE = "patches.0.positions.tables.0"
WORDS = ["a red circle", "a blue star"] * 20


def finish(state: TrainState, run: Path) -> TrainState:
    """Train to the end."""
    state.check_data("toy")
    for _ in train(state, ToySource(), run, threading.Event()):
        pass
    return state


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a tiny run whose averaged weights are not the last ones, with pixels of its own."""
    run = tmp_path_factory.mktemp("source") / "run"
    pixels = ['encode.pixels={"mean": 0.25, "std": 0.75}', "train.ema_decay=0.5"]
    finish(begin(override(run_config(3), pixels), CPU), run)
    return run


@pytest.fixture(scope="module", autouse=True)
def words(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Go where there is a little text to train on, which is read sooner than the built-in world is made."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("here"))
        Path("words.txt").write_text("\n".join(WORDS))
        yield


def settings(source: Path, *overrides: str) -> RunConfig:
    """Return the settings of a recipe that begins from a run and trains on text."""
    quick = [
        "train.precision=fp32",
        "train.num_workers=0",
        "train.steps=3",
        "train.batch_size=6",
        "train.row_length=64",
    ]
    config = override(RECIPES["tiny"](), [f"train.init={source}"])
    quick += ["train.row_length=64", "train.preview_every=0", "data.kind=folder", "data.path=words.txt"]
    return begun_from(config, [*quick, *overrides])


def losses(model: TransfusionModel, config: RunConfig) -> dict[str, float]:
    """Return the losses of some documents at their keyed times, of which no setting but the process decides."""
    objective = TransfusionObjective(config.diffusion, config.objective, model.vocabulary)
    batch = collate([[document] for document in documents(5)], model.vocabulary, KeyedDraw(config.diffusion, 0), 64)
    with torch.no_grad():
        return {name: float(loss.sum) for name, loss in objective(model, batch).items()}


@pytest.mark.parametrize("path", ["run", "checkpoint", "saved"])
def test_a_new_run_begins_with_the_losses_of_the_weights(source: Path, tmp_path: Path, path: str) -> None:
    checkpoint = newest(source)
    assert checkpoint is not None
    saved = Transfusion.from_pretrained(source).save_pretrained(tmp_path / "saved")
    init = {"run": source, "checkpoint": checkpoint, "saved": saved}[path]
    state = begin(settings(init), CPU)
    expected = Transfusion.from_pretrained(source)
    assert equal(state.model.state_dict(), expected.model.state_dict())
    assert equal(state.best_model.state_dict(), expected.model.state_dict())
    assert losses(state.model, state.config) == losses(expected.model, expected.config)
    assert state.step == 0 and state.parts == ()
    assert all(not optimizer.state_dict()["state"] for optimizer in state.optimizers)


def test_the_trained_weights_are_taken_where_they_are_asked_for(source: Path) -> None:
    state, averaged = (begin(settings(source, f"train.init_weights={name}"), CPU) for name in ("trained", "averaged"))
    folder = newest(source)
    assert folder is not None and state.origin is not None and averaged.origin is not None
    assert equal(state.model.state_dict(), load_tensors(folder / "model.safetensors"))
    assert not equal(state.model.state_dict(), averaged.model.state_dict())
    assert (state.origin.weights, averaged.origin.weights) == ("trained", "averaged")
    with pytest.raises(ConfigError, match="train.init_weights reaches nothing while train.init is None"):
        override(RECIPES["tiny"](), ["train.init_weights=trained"])


def test_what_weights_mean_something_by_comes_with_them_and_the_rest_is_the_recipes(source: Path) -> None:
    config = settings(source, "train.optimizer.lr=0.5")
    theirs, recipe = Transfusion.from_pretrained(source).config, RECIPES["tiny"]()
    state = begin(config, CPU)
    assert state.config.model == theirs.model and state.config.tokenizer == theirs.tokenizer
    assert state.config.encode.pixels == theirs.encode.pixels and state.config.diffusion == theirs.diffusion
    assert state.config.denoising == theirs.denoising
    assert state.config.encode.caption_first == recipe.encode.caption_first != theirs.encode.caption_first
    assert state.config.objective == recipe.objective != theirs.objective
    assert state.config.train.optimizer.lr == 0.5 and state.config.train.optimizer.schedule == "constant"
    assert state.config.name == "demo"
    shapes = begun_from(override(recipe, [f"train.init={source}"]), ["data.tasks.edit=1", "data.tasks.draw=0"])
    assert shapes.data.kind == "shapes" and (shapes.data.tasks.edit, shapes.data.tasks.draw) == (1, 0)
    assert shapes.data.resolution == config.data.resolution == theirs.data.resolution == 32
    assert settings(source, "data.resolution=16").data.resolution == 16


def test_the_tokenizer_comes_too_and_says_what_it_cannot_tell(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = run_config().model_copy(update={"tokenizer": TokenizerConfig(kind="train", vocab_size=270)})
    learnt = train_tokenizer(WORDS, 270)
    made = _saved(tmp_path / "m", config, learnt.size)
    learnt.save(made)
    publish(tmp_path / "model", lambda folder: [shutil.copy(file, folder) for file in made.iterdir()] and None)
    state = begin(settings(tmp_path / "model"), CPU)
    for text in WORDS:
        assert state.tokenizer.encode(text) == learnt.encode(text)
    assert state.config.tokenizer == config.tokenizer and "do not come back" not in caplog.text
    lower = json.loads((made / "tokenizer.json").read_text())
    lower["normalizer"] = {"type": "Replace", "pattern": {"String": "circle"}, "content": "round"}
    (made / "tokenizer.json").write_text(json.dumps(lower))
    publish(tmp_path / "other", lambda folder: [shutil.copy(file, folder) for file in made.iterdir()] and None)
    begin(settings(tmp_path / "other"), CPU)
    assert "do not come back from the tokenizer as they were" in caplog.text


def _saved(folder: Path, config: RunConfig, text_size: int) -> Path:
    """Write a model with random weights, without a manifest."""
    config = config.model_copy(update={"model": config.model.model_copy(update={"text_vocab_size": text_size})})
    model = TransfusionModel(config.model)
    model.initialise_weights(0)
    randomise(model)
    folder.mkdir()
    write_pretrained(folder, model, ByteTokenizer(), config)
    return folder


REFUSED = [
    ("model.trunk.dim=64", "model.trunk.dim is 64, but was 32 for these weights: it decides the shapes"),
    ("model.trunk.depth=3", "model.trunk.depth is 3, but was 2"),
    ("model.trunk.rope_base=50", "attention was trained with it"),
    ("model.trunk.norm_eps=0.1", "no new part could make it right"),
    ("model.modalities.0.max_grid=[8,8]", r"model.modalities.image.max_grid is \[8, 8\], but was \[4, 4\]"),
    ("model.modalities=[]", "model.modalities.image.name is None, but was 'image'"),
    ("model.init.embedding_std=0.5", "no weight is drawn"),
    ("tokenizer.kind=train", "what a token means was learnt with its tokenizer"),
    ('encode.pixels={"mean": 0, "std": 1}', "encode.pixels.mean is 0.0, but was 0.25"),
    ("diffusion.prediction=v", "diffusion.prediction is 'v', but was 'x_0' for these weights: it is what the output"),
    ("diffusion.schedule.kind=cosine", "diffusion.schedule.kind is 'cosine', but was 'straight'"),
]


@pytest.mark.parametrize(("assignment", "message"), REFUSED)
def test_what_is_set_otherwise_is_refused_with_the_reason(source: Path, assignment: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings(source, assignment)
    config = settings(source)
    with pytest.raises(ConfigError, match=message):  # from Python, where nobody knows what was set
        begin(override(config, [assignment]), CPU)


def test_what_is_set_as_it_was_is_not_otherwise(source: Path) -> None:
    same = ["model.trunk.dim=32", "model.trunk.num_kv_heads=2", "diffusion.prediction=x_0", "encode.pixels.std=0.75"]
    assert begin(settings(source, *same), CPU).parts == ()
    assert settings(source, "diffusion.schedule.mean=1.5").diffusion.schedule.mean == 1.5  # how times are drawn is free
    grid = ["model.modalities.0.max_grid=[0,0]", "data.resolution=8"]  # left open: as the data's pictures, 4 by 4
    for config in (settings(source, *grid), override(settings(source), grid)):
        assert begin(config, CPU).config.model.modalities[0].max_grid == (4, 4)


def test_a_larger_grid_interpolates_the_positions(source: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    state = begin(settings(source, "data.resolution=16", "train.new_parts=true"), CPU)
    old = Transfusion.from_pretrained(source).model.state_dict()
    new = state.model.state_dict()
    for axis in "01":
        a, b, c, d = old[TABLE[:-1] + axis]
        expected = [a, 0.75 * a + 0.25 * b, 0.25 * a + 0.75 * b, 0.75 * b + 0.25 * c, 0.25 * b + 0.75 * c]
        expected += [0.75 * c + 0.25 * d, 0.25 * c + 0.75 * d, d]
        assert torch.allclose(new[TABLE[:-1] + axis], torch.stack(expected), atol=1e-6)  # float32 rounding
    assert [str(part) for part in state.parts] == [
        f"patches.0.positions.tables.{axis} (8 x 32): 4 positions interpolated to 8" for axis in (0, 1)
    ]
    assert f"not as trained: {state.parts[0]}" in caplog.text
    same = {name: value for name, value in old.items() if ".tables." not in name}
    assert equal(same, {name: new[name] for name in same})


def test_more_layers_begin_with_the_losses_of_the_weights(source: Path) -> None:
    more = ["train.new_parts=true", "model.trunk.depth=4", "data.resolution=8"]
    state = begin(settings(source, *more), CPU)
    old = Transfusion.from_pretrained(source)
    assert losses(state.model, state.config) == losses(old.model, old.config)
    assert {part.name.split(".")[2] for part in state.parts} == {"2", "3"}
    assert all(part.what.startswith("new") for part in state.parts)


def test_another_modality_and_vocabulary_keep_what_was_learnt(source: Path) -> None:
    theirs = Transfusion.from_pretrained(source).config
    image, sound = (modality.model_dump(mode="json") for modality in theirs.model.modalities)
    smell = {"name": "smell", "channels": 2, "patch_size": [2]}
    given = f"model.modalities={json.dumps([smell, image])}"
    state = begin(settings(source, given, "train.new_parts=true", "data.resolution=16"), CPU)
    old, new = load_trained(source, "averaged").weights, state.model.state_dict()
    names = {part.name: part for part in state.parts}
    assert names["patches.0.project_in.weight"].what == "new"
    assert names["patches.1.project_in.weight"].what == "dropped" and sound["name"] == "sound"
    assert "patches.1.stem.weight" not in names and torch.equal(
        new["patches.1.stem.weight"], old["patches.0.stem.weight"]
    )
    kept = [*range(256), 256, 257, None, None, 258, 259]  # text, bos, eos, begin and end of smell, of image
    for row, place in enumerate(kept):
        assert place is None or torch.equal(new["embed.weight"][row], old["embed.weight"][place])
    assert names["embed.weight"].what == "260 rows kept, 2 new, 2 dropped"
    other = begin(settings(source, "tokenizer.kind=train", "tokenizer.vocab_size=257", "train.new_parts=true",
                           "data.resolution=16"), CPU)  # fmt: skip
    rows = next(part for part in other.parts if part.name == "head.weight")
    assert rows.shape == (257 + 6, 32) and rows.what.startswith("6 rows kept, 257 new")


def test_a_changed_meaning_makes_its_parts_anew(source: Path) -> None:
    state = begin(settings(source, "diffusion.prediction=v", "train.new_parts=true", "data.resolution=16"), CPU)
    patches = [name for name in state.model.state_dict() if name.startswith("patches.")]
    assert [part.name for part in state.parts] == patches
    assert torch.count_nonzero(state.model.state_dict()["patches.0.head.weight"]) == 0  # as a new model begins


def test_where_it_came_from_is_kept_and_a_resume_needs_it_no_more(source: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(source, copy)
    config = settings(copy, "train.checkpoint_every=2", "train.steps=4", "train.optimizer.schedule=cosine")
    whole = finish(begin(config, CPU), tmp_path / "whole")
    state = begin(config, CPU)
    state.check_data("toy")
    stop = threading.Event()
    for report in train(state, ToySource(), tmp_path / "parts", stop):
        if report.step == 2:
            stop.set()
    shutil.rmtree(copy)
    with pytest.raises(CheckpointError, match=r"train.init=.*copy: no checkpoint"):
        begin(config, CPU)
    resumed = resume(config, tmp_path / "parts", CPU)
    assert resumed is not None and resumed.step == 2 and resumed.origin == state.origin
    finish(resumed, tmp_path / "parts")
    assert equal(whole.model.state_dict(), resumed.model.state_dict())
    folder = step_directory(source, 3)
    origin = {
        "path": str(copy), "checkpoint": str(step_directory(copy, 3)), "step": 3, "weights": "averaged",
        "sha256": read_manifest(folder)["ema.safetensors"].sha256,
    }  # fmt: skip
    assert json.loads((step_directory(tmp_path / "parts", 4) / "state.json").read_text())["origin"] == origin
    rows = [json.loads(line) for line in (tmp_path / "parts" / "changes.jsonl").read_text().splitlines()]
    assert rows == [{"step": 0, "begun": True, "from": origin}]


def test_no_weights_are_told(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"train.init=.*nothing: no checkpoint at"):
        settings(tmp_path / "nothing")
