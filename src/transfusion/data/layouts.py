"""Which layout a folder of data has, by the names of its files: one answer, or an error that says why there is none.

    captions.jsonl                       captions    rows {"file", "text"}
    metadata.jsonl or metadata.csv       metadata    rows {"file_name", "text"}, as image folders of Hugging Face
    a0.png a0.txt a1.jpg a1.txt          pairs       one caption a file, at any depth
    cat/1.png dog/2.png                  classes     the folder's name is the caption
    book.txt poems.txt                   text        plain text, at the top
    latents.json                         latents     pictures that `transfusion prepare latents` encoded

One rule finds where they lie, from the top. A folder that holds data itself (a table, pictures or texts) is read as it
stands. One whose data lie in a single sub-folder only wraps it, and that is looked into, unless the single folder holds
pictures and no table: it is a class, or they are pairs. Folders named as splits (train, test, val, validation, valid,
dev, eval and so on), and no data beside them, are looked into each and laid out alike; so are folders of which each
holds a table. Texts beside pictures do not count in this. What the names leave open is refused, and data.layout settles
it: it takes what is asked for as it lies. One file or folder in training and in another split is refused whatever is
asked for. Of a folder it must not read what files hold; a file is a table of captions by its name or its first row.

A ``captions.json``, which may be anything, is the table where nothing else says what the pictures show.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from transfusion.data.caption_rows import CAPTIONS_ARRAY, CAPTIONS_FILE, METADATA_FILES, TABLES, table_layout
from transfusion.data.errors import DataError
from transfusion.data.found import counted, listed
from transfusion.data.settings import Layout
from transfusion.data.splits import NAMES, TRAIN, alike, split_around, split_named
from transfusion.data.tree import TEXT_SUFFIX, Tree, check_one_split, folders, scan, top

LATENTS_FILE = "latents.json"  # of pictures that were encoded once: see ``latents``
UNFINISHED_FILE = "preparing.jsonl"  # in its place while they are
NOTES = (  # what texts are called that are about the data, and not data
    *("about", "annotations", "attribution", "authors", "categories", "changelog", "changes", "citation", "classes"),
    *("copying", "copyright", "credits", "dataset", "description", "disclaimer", "index", "info", "label", "labels"),
    *("licence", "license", "list", "names", "note", "notes", "notice", "readme", "requirements", "source", "sources"),
    *("terms", "todo", "version"),
)
PAPERS = "AUTHORS|CHANGELOG|COPYING|COPYRIGHT|LICEN[CS]E|NOTICE|(?i:README)"  # may say of what in a further word
EXPECTED = (
    f"expected pictures with a {CAPTIONS_FILE} or {METADATA_FILES[0]}, pictures NAME.png with a caption NAME.txt each, "
    f"sub-folders of pictures by class, or {TEXT_SUFFIX} files of plain text"
)


class Part(NamedTuple):
    """Files that are laid out in one way.

    Attributes:
        tree: They, named relative to their folder.
        folder: Where that lies in the data; empty where it is the whole.
        split: The split that it, or a folder around it, is named for, if any.
    """

    tree: Tree
    folder: str = ""
    split: str | None = None

    @property
    def prefix(self) -> str:
        """What goes before a file's name to make it relative to the data."""
        return f"{self.folder}/" if self.folder else ""

    def under(self, name: str) -> "Part":
        """Return the part of a folder at the top."""
        return Part(self.tree.under(name), f"{self.prefix}{name}", self.split)


class Laid(NamedTuple):
    """A folder's files, how they are laid out, and in which parts; and the table that was named instead, if one was."""

    layout: Layout
    parts: tuple[Part, ...]
    tree: Tree
    table: str = ""

    def table_of(self, part: Part) -> str:
        """Return the name of the table that says what a part's pictures show; empty in other layouts."""
        names = {"captions": (CAPTIONS_FILE, CAPTIONS_ARRAY), "metadata": METADATA_FILES}.get(self.layout, ())
        return self.table or next((name for name in names if part.tree.has(name)), "")

    @property
    def told(self) -> str:
        """Say in which folders the data lie, where that is neither the whole nor a split's own; else nothing."""
        inner = [part.prefix for part in self.parts if part.folder and (part.split is None or "/" in part.folder)]
        return f"the data lie in {listed(inner)}" if inner else ""


