"""The settings of a run: one tree of frozen models, read from and written to JSON, strict about every name.

Responsible for the tree, for overrides such as ``train.steps=100`` and for saying which setting was meant when a
name is unknown. Each part stands beside what it configures.
"""

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticSerializationError

from transfusion.autoencoder.settings import AutoencoderConfig, PixelsConfig, PretrainedConfig
from transfusion.data.encode import EncodeConfig
from transfusion.data.limit import TooLong
from transfusion.data.plan import Unit
from transfusion.data.settings import DataConfig, ShapesConfig, moved
from transfusion.diffusion.process import DiffusionConfig
from transfusion.generate.options import DenoisingOptions
from transfusion.model.transfusion import ModelConfig
from transfusion.objective import ObjectiveConfig
from transfusion.tokenizer import TokenizerConfig
from transfusion.train.optimizer import OptimizerConfig

CONFIG_FILE = "config.json"
Tree = TypeVar("Tree", bound=BaseModel)


class ConfigError(ValueError):
    """A setting is unknown or has a bad value; the message names it and what would do."""


FREE_TRAIN_SETTINGS = (
    "num_workers",
    "checkpoint_every",
    "num_checkpoints",
    "log_every",
    "preview_every",
    "evaluate_every",
)
FREE_AUTOENCODER_SETTINGS = ("path", "is_carried", "tile")


