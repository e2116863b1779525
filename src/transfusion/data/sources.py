"""Sources: random-access documents of the built-in world, of a folder of captioned pictures, of plain text.

Responsible for joining a reader to the encoder. Which document comes when is the loader's.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from transfusion.data.encode import Encoder
from transfusion.data.loader import Source
from transfusion.data.readers import ImageFolder, Passage, TextFile, has_pictures, read_captions, sample_folder
from transfusion.data.shapes import caption, corpus, edit, question, render, sample_scene, story
from transfusion.data.splits import TEST
from transfusion.keyed import Key, generator
from transfusion.segments import Document

CORPUS_SIZE = 4000
NUM_PREVIEWS = 8
NUM_MEASURED = 400
CAPTIONED = 0.4  # of the pictures that are asked about
ASKED_COUNTS = (0.15, 0.45, 0.25, 0.15)  # shares of one to four objects in pictures without a caption
Pictures = NDArray[np.uint8]


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
    """The built-in world: endless, keyed by (seed, index)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["shapes"] = "shapes"
    resolution: int = Field(default=32, ge=16, description="Side of a picture in pixels")
    tasks: TaskWeights = Field(default=TaskWeights(), description="Mixture of tasks")
    questions_per_picture: int = Field(default=3, gt=0, description="Questions told about one picture")


class FolderConfig(BaseModel):
    """Your own data: a folder of captioned pictures, or text files."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["folder"] = "folder"
    path: Path = Field(
        default=Path("data"), description="Folder of pictures (captions.jsonl or one sub-folder per class), or .txt"
    )
    resolution: int = Field(default=32, ge=8, description="Side to which pictures are cropped and resized, in pixels")
    split: str | None = Field(
        default=None, description="Which split to take; None: 'train' where the data have splits, else everything"
    )
    hold_out: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Share of the pictures or text held out as split 'test', chosen by a stable hash; 0: none",
    )


DataConfig = ShapesConfig | FolderConfig


class ShapesSource:
    """Documents of the built-in world."""

    def __init__(self, config: ShapesConfig, encoder: Encoder) -> None:
        """Bind the mixture of tasks."""
        self.config = config
        self.encoder = encoder
        self.quarantine: dict[str, str] = {}
        self.left_for_others: dict[str, int] = {}
        weights = config.tasks.model_dump()
        self._names = list(weights)
        self._shares = np.cumsum(list(weights.values())) / sum(weights.values())

    @property
    def size(self) -> None:
        """There is no end."""
        return None

    def document(self, index: int, visit: int) -> Document:
        """Make the document of an index."""
        rng = generator(self.encoder.seed, "shapes", index, visit)
        task = self._names[int(np.searchsorted(self._shares, rng.random(), side="right"))]
        key: tuple[Key, ...] = ("shapes", index, visit)
        if task == "edit":
            return self._edit(rng, key)
        if task == "story":
            pages = [(text, render(scene, self.config.resolution)) for text, scene in story(rng)]
            return self.encoder.story(pages, key)
        if task == "look":
            return self._look(rng, key)
        scene = sample_scene(rng)
        return self.encoder.captioned(caption(scene, rng), render(scene, self.config.resolution), key)

    def _look(self, rng: np.random.Generator, key: tuple[Key, ...]) -> Document:
        """Caption a picture and ask about it; or only ask, where answers can be seen and not read, and mostly about
        several things, where it takes more than naming the only one.
        """
        is_captioned = rng.random() < CAPTIONED
        scene = sample_scene(rng, num_objects=None if is_captioned else int(rng.choice(4, p=ASKED_COUNTS)) + 1)
        turns = [question(scene, rng) for _ in range(self.config.questions_per_picture)]
        told = caption(scene, rng, is_complete=True) if is_captioned else None
        picture = render(scene, self.config.resolution)
        return self.encoder.conversed(picture, told, [(turn.question, turn.answer) for turn in turns], key)

    def _edit(self, rng: np.random.Generator, key: tuple[Key, ...]) -> Document:
        change = edit(sample_scene(rng), rng)
        before, after = (render(scene, self.config.resolution) for scene in (change.before, change.after))
        return self.encoder.edited(before, change.instruction, after, key)

    def name(self, index: int) -> str:
        """Name the document by its number."""
        return f"shapes {index}"

    def outline(self, index: int) -> Document:
        """Return a document as it is told at first, nothing dropped."""
        return ShapesSource(self.config, self.encoder.without_dropout()).document(index, 0)

    def texts(self) -> Iterator[str]:
        """Yield captions, questions with answers and instructions."""
        return corpus(self.encoder.seed, CORPUS_SIZE)

    def preview_prompts(self) -> list[str]:
        """Return a few captions to draw while training."""
        rng = generator(self.encoder.seed, "preview-prompts")
        return [caption(sample_scene(rng, num_objects=1 + i // 2), rng) for i in range(NUM_PREVIEWS)]

    def digest(self) -> str:
        """Name the settings that decide the documents."""
        return f"shapes:{self.config.model_dump_json()}:{self.encoder.seed}"


class FolderSource:
    """Documents of a folder of captioned pictures."""

    def __init__(self, config: FolderConfig, encoder: Encoder, pictures: ImageFolder) -> None:
        """Bind the reader."""
        self.config = config
        self.encoder = encoder
        self.pictures = pictures
        self.quarantine = pictures.quarantine
        self.left_for_others = pictures.left_for_others

    @property
    def size(self) -> int:
        """Number of captioned pictures that are whole."""
        return len(self.pictures)

    def document(self, index: int, visit: int) -> Document:
        """Tell one captioned picture; each caption of a picture is a record of its own."""
        record = self.pictures[index]
        return self.encoder.captioned(record.text, record.picture, (record.file, record.number, visit))

    def name(self, index: int) -> str:
        """Name the picture, and which of its captions, from the second on."""
        row = self.pictures.captions[index]
        return f"{row.file}, caption {row.number + 1}" if row.number else row.file

    def outline(self, index: int) -> Document:
        """Return a captioned picture as long as it is told, without its pixels."""
        return self.encoder.outline(self.pictures.captions[index].text, self.config.resolution)

    def texts(self) -> Iterator[str]:
        """Yield all captions."""
        return (row.text for row in self.pictures.captions)

    def preview_prompts(self) -> list[str]:
        """Return captions spread over the data."""
        places = np.linspace(0, len(self.pictures) - 1, NUM_PREVIEWS).astype(int)
        return [self.pictures.captions[int(index)].text for index in places]

    def digest(self) -> str:
        """Name the files and captions."""
        return self.pictures.digest()


@dataclass(frozen=True)
class Chunk:
    """A stretch of a text's tokens that fits into a row.

    Attributes:
        tokens: The stretch.
        next_token: The token that follows it in the same passage, if any.
        begins: Whether the text begins here.
        ends: Whether the text ends here.
    """

    tokens: tuple[int, ...]
    next_token: int | None
    begins: bool
    ends: bool


class TextSource:
    """Chunks of plain text, each as long as a row allows."""

    def __init__(self, texts: TextFile, encoder: Encoder, chunk_length: int) -> None:
        """Cut the text's tokens into chunks of ``chunk_length``."""
        self._texts = texts
        self.encoder = encoder
        self.quarantine: dict[str, str] = {}
        self.left_for_others = texts.left_for_others
        self._chunks = [chunk for passage in texts.passages for chunk in _chunks(passage, encoder, chunk_length)]

    @property
    def size(self) -> int:
        """Number of chunks."""
        return len(self._chunks)

    def document(self, index: int, visit: int) -> Document:
        """Return one chunk."""
        chunk = self._chunks[index]
        key: tuple[Key, ...] = ("text", index, visit)
        return self.encoder.passage(chunk.tokens, chunk.next_token, key, begins=chunk.begins, ends=chunk.ends)

    def name(self, index: int) -> str:
        """Name the chunk by its number."""
        return f"chunk {index} of the text"

    def outline(self, index: int) -> Document:
        """Return one chunk: it is told in one way only."""
        return self.document(index, 0)

    def texts(self) -> Iterator[str]:
        """Yield all text."""
        return iter(self._texts.documents())

    def preview_prompts(self) -> list[str]:
        """Text alone has no pictures to draw."""
        return []

    def digest(self) -> str:
        """Name the text."""
        return self._texts.digest()