def lay_out(path: Path, layout: Layout = "auto") -> Laid:
    """Find the layout of a folder, or the parts of it that have the one that is asked for; of a table of captions, its
    folder's by that table.

    Raises:
        DataError: It is no folder, holds latents, has none of the layouts, not the one that is asked for, or two at
            once.
    """
    if path.is_file() and (named := table_layout(path, layout)):
        tree = scan(path.parent)
        return Laid(named, (Part(tree),), tree, path.name)
    if not path.is_dir():
        hint = "; data.layout=text reads any one file as text" if path.is_file() else ""
        raise DataError(f"{path} is not a folder; {EXPECTED}{hint}; data.path names it")
    if holds_latents(path) and layout in ("auto", "latents"):
        raise DataError(f"{path} holds latents of pictures, and pictures are needed here: name the folder of those")
    tree = scan(path)
    laid = _laid(tree) if layout == "auto" else _laid_as(layout, tree)
    _check_apart(laid)
    return laid


def _laid_as(layout: Layout, tree: Tree) -> Laid:
    """Find the parts of a folder that have the layout that is asked for."""
    parts, _ = _parted(Part(tree))
    whole = _evidence(tree)
    if all(layout in _evidence(part.tree) for part in parts):
        return Laid(layout, parts, tree)
    if layout in whole:
        return Laid(layout, (Part(tree),), tree)
    others = ", ".join(whole.values()) or "nothing that is known"
    raise DataError(f"{tree.path} has not the layout data.layout={layout}: it holds {others}; {EXPECTED}")


def _laid(tree: Tree) -> Laid:
    """Find the one layout that a folder has."""
    parts, doubt = _parted(Part(tree))
    if doubt := doubt or _texts_apart(tree):
        raise DataError(doubt)
    layouts: list[Layout] = [_layout(part.tree) for part in parts]
    depths = {len(PurePosixPath(part.folder).parts) for part in parts}
    if len(set(layouts)) > 1 or (layouts[0] == "classes" and len(depths) > 1):
        told = ", ".join(f"{part.tree.path} ({found})" for part, found in zip(parts, layouts, strict=True))
        raise DataError(f"the splits of {tree.path} are laid out in different ways: {told}; lay them out alike")
    if doubt := _splits_unread(parts):
        raise DataError(f"{tree.path} can be read in two ways: {doubt}, or say data.layout={layouts[0]}")
    return Laid(layouts[0], parts, tree)


def _check_apart(laid: Laid) -> None:
    """Refuse a file or a folder that lies, by links, in the split for training and in another."""
    splits = text_splits(top(laid.tree.texts)) if laid.layout == "text" else {}
    if any(part.split for part in laid.parts):
        files = (name for twice in (*laid.tree.repeated, *laid.tree.shared) for name in twice[:2])
        splits = {name: split for name in files if (split := split_around(name.as_posix()))}
    check_one_split(
        laid.tree.path, ((name, other) for name, other, _ in (*laid.tree.repeated, *laid.tree.shared)), splits
    )


def holds_latents(path: Path) -> bool:
    """Return whether a folder holds latents, or has begun to."""
    return (path / LATENTS_FILE).is_file() or (path / UNFINISHED_FILE).is_file()


def layout_of(path: Path, layout: Layout = "auto") -> Layout:
    """Return the layout of a folder or a file.

    Raises:
        DataError: As ``lay_out``.
    """
    if not path.is_dir() and (layout == "text" or (layout == "auto" and path.suffix.lower() == TEXT_SUFFIX)):
        return "text"
    if layout in ("auto", "latents"):
        if (path / LATENTS_FILE).is_file():
            return "latents"
        if (path / UNFINISHED_FILE).is_file():
            again = f"transfusion prepare latents DATA --to {path}"
            raise DataError(f"{path} holds latents that are not all encoded yet; go on by the same command ({again})")
    return lay_out(path, layout).layout


def is_note(text: PurePosixPath) -> bool:
    """Return whether a text is called as notes on data are, by its whole name: notes.txt, README.txt, LICENSE-2.txt.

    Titles that begin so are none: "Notes from Underground.txt", "names-on-the-land.txt".
    """
    return text.stem.lower() in NOTES or re.fullmatch(rf"({PAPERS})[-_.][\w.]+", text.stem) is not None


