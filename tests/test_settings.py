"""Every setting changes what it says, or is refused where it cannot: a walk over the whole tree."""

import json
import math
import threading
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, NamedTuple, get_args

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import BaseModel
from small_autoencoders import save_small
from tiny import randomise

from transfusion.config import MOOT, NEEDS, ConfigError, RunConfig, override
from transfusion.data.errors import DataError
from transfusion.data.loader import Steps
from transfusion.data.mixture import MixtureSource
from transfusion.data.settings import SourceConfig
from transfusion.objective import KeyedDraw
from transfusion.pretrained import Transfusion
from transfusion.run import open_run, train_run
from transfusion.segments import Document, Latent, Text
from transfusion.tokenizer import train_tokenizer
from transfusion.train import loop
from transfusion.train.manifest import CheckpointError

HERE = Path(mkdtemp())


def data() -> Path:
    """Write captioned pictures with splits."""
    folder = HERE / "data"
    folder.mkdir()
    rows = [{"file": f"{i}.png", "text": f"picture {i}", "split": ("train", "test")[i % 2]} for i in range(8)]
    for i, row in enumerate(rows):
        picture = np.full((20, 20, 3), 30 * i, np.uint8) + np.arange(20, dtype=np.uint8)[:, None]  # left is not right
        Image.fromarray(picture).save(folder / str(row["file"]))
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (HERE / "unmarked").mkdir()
    rows = [{"file": row["file"], "text": row["text"]} for row in rows]
    for row in rows:
        (HERE / "unmarked" / str(row["file"])).write_bytes((folder / str(row["file"])).read_bytes())
    (HERE / "unmarked" / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (HERE / "both" / "cat").mkdir(parents=True)
    for name in ("a", "cat/b"):
        (HERE / "both" / f"{name}.png").write_bytes((folder / "0.png").read_bytes())
    (HERE / "both" / "a.txt").write_text("one")
    (HERE / "other").mkdir()
    (HERE / "other" / "0.png").write_bytes((folder / "1.png").read_bytes())
    part = {"type": "image", "file": "0.png"}
    (HERE / "rows.jsonl").write_text("".join(json.dumps({"segments": [part]}) + "\n" for _ in range(4)))
    said = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "That."}]
    (HERE / "talks.json").write_text(
        json.dumps([{"id": i, "image": "other/0.png", "conversations": said} for i in "abcd"])
    )
    code = "from transfusion.data.records import Captioned\n"
    code += "def {}(row):\n    return Captioned(row['id'], '{}', row['image'])\n"
    (HERE / "mine.py").write_text(code.format("one", "one") + code.format("two", "two"))
    columns = {"image": [0, 2, 4], "other": [1, 3, 5]}
    held = {name: [{"bytes": (folder / f"{i}.png").read_bytes()} for i in found] for name, found in columns.items()}
    texts = {"text": ["one", "two", "three"], "title": ["four", "five", "six"]}
    datasets.Dataset.from_dict({**held, **texts}).save_to_disk(str(HERE / "saved"))
    train_tokenizer(["a red circle and a star"] * 9, 270).save(HERE)
    return folder


