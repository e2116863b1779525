"""A source without the documents that do not fit into a row, or of which nothing would be learnt: settled by the
outlines of all records before a run.

It must not know what documents hold, nor where they come from.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from transfusion.data.errors import DataError
from transfusion.data.found import Found
from transfusion.data.limit import Limit, silent, too_long
from transfusion.data.loader import Source
from transfusion.layout import num_slots
from transfusion.segments import Document

TOO_LONG = "record too long for a row"
CUT = "record of which nothing would be learnt once it is cut"
SILENT = "record of which nothing would be learnt"
KINDS = (TOO_LONG, CUT, SILENT)
WHY = {TOO_LONG: "are too long", CUT: "are too long, and hold nothing that would be learnt once they are cut"}
NUM_TRIED = 64  # documents of a source without end that are looked at before a run


class FittedSource:
    """The documents of a source that fit and that something is learnt of; the others are named in its quarantine.

    Attributes:
        lengths: Slots of each as long as it can be told, int32; of a source without end, of those that were looked at.
    """

    def __init__(self, source: Source, limit: Limit, max_dropped: float) -> None:
        """Look at the outline of every record, or of the first of a source without end.

        Args:
            source: All documents.
            limit: What fits.
            max_dropped: Largest share of the documents that may be left out for their length: too long, or with nothing
                to learn once they are cut.

        Raises:
            DataError: A record does not fit the model, or a row and the settings refuse that; or too many do not; or
                of none would anything be learnt.
        """
        self._source = source
        size = source.size
        count = NUM_TRIED if size is None else size
        lengths = np.zeros(count, dtype=np.int32)
        found = list(_faults(source, limit, lengths))
        faults = {fault.place: fault.reason for fault in found}
        if not count:
            raise DataError(f"{source.found.where} holds nothing to train on: {source.found.line()}")
        counts = Counter(fault.kind for fault in found)
        if len(found) == count:
            raise DataError(f"{_of_all(counts, count)}; the first: {found[0].reason}")
        by_length = [fault for fault in found if fault.kind != SILENT]
        if len(by_length) > max_dropped * count:
            first = by_length[0]
            raise DataError(
                f"{len(by_length)} of {count} documents {WHY[first.kind]}, more than the share that may be dropped "
                f"(train.max_dropped {max_dropped}, which may be raised); the first: {first.reason}"
            )
        self._counts = counts
        self.dropped = {} if size is None else faults
        self._kept = None if size is None else [index for index in range(size) if index not in faults]
        self.lengths = lengths[lengths > 0]

    @property
    def size(self) -> int | None:
        """Number of documents that fit; None if there is no end."""
        return None if self._kept is None else len(self._kept)

    @property
    def left_for_others(self) -> Mapping[str, int]:
        """How many records were left for other splits."""
        return self._source.left_for_others

    @property
    def quarantine(self) -> Mapping[str, str]:
        """What was left out and why, by name."""
        return {**self._source.quarantine, **{self._source.name(index): fault for index, fault in self.dropped.items()}}

    @property
    def found(self) -> Found:
        """What the data hold, how many records of it fit and how many do not: where there is no end, of the first."""
        found = self._source.found
        of = "" if self.size is not None else f", of the first {NUM_TRIED}"
        left_out = {f"{why}{of}": self._counts[why] for why in KINDS if self._counts[why]}
        return replace(found, records=self.size, left_out={**found.left_out, **left_out})

    def slots_of(self, indices: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return how many slots documents take at most.

        Raises:
            ValueError: There is no end of documents: they have no length before they are told.
        """
        if self._kept is None:
            raise ValueError("documents of a source without end are not measured")
        return self.lengths[indices]

    def name(self, index: int) -> str:
        """Name a document."""
        return self._source.name(index if self._kept is None else self._kept[index])

    def document(self, index: int, visit: int) -> Document:
        """Return document ``index`` as it is told on its ``visit``-th visit."""
        return self._source.document(index if self._kept is None else self._kept[index], visit)

    def outline(self, index: int, visit: int | None = None) -> Document:
        """Return how long a document is at most, or on a visit."""
        return self._source.outline(index if self._kept is None else self._kept[index], visit)

    def texts(self) -> Iterator[str]:
        """Yield the text to learn a tokenizer from."""
        return self._source.texts()

    def preview_prompts(self) -> list[str]:
        """Return a few captions to draw while training."""
        return self._source.preview_prompts()

    def digest(self) -> str:
        """Name what the source holds."""
        return self._source.digest()


class _Fault(NamedTuple):
    """A record that is left out: which, why, and of which of ``KINDS`` it is."""

    place: int
    reason: str
    kind: str


def _of_all(counts: Mapping[str, int], count: int) -> str:
    """Say that none of ``count`` documents can be trained on."""
    num_long = counts[TOO_LONG]
    if num_long == count:
        return f"{count} of {count} documents {WHY[TOO_LONG]}"
    if not num_long:
        return f"nothing would be learnt of any of {count} documents"
    return f"{num_long} of {count} documents {WHY[TOO_LONG]}, and nothing would be learnt of any of the others"


def _faults(source: Source, limit: Limit, lengths: NDArray[np.int32]) -> Iterator[_Fault]:
    """Yield the records that are to be left out, and why; fill in the slots of the others."""
    for index in range(len(lengths)):
        outline = source.outline(index)
        name = f"document {index} ({source.name(index)})"
        try:
            fitted = limit.fitted(outline, name)
        except DataError:
            raise
        except (ValueError, KeyError) as error:
            raise DataError(f"{name} does not fit the model: {error}") from error
        if fitted is None:
            length = num_slots(outline, limit.vocabulary)
            kind = SILENT if length <= limit.row_length else CUT if limit.too_long == "cut" else TOO_LONG
            yield _Fault(index, (too_long if kind == TOO_LONG else silent)(name, length, limit.row_length), kind)
        else:
            lengths[index] = num_slots(fitted, limit.vocabulary)
