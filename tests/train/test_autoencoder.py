"""The training of autoencoders: the GAN's start, revived codes, resuming to the bit, what a checkpoint holds."""

import json
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from tiny import equal, mobile_tensors
from torch import Tensor

from transfusion import samples
from transfusion.autoencoder.architecture import Draw, VQNetwork
from transfusion.autoencoder.losses import hinge_loss, judged_loss, l1_loss, total_loss
from transfusion.autoencoder.measures import psnr
from transfusion.autoencoder_run import evaluation_distance, measure, open_autoencoder, train_autoencoder
from transfusion.cli.autoencoder import find_autoencoder
from transfusion.config import ConfigError
from transfusion.data.errors import DataError
from transfusion.data.settings import FolderConfig
from transfusion.files import append_row, read_rows
from transfusion.train.autoencoder.judges import Judges, load_judges, settled_backbones
from transfusion.train.autoencoder.loop import AutoencoderReport, differentiate, train
from transfusion.train.autoencoder.pictures import (
    Batches,
    ScenePictures,
    as_pictures,
    as_values,
    augmented,
    open_pictures,
)
from transfusion.train.autoencoder.settings import AutoencoderRun, overridden
from transfusion.train.autoencoder.state import AutoencoderState, begin, resume
from transfusion.train.changes import OF_AUTOENCODERS, Said
from transfusion.train.checkpoint import checkpoints, step_directory
from transfusion.train.endings import NotFiniteError
from transfusion.train.facts import read_facts
from transfusion.train.manifest import CheckpointError, read_manifest, verify
from transfusion.train.metrics import read_metrics
from transfusion.train.optimizer import optimizer_tensors
from transfusion.train.tensors import load_tensors, save_tensors

CPU = torch.device("cpu")
GAN_START = 3
SIZE = ("network.widths=[8,8]", "network.blocks_per_level=1", "network.norm_groups=4", "data.resolution=16")
SMALL = (
    *("discriminator.width=8", "discriminator.depth=1", "augment.crop=12", "data.num_documents=7"),
    *(f"losses.gan_start={GAN_START}", "train.steps=6", "train.batch_size=3", "train.precision=fp32"),
    *("train.log_every=1", "train.preview_every=0", "train.evaluate_every=0", "train.optimizer.warmup_steps=2"),
    *("train.optimizer.lr=0.003", "train.checkpoint_every=100", "train.ema_decay=0.9", "train.num_checkpoints=9"),
)
CODES = (
    *("network.kind=vq", "network.num_codes=40", "network.code_dim=4", "network.channels=4"),
    "network.revive_after=2",
)


def settings(*others: str, kind: str = "kl") -> AutoencoderRun:
    """Make settings of a tiny run: ``kl``, ``vq``, or ``average``, which is vq with averaged codes."""
    kinds = {"kl": (), "vq": CODES, "average": (*CODES, "network.codebook=average")}
    return overridden(AutoencoderRun(), [*kinds[kind], *SIZE, *SMALL, *others])


def start(config: AutoencoderRun) -> AutoencoderState:
    state = begin(config, CPU)
    state.check_data(open_pictures(config.data, config.train.seed).training.digest())
    return state


def finish(state: AutoencoderState, run: Path, *, until: int | None = None) -> list[AutoencoderReport]:
    """Train to the end, or stop after a step as by a signal."""
    stop = threading.Event()
    pictures = open_pictures(state.config.data, state.config.train.seed).training
    reports: list[AutoencoderReport] = []
    for report in train(state, pictures, load_judges(state.config.backbones, CPU), run, stop):
        reports.append(report)
        if report.step == until:
            stop.set()
    return reports


def tensors(state: AutoencoderState) -> dict[str, Tensor]:
    """Collect all that a step changes."""
    assert state.ema is not None and state.discriminator is not None
    average = {f"ema.{name}": value for name, value in state.best_network.network.state_dict().items()}
    judge = {f"judge.{name}": value for name, value in state.discriminator.state_dict().items()}
    return {**state.network.state_dict(), **average, **judge, **optimizer_tensors(state.optimizers)}


