"""Sources: random-access documents of the built-in world, of a folder of captioned pictures, of plain text.

Responsible for joining records to the encoder. Which document comes when is the loader's, which data it is the
reader's (``sources``).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from transfusion.data.augment import View, draw_view
from transfusion.data.captions import CaptionRow
from transfusion.data.encode import Encoder, Shown
from transfusion.data.errors import plain
from transfusion.data.found import Found
from transfusion.data.readers import Passage, TextFile
from transfusion.data.settings import FolderConfig, ShapesConfig
from transfusion.data.shapes import caption, corpus, edit, question, render, sample_scene, story
from transfusion.keyed import Key, generator
from transfusion.segments import Document

CORPUS_SIZE = 4000
NUM_PREVIEWS = 8
CAPTIONED = 0.4  # of the pictures that are asked about
ASKED_COUNTS = (0.15, 0.45, 0.25, 0.15)  # shares of one to four objects in pictures without a caption


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
    def size(self) -> int | None:
        """Number of documents, if there is an end."""
        return self.config.num_documents

    @property
    def found(self) -> Found:
        """Say what is trained on."""
        return Found("the built-in world", "shapes", self.size)

    def document(self, index: int, visit: int) -> Document:
        """Make the document of an index: of one scene whatever the visit, which decides the draws of its telling."""
        rng = generator(self.encoder.seed, "shapes", index, 0)
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

    def outline(self, index: int, visit: int | None = None) -> Document:
        """Return a document as it is told at first, nothing dropped; or as it is told on a visit."""
        if visit is not None:
            return self.document(index, visit)
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
        return shapes_digest(self.config, self.encoder.seed)


def shapes_digest(config: ShapesConfig, seed: int) -> str:
    """Name the settings that decide the documents of the built-in world; those left at None name nothing."""
    return f"shapes:{config.model_dump_json(exclude_none=True)}:{seed}"


class Pictures(Protocol):
    """Captioned pictures, or their latents."""

    @property
    def captions(self) -> Sequence[CaptionRow]:
        """A row for each record."""
        ...

    @property
    def quarantine(self) -> dict[str, str]:
        """What is left out and why, by name."""
        ...

    @property
    def left_for_others(self) -> dict[str, int]:
        """How many records were left for each of the other splits."""
        ...

    @property
    def found(self) -> Found:
        """What the data hold."""
        ...

    def view(self, index: int, view: View) -> Shown:
        """Return what a view shows of the picture of a record."""
        ...

    def digest(self) -> str:
        """Name what they hold."""
        ...


class FolderSource:
    """Documents of a folder of captioned pictures, or of their latents."""

    def __init__(self, config: FolderConfig, encoder: Encoder, pictures: Pictures) -> None:
        """Bind the reader."""
        self.config = config
        self.encoder = encoder
        self.pictures = pictures
        self.quarantine = pictures.quarantine
        self.left_for_others = pictures.left_for_others
        self.found = pictures.found

    @property
    def size(self) -> int:
        """Number of captioned pictures that are whole."""
        return len(self.pictures.captions)

    def document(self, index: int, visit: int) -> Document:
        """Tell what a visit sees of a captioned picture; each caption of a picture is a record of its own."""
        row = self.pictures.captions[index]
        key = (row.file, row.number, visit)
        rng = generator(self.encoder.seed, "augment", *key)
        view = draw_view(rng, flip=self.config.flip, crop=self.config.crop)
        return self.encoder.captioned(row.text, self.pictures.view(index, view), key)

    def name(self, index: int) -> str:
        """Name the picture, and which of its captions, from the second on."""
        row = self.pictures.captions[index]
        file = plain(row.file)
        return f"{file}, caption {row.number + 1}" if row.number else file

    def outline(self, index: int, visit: int | None = None) -> Document:
        """Return a captioned picture as long as it is told, or as it is told on a visit, without its pixels."""
        row = self.pictures.captions[index]
        if visit is None:
            return self.encoder.outline(row.text, self.config.size)
        return self.encoder.captioned(row.text, self.encoder.outlined(self.config.size), (row.file, row.number, visit))

    def texts(self) -> Iterator[str]:
        """Yield all captions."""
        return (row.text for row in self.pictures.captions)

    def preview_prompts(self) -> list[str]:
        """Return captions spread over the data."""
        places = np.linspace(0, self.size - 1, NUM_PREVIEWS).astype(int)
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
        self.quarantine = texts.quarantine
        self.left_for_others = texts.left_for_others
        self._chunks = [chunk for passage in texts.passages for chunk in _chunks(passage, encoder, chunk_length)]
        self.found = replace(texts.found, records=len(self._chunks))

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

    def outline(self, index: int, visit: int | None = None) -> Document:
        """Return one chunk: it is told in one way only."""
        return self.document(index, visit or 0)

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
