"""Pictures without captions: of a folder in any layout, or scenes of the built-in world; and the batches of a step.

Which pictures a step takes, and how each is cropped and flipped, is a pure function of (seed, step).
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from transfusion.autoencoder.pixels import HALF_RANGE
from transfusion.autoencoder.space import Picture
from transfusion.data.captions import CaptionRow, FolderCaptions, folder_captions
from transfusion.data.documents import shapes_digest
from transfusion.data.errors import BrokenPicture, DataError, plain
from transfusion.data.found import Found
from transfusion.data.layouts import TABLES, holds_latents, lay_out
from transfusion.data.readers import ImageFolder
from transfusion.data.records.detect import check_in_files
from transfusion.data.settings import FolderConfig, OneData, ShapesConfig
from transfusion.data.shapes import render, sample_scene
from transfusion.data.splits import TRAIN, choose, held_out_split, split_around
from transfusion.data.tree import Tree, scan
from transfusion.keyed import generator
from transfusion.train.autoencoder.settings import AutoencoderRun

ALONE = "pictures"  # a layout of pictures and nothing else
_log = logging.getLogger(__name__)


class Pictures(Protocol):
    """Random-access pictures of one size."""

    @property
    def size(self) -> int | None:
        """Their number; None if there is no end."""
        ...

    @property
    def quarantine(self) -> Mapping[str, str]:
        """What was left out and why, by name."""
        ...

    @property
    def found(self) -> Found:
        """What the data hold."""
        ...

    def picture(self, index: int) -> Picture:
        """Return a picture, (side, side, 3) uint8."""
        ...

    def digest(self) -> str:
        """Name what they are, so that resuming on others is noticed."""
        ...


class OpenedPictures(NamedTuple):
    """Pictures to train on, those held out of them, if any, and the settings with nothing left open."""

    training: Pictures
    held_out: Pictures | None
    config: OneData


@dataclass(frozen=True)
class ScenePictures:
    """Scenes of the built-in world; those of another stream are never trained on."""

    config: ShapesConfig
    seed: int
    stream: str = "shapes"

    @property
    def size(self) -> int | None:
        """Number of scenes, if there is an end."""
        return self.config.num_documents

    @property
    def quarantine(self) -> dict[str, str]:
        """Nothing is left out."""
        return {}

    @property
    def found(self) -> Found:
        """Say what is trained on."""
        return Found("the built-in world", "shapes", self.size)

    def picture(self, index: int) -> Picture:
        """Render a scene."""
        return render(sample_scene(generator(self.seed, self.stream, index, 0)), self.config.resolution)

    def digest(self) -> str:
        """Name the settings that decide the scenes."""
        return shapes_digest(self.config, self.seed)


class FolderPictures:
    """Pictures of a folder, decoded once."""

    def __init__(self, config: FolderConfig, captions: FolderCaptions) -> None:
        """Decode them; broken ones go into quarantine."""
        self._folder = ImageFolder(config.path, config.resolution, captions=captions)
        self.size = len(self._folder)
        self.quarantine = self._folder.quarantine
        self.found = self._folder.found

    def picture(self, index: int) -> Picture:
        """Return a picture; in the place of one that is broken, the next that is not.

        Raises:
            BrokenPicture: None is whole.
        """
        for tried in range(len(self._folder)):
            place = (index + tried) % len(self._folder)
            try:
                return self._folder[place].picture
            except BrokenPicture as error:
                name = plain(self._folder.captions[place].file)
                if name not in self.quarantine:
                    self.quarantine[name] = str(error)
                    _log.warning("%s is left out: %s", name, error)
        raise BrokenPicture(f"none of the {len(self._folder)} pictures can be read")

    def digest(self) -> str:
        """Name files and pixels."""
        return self._folder.digest()


def open_pictures(config: OneData, seed: int) -> OpenedPictures:
    """Open the pictures that settings name, and those that are held out.

    Args:
        config: What to open: the built-in world, or a folder in any layout, captions or not.
        seed: Key of the built-in world.

    Raises:
        DataError: There are no such pictures.
    """
    if isinstance(config, ShapesConfig):
        return OpenedPictures(ScenePictures(config, seed), ScenePictures(config, seed, "shapes-held-out"), config)
    found = picture_rows(config)
    layout = config.layout if found.found.layout == ALONE else found.layout
    settled = config.model_copy(update={"layout": layout, "hold_out": found.hold_out})
    other = held_out_split(found.left_for_others) if settled.split in (None, TRAIN) else None
    held_out = None
    if other is not None:
        elsewhere = settled.model_copy(update={"split": other})
        held_out = FolderPictures(elsewhere, picture_rows(elsewhere))
    return OpenedPictures(FolderPictures(settled, found), held_out, settled)


def picture_rows(config: FolderConfig) -> FolderCaptions:
    """Find the pictures of a folder's split, each once, whatever is said of it.

    Raises:
        DataError: There are none but latents, or none at all, or the captions that mark their splits cannot be read.
    """
    if holds_latents(config.path):
        raise DataError(
            f"{config.path} holds latents, which an autoencoder has made of pictures: none can be trained on them; "
            "name the folder of pictures (data.path)"
        )
    check_in_files(config.path, config.layout)
    try:
        layout = lay_out(config.path, config.layout).layout
    except DataError:
        if config.layout != "auto" or not config.path.is_dir() or not _is_alone(alone := scan(config.path)):
            raise
        names = [file.as_posix() for file in alone.pictures]
        marks = [split_around(file.parent.as_posix()) for file in alone.pictures]
        marks = marks if TRAIN in marks else [None] * len(names)
        chosen = choose(names, marks, config.split, config.hold_out, where=config.path, unit="picture")
        rows = [CaptionRow(names[place], "") for place in chosen.places]
        told = Found(str(config.path), ALONE, pictures=len(names), splits=chosen.counts, held_out=chosen.told)
        return FolderCaptions(config.path, "auto", rows, chosen.left, False, chosen.hold_out, {}, told)
    if layout == "text":
        raise DataError(f"{config.path} holds text, and no pictures to train an autoencoder on")
    found = folder_captions(config.path, config.split, config.hold_out, layout)
    once = {row.file: replace(row, text="", number=0) for row in found.rows}
    return replace(found, rows=list(once.values()))


def _is_alone(tree: Tree) -> bool:
    """Return whether files are pictures that nothing is said of: what is might mark their splits."""
    return bool(tree.pictures) and not tree.pairs and not any(tree.has(name) for name in TABLES)


class Batches:
    """The pictures of every step, by its number."""

    def __init__(self, pictures: Pictures, config: AutoencoderRun) -> None:
        """Bind pictures and the draws."""
        self._pictures, self._config = pictures, config
        self._order: tuple[int, list[int]] | None = None

    def __getitem__(self, step: int) -> Tensor:
        """Return the batch of a step, (B, 3, side, side) float32 in [-1, 1]."""
        size = self._config.train.batch_size
        return as_values([self._visited(step * size + offset) for offset in range(size)])

    def _visited(self, number: int) -> Picture:
        size, seed = self._pictures.size, self._config.train.seed
        visit, place = (0, number) if size is None else divmod(number, size)
        if size is not None and (self._order is None or self._order[0] != visit):
            order: list[int] = generator(seed, "order", visit).permutation(size).tolist()
            self._order = (visit, order)
        index = place if size is None or self._order is None else self._order[1][place]
        return augmented(self._pictures.picture(index), self._config, (index, visit))


def augmented(picture: Picture, config: AutoencoderRun, key: tuple[int, int]) -> Picture:
    """Crop and flip a picture by a keyed draw of its visit.

    Args:
        picture: (H, W, 3).
        config: Says how.
        key: The picture's index, and which visit it is.
    """
    rng = generator(config.train.seed, "augment", *key)
    (top, left), is_flipped = rng.random(2), rng.random() < 0.5
    side = config.side
    height, width = picture.shape[:2]
    row, column = int(top * (height - side + 1)), int(left * (width - side + 1))
    seen = picture[row : row + side, column : column + side]
    return seen[:, ::-1] if config.augment.flip and is_flipped else seen


def as_values(pictures: list[Picture]) -> Tensor:
    """Turn pictures (H, W, 3) uint8 into (B, 3, H, W) float32 in [-1, 1]."""
    stacked = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    return (stacked.float() / HALF_RANGE - 1.0).contiguous()


def as_pictures(values: Tensor) -> list[Picture]:
    """Turn (B, 3, H, W) in [-1, 1] into pictures (H, W, 3) uint8, clipping what lies outside."""
    rounded = ((values.detach().float().cpu() + 1.0) * HALF_RANGE).round().clamp(0, 255).to(torch.uint8)
    return list(rounded.permute(0, 2, 3, 1).contiguous().numpy())