class TrainConfig(BaseModel):
    """The loop."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    steps: int = Field(default=1000, gt=0, description="Optimizer steps of the whole run")
    init: Path | None = Field(
        default=None,
        description="Begin from trained weights: a checkpoint, a run's folder or a saved model, with its tokenizer, "
        "model, pixels and diffusion; None: from nothing",
    )
    init_weights: Literal["averaged", "trained"] = Field(
        default="averaged", description="Which weights of train.init: the averaged ones where there are some, or not"
    )
    new_parts: bool = Field(
        default=False,
        description="Whether settings of the model and tokenizer may differ from those of train.init; each parameter "
        "that is new, resized or dropped is named, and a larger grid interpolates its positions",
    )
    freeze: tuple[str, ...] = Field(
        default=(), description='Parameters that no step moves, by name, such as ["trunk.*", "embed.weight"]'
    )
    batch_size: int = Field(
        default=64, gt=0, description="Documents per step, over all micro-batches; or rows, by train.batch_unit"
    )
    batch_unit: Unit = Field(
        default="documents",
        description="What a step is so many of: documents, packed into as few slots as they need; rows: of row_length "
        "slots each, filled as the lengths of all documents plan it",
    )
    accumulation: int = Field(default=1, gt=0, description="Micro-batches per step")
    row_length: int = Field(
        default=256,
        ge=0,
        description="Slots T of a row; documents are packed into rows. 0: as many as the data's pictures and some text "
        "need, settled when a run begins",
    )
    too_long: TooLong = Field(
        default="drop",
        description="A document longer than a row: drop: leave it out, counted; cut: shorten its text; refuse: stop",
    )
    max_dropped: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="Largest share of the documents that may be left out: for their length, also where nothing is "
        "learnt of what a cut leaves; and, as they are met, as broken",
    )
    seed: int = Field(default=0, description="Key of all draws: weights, order, times, noise")
    num_workers: int | None = Field(
        default=None,
        ge=0,
        description="Background processes that prepare batches; None: one, but none on a CPU of one or two cores",
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto",
        description="Compute dtype; auto: bf16 where it is measured to be faster, when a run begins",
    )
    use_compile: bool = Field(default=False, description="Compile the model")
    optimizer: OptimizerConfig = Field(default=OptimizerConfig(), description="Optimizer and rates")
    ema_decay: float | None = Field(
        default=0.999, ge=0, lt=1, description="Decay of the averaged weights; None: no average"
    )
    checkpoint_every: int = Field(
        default=500, gt=0, description="Steps between checkpoints; the last step has one always"
    )
    num_checkpoints: int = Field(
        default=2, gt=0, description="Newest checkpoints that are kept, beside the one of the best held-out losses"
    )
    log_every: int = Field(default=10, gt=0, description="Steps between rows of metrics")
    preview_every: int = Field(
        default=0,
        ge=0,
        description="Steps between samples of what the model draws or writes; the first come earlier. 0: none",
    )
    evaluate_every: int | None = Field(
        default=None,
        ge=0,
        description="Steps between held-out losses, which every checkpoint has, too; None: about fifty times in a run, "
        "and no more often than costs 2 % of it; 0: never",
    )

    @field_validator("freeze", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        """Take one pattern for a list of one."""
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check(self) -> "TrainConfig":
        if self.accumulation > self.batch_size:
            raise ValueError(
                f"accumulation {self.accumulation} is more than the {self.batch_size} {self.batch_unit} of a step"
            )
        return self


Reach = Mapping[str, tuple[str, Any]]
NEEDS: Reach = {  # what some settings need of another to reach anything
    "tokenizer.vocab_size": ("tokenizer.kind", "train"),
    "diffusion.schedule.mean": ("diffusion.schedule.times", "logit_normal"),
    "diffusion.schedule.std": ("diffusion.schedule.times", "logit_normal"),
    "train.optimizer.muon_lr": ("train.optimizer.kind", "muon"),
    "train.optimizer.muon_iterations": ("train.optimizer.kind", "muon"),
    "train.optimizer.cooldown": ("train.optimizer.schedule", "constant"),
}


MOOT: Reach = {  # what some settings mean nothing at
    "data.questions_per_picture": ("data.tasks.look", 0.0),
    "encode.picture_first_max_t": ("encode.caption_first", 1.0),
    "train.init_weights": ("train.init", None),
    "train.new_parts": ("train.init", None),
}


class RunConfig(BaseModel):
    """Everything that decides a run."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field(default="run", description="Name of the recipe; the default folder is runs/<name>")
    model: ModelConfig = Field(default=ModelConfig(), description="The network")
    tokenizer: TokenizerConfig = Field(default=TokenizerConfig(), description="Text ↔ tokens")
    data: DataConfig = Field(default=ShapesConfig(), discriminator="kind", description="What is trained on")
    autoencoder: AutoencoderConfig = Field(
        default=PixelsConfig(), discriminator="kind", description="What pictures become: the latents that are denoised"
    )
    encode: EncodeConfig = Field(default=EncodeConfig(), description="How records become documents")
    diffusion: DiffusionConfig = Field(default=DiffusionConfig(), description="The diffusion process")
    objective: ObjectiveConfig = Field(default=ObjectiveConfig(), description="Weights of the losses")
    train: TrainConfig = Field(default=TrainConfig(), description="The loop")
    denoising: DenoisingOptions = Field(default=DenoisingOptions(), description="How pictures are drawn by default")

    def to_json(self) -> str:
        """Write the whole tree."""
        return self.model_dump_json(indent=2)


def leaves(tree: object, separator: str = ".") -> Iterator[tuple[str, Any]]:
    """Yield the values of a tree of JSON objects in their order, each with the names that lead to it; a list is one."""
    left: list[tuple[str, Any]] = [("", tree)]
    while left:  # a tree from outside may be deeper than calls may be nested
        path, node = left.pop()
        if isinstance(node, Mapping):
            children = [(f"{path}{separator}{name}" if path else str(name), child) for name, child in node.items()]
            left += reversed(children)
        else:
            yield path, node


def with_free_settings(saved: RunConfig, given: RunConfig) -> RunConfig:
    """Return a run's settings with those of ``given`` that move no bit of training, so may change when it goes on:
    how often it logs, saves and previews, how pictures are drawn, and where the data and the autoencoder lie.
    """
    train = {name: getattr(given.train, name) for name in FREE_TRAIN_SETTINGS}
    update: dict[str, object] = {"train": saved.train.model_copy(update=train), "denoising": given.denoising}
    if isinstance(saved.autoencoder, PretrainedConfig) and isinstance(given.autoencoder, PretrainedConfig):
        free = {name: getattr(given.autoencoder, name) for name in FREE_AUTOENCODER_SETTINGS}
        update["autoencoder"] = saved.autoencoder.model_copy(update=free)
    update["data"] = moved(saved.data, given.data)
    return saved.model_copy(update=update)