@pytest.mark.parametrize("kind", ["kl", "vq", "average"])
def test_a_resumed_run_has_the_bits_of_one_without_a_break(kind: str, tmp_path: Path) -> None:
    """Stopped at each step around the discriminator's first."""
    config = settings(kind=kind)
    whole = start(config)
    reports = finish(whole, tmp_path / "whole")
    assert len(reports) == 6
    torch.rand(3)  # who else draws moves nothing
    stopped = start(config)
    for step in (GAN_START - 1, GAN_START, GAN_START + 1, 6):
        finish(stopped, tmp_path / "broken", until=step)
        resumed = resume(config, tmp_path / "broken", CPU)
        assert resumed is not None and resumed.step == step and equal(tensors(stopped), tensors(resumed))
        stopped = resumed
    assert equal(tensors(whole), tensors(stopped))
    rows = [read_metrics(tmp_path / name) for name in ("whole", "broken")]
    for one, other in zip(*rows, strict=True):
        one.pop("pictures_per_second"), other.pop("pictures_per_second")
        assert one == other
    assert whole.data == stopped.data


def test_the_discriminator_begins_at_its_step_and_not_before(tmp_path: Path) -> None:
    config = settings()
    state = start(config)
    assert state.discriminator is not None
    batches = Batches(open_pictures(config.data, 0).training, config)
    initial = {name: value.clone() for name, value in state.discriminator.state_dict().items()}
    for step in range(1, GAN_START + 2):
        found = differentiate(state, Judges(), batches[step - 1])
        is_judged = step >= GAN_START
        assert ("gan" in found.losses) == ("discriminator" in found.losses) == is_judged
        gradients = [parameter.grad for parameter in state.discriminator.parameters()]
        assert all((gradient is not None) == is_judged for gradient in gradients)
        state.update(1.0, found.passed)
        assert equal(initial, state.discriminator.state_dict()) != is_judged
    assert state.optimizers[1].state_dict()["state"] != {}


def test_the_networks_gradient_has_the_judgement_from_its_step_on() -> None:
    """The step before has the gradient of a run without a discriminator; the first with it has not."""
    with_it, without = start(settings()), start(ungan())
    batches = Batches(open_pictures(with_it.config.data, 0).training, with_it.config)
    for step in range(1, GAN_START + 1):
        found = [differentiate(state, Judges(), batches[step - 1]) for state in (with_it, without)]
        pairs = zip(with_it.network.parameters(), without.network.parameters(), strict=True)
        same = [torch.equal(a.grad, b.grad) for a, b in pairs if a.grad is not None and b.grad is not None]
        assert all(same) == (step < GAN_START), step
        for state, each in zip((with_it, without), found, strict=True):
            state.update(1.0, each.passed)


def ungan() -> AutoencoderRun:
    """Make the settings without a discriminator."""
    config = settings()
    return config.model_copy(update={"losses": config.losses.model_copy(update={"gan": 0.0})})


def test_each_loss_of_the_gan_reaches_its_own_network_and_nothing_else() -> None:
    state = start(settings("losses.gan_start=1", "train.optimizer.clip=1e9"))
    assert state.discriminator is not None
    batch = Batches(open_pictures(state.config.data, 0).training, state.config)[0]
    made = differentiate(state, Judges(), batch).passed.pictures.detach()
    judged = [parameter.grad for parameter in state.discriminator.parameters()]
    state.discriminator.requires_grad_(True)
    loss = hinge_loss(state.discriminator(batch), state.discriminator(made))
    expected = torch.autograd.grad(loss, list(state.discriminator.parameters()))
    assert all(a is not None and torch.equal(a, b) for a, b in zip(judged, expected, strict=True))
    state.discriminator.requires_grad_(False)
    passed = state.network(batch, Draw(0, 0))
    losses = {"l1": l1_loss(passed.pictures, batch), "gan": judged_loss(state.discriminator(passed.pictures))}
    total = total_loss({**losses, **passed.losses}, state.config.losses)
    parameters = list(state.network.parameters())
    found = [parameter.grad for parameter in parameters]
    for a, b in zip(found, torch.autograd.grad(total, parameters), strict=True):
        assert a is not None and torch.allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("balance", ["fixed", "adaptive"])
def test_the_balance_of_the_judgement_is_a_choice(balance: str) -> None:
    state = start(settings("losses.gan_start=1", f"losses.gan_balance={balance}"))
    batch = Batches(open_pictures(state.config.data, 0).training, state.config)[0]
    found = differentiate(state, Judges(), batch)
    assert found.norms["gradient_norm"] > 0 and found.losses["gan"] != 0


