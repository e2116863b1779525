"""Settings: strict, round-tripping, and helpful when wrong. Tokenizers and keys beside them."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import run_config

from transfusion.config import ConfigError, from_json, leaves, override
from transfusion.data.sources import FolderConfig
from transfusion.keyed import generator, normal, stable_fraction, subseed
from transfusion.recipes import RECIPES
from transfusion.tokenizer import ByteTokenizer, load_tokenizer, train_tokenizer


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_round_trip(name: str) -> None:
    config = RECIPES[name]()
    assert from_json(config.to_json(), "here") == config
    assert (RECIPES[name].__doc__ or "").splitlines()[0].count("?") == 1


def test_overrides() -> None:
    config = override(run_config(), ["train.steps=7", "train.optimizer.lr=0.5", "name=x", "train.ema_decay=null"])
    assert (config.train.steps, config.train.optimizer.lr, config.name, config.train.ema_decay) == (7, 0.5, "x", None)
    assert override(config, ["model.modalities.0.name=picture"]).model.modalities[0].name == "picture"
    folder = override(config, ["data.kind=folder", "data.path=somewhere", "data.resolution=48"]).data
    assert isinstance(folder, FolderConfig) and folder.path == Path("somewhere")


def test_kinds_come_first_whatever_the_order(tmp_path: Path) -> None:
    given = ["data.resolution=64", "data.kind=folder", "data.path=x", "tokenizer.path=t.json", "tokenizer.kind=file"]
    for assignments in (given, given[::-1]):
        config = override(RECIPES["tiny"](), assignments)
        assert isinstance(config.data, FolderConfig) and config.data.resolution == 64
        assert config.data.path == Path("x") and config.tokenizer.path == Path("t.json")


@pytest.mark.parametrize(
    ("setting", "text"),
    [("data.path", "2024"), ("data.path", "true"), ("data.path", "1e5"), ("data.split", "2024"), ("name", "7")],
)
def test_names_that_look_like_numbers_are_names(setting: str, text: str) -> None:
    config = override(RECIPES["folder"](), [f"{setting}={text}"])
    found = {"data.path": str(config.data.model_dump()["path"]), "data.split": config.data.model_dump()["split"]}
    assert {**found, "name": config.name}[setting] == text
    assert override(RECIPES["folder"](), ["data.split=null"]).data.model_dump()["split"] is None


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("train.optimizer.betas=[0.9,1.5]", r"train.optimizer.betas.1: Input should be less than 1 \(given 1.5\)"),
        ("diffusion.schedule.mean=NaN", "finite number"),
        ("model.trunk.rope_base=Infinity", "finite number"),
        ("objective.text_weight=-1", "greater than or equal to 0"),
        ('model.text_vocab_size="many"', "valid integer"),
        ("train.step=3", "unknown setting 'train.step'; did you mean 'train.steps'"),
        ("steps=3", "did you mean 'train.steps'"),
        ("train.optimiser.lr=3", "did you mean 'train.optimizer.lr'"),
        ("train.steps=-1", r"train.steps: Input should be greater than 0 \(given -1\)"),
        ("train.precision=fp8", "train.precision"),
        ("train.steps", "expected path=value"),
        ("train.accumulation=65", "accumulation 65 is more than the 6 documents"),
        ("train.optimizer.betas.5=1", "unknown setting 'train.optimizer.betas.5'"),
        ("model.modalities.7.name=x", "unknown setting"),
        ("zzzz=5", "transfusion config RECIPE"),
        ("train.optimizer.lr=Infinity", "finite number"),
        ("data.num_documents=0", r": data.num_documents: Input should be greater than 0"),
        ("data.tasks.look=-1", r": data.tasks.look: Input should be greater"),
        ("model.modalities.0.patches.blocks_per_level=0", r": model.modalities.0.patches.blocks_per_level: Input"),
    ],
)
def test_bad_overrides_say_what_was_meant(assignment: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        override(run_config(), [assignment])


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("data.hold_out=2", r": data.hold_out: Input should be less than 1 \(given 2\)"),
        (
            "data.layout=pair",
            r": data.layout: Input should be 'auto', 'captions', 'metadata', 'pairs', 'classes', 'text',",
        ),
    ],
)
def test_a_setting_of_one_kind_is_named_without_its_kind(assignment: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        override(RECIPES["folder"](), [assignment])


def test_old_settings_of_data_load() -> None:
    old = json.loads(RECIPES["folder"]().to_json())
    del old["data"]["layout"]
    old["data"]["hold_out"] = 0.0
    config = from_json(json.dumps(old), "old").data
    assert isinstance(config, FolderConfig) and (config.layout, config.hold_out) == ("auto", 0.0)


def test_no_task_at_all_is_refused() -> None:
    none = [f"data.tasks.{name}=0" for name in ("draw", "look", "edit", "story")]
    with pytest.raises(ConfigError, match="all tasks have weight 0"):
        override(RECIPES["tiny"](), none)


@pytest.mark.parametrize("text", ["[" * 100_000, "1" * 5000], ids=["deep", "long"])
def test_what_json_chokes_on_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match="is not JSON"):
        from_json(text, "file.json")
    with pytest.raises(ConfigError, match="train.steps"):
        override(run_config(), [f"train.steps={text}"])
    with pytest.raises(ConfigError, match="unknown setting"):
        override(run_config(), ["model.modalities.².name=x"])


def test_bad_json_is_named() -> None:
    with pytest.raises(ConfigError, match="file.json is not JSON"):
        from_json("{", "file.json")
    with pytest.raises(ConfigError, match="Extra inputs are not permitted"):
        from_json('{"nam": "x"}', "file.json")


@given(st.text())
def test_bytes_round_trip(text: str) -> None:
    assert ByteTokenizer().decode(ByteTokenizer().encode(text)) == text


def test_learnt_tokenizer(tmp_path: Path) -> None:
    learnt = train_tokenizer(["a red circle", "a blue circle"] * 20, 300)
    assert learnt.size <= 300 and len(learnt.encode("a red circle")) == 3
    for text in ("a red circle", "ünseen ✓ text\n"):
        assert learnt.decode(learnt.encode(text)) == text
    learnt.save(tmp_path)
    assert load_tokenizer(tmp_path).encode("a blue circle") == learnt.encode("a blue circle")
    assert load_tokenizer(tmp_path / "tokenizer.json").size == learnt.size


def test_tokenizer_files(tmp_path: Path) -> None:
    assert isinstance(load_tokenizer(tmp_path), ByteTokenizer)
    with pytest.raises(FileNotFoundError, match=r"expected a tokenizer.json"):
        load_tokenizer(tmp_path / "no.json")
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(ValueError, match=r"bad.json is not a tokenizer.json"):
        load_tokenizer(tmp_path / "bad.json")


def test_keys_decide_draws() -> None:
    assert generator(0, "a", 1).random() == generator(0, "a", 1).random()
    draws = {generator(*key).random() for key in [(0, "a", 1), (1, "a", 1), (0, "b", 1), (0, "a", 2), (0, "a", "1")]}
    assert len(draws) == 5
    assert generator(0, "a", 1, 23).random() != generator(0, "a", 12, 3).random()
    assert normal((2, 3), 0, "n").shape == (2, 3) and 0 <= subseed(0, "s") < 2**63
    assert stable_fraction("transfusion") == pytest.approx(stable_fraction("transfusion")) and stable_fraction("a") < 1


def test_the_leaves_of_a_tree_stand_in_their_order_under_their_names() -> None:
    tree = {"a": {"b": 1, "c": {"d": [2, {"e": 3}]}}, "f": None, "g": {}}
    assert list(leaves(tree)) == [("a.b", 1), ("a.c.d", [2, {"e": 3}]), ("f", None)]
    assert list(leaves(tree, " "))[1][0] == "a c d"
    deep: object = 1
    for _ in range(3000):  # as a file from outside may be
        deep = {"a": deep}
    assert [value for _, value in leaves(deep)] == [1]
