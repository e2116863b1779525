"""``show``: what a picture's file says, the command that draws it again, and what is known of a model."""

import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from test_cli import call
from tiny import randomise

from transfusion.cli.show import quoted, visible
from transfusion.config import override
from transfusion.files import append_row
from transfusion.pretrained import Transfusion
from transfusion.recipes import RECIPES
from transfusion.train.opening import begin

SMALL = ("model.trunk.dim=32", "model.trunk.depth=1", "denoising.num_steps=2", "tokenizer.kind=bytes", "train.steps=9")


def make_run(folder: Path, *settings: str) -> Path:
    """Save the first checkpoint of a run that has taken two steps, as its state says."""
    state = begin(override(RECIPES["tiny"](), [*SMALL, "train.precision=fp32", *settings]), torch.device("cpu"))
    state.step, state.train_seconds, state.data = 2, 7.5, "shapes:{}:0"
    assert state.ema is not None
    # A new model draws one grey whatever the noise; and the average is not the last.
    randomise(state.model, 2 * state.config.train.seed)
    randomise(state.ema.model, 2 * state.config.train.seed + 1)
    state.save(folder)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a run of the built-in world."""
    return make_run(tmp_path_factory.mktemp("runs") / "toy")


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """Write a picture."""
    Image.new("RGB", (40, 32), "white").save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


def drawn_again(file: Path) -> Path:
    """Run the command that ``show`` prints, as a shell would split it, and return what it wrote."""
    text = call("show", file).stdout
    again = text[text.index("The same picture again:\n") :].partition("\n")[2].strip("\n")
    assert again == json.loads(call("show", file, "--json").stdout)["command"]
    program, *arguments = shlex.split(again)
    assert program == "transfusion"
    call(*arguments)
    return file.with_name(f"{file.stem}-again{file.suffix}")


def equal(one: Path, other: Path) -> bool:
    """Return whether two files show the same pixels."""
    return np.array_equal(np.asarray(Image.open(one)), np.asarray(Image.open(other)))


@pytest.mark.parametrize(
    "prompts",
    [
        ("a star",),
        ("--seed", "-o", "a 'red' \"circle\"\n$(rm x) `ls` \\ !"),
        ("ünder ✓ 星", "  two  blanks ", "*?[a]~"),
    ],
)
def test_the_printed_command_draws_the_same(run: Path, tmp_path: Path, prompts: tuple[str, ...]) -> None:
    file = tmp_path / "a file's.png"
    options = ("--seed", "5", "--steps", "3", "--sampler", "heun", "--guidance", "1.7")
    call("generate", run, "-o", file, *options, "--", *prompts)
    assert equal(drawn_again(file), file) and np.asarray(Image.open(file)).std() > 5
    told = json.loads(call("show", file, "--json").stdout)
    assert told["prompts"] == list(prompts) and told["seed"] == 5 and told["warnings"] == []
    assert told["denoising"]["sampler"] == "heun" and told["denoising"]["guidance"]["scale"] == 1.7


@pytest.mark.parametrize("suffix", ["jpg", "webp", "tif", "gif"])
def test_other_formats_say_it_too(run: Path, tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"a.{suffix}"
    call("generate", run, "a star", "-o", file)
    assert equal(drawn_again(file), file)


def test_each_of_several_files_says_what_draws_it_alone(run: Path, tmp_path: Path) -> None:
    options = ("--num", "2", "--seed", "5", "--negative-prompt", "a 'red' circle", "--precision", "fp32")
    call("generate", run, "a star", "a longer prompt about a cross", "-o", tmp_path / "x-{}.png", *options)
    files = [tmp_path / f"x-{number}.png" for number in range(1, 5)]
    told = [json.loads(call("show", file, "--json").stdout) for file in files]
    assert [row["seed"] for row in told] == [5, 6, 7, 8] and {row["negative"] for row in told} == {"a 'red' circle"}
    assert [row["prompts"] for row in told] == [["a star"]] * 2 + [["a longer prompt about a cross"]] * 2
    assert {row["beside"] for row in told} == {3} and all("rounded" in row["warnings"][0] for row in told)
    pairs = [[np.asarray(Image.open(each), dtype=int) for each in (file, drawn_again(file))] for file in files]
    assert all(np.abs(one - other).max() <= 1 and (one != other).mean() < 0.01 for one, other in pairs)
    assert "away from  a 'red' circle" in call("show", files[0]).stdout


def test_in_bf16_company_is_told_or_kept_apart(run: Path, tmp_path: Path) -> None:
    prompts = ("a star", "a longer prompt about a cross", "-o", tmp_path / "x-{}.png", "--precision", "bf16")
    call("generate", run, *prompts)
    assert "drawn together with 1 other in bf16" in call("show", tmp_path / "x-1.png").stdout
    call("generate", run, *prompts, "--apart")
    assert json.loads(call("show", tmp_path / "x-2.png", "--json").stdout)["warnings"] == []
    assert all(equal(drawn_again(file), file) for file in (tmp_path / "x-1.png", tmp_path / "x-2.png"))


def test_the_chunks_of_a_png(run: Path, tmp_path: Path) -> None:
    call("generate", run, "a stär ✓", "-o", tmp_path / "a.png", "--seed", "7")
    chunks = Image.open(tmp_path / "a.png").info
    assert chunks["prompt"] == "a stär ✓" and chunks["seed"] == "7" and chunks["sampler"] == "euler"
    assert chunks["steps"] == "2" and chunks["guidance"] == "3"
    manifest = json.loads((run / "checkpoints" / "step_00000002" / "manifest.json").read_text())
    assert chunks["model sha256"] == manifest["ema.safetensors"]["sha256"]


def test_an_edit_names_its_picture(run: Path, picture: Path, tmp_path: Path) -> None:
    file = tmp_path / "e.png"
    call("edit", run, picture, "remove it", "-o", file, "--seed", "4", "--steps", "3", "--guidance", "2")
    assert equal(drawn_again(file), file) and "--steps 3 --sampler euler --guidance 2.0" in call("show", file).stdout
    told = json.loads(call("show", file, "--json").stdout)
    assert told["prompts"] == ["remove it"] and told["picture"]["path"] == str(picture)
    Image.new("RGB", (8, 8), "red").save(picture)
    assert "is not the one that was edited" in call("show", file).stdout
    picture.unlink()
    assert "is no longer at" in call("show", file).stdout


def test_a_picture_edited_in_place_names_what_it_was(run: Path, picture: Path) -> None:
    call("edit", run, picture, "remove it", "-o", picture)
    assert "is not the one that was edited" in call("show", picture).stdout


def test_what_a_chat_draws_says_where(run: Path, tmp_path: Path) -> None:
    model = Transfusion.from_pretrained(run)
    begin_image = model.model.vocabulary.begin_token(1)
    with torch.no_grad():
        model.model.head.weight.normal_(generator=torch.Generator().manual_seed(0))
        # Nothing but the beginning of a picture is likely after the line.
        model.model.head.weight[begin_image] = 50 * model.model.head.weight.abs().sum()
    folder = model.save_pretrained(tmp_path / "drawer")
    for seed in range(8):
        call("chat", folder, "--folder", tmp_path / "chat", "--seed", str(seed), text="a star\n")
        if drawn := sorted((tmp_path / "chat").glob("*.png")):
            told = json.loads(call("show", drawn[0], "--json").stdout)
            assert told["task"] == "chat" and told["prompts"] == ["a star"] and told["command"] is None
            assert told["seed"] == seed + 1
            return
    pytest.fail("no picture was drawn")


def test_a_model_that_changed_is_told(run: Path, tmp_path: Path) -> None:
    other, file = tmp_path / "r", tmp_path / "a.png"
    shutil.copytree(run, other)
    call("generate", other, "a star", "-o", file)
    (other / "checkpoints").rename(other / "gone")
    assert "is no longer at" in call("show", file).stdout
    moved = make_run(tmp_path / "s", "train.seed=1", "denoising.shift=2")
    moved.joinpath("checkpoints").rename(other / "checkpoints")
    told = call("show", file).stdout
    assert "has other weights now" in told and "denoising.shift was 6.0; the model's settings say 2.0" in told


def test_a_sheet_drawn_apart_is_drawn_so_again(run: Path, tmp_path: Path) -> None:
    call("generate", run, "a star", "a circle", "-o", tmp_path / "a.png", "--apart")
    assert "--apart" in json.loads(call("show", tmp_path / "a.png", "--json").stdout)["command"].split()


def test_a_hostile_folder_commands_no_terminal(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "r")
    append_row(tmp_path / "r" / "metrics.jsonl", {"step": 1, "loss/\x1b[2Jtext": 1.0, "loss/image": float("nan")})
    assert "\x1b" not in call("show", tmp_path / "r").stdout
    told = call("show", tmp_path / "r", "--json").stdout
    assert "NaN" not in told and json.loads(told)["losses"]["loss/image"]["value"] is None


def test_what_is_not_ours_is_said(run: Path, picture: Path, tmp_path: Path) -> None:
    plain = call("show", picture, code=1).stderr
    assert "does not say where it comes from" in plain and "damaged" not in plain
    assert "no file or folder" in call("show", tmp_path / "no.png", code=2).stderr
    weights = run / "checkpoints" / "step_00000002" / "model.safetensors"
    assert "show its folder" in call("show", weights, code=1).stderr
    assert "no checkpoint at" in call("show", tmp_path, code=1).stderr
    damaged = PngInfo()
    damaged.add_text("transfusion", '{"task": "generate"}')
    Image.open(picture).save(tmp_path / "d.png", pnginfo=damaged)
    assert "is damaged: it lacks 'prompts'" in call("show", tmp_path / "d.png", code=1).stderr


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.text(
            st.characters(exclude_categories=["Cs"], exclude_characters="\0") | st.sampled_from("\udc80\udcff'\\\x1b\r")
        ),
        min_size=1,
    )
)
def test_quotes_hold_for_a_shell(parts: list[str]) -> None:
    told = " ".join(map(quoted, parts))
    assert not any(
        (ord(c) < 0x20 and c not in "\n\t") or 0x7F <= ord(c) < 0xA0 or 0xD800 <= ord(c) < 0xE000 for c in told
    )
    done = subprocess.run(["bash", "-c", f"printf '%s\\0' {told}"], capture_output=True, check=True)
    assert done.stdout == b"".join(os.fsencode(part) + b"\0" for part in parts)


def test_a_picture_from_elsewhere_cannot_command_a_terminal() -> None:
    assert visible("a\x1b[2J\r\n\udc80ü") == "a\\x1b[2J\\r\\n\\udc80ü"
    assert visible("gnp.\u202e\u2066\u200b\ufeff\u2028\xad") == r"gnp.\u202e\u2066\u200b\ufeff\u2028\xad"
    assert visible(joined := "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \U0001f468\u200d\U0001f469") == joined
    assert quoted("a\u202eb") == "$'a\\xe2\\x80\\xaeb'"
    assert quoted("a\x1b[2J") == "$'a\\x1b[2J'"


def test_a_model_is_described(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "r"
    shutil.copytree(run, folder)
    for row in ({"step": 1, "loss/text": 2.5}, {"step": 2, "loss/text": 1.5, "held_out/text": 1.25}):
        append_row(folder / "metrics.jsonl", row)
    append_row(folder / "metrics.jsonl", {"step": 4, "loss/text": 9.0})
    (folder / "scores.json").write_text(json.dumps({"geneval": {"overall": 0.5}, "caption": 0.25}, indent=2))
    (folder / "best.json").write_text('{"step": 2, "total": 1.25, "losses": {"text": 1.25}}')
    card = json.loads(call("show", folder, "--json").stdout)
    assert card["tasks"] == ["draw", "caption", "ask", "edit"] and card["untold"] == ["story", "write"]
    model = Transfusion.from_pretrained(folder)
    assert card["parameters"]["all"] == model.model.num_parameters
    assert card["parameters"]["trunk"] == sum(p.numel() for p in model.model.trunk.parameters())
    assert card["vocabulary"]["size"] == model.tokenizer.size == 256
    assert card["pictures"][0]["side"] == 32 and card["pictures"][0]["slots"] == 16
    assert card["training"] | {"steps": 2, "wanted": 9, "seconds": 7.5, "precision": "fp32"} == card["training"]
    assert card["losses"] == {
        "loss/text": {"value": 1.5, "step": 2},
        "held_out/text": {"value": 1.25, "step": 2},
    }
    assert card["scores"]["caption"] == 0.25 and card["best"]["step"] == 2
    assert [row["can_go_on"] for row in card["checkpoints"]] == [True]
    told = call("show", folder).stdout
    for words in ("draw, caption, ask, edit", "32x32 pixels", "2 of 9 steps in 8 s", "geneval overall 0.5", "muon"):
        assert words in told


def test_damage_and_what_lacks_for_going_on_is_told(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "r"
    shutil.copytree(run, folder)
    first = folder / "checkpoints" / "step_00000002"
    shutil.copytree(first, second := folder / "checkpoints" / "step_00000004")
    shutil.copytree(first, third := folder / "checkpoints" / "step_00000006")
    (second / "optimizer.safetensors").unlink()
    data = bytearray((third / "ema.safetensors").read_bytes())
    data[-1] ^= 1
    (third / "ema.safetensors").write_bytes(data)
    card = json.loads(call("show", folder, "--json").stdout)
    assert [row["fault"] is None for row in card["checkpoints"]] == [True, True, False]
    assert [row["can_go_on"] for row in card["checkpoints"]] == [True, False, False]
    assert card["model"] == str(second)
    assert "damaged: " in call("show", folder).stdout
    assert "ema.safetensors differs" in call("show", third, code=1).stderr
    assert "no training can go on" in call("show", second).stdout


def test_a_model_that_was_saved_knows_no_steps(run: Path, tmp_path: Path) -> None:
    saved = Transfusion.from_pretrained(run).save_pretrained(tmp_path / "saved")
    card = json.loads(call("show", saved, "--json").stdout)
    assert card["training"]["steps"] is None and card["run"] is None and card["losses"] == {}
    assert "steps not kept" in call("show", saved).stdout
