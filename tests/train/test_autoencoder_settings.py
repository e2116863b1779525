"""Every setting of an autoencoder's training changes what it says, or is refused where it cannot."""

import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import get_args

import pytest
import torch
from PIL import Image
from pydantic import BaseModel
from tiny import mobile_tensors

from transfusion.autoencoder_run import open_autoencoder, train_autoencoder
from transfusion.config import ConfigError
from transfusion.data.errors import DataError
from transfusion.train.autoencoder.settings import OF_RECORDS, AutoencoderRun, overridden
from transfusion.train.tensors import save_tensors

HERE = Path(mkdtemp())
FILE, OTHER = HERE / "mobile.safetensors", HERE / "other.safetensors"
BASE = (
    *("network.widths=[4,8]", "network.blocks_per_level=1", "network.norm_groups=2", "network.use_attention=false"),
    *("data.resolution=16", "data.num_documents=7", "discriminator.width=8", "discriminator.depth=1"),
    *("losses.gan_start=2", "train.steps=3", "train.batch_size=2", "train.precision=fp32", "train.log_every=1"),
    *("train.preview_every=0", "train.evaluate_every=0", "train.optimizer.warmup_steps=1", "network.channels=3"),
    *("train.optimizer.lr=0.003", "train.optimizer.schedule=cosine"),
)
VQ = ("network.kind=vq", "network.num_codes=12", "network.code_dim=2", "network.revive_after=1")
AVERAGE = (*VQ, "network.codebook=average")
JUDGED = ("data.resolution=32", f"backbones.perceptual.path={FILE}", f"backbones.identity.path={FILE}")
FOLDER = (f"data.path={HERE / 'data'}", "data.kind=folder", "data.resolution=16")
CONSTANT = ("train.optimizer.schedule=constant",)

# What is set beside, and to what; with a third entry it is refused with that message.
EFFECTS: dict[str, list[tuple[tuple[str, ...], str] | tuple[tuple[str, ...], str, str]]] = {
    "name": [],  # the folder's, which the command line makes of it
    "network.kind": [((), "vq")],
    "network.widths": [((), "[4,4]")],
    "network.blocks_per_level": [((), "2")],
    "network.norm_groups": [((), "4")],
    "network.use_attention": [((), "true")],
    "network.channels": [((), "4"), (VQ, "4")],
    "network.num_codes": [(VQ, "13")],
    "network.code_dim": [(VQ, "3")],
    "network.codebook": [(VQ, "average")],
    "network.codebook_decay": [(AVERAGE, "0.5"), (VQ, "0.5", "set network.codebook=average")],
    "network.revive_after": [(VQ, "0")],
    "losses.l1": [((), "2")],
    "losses.perceptual": [(JUDGED, "2")],
    "losses.identity": [(JUDGED, "2")],
    "losses.gan": [((), "2"), ((), "0", "discriminator.width reaches nothing")],
    "losses.gan_start": [((), "1")],
    "losses.gan_balance": [((), "adaptive")],
    "losses.kl": [((), "10")],
    "losses.codebook": [(VQ, "3")],
    "losses.commitment": [(VQ, "3")],
    "discriminator.width": [((), "16")],
    "discriminator.depth": [((), "2")],
    "discriminator.lr": [((), "0.01")],
    "backbones.perceptual.path": [(JUDGED, str(OTHER))],
    "backbones.perceptual.digest": [(JUDGED, "00", "another file than before")],
    "backbones.linear.path": [(JUDGED, str(HERE / "linear.safetensors"))],
    "backbones.linear.digest": [((*JUDGED, f"backbones.linear.path={HERE / 'linear.safetensors'}"), "00", "another")],
    "backbones.identity.path": [(JUDGED, str(OTHER))],
    "backbones.identity.digest": [(JUDGED, "00", "another file than before")],
    "backbones.judge.path": [(("data.resolution=32", "train.evaluate_every=1"), str(FILE))],
    "backbones.judge.digest": [((f"backbones.judge.path={FILE}",), "00", "another file than before")],
    "data.kind": [((), "folder", "it is one of data.kind=shapes")],
    "data.resolution": [((), "32")],
    "data.tasks.draw": [((), "9", "reach nothing")],
    "data.tasks.look": [((), "9", "reach nothing")],
    "data.tasks.edit": [((), "9", "reach nothing")],
    "data.tasks.story": [((), "9", "reach nothing")],
    "data.questions_per_picture": [((), "9", "reach nothing")],
    "data.num_documents": [((), "3")],
    "data.path": [(FOLDER, str(HERE / "data" / "a"))],
    "data.layout": [(FOLDER, "captions", "not the layout")],
    **{f"data.{name}": [(FOLDER, "x", "reaches nothing: pictures of folders")] for name in OF_RECORDS},
    "data.split": [((*FOLDER, "data.hold_out=0.5"), "test")],
    "data.hold_out": [(FOLDER, "0.5")],
    "data.crop": [(FOLDER, "0.5", "use augment.crop")],
    "data.flip": [(FOLDER, "true", "use augment.crop")],
    "augment.crop": [((), "12")],
    "augment.flip": [((), "false")],
    "train.steps": [((), "2")],
    "train.batch_size": [((), "3")],
    "train.seed": [((), "1")],
    "train.precision": [((), "bf16")],
    "train.optimizer.kind": [((), "muon", "leave it at adamw")],
    "train.optimizer.lr": [((), "0.01")],
    "train.optimizer.muon_lr": [((), "0.1", "kind is 'adamw'")],
    "train.optimizer.muon_iterations": [((), "1", "kind is 'adamw'")],
    "train.optimizer.betas": [((), "[0.1,0.2]")],
    "train.optimizer.eps": [((), "0.1")],
    "train.optimizer.weight_decay": [((), "0.5")],
    "train.optimizer.clip": [(("train.optimizer.eps=0.1",), "0.01")],
    "train.optimizer.warmup_steps": [((), "3")],
    "train.optimizer.schedule": [((), "constant")],
    "train.optimizer.cooldown": [(CONSTANT, "1")],
    "train.optimizer.final_ratio": [((), "1")],
    "train.ema_decay": [((), "0"), ((), "null")],
    "train.checkpoint_every": [((), "1")],
    "train.num_checkpoints": [(("train.checkpoint_every=1",), "1")],
    "train.log_every": [((), "2")],
    "train.preview_every": [((), "2")],
    "train.evaluate_every": [((), "1")],
}
CASES = [(name, case) for name, cases in EFFECTS.items() for case in cases]