def from_json(text: str, where: str) -> RunConfig:
    """Read the settings of a run.

    Raises:
        ConfigError: It is no JSON, or a setting is unknown or bad.
    """
    return tree_from_json(text, where, RunConfig)


def tree_from_json(text: str, where: str, root: type[Tree]) -> Tree:
    """Read a tree of settings whose root is ``root``.

    Raises:
        ConfigError: As ``from_json``.
    """
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: a number of thousands of digits, too
        raise ConfigError(f"{where} is not JSON: {error}") from error
    return _validated(tree, where, root)


def override(config: Tree, assignments: Iterable[str]) -> Tree:
    """Change settings by assignments such as ``train.steps=100``.

    Args:
        config: The tree to begin from.
        assignments: ``path=value``; the value is JSON, or else a plain string. ``data.kind=...`` and other kinds
            begin again from that kind's defaults; they come first, whatever the order.

    Raises:
        ConfigError: A path is unknown (the nearest one is named), a value is bad, or it would reach nothing.
    """
    given = [_parted(assignment) for assignment in assignments]
    given.sort(key=lambda pair: not pair[0].endswith(".kind"))  # a stable sort: the rest keeps its order
    paths, values = [path for path, _ in given], [_value(text) for _, text in given]
    try:
        changed = _writable(type(config).model_validate(_assigned(config, paths, values)), "override")
    except ValidationError as error:
        named = [found["loc"] for found in error.errors() if found["type"] in ("string_type", "path_type")]
        wanted = [_path(location, type(config)) for location in named]
        for place, (path, text) in enumerate(given):
            if path in wanted:
                values[place] = text  # a folder named 2024 is a name, and no number
        changed = _validated(_assigned(config, paths, values), "override", type(config))
    check_reach(changed, paths, NEEDS, MOOT)
    return changed


def replaced(config: Tree, values: Mapping[str, object], where: str) -> Tree:
    """Return settings with other values by their paths; whether each reaches anything is not asked.

    Args:
        config: The tree to begin from.
        values: Each as JSON has it.
        where: Where they stand, for the error.

    Raises:
        ConfigError: A path is unknown, or a value is bad.
    """
    return _validated(_assigned(config, list(values), list(values.values())), where, type(config))


def check_reach(config: BaseModel, paths: Sequence[str], needs: Reach, moot: Reach) -> None:
    """Refuse settings that are given though another makes them reach nothing.

    Args:
        config: The tree.
        paths: What is given.
        needs: What some settings need of another, its path and value.
        moot: What some settings mean nothing at.

    Raises:
        ConfigError: One reaches nothing; says why.
    """
    tree = config.model_dump(mode="json")
    for path in paths:
        if path in needs and (found := _at(tree, needs[path][0])) != needs[path][1]:
            other, wanted = needs[path]
            raise ConfigError(
                f"{path} reaches nothing while {other} is {found!r}; set {other}={wanted}, or leave it out"
            )
        if path in moot and _at(tree, moot[path][0]) == moot[path][1]:
            other, value = moot[path]
            raise ConfigError(f"{path} reaches nothing while {other} is {value}; change that, or leave it out")


def _at(tree: Any, path: str) -> Any:
    for name in path.split("."):
        tree = tree[name]
    return tree


def _parted(assignment: str) -> tuple[str, str]:
    path, equals, text = assignment.partition("=")
    if not equals:
        raise ConfigError(f"expected path=value, such as train.steps=100; got {assignment!r}")
    return path, text


