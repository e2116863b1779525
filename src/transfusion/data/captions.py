"""Captioned pictures of a folder: which there are and what they show, in each layout. It must not open pictures."""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from transfusion.data.caption_rows import CaptionRow, table_rows, utf8
from transfusion.data.errors import DataError, has_lone_surrogates, plain
from transfusion.data.found import Found, listed
from transfusion.data.layouts import TABLES, Laid, Part, lay_out
from transfusion.data.settings import Layout
from transfusion.data.splits import by_folders, choose, split_around, split_marked, strictest
from transfusion.data.tree import Tree, check_one_split


@dataclass(frozen=True)
class Told:
    """All captions of a folder, of every split.

    Attributes:
        layout: How it is laid out.
        rows: They, in a fixed order.
        quarantine: Captions that cannot be read, and why, by name of the file.
        found: What the folder holds.
    """

    layout: Layout
    rows: list[CaptionRow]
    quarantine: dict[str, str]
    found: Found


@dataclass(frozen=True)
class FolderCaptions:
    """The captions of a split of a folder.

    Attributes:
        path: The folder.
        layout: How it is laid out.
        rows: Those of the split that was asked for, in a fixed order.
        left_for_others: How many were left for each of the other splits.
        is_marked: Whether the data name splits.
        hold_out: Share that is held out as split "test".
        quarantine: Captions that cannot be read, and why, by name of the file.
        found: What the folder holds.
    """

    path: Path
    layout: Layout
    rows: list[CaptionRow]
    left_for_others: dict[str, int]
    is_marked: bool
    hold_out: float
    quarantine: dict[str, str]
    found: Found


def folder_captions(
    path: Path, split: str | None = None, hold_out: float | None = 0.0, layout: Layout = "auto"
) -> FolderCaptions:
    """Read which pictures a folder holds and what they show.

    In ``captions.jsonl`` and ``metadata.jsonl`` (or ``.csv``) a picture may have several captions, a row each; a blank
    one goes into quarantine by its line. Of pairs NAME.png and NAME.txt a text is one caption: its lines are joined by
    blanks, and one that is blank or not UTF-8 goes into quarantine by its name. Pictures of one name and several
    endings share the text.

    Args:
        path: The folder, or a table of captions in it.
        split: See ``splits.choose``.
        hold_out: See ``splits.choose``.
        layout: How it is laid out, if that is known.

    Raises:
        DataError: There is no such folder, its captions are unusable (names the line), or there is no such split.
    """
    return chosen_captions(folder_of(path), all_captions(path, layout), split, hold_out)


def folder_of(path: Path) -> Path:
    """Return the folder that pictures are named relative to: the data's, or the one that a table lies in."""
    return path if path.is_dir() else path.parent


def all_captions(path: Path, layout: Layout = "auto") -> Told:
    """Read the captions of every split, as ``folder_captions`` does.

    Raises:
        DataError: There is no such folder, or its captions are unusable (names the line).
    """
    laid = lay_out(path, layout)
    if laid.layout == "text":
        raise DataError(f"{path} holds no captioned pictures: its layout is text")
    rows: list[CaptionRow] = []
    quarantine: dict[str, str] = {}
    for part in laid.parts:
        for row in _rows(laid, part, quarantine):
            rows.append(replace(row, file=part.prefix + row.file, split=row.split or part.split))
    if not rows:
        first = f"; the first: {next(iter(quarantine.values()))}" if quarantine else ""
        raise DataError(f"{path} holds no captioned pictures{first}")
    same = _same(laid.tree, {row.file for row in rows})
    rows = [replace(row, same=one) if (one := same.get(row.file)) else row for row in rows]
    if laid.layout != "classes":
        rows = _split_by_folders(rows, same, laid.tree.path)
    marked = dict(Counter(split for row in rows if (split := _split(row)) is not None))
    found = replace(_found(laid, rows, quarantine), splits=marked)
    return Told(laid.layout, rows, {plain(name): plain(why) for name, why in quarantine.items()}, found)


def _split(row: CaptionRow) -> str | None:
    """Return the split of a row by the one name that it has: "Training" is "train"; what names none stays."""
    return split_marked(row.split) if row.split else None


def _same(tree: Tree, named: Collection[str]) -> dict[str, str]:
    """Return the one name of each picture that has several by links, by its others: by files', and by folders' that are
    named.
    """
    shared = {twice.name.as_posix(): twice.other.as_posix() for twice in tree.shared}
    read = {file: tree.read_as(PurePosixPath(file)).as_posix() for file in named} if tree.repeated else {}
    return shared | {file: one for file, name in read.items() if (one := shared.get(name, name)) != file}


def _split_by_folders(rows: list[CaptionRow], same: Mapping[str, str], path: Path) -> list[CaptionRow]:
    """Return rows with the splits that the folders of their pictures are called as, where no row is marked otherwise.

    Raises:
        DataError: A picture is in training and in another split by links.
    """
    marks = [_split(row) for row in rows]
    folders: dict[int, str] = {}
    for number, row in enumerate(rows):
        if split := strictest(split_around(name.rpartition("/")[0]) for name in {row.file, row.picture}):
            folders[number] = split
    splits = by_folders(marks, folders)
    if splits is marks:
        return rows
    named = {row.picture for row in rows}
    twice = [(PurePosixPath(name), PurePosixPath(other)) for name, other in same.items() if other in named]
    around = {name: split for names in twice for name in names if (split := split_around(name.parent.as_posix()))}
    check_one_split(path, twice, around)
    return [row if row.split else replace(row, split=split) for row, split in zip(rows, splits, strict=True)]