@pytest.mark.parametrize("kind", ["vq", "average"])
def test_dead_codes_are_revived_everywhere(kind: str) -> None:
    state = start(settings("data.num_documents=1", "augment.flip=false", "augment.crop=16", kind=kind))
    network, average = state.network, state.best_network
    assert isinstance(network, VQNetwork) and isinstance(average, VQNetwork)
    batches = Batches(open_pictures(state.config.data, 0).training, state.config)
    found = differentiate(state, Judges(), batches[0])
    assert found.passed.codes is not None and found.passed.vectors is not None
    used = set(found.passed.codes.tolist())
    assert state.update(1.0, found.passed) == 40 - len(used)  # in the first step all that are unused
    unused = sorted(set(range(40)) - used)
    rows = {tuple(row) for row in found.passed.vectors.tolist()}
    assert {tuple(row) for row in network.codebook[unused].tolist()} <= rows
    assert torch.equal(network.codebook[unused], average.codebook[unused])
    dead = [0, 3]
    for step in (1, 2):
        with torch.no_grad():
            network.codebook[dead] = 1e3  # nothing is near
            network.use.unused[dead] = 10
            for moments in state.optimizers[0].state.get(network.codebook, {}).values():
                if moments.ndim:
                    moments[dead] = 1.0
        found = differentiate(state, Judges(), batches[step])
        state.update(1.0, found.passed)
        entries = state.optimizers[0].state.get(network.codebook, {})
        assert entries or kind == "average"
        for name in ("exp_avg", "exp_avg_sq"):
            assert name not in entries or not entries[name][dead].any()
        assert torch.equal(network.codebook[dead], average.codebook[dead])
        assert network.codebook[dead].abs().max() < 1e2 and not network.use.unused[dead].any()


@pytest.mark.parametrize("kind", ["kl", "vq"])
def test_a_checkpoint_is_what_diffusers_loads(kind: str, tmp_path: Path) -> None:
    import diffusers

    state = start(settings(kind=kind))
    finish(state, tmp_path / "run", until=2)
    folder = step_directory(tmp_path / "run", 2)
    verify(folder)
    told = json.loads((folder / "autoencoder.json").read_text())
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "config.json").write_text(json.dumps({"_class_name": told["class"], **told["settings"]}))
    save_tensors(load_tensors(folder / "autoencoder.safetensors"), theirs / "diffusion_pytorch_model.safetensors")
    loaded = {"kl": diffusers.AutoencoderKL, "vq": diffusers.VQModel}[kind].from_pretrained(theirs)
    pictures = as_values([ScenePictures(state.config.data, 0).picture(3)])  # type: ignore[arg-type]
    with torch.no_grad():
        assert torch.equal(loaded(pictures).sample, state.best_network.eval()(pictures).pictures)
        assert not torch.equal(loaded(pictures).sample, state.network.eval()(pictures).pictures)


def test_without_an_average_others_load_the_weights(tmp_path: Path) -> None:
    config = settings("train.ema_decay=null")
    state = start(config)
    finish(state, tmp_path, until=1)
    resumed = resume(config, tmp_path, CPU)
    assert resumed is not None and resumed.ema is None
    folder = step_directory(tmp_path, 1)
    assert equal(load_tensors(folder / "autoencoder.safetensors"), state.network.network.state_dict())


def test_batches_are_keyed_and_visit_every_picture() -> None:
    config = settings("train.batch_size=7", "augment.crop=null", "augment.flip=false")
    pictures = open_pictures(config.data, 0).training
    batches = Batches(pictures, config)
    seen = [sorted(picture.tobytes() for picture in as_pictures(batches[step])) for step in (0, 1)]
    assert seen[0] == seen[1] == sorted(pictures.picture(index).tobytes() for index in range(7))
    cropped = settings("train.batch_size=7")
    one, same = Batches(pictures, cropped), Batches(pictures, cropped)
    assert torch.equal(one[5], same[5]) and one[5].shape == (7, 3, 12, 12)
    assert not torch.equal(one[5], one[6])
    whole = {index: as_values([pictures.picture(index)])[0] for index in range(7)}
    for part in one[5]:
        assert any(_is_part(part, value) or _is_part(part.flip(-1), value) for value in whole.values())