DATA = data()
FOLDER = ["data.kind=folder", f"data.path={DATA}", "data.resolution=16", "encode.caption_first=0.5"]
UNMARKED = ["data.kind=folder", f"data.path={HERE / 'unmarked'}", "data.resolution=16"]
TALKS = ["data.kind=folder", f"data.path={HERE / 'talks.json'}", "data.resolution=16"]
OWN = [*TALKS, "data.layout=own"]
PLAIN_CHAT = "{% for message in messages %}{{ message.content }}{{ eos_token }}{% endfor %}"
TEMPLATE = f"encode.template={json.dumps({'source': PLAIN_CHAT})}"
CHAT = [*TALKS, "encode.turns=chat", TEMPLATE]
TEXT = ["data.kind=folder", f"data.path={HERE / 'both' / 'a.txt'}"]
UNET = ['model.modalities.0.patches={"kind": "unet", "channels": [8]}']
BOTH = ["data.kind=folder", f"data.path={HERE / 'both'}", "data.resolution=16", "data.layout=pairs"]
MUON = ["train.optimizer.kind=muon"]
CONSTANT = ["train.optimizer.schedule=constant"]
SOURCES = [{"path": str(HERE / "both"), "layout": "pairs"}, {"path": str(HERE / "unmarked")}]
MIXED = ["data.kind=mixture", f"data.sources={json.dumps(SOURCES)}", "data.resolution=16"]
ALONE = [*MIXED[:1], f"data.sources={json.dumps([SOURCES[0], {**SOURCES[1], 'weight': 0}])}", *MIXED[2:]]
ROWS = ["data.kind=folder", f"data.path={HERE / 'rows.jsonl'}", "data.resolution=16", f"data.images={DATA}"]
TABLE = ["data.kind=folder", f"data.path={HERE / 'saved'}", "data.resolution=16", "encode.caption_dropout=0"]
TABLE += ["data.picture_column=image", "data.text_column=text"]
NETWORK, OTHER_NETWORK = (save_small(HERE / f"network{seed}", "AutoencoderKL", seed=seed) for seed in (0, 1))
LATENTS = ["autoencoder.kind=pretrained", f"autoencoder.path={NETWORK}", "model.modalities.0.channels=0"]
LATENTS += ["model.modalities.0.patch_size=[2,2]"]
PLAIN = ["autoencoder.mean=[0,0,0,0]", "autoencoder.std=[1,1,1,1]"]
BASE = [
    "model.trunk.dim=16",
    "model.trunk.depth=2",
    "model.trunk.num_heads=2",
    "model.modalities.0.max_grid=[4,4]",
    "data.resolution=16",
    "train.steps=3",
    "train.batch_size=4",
    "train.num_workers=0",
    "train.precision=fp32",
    "train.log_every=1",
    "train.optimizer.warmup_steps=1",
    "train.optimizer.lr=0.01",
    "diffusion.schedule.kind=straight",
    "diffusion.schedule.min_t=0.05",
    "diffusion.prediction=v",
    "diffusion.loss=v",
    "denoising.sampler=ddim",
    "denoising.num_steps=4",
    "denoising.guidance.scale=2",
]


def documents(config: RunConfig) -> object:
    """Return how the data are told: tokens, pictures, targets and limits of the first documents."""
    _, source = open_run(config, HERE / "none", is_resumed=False)
    count = min(source.size or 40, 40)
    return [_facts(source.document(index, visit)) for index in range(count) for visit in (0, 1)]


def _facts(document: Document) -> list[object]:
    return [
        (part.tokens, part.is_target)
        if isinstance(part, Text)
        else (
            part.values.shape,
            part.values.flatten()[:3].tolist(),
            float(part.values.sum()),
            part.is_target,
            part.max_t,
        )
        for part in document.segments
    ]


def mixed(config: RunConfig) -> object:
    """Return which documents the steps take, and of which sources."""
    state, source = open_run(config, HERE / "none", is_resumed=False)
    assert isinstance(source, MixtureSource)
    loading = loop.loading(config.train)
    order, steps = source.order(loading), Steps(source, loading, state.model.vocabulary, KeyedDraw(config.diffusion, 0))
    places = [order.place(number) for number in range(config.train.steps * config.train.batch_size)]
    return places, steps[0][0].slots


def batches(config: RunConfig) -> object:
    """Return the shapes and times of a step's micro-batches."""
    state, source = open_run(config, HERE / "none", is_resumed=False)
    train = config.train
    draw = KeyedDraw(config.diffusion, train.seed)
    found = Steps(source, loop.loading(train), state.model.vocabulary, draw)[0]
    return [(b.columns.tokens.shape, b.num_documents, [group.t.tolist() for group in b.spans]) for b in found]


def initial(config: RunConfig) -> object:
    """Return the spread of all initial weights."""
    state, _ = open_run(config, HERE / "none", is_resumed=False)
    weights = state.model.state_dict()
    return {name: (tuple(weight.shape), float(weight.sum()), float(weight.norm())) for name, weight in weights.items()}


def trained(config: RunConfig) -> object:
    """Return the weights and averages after training, and what lies in the run's folder."""
    folder = Path(mkdtemp(dir=HERE)) / "run"
    state, source = open_run(config, folder, is_resumed=False)
    reports = list(train_run(state, source, folder, threading.Event()))
    weights = [float(weight.double().sum()) for weight in state.model.parameters()]
    averages = [float(weight.double().sum()) for weight in state.best_model.parameters()]
    files = sorted(str(file.relative_to(folder)) for file in folder.rglob("*.*") if "tfevents" not in file.name)
    rows = (folder / "metrics.jsonl").read_text().count("\n")
    return weights, averages, files, rows, len(reports)