def chosen_captions(path: Path, told: Told, split: str | None, hold_out: float | None) -> FolderCaptions:
    """Choose the captions of a split.

    Args:
        path: The folder, for errors.
        told: All captions.
        split: See ``splits.choose``.
        hold_out: See ``splits.choose``.

    Raises:
        DataError: There is no such split.
    """
    rows = [row if row.split == _split(row) else replace(row, split=_split(row)) for row in told.rows]
    groups = [row.picture for row in rows]
    if told.layout == "pairs":  # one text is on one side
        groups = [PurePosixPath(file).with_suffix("").as_posix() for file in groups]
    chosen = choose(groups, [row.split for row in rows], split, hold_out, where=path)
    found = replace(told.found, splits=chosen.counts, held_out=chosen.told)
    kept = [rows[place] for place in chosen.places]
    is_marked = any(row.split is not None for row in rows)
    return FolderCaptions(path, told.layout, kept, chosen.left, is_marked, chosen.hold_out, told.quarantine, found)


def read_captions(
    path: Path, split: str | None = None, hold_out: float | None = 0.0, layout: Layout = "auto"
) -> list[CaptionRow]:
    """Return the rows of ``folder_captions``."""
    return folder_captions(path, split, hold_out, layout).rows


def _found(laid: Laid, rows: list[CaptionRow], quarantine: Collection[str]) -> Found:
    """Count what a folder of captioned pictures holds."""
    tree = laid.tree
    captioned = {name for row in rows for name in (row.file, row.picture)}
    bare = [file for file in tree.pictures if file.as_posix() not in captioned]
    unnamed = sum(any(parent.as_posix() in quarantine for parent in file.parents) for file in bare)
    read = {PurePosixPath(part.folder, name) for part in laid.parts if (name := laid.table_of(part))}
    tables = read | {file for file in tree.others if file.name in TABLES}
    paired = {PurePosixPath(part.folder, text) for part in laid.parts for text in part.tree.pairs.values()}
    is_pairs = laid.layout == "pairs"
    texts = sum(text not in paired for text in tree.texts) if is_pairs else len(tree.texts)
    left_out = {
        "picture in no class folder" if laid.layout == "classes" else "picture without a caption": len(bare) - unnamed,
        "picture of a class whose folder's name is no caption": unnamed,
        "text without a picture" if is_pairs else "text beside the pictures": texts,
        "caption that cannot be read": 0 if laid.layout == "classes" else len(quarantine),
        "table of captions": len(tables - read),
        "folder without files": len(tree.empty) if laid.layout == "classes" else 0,
        **tree.passed_over,
    }
    return Found(
        str(tree.path / laid.table),
        laid.layout,
        pictures=len(tree.pictures),
        captions=len(rows),
        texts=len(tree.texts),
        noted="; ".join(note for note in (laid.told, _classes(rows) if laid.layout == "classes" else "") if note),
        unknown=tree.unknown(tables),
        left_out={why: count for why, count in left_out.items() if count},
    )


def _classes(rows: list[CaptionRow]) -> str:
    """Say which names of folders are the captions."""
    names = sorted({row.text for row in rows})
    return f"the names of folders are the captions ({listed([repr(name) for name in names])})"


def _rows(laid: Laid, part: Part, quarantine: dict[str, str]) -> Iterator[CaptionRow]:
    """Yield the captions of a part; what cannot be read goes into quarantine, by its name in the whole."""
    if table := laid.table_of(part):
        yield from table_rows(part.tree.path / table, quarantine, part.prefix)
    elif laid.layout == "pairs":
        yield from _pair_rows(part.tree, quarantine, part.prefix)
    else:
        yield from _class_rows(part.tree, quarantine, part.prefix)


def _pair_rows(tree: Tree, quarantine: dict[str, str], prefix: str) -> Iterator[CaptionRow]:
    for picture, text in tree.pairs.items():
        try:
            lines = [line.strip() for line in utf8(tree.path / text).splitlines()]
        except DataError as error:
            quarantine[prefix + text.as_posix()] = str(error)
            continue
        if caption := " ".join(line for line in lines if line):
            yield CaptionRow(picture.as_posix(), caption)
        else:
            quarantine[prefix + text.as_posix()] = (
                f"{tree.path / text}: the caption of {picture.name!r} is empty; write one, or take both away"
            )


def _class_rows(tree: Tree, quarantine: dict[str, str], prefix: str) -> Iterator[CaptionRow]:
    for file in tree.pictures:
        caption = re.sub("[_-]", " ", file.parts[0])
        if len(file.parts) == 1:
            continue
        if caption.strip() and not has_lone_surrogates(caption):
            yield CaptionRow(file.as_posix(), caption)
        else:
            why = "not UTF-8" if caption.strip() else "blank"
            quarantine[prefix + file.parts[0]] = (
                f"{tree.path / file.parts[0]}: a folder's name is the caption of its class, and this one is {why}; "
                "rename the folder"
            )
