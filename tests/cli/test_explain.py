"""``config --explain`` and ``recipes``: every setting has a meaning, and lines fit a narrow terminal."""

import json
import shlex

import pytest
from test_cli import call

from transfusion.cli.explain import explained, told
from transfusion.cli.listing import laid_out, listed
from transfusion.config import NEEDS, ConfigError, RunConfig, override
from transfusion.recipes import AUTOENCODERS, RECIPES
from transfusion.train.autoencoder.settings import AutoencoderRun

NARROW = 40
ALL = {**RECIPES, **AUTOENCODERS}
ELSEWHERE = (
    RunConfig(),
    override(RunConfig(), ["data.kind=folder", "model.modalities.0.patches.kind=unet"]),
    override(RunConfig(), ['encode.pixels={"mean": 0.5}']),
)


def leaves(tree: object, path: str = "") -> dict[str, object]:
    """Return the leaves of a JSON tree of settings by their paths; a list of plain values is one."""
    if isinstance(tree, list) and tree and isinstance(tree[0], dict):
        tree = {str(number): part for number, part in enumerate(tree)}
    if not isinstance(tree, dict) or not tree:
        return {path: tree}
    return {
        name: leaf for key, part in tree.items() for name, leaf in leaves(part, f"{path}.{key}".lstrip(".")).items()
    }


@pytest.mark.parametrize("config", [*(recipe() for recipe in ALL.values()), *ELSEWHERE], ids=lambda c: c.name)
def test_every_leaf_has_its_value_and_a_meaning(config: RunConfig | AutoencoderRun) -> None:
    rows = explained(config)
    assert {row.path: row.value for row in rows} == leaves(config.model_dump(mode="json"))
    assert [row.path for row in rows if not row.meaning or not row.allowed] == []


def test_what_a_setting_may_be() -> None:
    rows = {row.path: row for row in explained(RECIPES["folder"]())}
    assert rows["train.steps"].allowed == "a whole number, above 0" and rows["train.steps"].default == 1000
    assert rows["train.precision"].allowed == "auto | fp32 | bf16"
    assert rows["train.ema_decay"].allowed == "a number | null, at least 0, below 1"
    assert "null: no average" in rows["train.ema_decay"].meaning
    assert rows["train.optimizer.betas"].allowed == "[a number, a number]"
    assert rows["denoising.clip"].allowed == "a number | null, above 0"
    assert rows["tokenizer.vocab_size"].needs == "reaches something only with tokenizer.kind=train"
    assert set(NEEDS) <= set(rows)


def test_the_other_kinds_are_named() -> None:
    rows = {row.path: row for row in explained(RECIPES["folder"]())}
    assert rows["data.kind"].value == "folder" and rows["data.kind"].meaning.startswith("Your own data")
    assert "shapes: The built-in world" in rows["data.kind"].allowed
    assert "linear: The linear pair" in rows["model.modalities.0.patches.kind"].allowed
    assert "data.tasks.draw" not in rows and "data.path" in rows


def test_a_part_of_the_tree() -> None:
    assert {row.path for row in explained(RECIPES["tiny"](), ["data.tasks"])} == {
        f"data.tasks.{name}" for name in ("draw", "look", "edit", "story")
    }
    assert [row.path for row in explained(RECIPES["tiny"](), ["train.steps"])] == ["train.steps"]
    with pytest.raises(ConfigError, match=r"no setting 'train.step' to explain; groups are .*train.optimizer"):
        explained(RECIPES["tiny"](), ["train.step"])


def test_on_the_command_line() -> None:
    text = call("config", "folder", "train.steps=7", "train", "--explain").stdout
    assert "train.steps=7\n" in text and "default 1000" in text and "Optimizer steps" in text and "data." not in text
    rows = json.loads(call("config", "tiny", "train.steps", "--explain", "--json").stdout)
    assert [(row["path"], row["value"]) for row in rows] == [("train.steps", 1400)]
    assert "no setting 'nothing'" in call("config", "tiny", "nothing", "--explain", code=2).stderr
    assert "expected path=value" in call("config", "tiny", "train.steps", code=2).stderr
    assert json.loads(call("config", "tiny", "--json").stdout)["name"] == "demo"


@pytest.mark.parametrize("name", ALL)
def test_explanations_fit_a_narrow_terminal(name: str) -> None:
    lines = told(explained(ALL[name]()), NARROW).splitlines()
    words = [line for line in lines if line.startswith("    ") and " " in line.strip()]
    assert words and max(map(len, words)) <= NARROW


def test_recipes_fit_a_narrow_terminal_with_commands_that_run() -> None:
    rows = [listed(name, recipe) for name, recipe in ALL.items()]
    assert max(map(len, laid_out(rows, NARROW).splitlines())) <= NARROW
    for row in rows:
        program, verb, *recipe = shlex.split(row.command)
        assert program == "transfusion" and row.command in laid_out(rows, NARROW)
        assert (verb, recipe) == ("demo", []) or (verb == "train" and recipe[0] == row.name)
    assert "  transfusion train folder data.path=DIR" in call("recipes").stdout.splitlines()