def text_splits(texts: Sequence[PurePosixPath]) -> dict[PurePosixPath, str]:
    """Return the split of each text where all but notes are named for splits, "train" and another; else none.

    They are by the whole name, or by what stands behind a dot, "-" or "_" after what all names begin with; a number may
    follow.

    >>> text_splits([PurePosixPath(name) for name in ("wiki.train.txt", "wiki.valid.txt", "README.txt")])
    {PurePosixPath('wiki.train.txt'): 'train', PurePosixPath('wiki.valid.txt'): 'valid'}
    >>> text_splits([PurePosixPath("Train to Pakistan.txt"), PurePosixPath("Test Pilot.txt")])
    {}
    """
    data = [text for text in texts if not is_note(text)]
    for (before, after), found in alike(text.stem for text in data).items():
        if not after and not before.endswith(" ") and len(found) == len({text.stem for text in data}):
            return {text: found[text.stem] for text in data}
    return {}


class _Parted(NamedTuple):
    """Where the data of a folder lie, and what is to be said where the names leave that open."""

    parts: tuple[Part, ...]
    doubt: str = ""


def _parted(part: Part) -> _Parted:
    """Find where data lie, by the rule of this module."""
    tree = part.tree
    if _has_table(tree):
        return _Parted((part,))
    holding = _holding(tree)
    named = {name: split for name in sorted(holding) if part.split is None and (split := split_named(name))}
    if named:
        strays = [*(str(file) for file in _own(tree)), *(f"{name}/" for name in sorted(holding - named.keys()))]
        if not strays:
            ordered = sorted(named, key=lambda name: NAMES.index(name.lower()))
            return _joined(_parted(part.under(name)._replace(split=named[name])) for name in ordered)
        if any(_evidence(tree.under(name)) for name in named):
            return _Parted((part,), _beside_splits(tree, list(named), strays))
    if top(tree.pictures) or (_own(tree) if tree.pictures or _tables(tree) else top(tree.texts)):
        return _Parted((part,))
    if len(holding) == 1:
        only = part.under(*holding)
        found = _parted(only)
        is_class = found == _Parted((only,)) and top(only.tree.pictures) and not _has_table(only.tree)
        return _Parted((part,)) if is_class else found
    if holding and holding == {table.parts[0] for table in _tables(tree) if len(table.parts) == 2}:
        return _Parted(tuple(part.under(name) for name in sorted(holding)))
    return _Parted((part,))


def _joined(found: Iterable[_Parted]) -> _Parted:
    every = list(found)
    return _Parted(
        tuple(part for each in every for part in each.parts), next((each.doubt for each in every if each.doubt), "")
    )


def _has_table(tree: Tree) -> bool:
    return any(tree.has(name) for name in TABLES)


def _tables(tree: Tree) -> list[PurePosixPath]:
    """Return the files that are called as tables of captions, wherever they lie."""
    return [file for file in tree.others if file.name in TABLES]


def _holding(tree: Tree) -> set[str]:
    """Return the folders at the top that hold data: texts count where there are no pictures."""
    return folders(_tables(tree)) | folders(tree.pictures or tree.texts)


def _own(tree: Tree) -> list[PurePosixPath]:
    """Return the pictures and texts that lie in no sub-folder, without notes."""
    return [*top(tree.pictures), *(text for text in top(tree.texts) if not _is_beside(text, tree))]


def _is_beside(text: PurePosixPath, tree: Tree) -> bool:
    """Return whether a text is a note. Beside pictures one whose first word is a note's or a split's is, as
    train_list.txt: no layout of pictures reads it, and it is counted.
    """
    first = re.split(r"[^a-z]+", text.stem.lower(), maxsplit=1)[0]
    return is_note(text) or (bool(tree.pictures) and first in (*NOTES, *NAMES))


def _evidence(tree: Tree) -> dict[Layout, str]:
    """Say what speaks for each layout."""
    found: dict[Layout, str] = {}
    if name := next((name for name in (CAPTIONS_FILE, CAPTIONS_ARRAY) if tree.has(name)), ""):
        found["captions"] = name
    if tables := [name for name in METADATA_FILES if tree.has(name)]:
        found["metadata"] = " and ".join(tables)
    if tree.pairs:
        picture, text = next(iter(tree.pairs.items()))
        number = counted(len(tree.pairs), "picture with a text of the same name")
        found["pairs"] = f"{number} ({picture} with {text})"
    if nested := [file for file in tree.pictures if len(file.parts) > 1]:
        found["classes"] = f"{counted(len(nested), 'picture')} in sub-folders ({nested[0]})"
    if texts := top(tree.texts):
        found["text"] = f"{counted(len(texts), 'text')} ({texts[0]})"
    return found


