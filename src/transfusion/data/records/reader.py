"""The reader of records of any format: what is asked of data before and beside training. It must not know models."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from transfusion.data.decode import open_picture
from transfusion.data.encode import Encoder
from transfusion.data.errors import BrokenPicture, DataError
from transfusion.data.found import MOST_LISTED, counted, listed
from transfusion.data.records.detect import open_records
from transfusion.data.records.record import Records, glancing, pictures, words
from transfusion.data.records.source import RecordSource
from transfusion.data.settings import TEXT_ALONE, FolderConfig, Layout, check_alone, held_out_of
from transfusion.data.splits import IN_BOTH, Chosen, choose, spread

NUM_MEASURED = 400
Pictures = NDArray[np.uint8]


class RecordReader:
    """Records of any format: see ``records``."""

    def __init__(self, config: FolderConfig, layout: Layout, records: Records | None = None) -> None:
        """Read which records there are.

        Args:
            config: The data, and which split of them.
            layout: The format.
            records: They, where they were read already.

        Raises:
            DataError: They cannot be read, or there is no such split; or text shall be cropped or flipped.
        """
        check_alone(config, layout)
        self._layout: Layout = layout
        self._records: Records = open_records(config, layout) if records is None else records
        self._chosen = self._choose(config)
        self.config: FolderConfig = config.model_copy(update={"layout": layout, "hold_out": self._chosen.hold_out})

    @property
    def held_out(self) -> FolderConfig | None:
        """Return the settings of the split that is held out."""
        return held_out_of(self.config, self._chosen.left)

    def of_split(self, config: FolderConfig) -> "RecordReader":
        """Read another split of the same records, which are not read again.

        Raises:
            DataError: There is no such split.
        """
        return RecordReader(config, self._layout, self._records)

    def _choose(self, config: FolderConfig) -> Chosen:
        """Choose the records of a split, and say which are of none."""
        records = self._records
        found = choose(
            records.groups,
            records.splits,
            config.split,
            config.hold_out,
            where=config.path,
            called=self._called,
            own=records.own,
        )
        crossing = [place for place, split in enumerate(records.splits) if split == IN_BOTH]
        if not crossing:
            return found
        named = listed([self._called(place) if at < MOST_LISTED else "" for at, place in enumerate(crossing)])
        told = f"{counted(len(crossing), 'record')} of 'train' not trained on, in another split by pictures or texts"
        return replace(found, told="; ".join(filter(None, (f"{told}: {named}", found.told))))

    def _called(self, place: int) -> str:
        """Name a record, or its group where what it names is no picture."""
        try:
            return self._records[place].name
        except BrokenPicture:
            return self._records.groups[place]

    def texts(self) -> Iterator[str]:
        """Yield all words."""
        glance = glancing(self._records)
        return (text for place in self._chosen.places for text in words(glance(place)))

    def sample_pictures(self) -> Pictures | None:
        """Decode the first pictures of records spread over the data; broken ones are passed over.

        Raises:
            DataError: None of them can be read.
        """
        if self.config.layout in TEXT_ALONE or not self._records.found.pictures:
            return None
        found, first = list[NDArray[np.uint8]](), "no record that was looked at has one"
        for place in spread(len(self._chosen.places), NUM_MEASURED):
            picture = next(pictures(self._records[self._chosen.places[place]]), None)
            if picture is None:
                continue
            try:
                found.append(open_picture(picture, self.config.size))
            except BrokenPicture as error:
                first = str(error)
        if not found:
            raise DataError(f"none of the pictures tried of {self.config.path} can be read: {first}")
        return np.stack(found)

    def digest(self) -> str:
        """Name what the rows hold, the split, and which records stand together and where, which links and names of
        files decide; not the pixels of pictures in files of their own.
        """
        return f"{self._records.digest()}:{self.config.split}:{self.config.hold_out}:{self._sides}"

    @cached_property
    def _sides(self) -> str:
        """A hash of the groups and the splits."""
        groups, splits = self._records.groups, self._records.splits
        told = hashlib.sha256()
        for group, split in zip(groups, splits, strict=True):
            told.update(f"{group} {split}\n".encode("utf-8", "surrogatepass"))
        return told.hexdigest()[:16]

    def measured_digest(self, count: int) -> str:
        """Name the same."""
        del count
        return self.digest()

    def source(self, encoder: Encoder, chunk_length: int, *, at_most: int | None = None) -> RecordSource:
        """Tell records; pictures are decoded when they are told."""
        del at_most
        return RecordSource(self.config, self._records, self._chosen, encoder, chunk_length)
