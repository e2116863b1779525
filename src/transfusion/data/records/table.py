"""Tables of captioned pictures, or of texts: Parquet files, and what the ``datasets`` library of Hugging Face saves.

    train-00000-of-00002.parquet      a folder of such files; files or folders called as splits are these
    test-00000-of-00001.parquet
    saved/dataset_info.json ...       Dataset.save_to_disk, or DatasetDict.save_to_disk

A row has a picture (a column of type Image, or of bytes) and a text; a list of texts is a record each; a class label is
told by its name:

    image                    text
    {"bytes": ..., "path"}   "a cat on a sofa"

Of a table without pictures each row is a text. The library reads the files, Parquet through its cache (as large as they
are unpacked, in HF_DATASETS_CACHE), so that any row is found by its number. It is an extra.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

from transfusion.data.decode import Held, PictureSource
from transfusion.data.errors import DataError
from transfusion.data.found import Found
from transfusion.data.records.columns import (
    SPLIT,
    Columns,
    Features,
    check_splits,
    choose_columns,
    is_called,
    kind_of,
    split_said,
    texts_of,
)
from transfusion.data.records.places import find_files
from transfusion.data.records.record import Captioned, Interleaved, Record
from transfusion.data.records.sides import file_of
from transfusion.data.records.tally import Tallied, Tally, mark_of, mark_of_picture
from transfusion.data.records.within import name_within, picture_at, split_of
from transfusion.data.splits import split_marked

PARQUET = ".parquet"
SAVED_FILES = ("dataset_dict.json", "state.json")  # of several splits, and of one
EXTRA = "pip install 'transfusion[datasets]'"
NUM_SCANNED = 512  # rows at once
BLANK, BARE, NOTHING = "row without a caption", "row without a picture", "row that holds nothing"
OUTSIDE = "row whose picture lies outside the folder"


class Part(NamedTuple):
    """Rows of one split, as the library holds them."""

    split: str | None
    rows: Any  # datasets.Dataset, which is imported when it is needed


def is_parquet(name: str) -> bool:
    """Return whether a file is called as Parquet."""
    return name.lower().endswith(PARQUET)


def is_saved(path: Path) -> bool:
    """Return whether a folder was saved by the library."""
    return any((path / name).is_file() for name in SAVED_FILES)


def has_picture_column(path: Path) -> bool:
    """Return whether a table has a column of pictures, without reading its rows.

    Raises:
        DataError: The library is absent, or the file is no table; or they lie in several folders.
    """
    return any(kind_of(feature) == "picture" or is_called(name, feature) for name, feature in _features(path).items())


def _features(path: Path) -> Features:
    """Return the columns of a table and their types."""
    datasets = _library(path)
    if is_saved(path):
        return dict(open_parts(path)[0].rows.features)
    import pyarrow.parquet  # as the library itself does

    file = find_files(path, is_parquet)[0].file
    try:
        return dict(datasets.Features.from_arrow_schema(pyarrow.parquet.read_schema(file)))
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: no Parquet file, or damaged ({_first_line(error)}); copy it again") from error


def open_parts(path: Path, *, is_named: bool = False) -> list[Part]:
    """Open a table.

    Args:
        path: A file, or a folder.
        is_named: See ``find_files``.

    Raises:
        DataError: There is none, it cannot be read, or the library is absent.
    """
    datasets = _library(path)
    is_shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        if is_saved(path):
            told = datasets.load_from_disk(str(path))
            return (
                [Part(split_marked(str(name)), rows) for name, rows in told.items()]
                if isinstance(told, dict)
                else [Part(None, told)]
            )
        files: dict[tuple[str | None, str], list[str]] = {}  # those that number their classes alike are one part
        for place in find_files(path, is_parquet, is_named=is_named):
            files.setdefault((place.split, _classes(place.file)), []).append(str(place.file))
        return [Part(split, datasets.Dataset.from_parquet(names)) for (split, _), names in files.items()]
    except (OSError, ValueError, TypeError, KeyError, datasets.exceptions.DatasetsError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: the datasets library cannot read it ({_first_line(error)})") from error
    finally:
        if is_shown:
            datasets.enable_progress_bars()


def _classes(file: Path) -> str:
    """Return the names of the classes of a file, in the order of their numbers."""
    import datasets
    import pyarrow.parquet

    features = cast(Features, datasets.Features.from_arrow_schema(pyarrow.parquet.read_schema(file)))
    return repr({name: feature.names for name, feature in features.items() if kind_of(feature) == "label"})


def _library(path: Path) -> Any:  # noqa: ANN401 - a module
    try:
        import datasets  # seconds, and an extra
    except ImportError as error:
        raise DataError(f"{path} is a table, which is read by the datasets library: {EXTRA}") from error
    return datasets


def _first_line(error: BaseException) -> str:
    """Return what an error says, and what it comes from where that says more."""
    cause = error.__cause__
    told = str(cause if cause is not None else error) or type(error).__name__
    return told.splitlines()[0][:200]


class Table(Tallied):
    """The rows of a table."""

    def __init__(
        self,
        path: Path,
        *,
        columns: tuple[str | None, str | None] = (None, None),
        has_pictures: bool = True,
        images: Path | None = None,
        is_named: bool = False,
    ) -> None:
        """Read the texts of every row, and some of its picture.

        Args:
            path: A file, or a folder.
            columns: Those of pictures and of texts; None: the one that there is, or that is called as such.
            has_pictures: Whether rows are captioned pictures, or a text each.
            images: Folder that rows name pictures relative to, where they do not hold them; None: the table's.
            is_named: See ``find_files``.

        Raises:
            DataError: It cannot be read, has no such columns, or no row that can be told.
        """
        self.kind: type[Record] = Captioned if has_pictures else Interleaved
        self._images = images or (path if path.is_dir() else path.parent)
        parts = open_parts(path, is_named=is_named)
        if not parts:
            raise DataError(f"{path} holds no table; expected files such as train-00000-of-00001{PARQUET}")
        self._features: Features = dict(parts[0].rows.features)
        found = choose_columns(self._features, *columns, str(path))
        if has_pictures and found.picture is None:
            raise DataError(f"{path} has no column of pictures; data.layout=table_text reads its texts alone")
        self._columns: Columns = found if has_pictures else found._replace(picture=None)
        self._parts = [self._narrowed(part, path) for part in parts]
        self._tally = Tally(3)  # the part, the row, which of its texts
        self._num_pictures = self._num_letters = 0
        for number, part in enumerate(self._parts):
            self._tally.begin(part.split or "")
            self._scan(number, part)
        left = dict(self._tally.left_out)
        if not len(self._tally):
            first = next(iter(left), "no rows")
            raise DataError(f"{path} holds nothing to train on in column {found.text!r}; the first: {first}")
        noted = f"columns {' and '.join(repr(name) for name in self._columns if name)}"
        told = Found(str(path), "table" if has_pictures else "table_text", noted=noted, left_out=left)
        count = len(self._tally)
        self.found: Found = (
            replace(told, pictures=self._num_pictures, captions=count)
            if has_pictures
            else replace(told, texts=count, letters=self._num_letters)
        )

    def __getitem__(self, index: int) -> Captioned | Interleaved:
        """Return a row, or one of its captions."""
        record = self.glance(index)
        if isinstance(record, Interleaved) or self._columns.picture is None:
            return record
        number, place, _ = self._tally.numbers(index)
        value = self._value(number, place, self._columns.picture)
        return replace(record, picture=self._picture(value, record.name))

    def glance(self, index: int) -> Captioned | Interleaved:
        """Return a row, or one of its captions; its picture is not read, and empty."""
        number, place, which = self._tally.numbers(index)
        columns, name = self._columns, self._tally.name(index)
        feature = self._parts[number].rows.features[columns.text]  # other parts may number their classes otherwise
        text = texts_of(feature, self._value(number, place, columns.text))[which]
        if columns.picture is None:
            return Interleaved(name, (text,))
        return Captioned(name, " ".join(text.split()), Held(b"", name))

    def digest(self) -> str:
        """Name rows, texts and some places of pictures."""
        return f"table:{self._columns.text}:{self._columns.picture}:{self._tally.digest()}"

    def _value(self, number: int, place: int, column: str) -> object:
        """Return what a row holds in one column: the library's own way reads all of the row, its picture too."""
        return self._parts[number].rows.data.column(column)[place].as_py()

    def _narrowed(self, part: Part, path: Path) -> Part:
        """Return the columns that are read of a part; pictures stay undecoded."""
        import datasets

        has_split = check_splits(part.rows.features.get(SPLIT), str(path))
        wanted = [name for name in (*self._columns, SPLIT if has_split else None) if name]
        if missing := [name for name in wanted if name not in part.rows.features]:
            raise DataError(
                f"{path}: split {part.split!r} has no column {missing[0]!r}, and another has; make them alike"
            )
        rows = part.rows.select_columns(list(dict.fromkeys(wanted)))
        picture = self._columns.picture
        if picture is not None and type(part.rows.features[picture]).__name__ == "Image":
            rows = rows.cast_column(picture, datasets.Image(decode=False))
        return Part(part.split, rows)

    def _scan(self, number: int, part: Part) -> None:
        """Take the rows of a part."""
        columns, place = self._columns, 0
        before = sum(len(other.rows) for other in self._parts[:number] if other.split == part.split)
        for table in part.rows.with_format("arrow").iter(batch_size=NUM_SCANNED):
            texts = table.column(columns.text).to_pylist()
            shown = [_Shown()] * len(texts) if columns.picture is None else _shown(table.column(columns.picture))
            splits = table.column(SPLIT).to_pylist() if SPLIT in table.column_names else [None] * len(texts)
            for value, picture, said in zip(texts, shown, splits, strict=True):
                name = f"{part.split or 'row'}:{before + place}"
                split = split_of({SPLIT: split_said(part.rows.features.get(SPLIT), said)}, name) or part.split
                told = texts_of(part.rows.features[columns.text], value)
                self._take(name, (number, place), told, picture, split)
                place += 1

    def _take(self, name: str, at: tuple[int, int], texts: list[str], picture: "_Shown", split: str | None) -> None:
        """Take the records of a row: a text each."""
        has_pictures, mark, path = self._columns.picture is not None, picture.mark, picture.path
        if has_pictures and mark is None:
            self._tally.leave(name, "the row has no picture: neither bytes nor a path", BARE)
            return
        folder, file = "", None
        if path is not None:
            try:
                found = picture_at(self._images, path, name)
            except DataError as error:
                self._tally.leave(name, str(error), OUTSIDE)
                return
            within = name_within(found, self._images) or path
            mark, file, folder = mark_of(within.encode()), mark_of(file_of(found)), within.rpartition("/")[0]
        self._num_pictures += has_pictures
        told = [(which, text) for which, text in enumerate(texts) if text.strip()]
        if not told and has_pictures:
            self._tally.leave(name, f"the caption is empty (column {self._columns.text!r})", BLANK)
        elif not told:
            self._tally.left_out[NOTHING] += 1
        for which, text in told:
            own = mark if mark is not None else mark_of(text.encode())
            self._num_letters += len(text)
            called = f"{name}, caption {which + 1}" if which else name
            self._tally.add(called, (*at, which), own, text, split, folder=folder, file=file)

    def _picture(self, value: object, name: str) -> PictureSource:
        """Return the picture that a row holds, or names: where it lies was checked when the row was taken."""
        if isinstance(value, bytes):
            return Held(value, name)
        held = cast(dict[str, object], value) if isinstance(value, dict) else {}
        data, path = held.get("bytes"), held.get("path")
        if isinstance(data, bytes):
            return Held(data, f"{name} ({path})" if path else name)
        return picture_at(self._images, str(path), name)


class _Shown(NamedTuple):
    """The picture of a row.

    Attributes:
        mark: A hash of its picture, or of the name of its file; None where there is neither.
        path: That name, where the picture is not held.
    """

    mark: int | None = None
    path: str | None = None


def _shown(column: Any) -> Iterator[_Shown]:  # noqa: ANN401 - pyarrow.ChunkedArray
    """Yield what is shown of each picture of a column."""
    import pyarrow

    for chunk in column.chunks:
        fields = (
            {chunk.type.field(number).name: field for number, field in enumerate(chunk.flatten())}
            if pyarrow.types.is_struct(chunk.type)
            else {"bytes": chunk}
        )
        paths = fields["path"].to_pylist() if "path" in fields else [None] * len(chunk)
        for data, path in zip(fields["bytes"], paths, strict=True):
            buffer = data.as_buffer()
            if buffer is not None:
                yield _Shown(mark_of_picture(memoryview(buffer)))
            else:
                yield _Shown(mark_of(path.encode()), path) if path else _Shown()
