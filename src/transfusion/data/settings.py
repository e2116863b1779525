"""Settings of the data: the built-in world, a folder or file of one's own, or several of these mixed. It must not read
anything.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from transfusion.data.errors import DataError
from transfusion.data.splits import TRAIN, held_out_split, split_named

Side = Annotated[int, Field(ge=8)]
Layout = Literal[
    "auto",
    "captions",
    "metadata",
    "pairs",
    "classes",
    "text",
    "latents",
    "interleaved",
    "lines",
    "conversations",
    "edits",
    "own",
    "shards",
    "table",
    "table_text",
    "idx",
]
TEXT_ALONE: tuple[Layout, ...] = ("text", "lines", "table_text")  # without pictures
NAMING: tuple[Layout, ...] = ("interleaved", "conversations", "edits", "own", "table")  # pictures by their names
TABULAR: tuple[Layout, ...] = ("table", "table_text")  # of columns


class TaskWeights(BaseModel):
    """How often each task of the built-in world is told, relative to the others."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    draw: float = Field(default=0.6, ge=0, description="Caption, then the picture to draw")
    look: float = Field(default=0.2, ge=0, description="A picture, then its caption, then questions and answers")
    edit: float = Field(default=0.2, ge=0, description="A picture, an instruction, and the edited picture to draw")
    story: float = Field(default=0.0, ge=0, description="Several pictures with a sentence each")

    @model_validator(mode="after")
    def _check(self) -> "TaskWeights":
        if not self.draw + self.look + self.edit + self.story > 0:
            raise ValueError("all tasks have weight 0; give at least one more")
        return self


class ShapesConfig(BaseModel):
    """The built-in world: endless unless told otherwise, keyed by (seed, index)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["shapes"] = "shapes"
    resolution: int = Field(default=32, ge=16, description="Side of a picture in pixels")
    tasks: TaskWeights = Field(default=TaskWeights(), description="Mixture of tasks")
    questions_per_picture: int = Field(default=3, gt=0, description="Questions told about one picture")
    num_documents: int | None = Field(
        default=None, gt=0, description="Documents to train on, which then come again; None: always new ones"
    )

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a picture in pixels."""
        return self.resolution, self.resolution


class FolderConfig(BaseModel):
    """Your own data: a folder of captioned pictures, or text files."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["folder"] = "folder"
    path: Path = Field(default=Path("data"), description="Folder of captioned pictures or of .txt files, or one file")
    images: Path | None = Field(
        default=None, description="Folder that rows of a file name pictures relative to; None: that of the file"
    )
    layout: Layout = Field(
        default="auto",
        description="captions: captions.jsonl; metadata: metadata.jsonl or .csv; pairs: NAME.png with NAME.txt; "
        "classes: a sub-folder per class; text: .txt alone, all as one whatever they are called; "
        "latents: what `transfusion prepare latents` wrote; interleaved: rows of text and pictures in turn "
        "(documents.jsonl); lines: rows with a text each; conversations: rows of turns (LLaVA, messages); "
        "edits: rows of an instruction, input pictures and the output picture; own: what data.reader gives; "
        "shards: tars of WebDataset, local and not compressed; "
        "table: Parquet, or what the datasets library saves, of captioned pictures; table_text: the same, of texts; "
        "idx: files of MNIST; auto: what is found",
    )
    reader: str | None = Field(
        default=None,
        description="FILE.py:function that makes the records of layout own; its code runs when a run opens its data",
    )
    picture_column: str | None = Field(
        default=None, description="Column of a table (Parquet, datasets) that holds pictures; None: the one that does"
    )
    text_column: str | None = Field(
        default=None,
        description="Column of a table that holds texts or class labels; None: the one that is called text, caption, "
        "sentences and so on, or else the label",
    )
    resolution: Side | tuple[Side, Side] = Field(
        default=32, description="Side to which pictures are cropped and resized, in pixels; or [height, width]"
    )
    crop: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="Least side of a random crop, as a share of the picture's, that each visit of training sees; "
        "pictures are kept in memory so much larger, at most at their own size. 1: pictures are seen whole",
    )
    flip: bool = Field(
        default=False,
        description="Whether training sees half of its pictures with left and right exchanged; captions say left and "
        "right, so only where none does",
    )
    split: str | None = Field(
        default=None, description="Which split to take; None: 'train' where the data have splits, else everything"
    )
    hold_out: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="Share of the records held out as split 'test', chosen by a stable hash; 0: none; None: 2 % and at "
        "most 500 of 50 or more, where the data mark no split but 'train'",
    )

    @field_validator("path", "images", mode="before")
    @classmethod
    def _placed(cls, value: object, info: ValidationInfo) -> object:
        """Refuse a path that is empty, which would be the working folder; a leading ~ is the home folder."""
        if isinstance(value, str) and not value.strip():
            raise ValueError(f"data.{info.field_name} is empty; name a folder or a file (. is the working folder)")
        is_home = isinstance(value, str | Path) and str(value).partition("/")[0] == "~"
        return Path(value).expanduser() if is_home and isinstance(value, str | Path) else value

    @property
    def size(self) -> tuple[int, int]:
        """Height and width to which pictures are brought, in pixels."""
        return self.resolution if isinstance(self.resolution, tuple) else (self.resolution, self.resolution)


OneData = ShapesConfig | FolderConfig
Change = tuple[Annotated[int, Field(gt=0)], Annotated[float, Field(ge=0)]]


class SourceConfig(BaseModel):
    """One source of a mixture. Instead of ``data`` its settings may stand here themselves, or its path alone.

    >>> data = {"kind": "folder", "path": "books"}
    >>> told = SourceConfig.model_validate({"name": "books", "data": data, "weight": 1})
    >>> all(SourceConfig.model_validate(given) == told for given in ({"path": "books", "weight": 1}, "books"))
    True
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field(
        default="",
        pattern=r"^[\w.-]*$",
        description="What it is called in metrics and errors; empty: the last part of its path",
    )
    data: OneData = Field(default=FolderConfig(), discriminator="kind", description="What it holds")
    weight: float = Field(
        default=1.0, ge=0, description="Its share of all slots, text and patches alike, relative to the others"
    )
    changes: tuple[Change, ...] = Field(
        default=(), description="[step, weight] pairs: from that step on the weight is that one"
    )
    max_repeats: int | None = Field(
        default=None,
        gt=0,
        description="How often a record may be told by the last step: where it would be more often, the run does not "
        "begin; None: no limit",
    )

    @model_validator(mode="before")
    @classmethod
    def _spelt_out(cls, value: object) -> object:
        """Take a path alone, or settings of data without ``data`` around them; name the source for its path."""
        if isinstance(value, str | Path):
            value = {"path": value}
        if not isinstance(value, Mapping):
            return value
        given: dict[str, Any] = dict(cast(Mapping[str, Any], value))
        if "data" not in given:
            given["data"] = {name: given.pop(name) for name in list(given) if name not in cls.model_fields}
        if isinstance(data := given["data"], Mapping):
            given["data"] = {"kind": "folder", **cast(Mapping[str, Any], data)}
        return given if given.get("name") else {**given, "name": _name_of(given["data"])}

    def weight_at(self, step: int) -> float:
        """Return the weight with which a step takes its documents."""
        return next((weight for since, weight in reversed(self.changes) if since <= step), self.weight)


