"""Writing on from the command line: plain text, mixed models, streams, chat."""

import io
import json
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from test_cli import SMALL, call
from tiny import randomise

from transfusion.cli.chat import converse
from transfusion.config import override
from transfusion.pretrained import Transfusion
from transfusion.recipes import RECIPES
from transfusion.segments import Text
from transfusion.train.opening import begin

SETTINGS = [*SMALL, "tokenizer.kind=bytes"]


def saved(folder: Path, recipe: str, *settings: str) -> Path:
    """Save a model with random weights."""
    config = override(RECIPES[recipe](), [*SETTINGS, *settings])
    state = begin(config, torch.device("cpu"))
    randomise(state.model, std=0.5)
    return Transfusion(state.model, state.tokenizer, state.config).save_pretrained(folder)


@pytest.fixture(scope="module")
def verse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a model of plain text."""
    folder = tmp_path_factory.mktemp("text")
    (folder / "t.txt").write_text("to be or not to be\n" * 90)
    return saved(folder / "model", "folder", f"data.path={folder}/t.txt")


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a model of the built-in world."""
    return saved(tmp_path_factory.mktemp("mixed") / "model", "tiny")


def continued(model: Transfusion, prompt: str, tokens: int, seed: int) -> str:
    """Return what Python writes behind a prompt."""
    options = model.options(max_tokens=tokens, max_images=0, temperature=0.8, seed=seed)
    document = model.generate([prompt], options)
    written = [token for part in document.segments[1:] if isinstance(part, Text) for token in part.tokens]
    return model.tokenizer.decode(written)


def test_what_is_written_is_what_python_writes(verse: Path) -> None:
    model = Transfusion.from_pretrained(verse, device="cpu")
    for seed in range(3):
        text = continued(model, "ROMEO:", 40, seed)
        done = call("write", verse, "ROMEO:", "--tokens", "40", "--seed", seed)
        assert done.stdout == text + "\n" * (not text.endswith("\n")) and done.stderr == "cpu, fp32\n"
        told = json.loads(call("write", verse, "-", "--tokens", "40", "--seed", seed, "--json", text="ROMEO:").stdout)
        assert told == {"prompt": "ROMEO:", "text": text, "images": [], "seed": seed}


def test_only_conversations_end_at_a_line_break(verse: Path, mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path, text in ((verse, "\na\nb"), (mixed, "\n")):
        draws = iter(b"\na\nb")
        monkeypatch.setattr("transfusion.generate.row.draw_token", lambda *_, draws=draws: next(draws))
        assert continued(Transfusion.from_pretrained(path, device="cpu"), "ROMEO:", 4, 0) == text


def test_a_letter_of_several_bytes_comes_whole(verse: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Transfusion.from_pretrained(verse, device="cpu")
    options = model.options(max_tokens=4, max_images=0)
    whole = "né€𝄞"
    tokens = iter([*whole.encode()])
    monkeypatch.setattr("transfusion.generate.row.draw_token", lambda *_: next(tokens))
    pieces = list(model.stream_text(["x"], options.model_copy(update={"max_tokens": len(whole.encode())})))
    assert pieces == list(whole)


def test_pictures_on_the_way_are_drawn_and_saved(mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Transfusion.from_pretrained(mixed, device="cpu")
    begins = model.model.vocabulary.begin_token(1)

    def write(*options: str) -> tuple[dict[str, object], str]:
        draws = iter([97, begins, 98, begins, 99, 100, 101, 102, 103])
        monkeypatch.setattr(
            "transfusion.generate.row.draw_token",
            lambda logits, *_: next(token for token in draws if float(logits[token]) > -1e30),
        )
        done = call("write", mixed, "a", "--tokens", "3", "--folder", tmp_path / "w", "--json", *options)
        return json.loads(done.stdout), done.stderr

    told, noise = write("--images", "2")
    assert told["text"] == "abc" and told["images"] == [str(tmp_path / "w" / f"00{i}.png") for i in (1, 2)]
    assert [f"[drew {file}]" in noise for file in (tmp_path / "w").iterdir()] == [True, True]
    assert Image.open(tmp_path / "w" / "001.png").size == (32, 32)
    assert write()[0]["images"] == [str(tmp_path / "w" / "003.png")]
    assert write("--images", "0")[0] == {"prompt": "a", "text": "abc", "images": [], "seed": 0}


def test_no_folder_is_left_where_nothing_is_drawn(mixed: Path, verse: Path, tmp_path: Path) -> None:
    for model in (mixed, verse):
        call("write", model, "a", "--tokens", "1", "--folder", tmp_path / "w")
        assert not (tmp_path / "w").exists()


def test_the_budget_is_a_row_and_beyond_it_is_said(verse: Path) -> None:
    assert "trained on rows of 128" in call("write", verse, "x", "--tokens", "127").stderr
    assert "rows" not in call("write", verse, "x", "--tokens", "126").stderr
    assert "rows" not in call("write", verse, "x").stderr


def test_chat_with_plain_text_ends_a_turn_at_a_line_break_behind_some_text(
    verse: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Transfusion.from_pretrained(verse, device="cpu")
    draws = iter(b"\n\nAy, [/b]\nmore\n")
    monkeypatch.setattr("transfusion.generate.row.draw_token", lambda *_: next(draws))
    monkeypatch.setattr(sys, "stdin", io.StringIO("ROMEO:\nWho?\n"))
    converse(model, tmp_path / "c", seed=0)
    assert capsys.readouterr().out.splitlines()[1:] == ["Ay, [/b]", "more"]
    assert not (tmp_path / "c").exists()


def test_chat_does_not_hang_on_a_document_that_ends(
    verse: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Transfusion.from_pretrained(verse, device="cpu")
    monkeypatch.setattr("transfusion.generate.row.draw_token", lambda *_: model.model.vocabulary.eos)
    monkeypatch.setattr(sys, "stdin", io.StringIO("ROMEO:\n"))
    converse(model, tmp_path / "c", seed=0)
    assert "no answer" in capsys.readouterr().out
