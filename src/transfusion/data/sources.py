"""What kind of data a run has: one reader for each kind, and the one place that chooses it.

    settings ──open_reader──▶ Reader: texts for a tokenizer, sample pictures, a digest, what was found
                                └──source(encoder)──▶ Source: its records told as documents

A reader reads names and captions at once and pictures when they are needed. It must not know models.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from transfusion.autoencoder.spaces import settings_of
from transfusion.data.captions import FolderCaptions, folder_captions
from transfusion.data.documents import CORPUS_SIZE, FolderSource, ShapesSource, TextSource, shapes_digest
from transfusion.data.encode import Encoder
from transfusion.data.errors import DataError
from transfusion.data.latents import LatentFolder, settled_data
from transfusion.data.layouts import layout_of
from transfusion.data.loader import Source
from transfusion.data.mixture import MixtureReader
from transfusion.data.reader import Pictures, Reader
from transfusion.data.readers import ImageFolder, TextFile, sample_folder
from transfusion.data.records.detect import format_of
from transfusion.data.records.reader import RecordReader
from transfusion.data.settings import (
    DataConfig,
    FolderConfig,
    Layout,
    MixtureConfig,
    ShapesConfig,
    TaskWeights,
    check_alone,
    check_named,
    held_out_of,
    settled_like,
)
from transfusion.data.shapes import corpus, render, sample_scene
from transfusion.data.splits import TRAIN, split_named
from transfusion.keyed import generator

__all__ = [
    "DataConfig",
    "FolderConfig",
    "FolderSource",
    "Layout",
    "MixtureConfig",
    "OpenedData",
    "Reader",
    "ShapesConfig",
    "ShapesSource",
    "TaskWeights",
    "TextSource",
    "held_out_config",
    "of_other_data",
    "open_reader",
    "open_source",
    "open_split",
    "settled_like",
]
NUM_MEASURED = 400


@dataclass(frozen=True)
class ShapesReader:
    """The built-in world."""

    config: ShapesConfig
    seed: int

    @property
    def held_out(self) -> ShapesConfig:
        """Return the world without end: losses are taken far beyond any run."""
        return self.config.model_copy(update={"num_documents": None})

    def texts(self) -> Iterator[str]:
        """Yield captions, questions with answers and instructions."""
        return corpus(self.seed, CORPUS_SIZE)

    def sample_pictures(self) -> Pictures:
        """Render scenes."""
        scenes = (sample_scene(generator(self.seed, "sample-pictures", i)) for i in range(NUM_MEASURED))
        return np.stack([render(scene, self.config.resolution) for scene in scenes])

    def digest(self) -> str:
        """Name the settings that decide the documents."""
        return shapes_digest(self.config, self.seed)

    def measured_digest(self, count: int) -> None:
        """Settings decide all."""
        del count

    def source(self, encoder: Encoder, chunk_length: int, *, at_most: int | None = None) -> ShapesSource:
        """Tell scenes."""
        del chunk_length, at_most
        return ShapesSource(self.config, encoder)


class PictureReader:
    """A folder of captioned pictures, in any layout."""

    _fewer: tuple[int, ImageFolder] | None = None  # those of which few are decoded: they are asked for twice

    def __init__(self, config: FolderConfig) -> None:
        """Read the captions.

        Raises:
            DataError: See ``folder_captions``.
        """
        self._captions: FolderCaptions = folder_captions(config.path, config.split, config.hold_out, config.layout)
        found = {"layout": self._captions.layout, "hold_out": self._captions.hold_out}
        self.config: FolderConfig = config.model_copy(update=found)

    @property
    def held_out(self) -> FolderConfig | None:
        """Return the settings of the split that is held out."""
        return held_out_of(self.config, self._captions.left_for_others)

    @cached_property
    def _pictures(self) -> ImageFolder:
        return ImageFolder(self._captions.path, self.config.size, captions=self._captions, crop=self.config.crop)

    def texts(self) -> Iterator[str]:
        """Yield all captions."""
        return (row.text for row in self._captions.rows)

    def sample_pictures(self) -> Pictures:
        """Decode pictures spread over the folder."""
        return sample_folder(self._captions.rows, self._captions.path, self.config.size, NUM_MEASURED)

    def digest(self) -> str:
        """Name files, captions and pixels."""
        return self._pictures.digest()

    def measured_digest(self, count: int) -> str:
        """Name all files and captions, and the pixels of so many pictures."""
        return self._few(count).digest()

    def source(self, encoder: Encoder, chunk_length: int, *, at_most: int | None = None) -> FolderSource:
        """Tell captioned pictures."""
        del chunk_length
        return FolderSource(self.config, encoder, self._pictures if at_most is None else self._few(at_most))

    def _few(self, count: int) -> ImageFolder:
        """Decode so many pictures."""
        if self._fewer is None or self._fewer[0] != count:
            few = ImageFolder(self._captions.path, self.config.size, captions=self._captions, at_most=count)
            self._fewer = count, few
        return self._fewer[1]


class LatentReader:
    """A folder of latents, as ``transfusion prepare latents`` writes them."""

    def __init__(self, config: FolderConfig) -> None:
        """Read the captions.

        Raises:
            DataError: See ``LatentFolder`` and ``settled_data``.
        """
        self.folder = LatentFolder(config.path, split=config.split, hold_out=config.hold_out)
        self.config: FolderConfig = settled_data(config, self.folder)

    @property
    def held_out(self) -> FolderConfig | None:
        """Return the settings of the split that is held out."""
        return held_out_of(self.config, self.folder.left_for_others)

    def texts(self) -> Iterator[str]:
        """Yield all captions."""
        return (row.text for row in self.folder.captions)

    def sample_pictures(self) -> None:
        """There are none: what is measured of them was measured when they were encoded."""
        return

    def digest(self) -> str:
        """Name latents and captions."""
        return self.folder.digest()

    def measured_digest(self, count: int) -> str:
        """Name latents and captions."""
        del count
        return self.folder.digest()

    def source(self, encoder: Encoder, chunk_length: int, *, at_most: int | None = None) -> FolderSource:
        """Tell captioned latents.

        Raises:
            DataError: A shard is damaged, or they are latents of another autoencoder than the encoder's.
        """
        del chunk_length, at_most
        self.folder.verify()
        space = settings_of(encoder.latents)
        return FolderSource(self.config, encoder, self.folder if space is None else self.folder.read_for(space))


def latent_readers(reader: Reader) -> list[LatentReader]:
    """Return the readers of latents that a reader is, or that a mixture has; none where it reads something else."""
    found = reader.readers.values() if isinstance(reader, MixtureReader) else (reader,)
    return [each for each in found if isinstance(each, LatentReader)]


def prepared_latents(reader: Reader) -> LatentFolder | None:
    """Return the folder of latents that a reader reads, of a mixture the first; None where it reads something else."""
    return next((each.folder for each in latent_readers(reader)), None)


class TextReader:
    """Plain text."""

    def __init__(self, config: FolderConfig) -> None:
        """Read the text.

        Raises:
            DataError: See ``TextFile``; or text shall be cropped or flipped.
        """
        check_alone(config, "text")
        is_asked_for = config.layout == "text"  # and not found: all texts are one, but for a split of theirs
        is_share = bool(config.hold_out) and split_named(config.split or TRAIN) != TRAIN
        is_whole = is_asked_for and (config.split is None or is_share)
        self._text = TextFile(config.path, split=config.split, hold_out=config.hold_out, is_whole=is_whole)
        split = TRAIN if self._text.is_named and config.split is None else config.split
        found = {"layout": "text", "hold_out": self._text.hold_out, "split": split}
        self.config: FolderConfig = config.model_copy(update=found)

    @property
    def held_out(self) -> FolderConfig | None:
        """Return the settings of the split that is held out."""
        return held_out_of(self.config, self._text.left_for_others)

    def texts(self) -> Iterator[str]:
        """Yield all text."""
        return iter(self._text.documents())

    def sample_pictures(self) -> None:
        """There are none."""
        return

    def digest(self) -> str:
        """Name the text."""
        return self._text.digest()

    def measured_digest(self, count: int) -> str:
        """Name the text."""
        del count
        return self._text.digest()

    def source(self, encoder: Encoder, chunk_length: int, *, at_most: int | None = None) -> TextSource:
        """Tell chunks of the text."""
        del at_most
        return TextSource(self._text, encoder, chunk_length)


def open_reader(config: DataConfig, seed: int = 0) -> Reader:
    """Open the data that a config names: the one place that chooses what kind they are.

    Args:
        config: What to open.
        seed: Key of what is drawn: texts and sample pictures of the built-in world.

    Raises:
        DataError: There are no such data, or it cannot be told how they are laid out.
    """
    if isinstance(config, MixtureConfig):
        return MixtureReader(config, {source.name: open_reader(source.data, seed) for source in config.sources})
    if isinstance(config, ShapesConfig):
        return ShapesReader(config, seed)
    if config.reader is not None and config.layout != "own":
        raise DataError(f"data.reader reaches nothing with data.layout={config.layout}; say data.layout=own")
    records = format_of(config.path, config.layout)
    layout = records or layout_of(config.path, config.layout)
    check_named(config, layout)
    if records is not None:
        return RecordReader(config, records)
    if layout == "latents":
        return LatentReader(config)
    return TextReader(config) if layout == "text" else PictureReader(config)


def open_split(reader: Reader, config: DataConfig, seed: int = 0) -> Reader:
    """Open another split of the data that a reader reads; records are not read again for it.

    Args:
        reader: Reads a split of them.
        config: Names the other split, as ``Reader.held_out`` does.
        seed: As for ``open_reader``.

    Raises:
        DataError: As ``open_reader``.
    """
    if isinstance(reader, RecordReader) and isinstance(config, FolderConfig):
        return reader.of_split(config)
    if isinstance(reader, MixtureReader) and isinstance(config, MixtureConfig):
        each = {source.name: open_split(reader.readers[source.name], source.data, seed) for source in config.sources}
        return MixtureReader(config, each)
    return open_reader(config, seed)


class OpenedData:
    """Data that are opened once, for all that a start asks of them and of what is held out of them."""

    def __init__(self, config: DataConfig, seed: int = 0) -> None:
        """Open the data; see ``open_reader``."""
        self.reader: Reader = open_reader(config, seed)
        self._seed = seed

    @cached_property
    def held_out(self) -> Reader | None:
        """What is held out of them, opened when it is first asked for; None where nothing is.

        Raises:
            DataError: It cannot be used.
        """
        config = self.reader.held_out
        return None if config is None else open_split(self.reader, config, self._seed)


def open_source(config: DataConfig, encoder: Encoder, chunk_length: int, *, at_most: int | None = None) -> Source:
    """Open the documents of the data that a config names.

    Args:
        config: What to open.
        encoder: Tells its records.
        chunk_length: Tokens of a chunk of plain text.
        at_most: Decode so many pictures at once, spread over all; None: all of them.
    """
    return open_reader(config, encoder.seed).source(encoder, chunk_length, at_most=at_most)


def held_out_config(config: DataConfig) -> DataConfig | None:
    """Return the settings of what is held out of the data that a run trains on, None where nothing is.

    Of data that mark their splits that is a validation split, where there is one, before the test. The built-in world
    without an end is its own: what is read of it to take losses lies beyond any run.
    """
    return open_reader(config).held_out


def of_other_data(config: FolderConfig, given: Collection[str]) -> FolderConfig:
    """Return settings of a run for other data: what was settled by the run's own does not hold for them.

    Args:
        config: The run's, with the path of the others.
        given: Names of settings that are given for the others.
    """
    anew: dict[str, object] = {
        "layout": "auto",
        "images": None,
        "reader": None,
        "hold_out": 0.0,
        "picture_column": None,
        "text_column": None,
    }
    if config.split == TRAIN:
        anew["split"] = None  # which takes it where there are splits
    return config.model_copy(update={name: value for name, value in anew.items() if name not in given})