def test_each_visit_sees_another_part_of_a_picture() -> None:
    config = settings("train.batch_size=7")
    picture = as_pictures(torch.arange(3 * 16 * 16).view(1, 3, 16, 16) / 384 - 1)[0]
    seen = [augmented(picture, config, (2, visit)).tobytes() for visit in range(8)]
    assert seen == [augmented(picture, config, (2, visit)).tobytes() for visit in range(8)] and len(set(seen)) > 5


def _is_part(part: Tensor, whole: Tensor) -> bool:
    side, room = part.shape[-1], whole.shape[-1] - part.shape[-1] + 1
    places = ((row, column) for row in range(room) for column in range(room))
    return any(torch.equal(part, whole[:, row : row + side, column : column + side]) for row, column in places)


def _fill(folder: Path, count: int, *, layout: str) -> FolderConfig:
    for index in range(count):
        name = f"{'ab'[index % 2]}/{index}.png" if layout == "classes" else f"{index}.png"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 24), (index * 3, 50, 200)).save(folder / name)
    if layout == "captions":
        rows = [{"file": f"{index}.png", "text": text} for index in range(count) for text in ("one", "two")]
        (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return FolderConfig(path=folder, resolution=16)


@pytest.mark.parametrize("layout", ["alone", "classes", "captions"])
def test_pictures_of_any_folder_each_once(layout: str, tmp_path: Path) -> None:
    config = _fill(tmp_path, 60, layout=layout)
    opened = open_pictures(config, 0)
    assert opened.held_out is not None and opened.training.size is not None and opened.held_out.size is not None
    assert opened.training.size + opened.held_out.size == 60 and opened.held_out.size >= 1
    again = open_pictures(opened.config, 0)
    assert again.training.digest() == opened.training.digest() and again.config == opened.config
    reds = {int(opened.training.picture(index)[0, 0, 0]) for index in range(opened.training.size)}
    assert len(reds) == opened.training.size


def test_marks_of_splits_are_never_passed_over(tmp_path: Path) -> None:
    config = _fill(tmp_path, 6, layout="captions")
    (tmp_path / "1.txt").write_text("a caption")
    with pytest.raises(DataError, match="data.layout"):
        open_pictures(config, 0)
    (tmp_path / "1.txt").unlink()
    rows = [{"file": f"{index}.png", "text": "x", "split": "test" if index < 2 else "train"} for index in range(6)]
    (tmp_path / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    opened = open_pictures(config, 0)
    assert opened.training.size == 4 and opened.held_out is not None and opened.held_out.size == 2


def test_bare_pictures_in_folders_of_splits_are_these(tmp_path: Path) -> None:
    for split in ("train", "val"):
        _fill(tmp_path / split, 3, layout="captions")
        (tmp_path / split / "captions.jsonl").unlink(missing_ok=True)
    opened = open_pictures(FolderConfig(path=tmp_path, resolution=16), 0)
    assert opened.training.size == 3 and opened.held_out is not None and opened.held_out.size == 3


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text("words")
    with pytest.raises(DataError, match="holds text, and no pictures"):
        open_pictures(FolderConfig(path=tmp_path), 0)
    with pytest.raises(DataError, match="is not a folder"):
        open_pictures(FolderConfig(path=tmp_path / "no"), 0)


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (["data.resolution=33"], "data.resolution 33 is no multiple of 8 .* take 32"),
        (["data.resolution=64", "augment.crop=60"], "augment.crop 60 is no multiple of 8"),
        (["augment.crop=64"], "augment.crop 64 is larger than data.resolution 32"),
        (["data.resolution=16"], "less than the 24 that the discriminator needs"),
        (["train.optimizer.kind=muon"], "leave it at adamw"),
        (["data.tasks.draw=2"], "reach nothing: only pictures are read"),
        (["losses.codebook=2"], "losses.codebook reaches nothing while network.kind is 'kl'; set network.kind=vq"),
        (["network.kind=vq", "losses.kl=2"], "set network.kind=kl"),
        (["losses.perceptual=2"], "losses.perceptual reaches nothing while backbones.perceptual.path is None"),
        (["losses.gan=0", "losses.gan_start=5"], "losses.gan_start reaches nothing while losses.gan is 0.0"),
        (["network.chanels=3"], "unknown setting 'network.chanels'"),
        (["network.num_codes=3"], "it is one of network.kind=vq"),
        (["network.widths=[10]"], r"network: .*widths \[10\] are no multiples of norm_groups 32"),
        (["train.steps=0"], "train.steps: .*greater than 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(assignments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        overridden(AutoencoderRun(), assignments)


def test_backbones_are_known_by_what_they_hold(tmp_path: Path) -> None:
    file = tmp_path / "mobile.safetensors"
    save_tensors(mobile_tensors(), file)
    paths = [f"backbones.{name}.path={file}" for name in ("perceptual", "identity", "judge")]
    config = settings(*paths, "augment.crop=16")
    state = start(config)
    finish(state, tmp_path / "run", until=1)
    row = read_metrics(tmp_path / "run")[0]
    assert row["loss/perceptual"] > 0 and row["loss/identity"] > 0
    moved = file.rename(tmp_path / "moved.safetensors")
    elsewhere = settings(*(text.replace("mobile", "moved") for text in paths), "augment.crop=16")
    assert resume(elsewhere, tmp_path / "run", CPU) is not None
    save_tensors(mobile_tensors(8), moved)
    with pytest.raises(ConfigError, match=r"backbones\.perceptual\.path=.* is another file than before"):
        resume(elsewhere, tmp_path / "run", CPU)
    with pytest.raises(ConfigError, match=r"backbones\.perceptual\.path=.*mobile\.safetensors cannot be read"):
        settled_backbones(config.backbones)
    save_tensors({"lin0.model.1.weight": torch.ones(1, 3, 1, 1)}, tmp_path / "lin.safetensors")
    wrong = settings(f"backbones.perceptual.path={moved}", f"backbones.linear.path={tmp_path}/lin.safetensors")
    with pytest.raises(ConfigError, match=r"backbones\.linear\.path=.*weights of \[3\] channels"):
        load_judges(wrong.backbones, CPU)


def test_between_the_steps_reconstructions_are_measured_and_shown(tmp_path: Path) -> None:
    file = tmp_path / "mobile.safetensors"
    save_tensors(mobile_tensors(), file)
    config = settings("train.preview_every=3", "train.evaluate_every=3", f"backbones.judge.path={file}", kind="vq")
    opened = open_autoencoder(config, tmp_path / "run", is_resumed=True, device="cpu")
    reports = list(train_autoencoder(opened, tmp_path / "run", threading.Event()))
    expected = {"l1", "psnr", "ssim", "commitment", "codebook", "codes_in_use", "code_perplexity", "kernel_distance"}
    assert [set(report.held_out) for report in reports] == [set(), set(), expected] * 2
    assert [report.samples is not None for report in reports] == [False, False, True] * 2
    held_out = [row for row in read_metrics(tmp_path / "run") if "held_out/psnr" in row]
    assert [row["step"] for row in held_out] == [3, 6] and held_out[-1]["held_out/psnr"] > 3
    sheet = Image.open(tmp_path / "run" / "samples" / "step_00000006.png")
    assert sheet.width > 7 * 16 and sheet.height > 2 * 16
    plain = settings(kind="vq")
    unwatched = start(plain)
    finish(unwatched, tmp_path / "unwatched")
    assert equal(tensors(unwatched), tensors(opened.state))  # looking moves no bit
    assert evaluation_distance(plain) == 0 and evaluation_distance(AutoencoderRun()) == 20_000


def test_sheets_take_no_more_than_their_share_of_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10**6, 40))
    monkeypatch.setattr(samples, "time", SimpleNamespace(perf_counter=lambda: float(next(clock))))  # of 40 s each
    opened = open_autoencoder(settings("train.preview_every=1"), tmp_path, is_resumed=True, device="cpu")
    reports = list(train_autoencoder(opened, tmp_path, threading.Event()))
    assert [report.step.step for report in reports if report.samples] == [1, 2, 6]


def test_measures_are_those_of_the_averaged_network() -> None:
    state = start(settings())
    pictures = open_pictures(state.config.data, 0)
    assert pictures.held_out is not None
    before = measure(state, pictures.held_out, Judges())
    with torch.no_grad():
        next(state.network.parameters()).fill_(1.0)
    assert measure(state, pictures.held_out, Judges()) == before
    values = as_values([pictures.held_out.picture(index) for index in range(7)])
    with torch.no_grad():
        made = state.best_network(values).pictures
    assert before["psnr"] == pytest.approx(float(psnr(made, values).mean()), abs=1e-4)


def test_a_run_within_its_pictures_is_refused(tmp_path: Path) -> None:
    data = _fill(tmp_path, 3, layout="alone")
    config = settings().model_copy(update={"data": data})
    with pytest.raises(ConfigError, match="lies within the data"):
        open_autoencoder(config, tmp_path / "run", is_resumed=True, device="cpu")


def test_other_settings_and_other_pictures_are_not_gone_on_with(tmp_path: Path) -> None:
    state = start(settings())
    finish(state, tmp_path, until=1)
    for other, message in (
        ("network.channels=4", "the weights are of that network"),
        ("losses.l1=2", "--change"),
        ("augment.flip=false", "from its first step on"),
    ):
        with pytest.raises(ConfigError, match=message):
            resume(settings(other), tmp_path, CPU)
    changed = resume(settings("losses.l1=2", "train.steps=9"), tmp_path, CPU, is_change_wanted=True)
    assert changed is not None and changed.config.losses.l1 == 2
    tree = AutoencoderRun().model_dump()
    assert all(name in tree[group] for group, name in (path.split(".") for path in OF_AUTOENCODERS))
    with pytest.raises(ConfigError, match="the pictures changed"):
        changed.check_data("other")
    assert resume(settings("train.log_every=2"), tmp_path, CPU) is not None  # moves no bit
    for folder in checkpoints(tmp_path):
        (folder / "discriminator.safetensors").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="no checkpoint of .* is whole"):
        resume(settings(), tmp_path, CPU)