def _name_of(data: object) -> str:
    """Name a source for its kind of data or the last part of its path."""
    if isinstance(data, BaseModel):
        data = data.model_dump()
    told: Mapping[str, object] = cast(Mapping[str, object], data) if isinstance(data, Mapping) else {}
    path = Path(str(told.get("path", FolderConfig().path)))
    return (
        str(told["kind"])
        if told.get("kind") == "shapes"
        else re.sub(r"[^\w.-]+", "-", path.stem or path.resolve().name)
    )


class MixtureConfig(BaseModel):
    """Several sources of data, mixed by slots."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["mixture"] = "mixture"
    resolution: Side | tuple[Side, Side] = Field(
        default=32, description="Side to which the pictures of all sources are brought, in pixels; or [height, width]"
    )
    sources: tuple[SourceConfig, ...] = Field(default=(), description="The sources, each with its weight")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the pictures of all sources, in pixels."""
        return self.resolution if isinstance(self.resolution, tuple) else (self.resolution, self.resolution)

    @property
    def phases(self) -> list[tuple[int, tuple[float, ...]]]:
        """Steps from which weights hold, ascending from 0, each with the weight of every source."""
        steps = sorted({0, *(step for source in self.sources for step, _ in source.changes)})
        return [(step, tuple(source.weight_at(step) for source in self.sources)) for step in steps]

    def with_data(self, data: Mapping[str, OneData]) -> "MixtureConfig":
        """Return the same with other data of its sources, by their names; sources without are left out."""
        sources = [source for source in self.sources if source.name in data]
        changed = [source.model_copy(update={"data": data[source.name]}) for source in sources]
        return self.model_copy(update={"sources": tuple(changed)})

    @field_validator("sources", mode="after")
    @classmethod
    def _of_one_size(cls, sources: tuple[SourceConfig, ...], info: ValidationInfo) -> tuple[SourceConfig, ...]:
        """Give sources that name no size of pictures that of the mixture."""
        resolution = info.data.get("resolution", 32)
        size = resolution if isinstance(resolution, tuple) else (resolution, resolution)
        found: list[SourceConfig] = []
        for source in sources:
            if "resolution" not in source.data.model_fields_set:
                is_square = isinstance(source.data, FolderConfig) or not isinstance(resolution, tuple)
                own = source.data.model_copy(update={"resolution": resolution if is_square else size[0]})
                source = source.model_copy(update={"data": own})
            if source.data.size != size:
                raise ValueError(
                    f"pictures of {source.name!r} are brought to {list(source.data.size)}, and data.resolution is "
                    f"{list(size)}: one model has pictures of one size; give it as data.resolution alone"
                )
            found.append(source)
        return tuple(found)

    @model_validator(mode="after")
    def _check(self) -> "MixtureConfig":
        names = [source.name for source in self.sources]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two sources are called {twice!r}; give each a name of its own")
        for source in self.sources:
            steps = [step for step, _ in source.changes]
            if steps != sorted(set(steps)):
                raise ValueError(f"changes of {source.name!r} are at steps {steps}; give each once, ascending")
        for step, weights in self.phases:
            if self.sources and not sum(weights) > 0:
                raise ValueError(f"all sources have weight 0 from step {step} on; give at least one more")
        return self


