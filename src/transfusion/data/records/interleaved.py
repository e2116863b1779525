"""Documents of text and pictures in turn, and text alone: rows of JSON.

    {"segments": [{"type": "text", "text": "Once"}, {"type": "image", "file": "jpg/1.jpg"}, ...], "split": "train"}
    {"texts": ["Once", null, "there"], "images": [null, "jpg/1.jpg", null]}      as OBELICS has them
    {"text": "Once there was"}                                                   layout "lines"

``split`` is optional; other fields are passed over. Pictures are named relative to a folder.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import cast

from transfusion.data.caption_rows import names_picture
from transfusion.data.errors import DataError
from transfusion.data.found import Found, counted
from transfusion.data.records.mapped import own_hash
from transfusion.data.records.record import Interleaved, Part
from transfusion.data.records.rows import Row, Rows
from transfusion.data.records.sides import Sides
from transfusion.data.records.within import check_unicode, picture_at, split_of

DOCUMENTS_FILE = "documents.jsonl"
EXPECTED = '{"segments": [{"type": "text", "text": ...}, {"type": "image", "file": ...}]}'


class Documents:
    """Rows of text and pictures in turn, or of text alone."""

    kind = Interleaved

    def __init__(self, file: Path, images: Path, *, has_pictures: bool = True) -> None:
        """Read every row once, to check it and to count.

        Args:
            file: The rows.
            images: Folder that pictures are named relative to.
            has_pictures: Whether rows have pictures, or a text each.

        Raises:
            DataError: A row is no document; names it.
        """
        self._rows, self._images, self._has_pictures = Rows(file), images, has_pictures
        self.quarantine: Mapping[str, str] = {}
        sides = Sides(images)
        num_pictures = num_letters = num_silent = num_naming = 0
        for index, row in enumerate(self._rows):
            where = self._rows.where(index)
            parts = self._parts(row, where)
            check_unicode((part for part in parts if isinstance(part, str)), where)
            shown = (part for part in parts if not isinstance(part, str))
            sides.add(own_hash(parts, images), split_of(row, where), shown, is_tied=False)
            num_pictures += sum(not isinstance(part, str) for part in parts)
            num_letters += sum(len(part) for part in parts if isinstance(part, str))
            num_silent += not parts
            num_naming += not has_pictures and bool(names_picture(row))
        self.splits: Sequence[str | None] = sides.splits
        self.groups: Sequence[str] = sides.groups  # of what the rows say, whatever else stands in them
        self.own = self.groups
        self.found = Found(
            str(file),
            "interleaved" if has_pictures else "lines",
            pictures=num_pictures,
            letters=num_letters,
            texts=len(self._rows),
            noted="; ".join(note for note in (sides.noted, _naming(num_naming)) if note),
            left_out={"row that holds nothing": num_silent} if num_silent else {},
        )

    def __getitem__(self, index: int) -> Interleaved:
        """Return the document of a row."""
        return Interleaved(f"{self._rows.file.name}:{index}", self._parts(self._rows[index], self._rows.where(index)))

    def digest(self) -> str:
        """Name what the rows hold."""
        return f"documents:{self._digest}"

    @cached_property
    def _digest(self) -> str:
        return self._rows.digest()

    def _parts(self, row: Row, where: str) -> tuple[Part, ...]:
        if not self._has_pictures:
            text = row.get("text")
            if not isinstance(text, str):
                raise DataError(f"{where}: expected a string as 'text'; got {text!r:.80}")
            return (text,) if text.strip() else ()
        found = _segments(row, where) if row.get("segments") is not None else _aligned(row, where)
        return tuple(part if kind == "text" else picture_at(self._images, part, where) for kind, part in found if part)


def _naming(count: int) -> str:
    """Say how many rows of text alone name pictures; nothing where none does."""
    return f"{counted(count, 'row')} name{'s' if count == 1 else ''} pictures that are not taken" if count else ""


def _segments(row: Row, where: str) -> Iterator[tuple[str, str]]:
    """Yield "text" or "image" and the text or the file's name, of segments that name their types."""
    segments = row["segments"]
    if not isinstance(segments, list):
        raise DataError(f"{where}: expected a list as 'segments'; got {segments!r:.80}; rows are {EXPECTED}")
    for number, segment in enumerate(cast(list[object], segments), start=1):
        told = cast(dict[str, object], segment) if isinstance(segment, dict) else {}
        kind = told.get("type")
        value = told.get("text" if kind == "text" else "file")
        if kind not in ("text", "image") or not isinstance(value, str) or (kind == "image" and not value):
            raise DataError(f"{where}: segment {number} is {segment!r:.80}; rows are {EXPECTED}")
        yield kind, value


def _aligned(row: Row, where: str) -> Iterator[tuple[str, str]]:
    """Yield the same of two lists of one length, in each place of which one of them says nothing."""
    texts, images = row.get("texts"), row.get("images")
    if not isinstance(texts, list) or not isinstance(images, list):
        raise DataError(f"{where}: expected 'segments', or lists 'texts' and 'images'; rows are {EXPECTED}")
    pairs = list(zip(cast(list[object], texts), cast(list[object], images), strict=False))
    if len(texts) != len(images):  # pyright: ignore[reportUnknownArgumentType]
        raise DataError(f"{where}: 'texts' and 'images' have not the same length; each place is one or the other")
    for number, (text, image) in enumerate(pairs, start=1):
        given = [value for value in (text, image) if value is not None]
        if len(given) != 1 or not isinstance(given[0], str):
            raise DataError(f"{where}: place {number} of 'texts' and 'images' is {text!r:.40} and {image!r:.40}")
        yield ("text" if text is not None else "image"), given[0]