def test_what_is_said_wins_and_what_was_tried_elsewhere_is_not_taken(tmp_path: Path) -> None:
    source, new = tmp_path / "source", tmp_path / "new"
    finish(start(settings("train.steps=1")), source)
    row = {"step": 1, "setting": "losses.l1", "old": 1.0, "new": 2.0}
    append_row(source / "changes.jsonl", row)
    given, l1 = settings("train.steps=1"), "losses.l1"
    for said, is_change_wanted, expected in (
        (None, False, 2.0),
        ((), True, 2.0),
        ((l1,), True, 1.0),
        (None, True, 1.0),
    ):
        state = resume(Said(given, said), source, CPU, is_change_wanted=is_change_wanted)
        assert state is not None and state.config.losses.l1 == expected
    append_row(new / "changes.jsonl", {**row, "new": 7.0})
    assert find_autoencoder(str(source), []).losses.l1 == 2.0
    checkpoint = resume(given, new, CPU, goes_on_from=step_directory(source, 1))  # which took nothing
    assert checkpoint is not None and checkpoint.config.losses.l1 == 1.0
    there = resume(Said(find_autoencoder(str(source), ["train.steps=2"]), ("train.steps",)), new, CPU,
                   goes_on_from=source, is_change_wanted=True)  # fmt: skip
    assert there is not None and there.config.losses.l1 == 2.0
    finish(there, new)
    rows = read_rows(new / "changes.jsonl")
    assert rows[1]["from"]["path"] == str(source) and {each["setting"] for each in rows[2:]} == {l1, "train.steps"}
    again = resume(there.config, new, CPU, goes_on_from=source)
    assert again is not None and again.step == 2
    finish(start(given), tmp_path / "other")
    with pytest.raises(ConfigError, match="other has checkpoints already, and began from nothing, not from"):
        resume(given, tmp_path / "other", CPU, goes_on_from=source)
    with pytest.raises(ConfigError, match=f"new has checkpoints already, and began from {source}, not from"):
        resume(given, new, CPU, goes_on_from=new)


