"""A tokenizer learnt from the data of a training."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from transfusion.cli.app import app
from transfusion.cli.learn_tokenizer import learn_tokenizer, told
from transfusion.config import ConfigError
from transfusion.tokenizer import load_tokenizer

WORDS = "the cat sat on the mat, and the dog sat on the cat. " * 40


def corpus(folder: Path) -> str:
    """Write a text; return the setting that names it."""
    file = folder / "corpus.txt"
    file.write_text(WORDS)
    return f"data.path={file}"


def test_it_is_learnt_and_knows_every_text(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    learnt = learn_tokenizer("folder", [corpus(tmp_path)], file, 270)
    found = load_tokenizer(file)
    assert found.size == learnt["tokens"] == 270 and learnt["letters"] == len(WORDS)
    assert found.decode(found.encode("a cät é\n")) == "a cät é\n"
    assert len(WORDS) / len(found.encode(WORDS)) == pytest.approx(learnt["bytes_per_token"], rel=0.01) and (
        learnt["bytes_per_token"] > 1.5
    )
    assert f"tokenizer.kind=file tokenizer.path={file}" in told(learnt)


def test_texts_that_say_nothing_are_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transfusion.cli.learn_tokenizer.NUM_MEASURED", 2)

    class Silent:
        def texts(self) -> Iterator[str]:
            yield from ["", "", "", WORDS]

    monkeypatch.setattr("transfusion.cli.learn_tokenizer.open_reader", lambda *_: Silent())
    learnt = learn_tokenizer("folder", [corpus(tmp_path)], tmp_path / "tokenizer.json", 260)
    assert learnt["texts"] == 4 and learnt["bytes_per_token"] > 1


def test_what_is_there_is_not_written_over(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_text("{}")
    with pytest.raises(ConfigError, match="is there; name another file"):
        learn_tokenizer("folder", [corpus(tmp_path)], file, 270)
    assert file.read_text() == "{}"
    with pytest.raises(ConfigError, match="there is no folder"):
        learn_tokenizer("folder", [corpus(tmp_path)], tmp_path / "no" / "t.json", 270)


def test_more_tokens_than_the_text_has_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    with pytest.raises(ConfigError, match=r"in which \d+ tokens are found and no more; take --size"):
        learn_tokenizer("folder", [corpus(tmp_path)], file, 5000)
    assert not file.exists()


def test_the_verb_prints_what_was_learnt(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    arguments = ["prepare", "tokenizer", "folder", corpus(tmp_path), "--to", str(file), "--size", "260", "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0 and '"tokens": 260' in result.output
