"""Several sources of data in one: told in turn, each with its share of the slots.

    readers ──MixtureReader──▶ settings of all, texts of all, pictures of all, a digest of each
                └──source──▶ MixtureSource ──fitted──▶ its Order: see ``order``

It must not know kinds of data.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest

import numpy as np
from numpy.typing import NDArray

from transfusion.data.encode import Encoder
from transfusion.data.errors import DataError
from transfusion.data.fit import FittedSource
from transfusion.data.found import Found
from transfusion.data.limit import Limit
from transfusion.data.loader import LoaderConfig, Measured, Source
from transfusion.data.order import Merged, Phase, Place, Shuffled, Track
from transfusion.data.plan import Planned
from transfusion.data.reader import Pictures, Reader
from transfusion.data.settings import TEXT_ALONE, FolderConfig, MixtureConfig, OneData, ShapesConfig
from transfusion.data.splits import spread
from transfusion.layout import num_slots
from transfusion.segments import Document

MIXTURE = "mixture"
NUM_MEASURED = 4096  # documents of a source whose lengths are measured as they are told
NUM_MEASURED_ENDLESS = 1024
MOST_LETTERS = 20_000_000  # of a source, from which a tokenizer is learnt
NUM_PREVIEWS = 8


class MixtureReader:
    """Reads all sources of a mixture."""

    def __init__(self, config: MixtureConfig, readers: Mapping[str, Reader]) -> None:
        """Bind the readers.

        Args:
            config: The mixture.
            readers: Of every source, by its name.

        Raises:
            DataError: There are none, or their pictures are not of one size.
        """
        if not readers:
            raise DataError(
                'a mixture has no sources: give them, as data.sources=[{"path":"books","weight":2},{"path":"pets"}]'
            )
        self.readers = readers
        self.config: MixtureConfig = _settled(config, readers)

    @property
    def held_out(self) -> MixtureConfig | None:
        """Return settings of what is held out of those sources of which something is; None where nothing is."""
        found = {name: held for name, reader in self.readers.items() if (held := reader.held_out) is not None}
        return self.config.with_data({name: _one(held) for name, held in found.items()}) if found else None

    def texts(self) -> Iterator[str]:
        """Yield text of all sources in turn, of none more than a tokenizer needs."""
        texts = [_bounded(reader.texts()) for reader in self.readers.values()]
        return (text for row in zip_longest(*texts) for text in row if text is not None)

    def sample_pictures(self) -> Pictures | None:
        """Return pictures of all sources that have some, of each as many."""
        found = [pictures for reader in self.readers.values() if (pictures := reader.sample_pictures()) is not None]
        return np.concatenate([pictures[:: len(found)] for pictures in found]) if found else None

    def digest(self) -> str:
        """Name what each source holds."""
        return _digest({name: reader.digest() for name, reader in self.readers.items()})

    def measured_digest(self, count: int) -> str:
        """Name what is measured of each source."""
        found = {name: reader.measured_digest(share(count, len(self.readers))) for name, reader in self.readers.items()}
        return _digest({name: digest for name, digest in found.items() if digest is not None})

    def source(self, encoder: Encoder, chunk_length: int, *, at_most: int | None = None) -> "MixtureSource":
        """Tell the records of all sources."""
        most = None if at_most is None else share(at_most, len(self.readers))
        sources = [reader.source(encoder, chunk_length, at_most=most) for reader in self.readers.values()]
        return MixtureSource(self.config, sources)


def share(count: int, num_sources: int) -> int:
    """Return how many of so many documents are measured of each source, at least."""
    return max(1, -(-count // num_sources))


def _one(config: object) -> OneData:
    assert isinstance(config, ShapesConfig | FolderConfig), f"a source of a mixture is no mixture: {config}"
    return config


def _settled(config: MixtureConfig, readers: Mapping[str, Reader]) -> MixtureConfig:
    """Return settings with nothing left open. Latents have the size that they were made for, and so has the mixture.

    Raises:
        DataError: Other pictures are of another.
    """
    found = {name: _one(reader.config) for name, reader in readers.items()}
    has_pictures = {name: data for name, data in found.items() if not _is_text(data)}
    prepared = {name: data for name, data in has_pictures.items() if _is_prepared(data)}
    resolution = next((data.resolution for data in prepared.values()), config.resolution)
    settled = config.model_copy(update={"resolution": resolution})
    other = next((name for name, data in has_pictures.items() if data.size != settled.size), None)
    if other is not None:
        raise DataError(
            f"source {other!r} has pictures of {list(found[other].size)}, and source {next(iter(prepared))!r} latents "
            f"of pictures of {list(settled.size)}: one model has pictures of one size; set data.resolution="
            f"{json.dumps(resolution)}, or prepare other latents"
        )
    texts = {name: data for name, data in found.items() if name not in has_pictures}
    alike = {name: data.model_copy(update={"resolution": resolution}) for name, data in texts.items()}
    return settled.with_data({**found, **alike})


def _is_text(data: OneData) -> bool:
    return isinstance(data, FolderConfig) and data.layout in TEXT_ALONE


def _is_prepared(data: OneData) -> bool:
    return isinstance(data, FolderConfig) and data.layout == "latents"


def _bounded(texts: Iterator[str]) -> Iterator[str]:
    left = MOST_LETTERS
    for text in texts:
        yield text[:left]
        left -= len(text)
        if left <= 0:
            return


def _digest(digests: Mapping[str, str]) -> str:
    return f"{MIXTURE}:{json.dumps(digests)}"


def changed_sources(old: str, new: str) -> list[str]:
    """Return which sources two digests tell apart; none where one is of no mixture."""
    if not all(digest.startswith(f"{MIXTURE}:") for digest in (old, new)):
        return []
    one, other = (json.loads(digest.removeprefix(f"{MIXTURE}:")) for digest in (old, new))
    return [name for name in {**one, **other} if one.get(name) != other.get(name)]


class MixtureSource:
    """Documents of several sources: of those that end, one source after the other; then of the endless, in turn."""

    def __init__(
        self, config: MixtureConfig, sources: Sequence[Source], lengths: Sequence[NDArray[np.float32]] = ()
    ) -> None:
        """Bind the sources.

        Args:
            config: The mixture, with nothing left open.
            sources: Of all its sources, in their order.
            lengths: Slots of the documents of each, as ``told_lengths`` measures them; without, they have no order yet.
        """
        self.config = config
        self.names = [source.name for source in config.sources]
        self.sources, self.lengths = sources, lengths
        self.forecasts: dict[str, str] = {}
        ends = [index for index, source in enumerate(sources) if source.size is not None]
        self._endless = [index for index in range(len(sources)) if index not in ends]
        self._finite = ends
        self._offsets = np.cumsum([0, *(sources[index].size or 0 for index in ends)]).tolist()

    @property
    def size(self) -> int | None:
        """Number of documents; None if there is no end."""
        return None if self._endless else self._offsets[-1]

    def index(self, source: int, record: int) -> int:
        """Return the number of a record of a source."""
        if source in self._finite:
            return self._offsets[self._finite.index(source)] + record
        return self._offsets[-1] + record * len(self._endless) + self._endless.index(source)

    def at(self, index: int) -> tuple[int, int]:
        """Return the source of a document, and which record of it that is."""
        if index < self._offsets[-1]:
            place = int(np.searchsorted(self._offsets, index, side="right")) - 1
            return self._finite[place], index - self._offsets[place]
        record, place = divmod(index - self._offsets[-1], len(self._endless))
        return self._endless[place], record

    def part(self, index: int) -> str:
        """Name the source of a document."""
        return self.names[self.at(index)[0]]

    def document(self, index: int, visit: int) -> Document:
        """Return a document as it is told on a visit."""
        source, record = self.at(index)
        return self.sources[source].document(record, visit)

    def outline(self, index: int, visit: int | None = None) -> Document:
        """Return how long a document is at most, or on a visit."""
        source, record = self.at(index)
        return self.sources[source].outline(record, visit)

    def name(self, index: int) -> str:
        """Name the source and the document."""
        source, record = self.at(index)
        return f"{self.names[source]}: {self.sources[source].name(record)}"

    @property
    def quarantine(self) -> Mapping[str, str]:
        """What was left out and why, by name."""
        return {f"{name}: {file}": why for name, source in self.each.items() for file, why in source.quarantine.items()}

    @property
    def left_for_others(self) -> Mapping[str, int]:
        """How many records were left for each of the other splits."""
        left: dict[str, int] = {}
        for source in self.sources:
            for split, count in source.left_for_others.items():
                left[split] = left.get(split, 0) + count
        return left

    @property
    def found(self) -> Found:
        """What each source holds, and what the run takes of it, where that is known."""
        told = {name: f"source {name!r}: {source.found.line()}" for name, source in self.each.items()}
        parts = tuple("; ".join([line, *filter(None, [self.forecasts.get(name)])]) for name, line in told.items())
        return Found(f"{len(self.sources)} sources", MIXTURE, self.size, parts=parts)

    @property
    def each(self) -> dict[str, Source]:
        """The sources by their names."""
        return dict(zip(self.names, self.sources, strict=True))

    def texts(self) -> Iterator[str]:
        """Yield the text of all sources."""
        return chain.from_iterable(source.texts() for source in self.sources)

    def preview_prompts(self) -> list[str]:
        """Return a few captions of each source that has some, in turn."""
        rows = zip_longest(*(source.preview_prompts() for source in self.sources))
        return [prompt for row in rows for prompt in row if prompt is not None][:NUM_PREVIEWS]

    def digest(self) -> str:
        """Name what each source holds."""
        return _digest({name: source.digest() for name, source in self.each.items()})

    def order(self, config: LoaderConfig, planned: Planned = ()) -> "MixedOrder":
        """Return what comes at each place: where steps are of rows, with the changes of weights that are planned, to
        which whoever plans them adds those to come.

        Raises:
            ValueError: How long documents are has not been measured: see ``fitted``.
            DataError: Steps are of rows, which are planned ahead, and a source has no end.
        """
        if not self.lengths:
            raise ValueError(
                "a mixture is put in order by the lengths of its documents; take fitted(limit, max_dropped)"
            )
        if config.unit == "rows" and self._endless:
            raise DataError(
                f"source {self.names[self._endless[0]]!r} of the mixture has no end, so its documents have no lengths "
                "before they are told, and no rows of it and others can be planned: take train.batch_unit=documents"
            )
        tracks = [
            Track(Shuffled(config.seed, source.size, name), lengths)
            for (name, source), lengths in zip(self.each.items(), self.lengths, strict=True)
        ]
        if config.unit == "documents":
            phases = [Phase(step * config.batch_size, weights) for step, weights in self.config.phases]
        else:
            known = zip((0, *planned[2:]), self.config.phases, strict=False)
            phases = [Phase(place, weights) for place, (_, weights) in known]
        return MixedOrder(self, Merged(tracks, phases))

    def changes(self, config: LoaderConfig) -> list[int]:
        """Return the rows from which other weights hold."""
        return [step * config.batch_size for step, _ in self.config.phases[1:]]

    def slots_of(self, indices: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return how many slots documents take at most."""
        slots, sources = np.zeros(len(indices), np.int32), self.sources_of(indices)
        for place in np.unique(sources).tolist():
            found, its = self.sources[place], sources == place
            assert isinstance(found, Measured), "a mixture is fitted before its documents are measured"
            slots[its] = found.slots_of(indices[its] - self._offsets[self._finite.index(place)])
        return slots

    def sources_of(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the sources of documents of those that end, (count,) for (count,)."""
        return np.array(self._finite, np.int64)[np.searchsorted(self._offsets, indices, side="right") - 1]

    def fitted(self, limit: Limit, max_dropped: float) -> "MixtureSource":
        """Leave out what does not fit into a row, and measure the rest.

        Args:
            limit: What fits.
            max_dropped: Largest share of the documents of each source that may be left out.

        Raises:
            DataError: As ``FittedSource``; names the source.
        """
        fitted: list[FittedSource] = []
        for name, source in self.each.items():
            try:
                fitted.append(FittedSource(source, limit, max_dropped))
            except DataError as error:
                raise DataError(f"source {name!r}: {error}") from error
        return MixtureSource(self.config, fitted, [told_lengths(source, limit) for source in fitted])


@dataclass(frozen=True)
class MixedOrder:
    """The order of a mixture: which source comes at a place, and which record of it.

    Attributes:
        source: The mixture.
        merged: The order of its sources.
    """

    source: MixtureSource
    merged: Merged

    def place(self, number: int) -> Place:
        """Return the record and the visit of a place."""
        track, count = self.merged.place(number)
        record, visit = self.merged.tracks[track].shuffled.place(count)
        return Place(self.source.index(track, record), visit)

    def places(self, first: int, last: int) -> NDArray[np.int64]:
        """Return the records and visits of places."""
        return np.array([self.place(number) for number in range(first, last)], np.int64).reshape(-1, 2)

    def together(self, places: NDArray[np.int64]) -> int:
        """Return how many of the first of some places may share a window: until a source begins anew whose repeats are
        limited, or one record would be told again before another.
        """
        sources, count = self.source.sources_of(places[:, 0]), len(places)
        for number, own in enumerate(self.source.config.sources):
            its = (sources == number).nonzero()[0]
            if own.max_repeats is not None and len(its):
                later = its[places[its, 1] > places[its[0], 1]]
                count = min(count, int(later[0])) if len(later) else count
        return count

    def change(self, place: int) -> None:
        """Let the next weights hold from a place on."""
        self.merged.change(Phase(place, self.source.config.phases[self.merged.num_phases][1]))


def told_lengths(source: FittedSource, limit: Limit) -> NDArray[np.float32]:
    """Return how many slots each document of a source takes as it is told, on average over visits; of a source without
    end, one number, the mean.

    What is told is shorter than its outline where text is dropped: by how much is measured on documents spread over the
    source.
    """
    if source.size is None:
        return np.array(
            [np.mean([_told_length(source, index, limit) for index in range(NUM_MEASURED_ENDLESS)])], np.float32
        )
    places = spread(source.size, NUM_MEASURED)
    told = sum(_told_length(source, place, limit) for place in places)
    return (source.lengths * (told / source.lengths[places].sum())).astype(np.float32)


def _told_length(source: FittedSource, index: int, limit: Limit) -> int:
    document = limit.fitted(source.outline(index, 0))
    return 0 if document is None else num_slots(document, limit.vocabulary)