def test_a_run_begun_anew_leaves_nothing_of_the_old(tmp_path: Path) -> None:
    given = settings("train.steps=2", "train.preview_every=1")
    opened = open_autoencoder(given, tmp_path, is_resumed=True, device="cpu")
    list(train_autoencoder(opened, tmp_path, threading.Event()))
    assert (tmp_path / "samples" / "step_00000002.png").exists()
    opened = open_autoencoder(given, tmp_path, is_resumed=False, device="cpu")
    reports = train_autoencoder(opened, tmp_path, threading.Event())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("transfusion.train.autoencoder.loop.keep", lambda *_: None)  # as by a kill: nothing is saved
        next(reports)
        reports.close()
    assert checkpoints(tmp_path) == [] and (tmp_path / "checkpoints" / "kept_step_00000002").is_dir()
    assert [file.name for file in (tmp_path / "samples").iterdir()] == ["step_00000001.png"]
    assert resume(given, tmp_path, CPU) is None


def test_an_error_costs_no_finished_step_and_numbers_that_are_not_finite_save_nothing(tmp_path: Path) -> None:
    class Broken(ScenePictures):
        def picture(self, index: int) -> Any:
            raise OSError("the disk is gone")

    state = start(settings())
    finish(state, tmp_path, until=2)
    state = resume(settings(), tmp_path, CPU) or state
    with pytest.raises(OSError, match="disk") as told:
        list(train(state, Broken(state.config.data, 0), Judges(), tmp_path, threading.Event()))  # type: ignore[arg-type]
    assert any("the state after step 2 is saved" in note for note in told.value.__notes__)
    with torch.no_grad():
        next(state.network.parameters()).fill_(float("nan"))
    with pytest.raises(NotFiniteError, match=r"not finite at step 2 .*train\.optimizer\.lr=0\.0003"):
        finish(state, tmp_path)
    assert [folder.name for folder in checkpoints(tmp_path)] == ["step_00000002"]