def _layout(tree: Tree) -> Layout:
    """Decide which layout a folder has.

    Raises:
        DataError: None, or two at once.
    """
    evidence = _evidence(tree)
    if all(tree.has(name) for name in METADATA_FILES):
        raise DataError(f"{tree.path} holds both {' and '.join(METADATA_FILES)}; take one of them away")
    layouts = _likely(tree, evidence)
    if tree.pictures and not _has_table(tree) and (tables := _tables(tree)):
        raise DataError(_table_below(tree, tables[0], [f"{layout} ({evidence[layout]})" for layout in layouts]))
    if not layouts:
        raise DataError(f"{tree.path} holds no captioned pictures and no text{_instead(tree)}; {EXPECTED}")
    if layouts == ["text"] and tree.pictures:
        evidence["pairs"] = f"{counted(len(tree.pictures), 'picture')} ({tree.pictures[0]})"
        hint = "no text has the name of a picture: name them alike (NAME.png, NAME.txt), or say data.layout=text"
        layouts.append("pairs")
    else:
        choice = " or ".join(f"data.layout={layout}" for layout in layouts)
        hint = f"move one of them out, or say which one to take: {choice}"
    if len(layouts) > 1:
        told = " and of ".join(f"{layout} ({evidence[layout]})" for layout in layouts)
        raise DataError(f"{tree.path} looks like two layouts at once, of {told}; {hint}")
    if doubt := {"classes": _doubtful_classes, "text": _doubtful_texts}.get(layouts[0], lambda _: "")(tree):
        raise DataError(f"{tree.path} can be read in two ways: {doubt}")
    return layouts[0]


def _likely(tree: Tree, evidence: dict[Layout, str]) -> list[Layout]:
    """Return the layouts that the files speak for. A table says what its pictures show, wherever they lie; notes beside
    pictures are no text.
    """
    likely = {name for name in evidence if name == "metadata" or (name == "captions" and tree.has(CAPTIONS_FILE))}
    if tree.pairs:
        likely.add("pairs")
        if likely == {"pairs"} and _has_folder_without_pairs(tree):
            likely.add("classes")
    if not likely:
        own = [text for text in top(tree.texts) if not (tree.pictures and _is_beside(text, tree))]
        likely = {layout for layout in evidence if layout == "classes" or (layout == "text" and own)}
        if "captions" in evidence and tree.pictures and (not likely or _is_one_class(tree)):
            likely.add("captions")
    return [layout for layout in evidence if layout in likely]


def _is_one_class(tree: Tree) -> bool:
    """Return whether all pictures lie in one sub-folder, as those of a table beside it do."""
    return len(folders(tree.pictures)) == 1 and not top(tree.pictures)


def _has_folder_without_pairs(tree: Tree) -> bool:
    """Return whether pictures lie in a sub-folder where none has a text of its name: as a class does."""
    paired = {picture.parent for picture in tree.pairs}
    return any(picture.parent not in paired for picture in tree.pictures if len(picture.parts) > 1)


def _beside_splits(tree: Tree, named: Sequence[str], strays: Sequence[str]) -> str:
    """Say that folders of splits have data beside them."""
    others = (
        "or say how to read them as one whole, such as data.layout=classes, where these are the names of classes"
        if tree.pictures
        else "and what is one into a folder of its own, as valid/valid.txt"
    )
    return (
        f"{tree.path} looks like two layouts at once, of splits ({listed([f'{name}/' for name in named])}) and of data "
        f"beside them ({listed(strays)}); move what belongs to no split out, {others}"
    )


def _splits_unread(parts: Sequence[Part]) -> str:
    """Say which folders seem to hold splits where none is read as one: cat/test/, or train2017/ beside val2017/."""
    if any(part.split for part in parts):
        return ""
    inner = {file for part in parts if not _has_table(part.tree) for file in part.tree.pictures if len(file.parts) > 1}
    below = {file.parent for file in inner if split_around("/".join(file.parts[1:-1])) not in (None, TRAIN)}
    if below and below != {file.parent for file in inner}:
        return (
            f"folders of splits lie in others ({min(below)}), and are not read as such; put them on top "
            "(test/cat, not cat/test)"
        )
    upper = folders(inner) if len(parts) == 1 else {PurePosixPath(part.folder).name for part in parts}
    found = [sorted(group) for group in alike(upper).values() if not all(map(split_named, group))]
    return f"{listed(found[0])} are called as splits are; name them so (train/, test/)" if found else ""


