"""Settings of the data: the built-in world, or a folder or file of one's own. It must not read anything."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

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

    @property
    def size(self) -> tuple[int, int]:
        """Height and width to which pictures are brought, in pixels."""
        return self.resolution if isinstance(self.resolution, tuple) else (self.resolution, self.resolution)


DataConfig = ShapesConfig | FolderConfig


Config = TypeVar("Config", bound=DataConfig)
AUGMENTATION = ("crop", "flip")


def unaugmented(config: Config) -> Config:
    """Return settings whose pictures are seen whole and as they are: what is measured is not augmented."""
    return config if isinstance(config, ShapesConfig) else config.model_copy(update={"crop": 1.0, "flip": False})


def held_out_of(config: FolderConfig, others: Mapping[str, int]) -> FolderConfig | None:
    """Return settings of the split that is held out of data, seen whole; None where none is.

    Args:
        config: Settings of what is trained on.
        others: Records of each of the other splits.
    """
    split = held_out_split(others) if split_named(config.split or TRAIN) == TRAIN else None
    return None if split is None else unaugmented(config.model_copy(update={"split": split}))


def check_columns(config: FolderConfig, layout: Layout) -> None:
    """Refuse names of columns where there are none.

    Raises:
        DataError: Columns are named of what is no table.
    """
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
    if not isinstance(config, FolderConfig) or not isinstance(settled, FolderConfig):
        return config
    layout = settled.layout if config.layout == "auto" else config.layout
    hold_out = settled.hold_out if config.hold_out is None else config.hold_out
    is_trained = config.split is None and config.layout == "auto" and settled.split == TRAIN
    split = TRAIN if is_trained else config.split
    return config.model_copy(update={"layout": layout, "hold_out": hold_out, "split": split})