@pytest.fixture(scope="module", autouse=True)
def files() -> None:
    """Write backbones and pictures."""
    save_tensors(mobile_tensors(), FILE)
    save_tensors(mobile_tensors(6), OTHER)
    channels = enumerate((4, 4, 5, 7, 9))
    save_tensors(
        {f"lin{n}.model.1.weight": torch.full((1, c, 1, 1), 0.5) for n, c in channels}, HERE / "linear.safetensors"
    )
    for folder in ("a", "b"):
        (HERE / "data" / folder).mkdir(parents=True)
        for number in range(4):
            colour = (60 * number, 200 if folder == "a" else 0, 90)
            Image.new("RGB", (16, 16), colour).save(HERE / "data" / folder / f"{number}.png")


def leaves(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the path of every setting, of all kinds of every union."""
    for name, field in model.model_fields.items():
        kinds = [kind for kind in (field.annotation, *get_args(field.annotation)) if isinstance(kind, type)]
        children = [kind for kind in kinds if issubclass(kind, BaseModel)]
        for child in children:
            yield from leaves(child, f"{prefix}{name}.")
        if not children:
            yield f"{prefix}{name}"


@cache
def trained(assignments: tuple[str, ...]) -> object:
    """Return sums of all weights after training, the numbers of the last step, and what lies in the run's folder."""
    folder = Path(mkdtemp(dir=HERE)) / "run"
    opened = open_autoencoder(overridden(AutoencoderRun(), assignments), folder, is_resumed=False, device="cpu")
    reports = list(train_autoencoder(opened, folder, threading.Event()))
    state = opened.state
    models = [state.network, state.best_network, *([state.discriminator] if state.discriminator else [])]
    sums = [[float(weight.detach().double().norm()) for weight in model.parameters()] for model in models]
    names = sorted(str(file.relative_to(folder)) for file in folder.rglob("*.*") if "tfevents" not in file.name)
    return sums, names, [report.held_out for report in reports], (folder / "metrics.jsonl").read_text().count("\n")


def test_every_setting_is_in_the_table() -> None:
    assert set(EFFECTS) == set(leaves(AutoencoderRun))


@pytest.mark.parametrize(("name", "case"), CASES, ids=[f"{name}={case[1][-12:]}" for name, case in CASES])
def test_a_setting_changes_what_it_says_or_is_refused(name: str, case: tuple[tuple[str, ...], ...]) -> None:
    others, value, *message = case
    given = tuple({text.partition("=")[0]: text for text in (*BASE, *others)}.values())
    if "data.kind=folder" in given:
        given = tuple(text for text in given if not text.startswith("data.num_documents"))
    changed = (*(text for text in given if not text.startswith(f"{name}=")), f"{name}={value}")
    if message:
        with pytest.raises((ConfigError, DataError), match=str(message[0])):
            trained(changed)
        return
    assert trained(changed) != trained(given)


def test_the_probe_is_steady() -> None:
    assert trained(BASE) == trained.__wrapped__(BASE)