def _table_below(tree: Tree, table: PurePosixPath, others: Sequence[str]) -> str:
    """Say that a table lies in a sub-folder, and pictures not below it."""
    kind = "captions" if table.name == CAPTIONS_FILE else "metadata"
    told = " and of ".join([*(others or ["pictures without a caption"]), f"{kind} ({table})"])
    settled = f", or say which one to take: data.layout={others[0].split()[0]}" if others else ""
    return (
        f"{tree.path} looks like two layouts at once, of {told}; a table names pictures relative to its own folder: "
        f"move it to {tree.path / table.name} and name them from there, take it away, or name its folder "
        f"(data.path={(tree.path / table).parent}){settled}"
    )


def _texts_apart(tree: Tree) -> str:
    """Say that a picture has a text of its name in another folder, where none has one beside it or in a table."""
    texts = {text.stem: text for text in tree.texts}
    apart = [picture for picture in tree.pictures if picture.stem in texts]
    if not apart or tree.pairs or _tables(tree):
        return ""
    picture = apart[0]
    return (
        f"{tree.path} holds texts in another folder than the pictures of their names ({picture}, "
        f"{texts[picture.stem]}): lay each text beside its picture ({picture.with_suffix(TEXT_SUFFIX)}), write a "
        f"{CAPTIONS_FILE}, or say how to read them otherwise (data.layout=classes: folders' names are the captions)"
    )


def _doubtful_classes(tree: Tree) -> str:
    """Say what speaks for other captions than the names of the folders at the top; nothing where nothing does."""
    own = folders(file for file in tree.pictures if len(file.parts) == 2)
    lower = [PurePosixPath(*file.parts[:2]) for file in tree.pictures if len(file.parts) > 2]
    upper = folders(tree.pictures)
    without_own = {folder for folder in lower if folder.parts[0] not in own}
    is_alike = not own and len({folder.name for folder in lower}) == 1 and len(set(lower)) == len(upper)
    if not lower or is_alike or (not without_own and len(upper) > 1):
        return ""
    deeper = min(without_own or set(lower))
    return (
        f"folders of pictures lie in folders of pictures, so that the captions may be the upper names "
        f"({listed(sorted(upper))}) or the lower ones ({deeper.name!r} of {deeper}); move the pictures so that each "
        "lies in the folder of its class, those beside each other, or say data.layout=classes, which takes the upper"
    )


def _doubtful_texts(tree: Tree) -> str:
    """Say which text is named for a split where not all are; nothing where none is, or all are."""
    texts = [text for text in top(tree.texts) if not is_note(text)]
    named = {stem: split for found in alike(text.stem for text in texts).values() for stem, split in found.items()}
    named |= {text.stem: split for text in texts if (split := split_named(text.stem))}
    held_out = [text.name for text in texts if named.get(text.stem, TRAIN) != TRAIN]
    others = [text.name for text in texts if text.name not in held_out]
    if text_splits(texts) or not held_out or len(texts) == 1:
        return ""
    return (
        f"{listed(held_out)} may be held out, by the name, or one text with {listed(others or held_out)}; name every "
        "text for its split (train.txt, test.txt), move one out, or say data.layout=text, which takes all as one"
    )


def _instead(tree: Tree) -> str:
    """Say what a folder holds that is no data."""
    held = [
        *([counted(len(tree.pictures), "picture without a caption")] if tree.pictures else []),
        *([counted(len(tree.texts), "text in sub-folders")] if tree.texts else []),
        *(counted(count, f"file of no known kind ({ending})") for ending, count in tree.unknown(set()).items()),
        *([f"runs ({', '.join(tree.runs)})"] if tree.runs else []),
    ]
    split = " (of the names of splits, data.layout=classes makes captions)" if split_named(tree.path.name) else ""
    rows = sorted((file for file in tree.others if file.suffix == ".jsonl"), key=lambda file: "test" in str(file))
    named = f" (rows of JSON are read by naming their file: data.path={tree.path / rows[0]})" if rows else ""
    return f": it holds {', '.join(held)}{named}{split}" if held else ""