def _assigned(config: BaseModel, paths: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
    tree = config.model_dump(mode="json")
    for path, value in zip(paths, values, strict=True):
        _assign(tree, path, value, type(config))
    return tree


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _assign(tree: dict[str, Any], path: str, value: Any, root: type[BaseModel]) -> None:
    *parents, leaf = path.split(".")
    node: Any = tree
    for name in parents:
        node = _child(node, name, path, tree, root)
    before = _child(node, leaf, path, tree, root)
    key: Any = int(leaf) if isinstance(node, list) else leaf
    node[key] = value
    if isinstance(node, dict) and leaf == "kind" and value != before and (other := _of_kind(parents, value, root)):
        node.clear()
        node.update(other().model_dump(mode="json"))


def _of_kind(path: Sequence[str], kind: Any, root: type[BaseModel]) -> type[BaseModel] | None:
    """Return the model of a kind where several may stand at a path, which have settings of their own."""
    return kinds_at(path, root).get(kind) if isinstance(kind, str) else None


def kinds_at(path: Sequence[str], root: type[BaseModel] = RunConfig) -> dict[str, type[BaseModel]]:
    """Return the models that may stand at a path of a tree by their kinds; empty where there is only one."""
    models: list[type[BaseModel]] = [root]
    for name in path:
        if not name.isdecimal():
            fields = [model.model_fields[name] for model in models if name in model.model_fields]
            models = [found for field in fields for found in _models(field.annotation)]
    if len(models) < 2:
        return {}
    return {kind: model for model in models for kind in get_args(model.model_fields["kind"].annotation)}


def _models(annotation: Any) -> Iterable[type[BaseModel]]:
    """Yield the models that an annotation names."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def _child(node: Any, name: str, path: str, tree: Mapping[str, Any], root: type[BaseModel]) -> Any:
    if isinstance(node, dict) and name in node:
        return node[name]
    if isinstance(node, list) and name.isascii() and name.isdecimal() and int(name) < len(node):
        return node[int(name)]
    known = list(_leaves(tree))
    near = difflib.get_close_matches(path, known, n=1, cutoff=0.5)
    ending = [leaf for leaf in known if leaf.split(".")[-1] == path.split(".")[-1]]
    hint = f"did you mean {(ending or near)[0]!r}?" if ending or near else "`transfusion config RECIPE` prints all"
    group, _, last = path.rpartition(".")
    kinds = kinds_at(group.split("."), root) if group else {}
    others = [kind for kind, model in kinds.items() if last in model.model_fields]
    if others:
        hint = f"it is one of {group}.kind={' or '.join(others)}"
    raise ConfigError(f"unknown setting {path!r}; {hint}")


def _leaves(node: Any, prefix: str = "") -> Iterable[str]:
    children = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
    for name, child in children:
        yield f"{prefix}{name}"
        yield from _leaves(child, f"{prefix}{name}.")


def _validated(tree: Any, where: str, root: type[Tree]) -> Tree:
    try:
        return _writable(root.model_validate(tree), where)
    except ValidationError as error:
        raise ConfigError(f"bad settings in {where}: {described(error, root)}") from error


def _writable(config: Tree, where: str) -> Tree:
    """Refuse settings that no file could hold: text with half a surrogate pair, as a name that is not UTF-8 has."""
    try:
        config.model_dump_json()
    except PydanticSerializationError as error:
        raise ConfigError(f"bad settings in {where}: a text in it is not Unicode ({error}); rename the file") from error
    return config


def described(error: ValidationError, root: type[BaseModel] = RunConfig) -> str:
    """Say what is wrong with settings: which, what was expected, what was given."""
    return "; ".join(
        f"{_path(found['loc'], root)}: {found['msg']} (given {found['input']!r:.80})" for found in error.errors()
    )


def _path(location: Sequence[int | str], root: type[BaseModel]) -> str:
    """Return the path of the setting at an error's location, which names the kind of a union, too."""
    models: list[type[BaseModel]] = [root]
    path: list[str] = []
    for part in location:
        fields = [model.model_fields[part] for model in models if part in model.model_fields]
        kinds = [model for model in models if len(models) > 1 and part in get_args(_kind(model))]
        if fields or not kinds:
            path.append(str(part))
            models = [found for field in fields for found in _models(field.annotation)] if fields else models
        else:
            models = kinds
    return ".".join(path)


def _kind(model: type[BaseModel]) -> Any:
    return model.model_fields["kind"].annotation if "kind" in model.model_fields else None