def drawn(config: RunConfig) -> object:
    """Return what a model with random weights draws."""
    state, _ = open_run(config, HERE / "none", is_resumed=False)
    randomise(state.model)
    model = Transfusion(state.model, state.tokenizer, state.config)
    options = model.options(max_tokens=0, begins_with_image=True)
    result = model.engine().run([(Document((Text((1, 2)),), is_complete=False), options)])[0]
    (latent,) = [part for part in result.generated if isinstance(part, Latent)]
    return latent.values.tolist()


def decoded(config: RunConfig) -> object:
    """Return what becomes of a latent."""
    state, _ = open_run(config, HERE / "none", is_resumed=False)
    shape = state.latents.shape(state.config.data.size)
    return state.latents.decode(torch.linspace(-1, 1, math.prod(shape)).view(shape)).tolist()


def compiled(config: RunConfig) -> object:
    """Return whether a run compiles its model."""
    state, source = open_run(config, HERE / "none", is_resumed=False)
    asked: list[bool] = []
    state.model.compile = lambda: asked.append(True)  # type: ignore[method-assign]
    next(iter(loop.train(state, source, Path(mkdtemp(dir=HERE)), threading.Event())))
    return asked


def workers(config: RunConfig) -> object:
    """Return how many processes prepare batches."""
    state, source = open_run(config, HERE / "none", is_resumed=False)
    asked: list[int] = []

    def load(steps: Steps, first: int, last: int, num_workers: int) -> Iterator[list[Any]]:
        asked.append(num_workers)
        yield steps[first]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "load_steps", load)
        list(loop.train(state, source, Path(mkdtemp(dir=HERE)), threading.Event()))
    return asked


def named(config: RunConfig) -> object:
    """Return the name, which the command line makes the run's folder of."""
    return config.name


@pytest.fixture(scope="module", autouse=True)
def model() -> None:
    """Train a run to begin from."""
    state, source = open_run(override(RunConfig(), BASE), HERE / "model", is_resumed=False)
    list(loop.train(state, source, HERE / "model", threading.Event()))


class Effect(NamedTuple):
    """How a setting is shown to act: another value, what it changes, and what else must be set for that.

    ``probe`` is None where the value is refused with a message.
    """

    value: str
    probe: Callable[[RunConfig], object] | None
    others: list[str] = []
    message: str = ""


def refused(value: str, message: str, *others: str) -> Effect:
    """Make the entry of a setting that is refused."""
    return Effect(value, None, list(others), message)