def test_bf16_trains(tmp_path: Path) -> None:
    state = start(settings("train.precision=bf16", kind="vq"))
    finish(state, tmp_path, until=GAN_START)
    assert all(bool(value.isfinite().all()) for value in tensors(state).values())


def test_what_is_gone_on_from_elsewhere_is_verified_and_told(tmp_path: Path) -> None:
    """Its moments too, which who only uses a checkpoint does not read; another's attempts are not this run's."""
    config, here = settings(), tmp_path / "here"
    finish(start(config), tmp_path / "other", until=2)
    (there,) = checkpoints(tmp_path / "other")
    for source in (there, tmp_path / "other"):
        state = resume(config, here, CPU, goes_on_from=source)
        assert state is not None and state.step == 2 and state.saved_step is None and state.origin is not None
        assert state.origin == (str(source), str(there), 2, "trained", read_manifest(there)["model.safetensors"].sha256)
    finish(state, here, until=3)
    (mine,) = checkpoints(here)
    assert read_facts(mine).origin == state.origin
    resumed = resume(config, here, CPU, goes_on_from=tmp_path / "other")
    assert resumed is not None and resumed.step == 3 and resumed.origin == state.origin
    assert json.loads((here / "changes.jsonl").read_text().splitlines()[0])["from"]["path"] == str(tmp_path / "other")
    moments = (there / "optimizer.safetensors").read_bytes()
    (there / "optimizer.safetensors").write_bytes(moments[:-1] + bytes([moments[-1] ^ 1]))
    with pytest.raises(CheckpointError, match="optimizer.safetensors differs from its manifest's SHA-256"):
        resume(config, tmp_path / "new", CPU, goes_on_from=there)
    (there / "optimizer.safetensors").unlink()
    with pytest.raises(CheckpointError, match="lacks optimizer.safetensors, which a training needs to go on"):
        resume(config, tmp_path / "new", CPU, goes_on_from=there)
    assert checkpoints(tmp_path / "new") == []


def test_latents_are_no_pictures_to_train_an_autoencoder_on(tmp_path: Path) -> None:
    for name in ("latents.json", "preparing.jsonl"):
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        (folder / name).write_text("{}")
        Image.new("RGB", (8, 8)).save(folder / "sheet.png")
        for layout in ("auto", "latents"):
            with pytest.raises(DataError, match=f"{folder} holds latents, which an autoencoder has made of pictures"):
                open_pictures(FolderConfig(path=folder, layout=layout, resolution=16), 0)


def test_in_the_place_of_a_broken_picture_comes_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        Image.new("RGB", (16, 16), (60 * number, 0, 0)).save(tmp_path / f"{number}.png")
    monkeypatch.setattr("transfusion.data.readers.MOST_AHEAD", 0)
    pictures = open_pictures(FolderConfig(path=tmp_path, resolution=16, hold_out=0), 0).training
    for number in (1, 2):
        (tmp_path / f"{number}.png").write_bytes(b"broken")
    assert [int(pictures.picture(number)[0, 0, 0]) for number in range(4)] == [0, 180, 180, 180]
    assert set(pictures.quarantine) == {"1.png", "2.png"}


def test_it_does_not_begin_among_files_of_another_tool(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1, "train/loss": 2.0}\n')
    with pytest.raises(ConfigError, match="holds metrics.jsonl and no sign of a run"):
        open_autoencoder(settings(), tmp_path, is_resumed=True, device="cpu")
    assert "train/loss" in file.read_text()