DataConfig = ShapesConfig | FolderConfig | MixtureConfig


Config = TypeVar("Config", ShapesConfig, FolderConfig, OneData, DataConfig)
AUGMENTATION = ("crop", "flip")


def unaugmented(config: Config) -> Config:
    """Return settings whose pictures are seen whole and as they are: what is measured is not augmented."""
    if isinstance(config, MixtureConfig):
        return config.with_data({source.name: unaugmented(source.data) for source in config.sources})
    return config.model_copy(update={"crop": 1.0, "flip": False}) if isinstance(config, FolderConfig) else config


def data_of(config: DataConfig) -> tuple[OneData, ...]:
    """Return the settings of every source of data: those of a mixture, or the only one."""
    return tuple(source.data for source in config.sources) if isinstance(config, MixtureConfig) else (config,)


def moved(config: DataConfig, given: DataConfig) -> DataConfig:
    """Return settings of data with the places of others: where they lie moves no bit of a run. What the others leave
    open is no difference.
    """
    if isinstance(config, FolderConfig) and isinstance(given, FolderConfig):
        places = {"path": given.path, "images": given.images, "reader": given.reader}
        return settled_like(config, given).model_copy(update=places)
    if isinstance(config, MixtureConfig) and isinstance(given, MixtureConfig):
        others = {source.name: source.data for source in given.sources}
        return config.with_data({s.name: _moved_one(s.data, others.get(s.name)) for s in config.sources})
    return config


def _moved_one(config: OneData, given: OneData | None) -> OneData:
    found = config if given is None else moved(config, given)
    assert not isinstance(found, MixtureConfig), "a source is no mixture"
    return found


def held_out_of(config: FolderConfig, others: Mapping[str, int]) -> FolderConfig | None:
    """Return settings of the split that is held out of data, seen whole; None where none is.

    Args:
        config: Settings of what is trained on.
        others: Records of each of the other splits.
    """
    split = held_out_split(others) if split_named(config.split or TRAIN) == TRAIN else None
    return None if split is None else unaugmented(config.model_copy(update={"split": split}))


def check_named(config: FolderConfig, layout: Layout) -> None:
    """Refuse names of columns where there are none, and of a folder of pictures where no row names any.

    Raises:
        DataError: They reach nothing in a layout.
    """
    if config.images is not None and layout not in NAMING:
        raise DataError(
            f"data.images reaches nothing with data.layout={layout}, which has its pictures in {config.path} itself; "
            "leave it out"
        )
    if layout not in TABULAR and (config.picture_column or config.text_column):
        raise DataError(
            f"{config.path} is no table, its layout is {layout}: data.picture_column and data.text_column name columns "
            "of Parquet and of datasets; leave them out"
        )


def check_alone(config: FolderConfig, layout: Layout) -> None:
    """Refuse augmentation where there are no pictures.

    Raises:
        DataError: Text shall be cropped or flipped.
    """
    if layout in TEXT_ALONE and config != unaugmented(config):
        raise DataError(f"{config.path} is text: data.crop and data.flip are of pictures; leave them out")


def settled_like(config: Config, settled: DataConfig) -> Config:
    """Fill in what settings of data leave open from those of the run that settled them: layout, held-out share, and the
    split "train", which texts that are named for splits settle.
    """
    if isinstance(config, MixtureConfig) and isinstance(settled, MixtureConfig):
        known = {source.name: source.data for source in settled.sources}
        own = {s.name: settled_like(s.data, known.get(s.name, s.data)) for s in config.sources}
        return config.with_data(own)
    if not isinstance(config, FolderConfig) or not isinstance(settled, FolderConfig):
        return config
    layout = settled.layout if config.layout == "auto" else config.layout
    hold_out = settled.hold_out if config.hold_out is None else config.hold_out
    is_trained = config.split is None and config.layout == "auto" and settled.split == TRAIN
    split = TRAIN if is_trained else config.split
    return config.model_copy(update={"layout": layout, "hold_out": hold_out, "split": split})