EFFECTS: dict[str, list[Effect]] = {
    "name": [Effect("other", named)],
    "model.text_vocab_size": [refused("300", "the tokenizer has 256 ids"), refused("0", "greater than 0")],
    "model.trunk.dim": [Effect("32", initial)],
    "model.trunk.depth": [Effect("1", initial)],
    "model.trunk.num_heads": [Effect("4", trained)],
    "model.trunk.num_kv_heads": [Effect("1", initial)],
    "model.trunk.hidden_dim": [Effect("24", initial)],
    "model.trunk.rope_base": [Effect("100", trained)],
    "model.trunk.use_qk_norm": [Effect("true", initial)],
    "model.trunk.norm_eps": [Effect("0.5", trained)],
    "model.modalities.name": [refused("picture", "no modality 'image'; this model has: picture")],
    "model.modalities.channels": [refused("4", "has 4 channels, and the latents of pictures have 3")],
    "model.modalities.patch_size": [Effect("[4,4]", initial), refused("[5,5]", "not positive multiples")],
    "model.modalities.max_grid": [Effect("[2,2]", initial), refused("[1,1]", r"positions for \(1, 1\)")],
    "model.modalities.patches.kind": [Effect("unet", initial)],
    "model.modalities.patches.channels": [Effect("[4]", initial, UNET)],
    "model.modalities.patches.blocks_per_level": [Effect("2", initial, UNET)],
    "model.modalities.patches.use_attention": [Effect("false", initial, UNET)],
    "model.modalities.patches.use_direct": [Effect("true", initial, UNET)],
    "model.init.embedding_std": [Effect("1", initial)],
    "model.init.position_std": [Effect("1", initial)],
    "model.init.linear_gain": [Effect("2", initial)],
    "tokenizer.kind": [Effect("train", documents)],
    "tokenizer.path": [
        Effect(str(HERE / "tokenizer.json"), documents, ["tokenizer.kind=file", "tokenizer.path=/nothing"]),
        refused("x.json", "give a path with 'file' only"),
    ],
    "tokenizer.vocab_size": [
        Effect("300", documents, ["tokenizer.kind=train"]),
        refused("300", "tokenizer.vocab_size reaches nothing while tokenizer.kind is 'bytes'"),
    ],
    "data.kind": [Effect("folder", documents)],
    "data.resolution": [Effect("32", documents), Effect("24", documents, FOLDER), refused("17", "not positive mult")],
    "data.tasks.draw": [Effect("0", documents)],
    "data.tasks.look": [Effect("0", documents)],
    "data.tasks.edit": [Effect("0", documents)],
    "data.tasks.story": [Effect("1", documents, ["train.row_length=1024"])],
    "data.questions_per_picture": [
        Effect("1", documents),
        refused("1", "reaches nothing while data.tasks.look is 0.0", "data.tasks.look=0"),
    ],
    "data.path": [
        Effect(str(HERE / "unmarked"), documents, FOLDER),
        refused(str(HERE / "no"), "not a folder", *FOLDER),
    ],
    "data.picture_column": [Effect("other", documents, TABLE), refused("other", "is no table", *FOLDER)],
    "data.text_column": [Effect("title", documents, TABLE), refused("title", "is no table", *FOLDER)],
    "data.images": [Effect(str(HERE / "other"), documents, ROWS)],
    "data.reader": [
        Effect(f"{HERE / 'mine.py'}:two", documents, [*OWN, f"data.reader={HERE / 'mine.py'}:one"]),
        refused("mine.py:one", "data.reader reaches nothing with data.layout=auto", *FOLDER),
        refused("mine.py:one", "there is no file 'mine.py'", *OWN),
    ],
    "data.layout": [
        Effect("classes", documents, BOTH),
        refused("pairs", "not the layout data.layout=pairs", *FOLDER),
    ],
    "data.crop": [Effect("0.5", documents, FOLDER), refused("0.5", "is text", *TEXT)],
    "data.flip": [Effect("true", documents, FOLDER), refused("true", "is text", *TEXT)],
    "data.num_documents": [Effect("3", documents)],
    "data.sources.name": [Effect("other", mixed, MIXED), refused("unmarked", "two sources are called", *MIXED)],
    "data.sources.data": [
        Effect(json.dumps({"kind": "shapes", "resolution": 16}), mixed, MIXED),
        refused(json.dumps({"kind": "shapes", "resolution": 32}), "one model has pictures of one size", *MIXED),
    ],
    "data.sources.weight": [
        Effect("3", mixed, MIXED),
        refused("0", "all sources have weight 0 from step 0", *ALONE),
    ],
    "data.sources.changes": [
        Effect("[[1,5]]", mixed, MIXED),
        refused("[[3,5]]", "the last of train.steps=3 is step 2", *MIXED),
        refused("[[2,5],[1,3]]", "give each once, ascending", *MIXED),
    ],
    "data.sources.max_repeats": [refused("1", "would be told .* more than data.sources.0.max_repeats=1", *MIXED)],
    "data.split": [Effect("test", documents, FOLDER), refused("test", "has no splits", *UNMARKED)],
    "data.hold_out": [Effect("0.5", documents, UNMARKED), refused("0.5", "marks its splits itself", *FOLDER)],
    "autoencoder.kind": [
        refused("pretrained", "no autoencoder is named"),
        refused("given", "hand it over from Python"),
    ],
    "autoencoder.path": [
        Effect(str(OTHER_NETWORK), documents, LATENTS),
        refused(str(HERE / "no"), "no autoencoder at", *LATENTS),
    ],
    "autoencoder.is_carried": [Effect("false", trained, LATENTS)],
    "autoencoder.posterior": [Effect("sample", documents, LATENTS)],
    "autoencoder.tile": [Effect("8", decoded, LATENTS)],
    "autoencoder.digest": [refused("00", "its digest is", *LATENTS)],
    "autoencoder.channels": [refused("7", "the settings say 7", *LATENTS)],
    "autoencoder.factor": [refused("3", "the settings say 3", *LATENTS)],
    "autoencoder.mean": [
        Effect("[1,2,3,4]", documents, [*LATENTS, *PLAIN]),
        refused("[1]", "given together", *LATENTS),
    ],
    "autoencoder.std": [Effect("[1,2,3,4]", documents, [*LATENTS, *PLAIN]), refused("[0]", "given together", *LATENTS)],
    "autoencoder.name": [refused("mine", "'mine' is one of its owner's own", "autoencoder.kind=given")],
    "autoencoder.shape": [refused("[3,4,4]", "hand it over from Python", "autoencoder.kind=given")],
    "encode.pixels.mean": [Effect("0.3", documents, ['encode.pixels={"mean": 0, "std": 1}'])],
    "encode.pixels.std": [Effect("0.3", documents, ['encode.pixels={"mean": 0, "std": 1}'])],
    "encode.caption_first": [Effect("0", documents), Effect("0", documents, FOLDER)],
    "encode.caption_dropout": [Effect("1", documents), Effect("1", documents, FOLDER)],
    "encode.learns_prompts": [Effect("false", documents), Effect("false", documents, FOLDER)],
    "encode.picture_first_max_t": [
        Effect("0.2", documents),
        Effect("0.2", documents, FOLDER),
        refused("0.2", "reaches nothing while encode.caption_first is 1.0", "encode.caption_first=1"),
    ],
    "encode.turns": [
        *(Effect(turns, documents, TALKS) for turns in ("plain", "vicuna")),
        Effect("vicuna", documents),
        refused("chat", "tokenizer.kind=file with tokenizer.path is needed", *TALKS),
    ],
    "encode.template.source": [
        Effect(f"{{{{ 1 }}}}{PLAIN_CHAT}", documents, CHAT),
        refused("x", "does not write what a message says", *CHAT),
        refused("x", "encode.template reaches nothing while encode.turns is lines", *TALKS, TEMPLATE),
    ],
    "encode.template.eos": [
        Effect("</s>", documents, CHAT),
    ],
    "diffusion.schedule.kind": [Effect("cosine", trained)],
    "diffusion.schedule.times": [Effect("logit_normal", batches)],
    "diffusion.schedule.mean": [
        Effect("2", batches, ["diffusion.schedule.times=logit_normal"]),
        refused("2", "reaches nothing while diffusion.schedule.times is 'uniform'"),
    ],
    "diffusion.schedule.std": [Effect("2", batches, ["diffusion.schedule.times=logit_normal"])],
    "diffusion.schedule.shift": [Effect("3", batches)],
    "diffusion.schedule.min_t": [Effect("0.95", batches)],
    "diffusion.schedule.num_levels": [Effect("3", batches)],
    "diffusion.prediction": [Effect("x_0", trained)],
    "diffusion.loss": [Effect("x_0", trained)],
    "objective.text_weight": [Effect("0", trained)],
    "objective.diffusion_weight": [Effect("0", trained)],
    "objective.attention": [refused("flex", "needs a CUDA device")],
    "train.steps": [Effect("2", trained)],
    "train.init": [
        Effect(str(HERE / "model"), initial),
        refused(str(HERE / "model"), "model.trunk.dim is 32, but was 16", "model.trunk.dim=32"),
        refused(str(HERE / "no"), "train.init=.*no: no checkpoint at"),
    ],
    "train.init_weights": [
        Effect("trained", initial, [f"train.init={HERE / 'model'}"]),
        refused("trained", "train.init_weights reaches nothing while train.init is None"),
    ],
    "train.new_parts": [
        Effect("true", initial, [f"train.init={HERE / 'model'}", "model.trunk.depth=3"]),
        refused("true", "train.new_parts reaches nothing while train.init is None"),
    ],
    "train.freeze": [
        Effect("trunk.*", trained),
        refused("trunk", "train.freeze: 'trunk' fits no parameter's name"),
        refused("*", "nothing is left to train"),
    ],
    "train.batch_size": [Effect("6", batches)],
    "train.batch_unit": [Effect("rows", batches)],
    "train.accumulation": [Effect("2", batches)],
    "train.row_length": [Effect("400", batches, ["train.batch_size=8"]), refused("20", "more than the share")],
    "train.too_long": [
        Effect("cut", batches, ["train.row_length=80", "train.max_dropped=1", "train.batch_size=16"]),
        refused("refuse", "slots, more than a row", "train.row_length=60"),
    ],
    "train.max_dropped": [
        refused("0", "train.max_dropped 0.0", "train.row_length=90"),
    ],
    "train.seed": [Effect("1", initial)],
    "train.num_workers": [Effect("2", workers)],
    "train.precision": [Effect("bf16", trained)],
    "train.use_compile": [Effect("true", compiled)],
    "train.optimizer.kind": [Effect("muon", trained)],
    "train.optimizer.lr": [Effect("0.001", trained)],
    "train.optimizer.muon_lr": [Effect("0.1", trained, MUON), refused("0.1", "kind is 'adamw'; set")],
    "train.optimizer.muon_iterations": [Effect("2", trained, MUON)],
    "train.optimizer.betas": [Effect("[0.5,0.6]", trained), refused("[0.9,1.5]", "less than 1")],
    "train.optimizer.eps": [Effect("0.1", trained)],
    "train.optimizer.weight_decay": [Effect("0.5", trained)],
    "train.optimizer.clip": [Effect("0.01", trained, ["train.optimizer.eps=0.1"])],
    "train.optimizer.warmup_steps": [Effect("3", trained)],
    "train.optimizer.schedule": [Effect("constant", trained), Effect("inverse_sqrt", trained)],
    "train.optimizer.cooldown": [Effect("1", trained, CONSTANT), refused("1", "schedule is 'cosine'; set")],
    "train.optimizer.final_ratio": [Effect("1", trained)],
    "train.ema_decay": [Effect("0", trained), Effect("null", trained)],
    "train.checkpoint_every": [Effect("1", trained)],
    "train.num_checkpoints": [Effect("1", trained, ["train.checkpoint_every=1", "train.evaluate_every=0"])],
    "train.log_every": [Effect("2", trained)],
    "train.preview_every": [Effect("3", trained)],
    "train.evaluate_every": [Effect("0", trained), Effect("2", trained)],
    "denoising.sampler": [Effect("ddpm", drawn)],
    "denoising.num_steps": [Effect("5", drawn)],
    "denoising.shift": [Effect("3", drawn)],
    "denoising.guidance.scale": [Effect("5", drawn)],
    "denoising.guidance.interval": [Effect("[0,0.5]", drawn)],
    "denoising.guidance.rescale": [Effect("1", drawn)],
    "denoising.clip": [Effect("0.1", drawn)],
}


