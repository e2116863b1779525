"""Which column of a table holds pictures, and which the texts: by types and names, or as the settings say.

Types are those of the ``datasets`` library, known by their names: it is not imported.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

from transfusion.data.errors import DataError
from transfusion.data.found import listed

TEXT_NAMES = ("text", "texts", "txt", "caption", "captions", "sentence", "sentences", "description", "descriptions")
PICTURE_NAMES = ("image", "img", "picture", "photo", "jpg", "jpeg", "png", "webp", "bytes", "image_bytes")
STRINGS = ("string", "large_string", "string_view")
BINARIES = ("binary", "large_binary", "binary_view")
SPLIT = "split"
LISTS = ("List", "LargeList", "Sequence")
Features = Mapping[str, Any]


class Columns(NamedTuple):
    """The columns that are read; no picture: texts alone."""

    picture: str | None
    text: str


def kind_of(feature: object) -> str:
    """Return what a column holds: "picture", "bytes", "text", "texts" (a list of them), "label", or nothing of use."""
    name, dtype = type(feature).__name__, getattr(feature, "dtype", None)
    if name == "Image":
        return "picture"
    if isinstance(feature, dict):
        inner = cast(dict[str, object], feature)
        return "picture" if "bytes" in inner and kind_of(inner["bytes"]) == "bytes" else ""
    if name == "Value":
        return "text" if dtype in STRINGS else "bytes" if dtype in BINARIES else ""
    if name in LISTS and kind_of(getattr(feature, "feature", None)) == "text":
        return "texts"
    return "label" if name == "ClassLabel" else ""


def is_called(name: str, feature: object) -> bool:
    """Return whether a column of bytes is called as one of pictures."""
    return kind_of(feature) == "bytes" and name.lower() in PICTURE_NAMES


def choose_columns(features: Features, picture: str | None, text: str | None, where: str) -> Columns:
    """Choose the columns of pictures and texts.

    A picture is a column of type Image, or a struct with "bytes"; else a column of bytes that is called as one. A text
    is a column of strings, or lists of them, that is called as one; else a class label that marks no splits.

    Args:
        features: The columns, and their types.
        picture: The one that is named (data.picture_column).
        text: The one that is named (data.text_column).
        where: The table, for errors.

    Raises:
        DataError: One that is named is not there or of another type, none is called as text, or several may be meant.
    """
    kinds = {name: kind_of(feature) for name, feature in features.items()}
    typed = [name for name, kind in kinds.items() if kind == "picture"]
    called = [name for name, feature in features.items() if is_called(name, feature)]
    pictures = _named(picture, kinds, ("picture", "bytes"), "picture", where) or typed or called
    texts = [name for name, kind in kinds.items() if kind in ("text", "texts") and name.lower() in TEXT_NAMES]
    labels = [name for name, kind in kinds.items() if kind == "label" and name != SPLIT]
    texts = _named(text, kinds, ("text", "texts", "label"), "text", where) or texts or labels
    for setting, found in (("picture", pictures), ("text", texts)):
        if len(found) > 1:
            choice = " or ".join(f"data.{setting}_column={name}" for name in found)
            raise DataError(f"{where} has several columns of {setting}s; say which one to take: {choice}")
    if not texts:
        others = [name for name, kind in kinds.items() if kind in ("text", "texts")]
        hint = f"it has {listed(others)}: name one (data.text_column={others[0]})" if others else "it has no texts"
        raise DataError(f"{where} has no column called {', '.join(TEXT_NAMES)}, nor a class label; {hint}")
    return Columns(pictures[0] if pictures else None, texts[0])


def texts_of(feature: object, value: object) -> list[str]:
    """Return the texts that a row has in a column: one, those of a list, or the name of a class; none where it is null.

    Args:
        feature: The column's type.
        value: What the row holds.
    """
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return [text if isinstance(text, str) else "" for text in cast(list[object], value)]
    names = cast(Sequence[str], getattr(feature, "names", ()))
    return [names[value].replace("_", " ")] if isinstance(value, int) and 0 <= value < len(names) else []


def check_splits(feature: object, where: str) -> bool:
    """Return whether a column marks splits: it holds strings, or a class label; one without values marks none.

    Args:
        feature: The type of the column called "split"; None: there is none.
        where: The table, for errors.

    Raises:
        DataError: It holds something else.
    """
    kind, dtype = kind_of(feature), getattr(feature, "dtype", None)
    if feature is None or dtype == "null":
        return False
    if kind not in ("text", "label"):
        told = dtype if isinstance(dtype, str) and type(feature).__name__ == "Value" else type(feature).__name__
        raise DataError(
            f"{where}: column {SPLIT!r} holds {told}, which marks no splits; expected strings, such as 'train', or a "
            "class label: cast the column, or rename it where it means something else"
        )
    return True


def split_said(feature: object, value: object) -> object:
    """Return which split a column names in a row: a class label by its name."""
    names = cast(Sequence[str], getattr(feature, "names", ()))
    if names and isinstance(value, int):
        return names[value] if 0 <= value < len(names) else None
    return value


def _named(column: str | None, kinds: Mapping[str, str], expected: Sequence[str], what: str, where: str) -> list[str]:
    """Check a column that the settings name."""
    if column is None:
        return []
    if column not in kinds:
        raise DataError(f"{where} has no column {column!r} (data.{what}_column); it has {listed(list(kinds))}")
    if kinds[column] not in expected:
        raise DataError(
            f"{where}: column {column!r} holds no {what}s (data.{what}_column); leave it out, or name another"
        )
    return [column]