def _chunks(passage: Passage, encoder: Encoder, length: int) -> Iterator[Chunk]:
    tokens = encoder.tokenizer.encode(passage.text)
    for start in range(0, len(tokens), length):
        end = start + length
        is_last = end >= len(tokens)
        next_token = None if is_last else tokens[end]
        yield Chunk(tokens[start:end], next_token, passage.begins and start == 0, passage.ends and is_last)


def corpus_of(config: DataConfig, seed: int) -> Iterator[str]:
    """Yield the text of the data, to learn a tokenizer from."""
    if isinstance(config, ShapesConfig):
        return corpus(seed, CORPUS_SIZE)
    if is_text(config.path):
        return iter(_text_file(config).documents())
    return (row.text for row in read_captions(config.path, config.split, config.hold_out))


def sample_pictures(config: DataConfig, seed: int) -> Pictures | None:
    """Return a few hundred of the data's pictures, (count, H, W, 3) uint8, to measure them; None for plain text."""
    if isinstance(config, ShapesConfig):
        scenes = (sample_scene(generator(seed, "sample-pictures", i)) for i in range(NUM_MEASURED))
        return np.stack([render(scene, config.resolution) for scene in scenes])
    if is_text(config.path):
        return None
    rows = read_captions(config.path, config.split, config.hold_out)
    return sample_folder(rows, config.path, config.resolution, NUM_MEASURED)


def open_source(config: DataConfig, encoder: Encoder, chunk_length: int) -> Source:
    """Open the data that a config names.

    Args:
        config: What to open.
        encoder: Tells its records.
        chunk_length: Tokens of a chunk of plain text.
    """
    if isinstance(config, ShapesConfig):
        return ShapesSource(config, encoder)
    if is_text(config.path):
        return TextSource(_text_file(config), encoder, chunk_length)
    pictures = ImageFolder(config.path, config.resolution, split=config.split, hold_out=config.hold_out)
    return FolderSource(config, encoder, pictures)


def held_out_config(config: DataConfig) -> DataConfig | None:
    """Return the settings of what is held out of the data that a run trains on, None where nothing is.

    The built-in world has no end: what is read of it to take losses lies beyond any run.
    """
    if isinstance(config, ShapesConfig):
        return config
    return config.model_copy(update={"split": TEST}) if config.hold_out else None


def _text_file(config: FolderConfig) -> TextFile:
    return TextFile(config.path, split=config.split, hold_out=config.hold_out)


def is_text(path: Path) -> bool:
    """Return whether a path holds plain text and no pictures; a note beside classes of pictures is no text to learn."""
    if path.is_dir():
        return not has_pictures(path) and any(path.glob("*.txt"))
    return path.suffix == ".txt"