def leaves(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the path of every setting, of all kinds of every union; numbers in lists are left out, and so are the data
    of a mixture's sources, which have the settings that data have alone.
    """
    for name, field in model.model_fields.items():
        children = [] if (model, name) == (SourceConfig, "data") else list(_models(field.annotation))
        for child in children:
            yield from leaves(child, f"{prefix}{name}.")
        if not children:
            yield f"{prefix}{name}"


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def path_of(setting: str) -> str:
    """Return the path that an override takes."""
    for listed in ("model.modalities.", "data.sources."):
        setting = setting.replace(listed, f"{listed}0.")
    return setting


@cache
def base(others: tuple[str, ...], probe: Callable[[RunConfig], object]) -> object:
    """Return what a probe sees without the change."""
    return _seen(override(override(RunConfig(), BASE), others), probe)


def _seen(config: RunConfig, probe: Callable[[RunConfig], object]) -> object:
    torch.manual_seed(0)
    try:
        return probe(config)
    except (FileNotFoundError, DataError, ConfigError) as error:
        return str(error)  # a base that cannot be opened differs from a change that can


def test_every_setting_is_in_the_table() -> None:
    assert set(EFFECTS) == set(leaves(RunConfig))
    assert set(NEEDS) | set(MOOT) <= set(EFFECTS)


CASES = [(setting, effect) for setting, effects in EFFECTS.items() for effect in effects]


@pytest.mark.parametrize(("setting", "effect"), CASES, ids=[f"{setting}={e.value[:12]}" for setting, e in CASES])
def test_a_setting_changes_what_it_says_or_is_refused(setting: str, effect: Effect) -> None:
    config = override(override(RunConfig(), BASE), effect.others)
    if effect.probe is None:
        with pytest.raises((ConfigError, DataError, CheckpointError), match=effect.message):
            open_run(override(config, [f"{path_of(setting)}={effect.value}"]), HERE / "none", is_resumed=False)
        return
    changed = _seen(override(config, [f"{path_of(setting)}={effect.value}"]), effect.probe)
    assert changed != base(tuple(effect.others), effect.probe)


@pytest.mark.parametrize("probe", [documents, batches, initial, trained, drawn, compiled, workers])
def test_probes_are_steady(probe: Callable[[RunConfig], object]) -> None:
    """Without this a probe that sees something random would call every setting alive."""
    assert base((), probe) == _seen(override(RunConfig(), BASE), probe)
