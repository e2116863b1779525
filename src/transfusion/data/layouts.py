"""Which layout a folder of data has, by the names of its files: one answer, or an error that says why there is none.

    captions.jsonl                       captions    rows {"file", "text"}
    metadata.jsonl or metadata.csv       metadata    rows {"file_name", "text"}, as image folders of Hugging Face
    a0.png a0.txt a1.jpg a1.txt          pairs       one caption a file, at any depth
    cat/1.png dog/2.png                  classes     the folder's name is the caption
    book.txt poems.txt                   text        plain text, at the top
    latents.json                         latents     pictures that `transfusion prepare latents` encoded

Folders named as splits (train, test, val, validation, valid, dev), and no data beside them, hold any of these each. It
must not read what files hold.
"""

import re
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from transfusion.data.errors import DataError
from transfusion.data.found import counted
from transfusion.data.settings import Layout
from transfusion.data.splits import TEST, TRAIN, VALIDATION
from transfusion.data.tree import TEXT_SUFFIX, Tree, scan

CAPTIONS_FILE = "captions.jsonl"
LATENTS_FILE = "latents.json"  # of pictures that were encoded once: see ``latents``
UNFINISHED_FILE = "preparing.jsonl"  # in its place while they are
METADATA_FILES = ("metadata.jsonl", "metadata.csv")
TABLES = (CAPTIONS_FILE, *METADATA_FILES)
SPLIT_FOLDERS = (TRAIN, TEST, *VALIDATION)  # in any case
NOTES = (  # what texts beside pictures are called that are about the data, and not data
    *("about", "annotations", "attribution", "authors", "categories", "changelog", "changes", "citation", "classes"),
    *("copying", "copyright", "credits", "dataset", "description", "disclaimer", "index", "info", "label", "labels"),
    *("licence", "license", "list", "names", "note", "notes", "notice", "readme", "requirements", "source", "sources"),
    *("terms", "todo", "train", "test", "val", "validation", "version"),
)
EXPECTED = (
    f"expected pictures with a {CAPTIONS_FILE} or {METADATA_FILES[0]}, pictures NAME.png with a caption NAME.txt each, "
    f"sub-folders of pictures by class, or {TEXT_SUFFIX} files of plain text"
)


class Part(NamedTuple):
    """Files that are laid out in one way, and the split that their folder is named for, if any."""

    split: str | None
    tree: Tree

    @property
    def folder(self) -> str:
        """Name of the folder that the split has; empty where it is the whole."""
        return "" if self.split is None else self.tree.path.name


class Laid(NamedTuple):
    """A folder's files, how they are laid out, and in which parts."""

    layout: Layout
    parts: tuple[Part, ...]
    tree: Tree


def lay_out(path: Path, layout: Layout = "auto") -> Laid:
    """Find the layout of a folder, or the parts of it that have the one that is asked for.

    Raises:
        DataError: It is no folder, has none of the layouts, not the one that is asked for, or two at once.
    """
    if not path.is_dir():
        hint = "; data.layout=text reads any one file as text" if path.is_file() else ""
        raise DataError(f"{path} is not a folder; {EXPECTED}{hint}; data.path names it")
    tree = scan(path)
    parts = _parts(tree)
    if layout != "auto":
        evidence = [_evidence(part.tree) for part in parts]
        if all(layout in found for found in evidence):
            return Laid(layout, parts, tree)
        whole = _evidence(tree)
        if layout in whole:
            return Laid(layout, (Part(None, tree),), tree)
        others = ", ".join(whole.values()) or "nothing that is known"
        raise DataError(f"{path} has not the layout data.layout={layout}: it holds {others}; {EXPECTED}")
    layouts: list[Layout] = [_layout(part.tree) for part in parts]
    if len(set(layouts)) > 1:
        told = ", ".join(f"{part.tree.path} ({found})" for part, found in zip(parts, layouts, strict=True))
        raise DataError(f"the splits of {path} are laid out in different ways: {told}; lay them out alike")
    return Laid(layouts[0], parts, tree)


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
    """Return whether a text is called as notes on data are: README.txt, LICENSE-images.txt, classes.txt."""
    return re.split(r"[^a-z]+", text.stem.lower(), maxsplit=1)[0] in NOTES


def _parts(tree: Tree) -> tuple[Part, ...]:
    """Split a folder whose only data lie in folders named as splits."""
    folders = tree.folders | {file.parts[0] for file in tree.others if len(file.parts) > 1 and file.name in TABLES}
    top = [*tree.pictures, *(text for text in tree.texts if not is_note(text))]
    names = {folder: folder.lower() for folder in sorted(folders)}
    is_split = folders and set(names.values()) <= set(SPLIT_FOLDERS) and not any(len(file.parts) == 1 for file in top)
    if not is_split or any(tree.has(name) for name in TABLES):
        return (Part(None, tree),)
    ordered = sorted(names, key=lambda folder: SPLIT_FOLDERS.index(names[folder]))
    return tuple(Part(names[folder], tree.under(folder)) for folder in ordered)


def _evidence(tree: Tree) -> dict[Layout, str]:
    """Say what speaks for each layout."""
    found: dict[Layout, str] = {}
    if tree.has(CAPTIONS_FILE):
        found["captions"] = CAPTIONS_FILE
    if tables := [name for name in METADATA_FILES if tree.has(name)]:
        found["metadata"] = " and ".join(tables)
    if tree.pairs:
        picture, text = next(iter(tree.pairs.items()))
        number = counted(len(tree.pairs), "picture with a text of the same name")
        found["pairs"] = f"{number} ({picture} with {text})"
    if nested := [file for file in tree.pictures if len(file.parts) > 1]:
        found["classes"] = f"{counted(len(nested), 'picture')} in sub-folders ({nested[0]})"
    if texts := [text for text in tree.texts if len(text.parts) == 1]:
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
    return layouts[0]


def _likely(tree: Tree, evidence: dict[Layout, str]) -> list[Layout]:
    """Return the layouts that the files speak for. A table says what its pictures show, wherever they lie; notes beside
    pictures are no text.
    """
    likely = {layout for layout in evidence if layout in ("captions", "metadata")}
    if tree.pairs:
        likely.add("pairs")
        if likely == {"pairs"} and _has_folder_without_pairs(tree):
            likely.add("classes")
    if not likely:
        own = [text for text in tree.texts if len(text.parts) == 1 and not (tree.pictures and is_note(text))]
        likely = {layout for layout in evidence if layout == "classes" or (layout == "text" and own)}
    return [layout for layout in evidence if layout in likely]


def _has_folder_without_pairs(tree: Tree) -> bool:
    """Return whether pictures lie in a sub-folder where none has a text of its name: as a class does."""
    paired = {picture.parent for picture in tree.pairs}
    return any(picture.parent not in paired for picture in tree.pictures if len(picture.parts) > 1)


def _instead(tree: Tree) -> str:
    """Say what a folder holds that is no data."""
    held = [
        *([counted(len(tree.pictures), "picture without a caption")] if tree.pictures else []),
        *([counted(len(tree.texts), "text in sub-folders")] if tree.texts else []),
        *(counted(count, f"file of no known kind ({ending})") for ending, count in tree.unknown(set()).items()),
        *([f"runs ({', '.join(tree.runs)})"] if tree.runs else []),
    ]
    split = (
        " (of the names of splits, data.layout=classes makes captions)"
        if tree.path.name.lower() in SPLIT_FOLDERS
        else ""
    )
    return f": it holds {', '.join(held)}{split}" if held else ""
