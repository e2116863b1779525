r"""Conversations about pictures, and without any: rows of JSON as LLaVA has them, or as messages.

    {"id": "1", "image": "jpg/1.jpg", "conversations": [{"from": "human", "value": "<image>\nWhat is it?"},
                                                        {"from": "gpt", "value": "A star."}]}
    {"messages": [{"role": "user", "content": [{"type": "image", "image": "jpg/1.jpg"},
                                               {"type": "text", "text": "What is it?"}]},
                  {"role": "assistant", "content": "A star."}]}

``image`` (or ``images``) is one name or a list; ``<image>`` stands where each is seen, in their order. What one side
says in several turns on end is one turn. What a person says behind the last answer is left off. ``split`` is optional;
other fields are passed over. Pictures are named relative to a folder, or are ``data:`` URLs.
"""

import base64
import binascii
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, cast

from transfusion.data.decode import Held, PictureSource
from transfusion.data.errors import DataError
from transfusion.data.records.mapped import Mapped, MappedRecords, RowItems
from transfusion.data.records.record import Conversation, Part, Turn
from transfusion.data.records.rows import Row
from transfusion.data.records.within import picture_at, split_of
from transfusion.data.turns import By

CONVERSATIONS_FILES = ("conversations.json", "conversations.jsonl")
PLACEHOLDER = "<image>"
EXPECTED = '{"image": ..., "conversations": [{"from": "human", "value": "<image>..."}, {"from": "gpt", "value": ...}]}'
SIDES: dict[str, Literal["system", "person", "model"]] = {
    "system": "system",
    "human": "person",
    "user": "person",
    "gpt": "model",
    "assistant": "model",
}
DATA_URL = re.compile(r"data:[\w/+.-]*;base64,")
PICTURE_KEYS = ("image", "image_url", "url", "path", "file")  # of a content's items
Content = list[str | PictureSource | None]  # None: the next picture of the row


class Talks(RowItems):
    """Rows of conversations."""

    def made(self, index: int) -> Mapped:
        """Return the conversation of a row."""
        row, where = self._rows[index], self._rows.where(index)
        said = [(side, list(content)) for side, content in self._said(row, where)]
        named = [picture_at(self._images, name, where) for name in names_of(row, ("image", "images"), where)]
        count = sum(part is None for _, content in said for part in content)
        if count != len(named):
            raise DataError(f"{where}: {count} of {PLACEHOLDER} in what is said, and {len(named)} pictures as 'image'")
        pictures = iter(named)
        system, turns = list[str](), list[tuple[By, Content]]()
        for side, content in said:
            filled: Content = [next(pictures) if part is None else part for part in content]
            if side == "system":
                if not all(isinstance(part, str) for part in filled):
                    raise DataError(f"{where}: a picture in what the system says; expected words alone")
                system += [part for part in filled if isinstance(part, str)]
            elif turns and turns[-1][0] == side:
                turns[-1][1].extend(["\n", *filled])
            else:
                turns.append((cast(By, side), filled))
        turns = turns[:-1] if turns and turns[-1][0] == "person" else turns
        try:
            told = tuple(Turn(side, _tidy(content)) for side, content in turns)
            record = Conversation(f"{self._rows.file.name}:{index}", told, "".join(system).strip())
        except DataError as error:
            raise DataError(f"{where}: {error}; rows are {EXPECTED}") from error
        return Mapped(record, split_of(row, where))

    def _said(self, row: Row, where: str) -> Iterator[tuple[Literal["system", "person", "model"], Content]]:
        """Yield who says what."""
        is_llava = row.get("conversations") is not None
        name, by, what = ("conversations", "from", "value") if is_llava else ("messages", "role", "content")
        turns = row.get(name)
        if not isinstance(turns, list):
            raise DataError(f"{where}: expected a list as 'conversations' or 'messages'; rows are {EXPECTED}")
        for number, turn in enumerate(cast(list[object], turns), start=1):
            told = cast(dict[str, object], turn) if isinstance(turn, dict) else {}
            side, content = told.get(by), told.get(what)
            is_known = isinstance(side, str) and side in SIDES and isinstance(content, str | list)
            if not is_known or (is_llava and not isinstance(content, str)):
                raise DataError(
                    f"{where}: turn {number} is {turn!r:.80}; expected a string as {what!r} and one of "
                    f"{', '.join(SIDES)} as {by!r}; rows are {EXPECTED}"
                )
            items = _marked(content) if isinstance(content, str) else self._items(cast(list[object], content), where)
            yield SIDES[cast(str, side)], items

    def _items(self, items: list[object], where: str) -> Content:
        """Return what a list of texts and pictures says."""
        found: Content = []
        for number, item in enumerate(items, start=1):
            told = cast(dict[str, object], item) if isinstance(item, dict) else {}
            kind = told.get("type")
            if kind == "text" and isinstance(text := told.get("text"), str):
                if found and isinstance(found[-1], str):
                    found.append("\n")
                found.append(text)
            elif kind in ("image", "image_url"):
                name = next((told[key] for key in PICTURE_KEYS if told.get(key) is not None), None)
                name = cast(dict[str, object], name).get("url") if isinstance(name, dict) else name
                if name is not None and not isinstance(name, str):
                    raise DataError(f"{where}: item {number} names a picture as {name!r:.80}; expected a file's name")
                found.append(None if name is None else self._picture(name, where))
            else:
                raise DataError(
                    f'{where}: item {number} of a content is {item!r:.80}; expected {{"type": "text", "text": ...}} or '
                    '{"type": "image", "image": ...}'
                )
        return found

    def _picture(self, name: str, where: str) -> PictureSource:
        if (url := DATA_URL.match(name)) is not None:
            try:
                return Held(base64.b64decode(name[url.end() :], validate=True), f"{where}, a picture in it")
            except binascii.Error as error:
                raise DataError(f"{where}: a picture that is no base64: {error}") from error
        if "://" in name:
            raise DataError(f"{where}: {name!r:.80} lies in the net; fetch it, and name its file")
        return picture_at(self._images, name, where)


def conversations(file: Path, images: Path) -> MappedRecords:
    """Open rows of conversations.

    Raises:
        DataError: A row is none; names it.
    """
    return MappedRecords(Talks(file, images), "conversations", file, images)


def names_of(row: Row, keys: tuple[str, ...], where: str) -> list[str]:
    """Return the names of pictures that a row has under the first of some keys that it has: one, a list, or none.

    Raises:
        DataError: It is neither.
    """
    given = next((row[key] for key in keys if row.get(key) not in (None, "")), [])
    names = cast(list[object], given) if isinstance(given, list) else [given]
    if not all(isinstance(name, str) and name for name in names):
        raise DataError(
            f"{where}: expected the name of a picture, or a list of names, as {keys[0]!r}; got {given!r:.80}"
        )
    return cast(list[str], names)


def _marked(text: str) -> Content:
    """Cut a text where pictures stand."""
    first, *others = text.split(PLACEHOLDER)
    found: Content = [first]
    for other in others:
        found += (None, other)
    return found


def _tidy(content: Content) -> tuple[Part, ...]:
    """Take away blanks around what is said and behind the pictures that it begins with; other words stay."""
    parts: list[Part] = []
    for part in content:
        if not isinstance(part, str):
            parts += [] if part is None else [part]
        elif parts and isinstance(parts[-1], str):
            parts[-1] += part
        else:
            is_leading = all(not isinstance(each, str) for each in parts)
            parts += [told] if (told := part.lstrip() if is_leading else part) else []
    if parts and isinstance(parts[-1], str):
        parts[-1] = parts[-1].rstrip()
    return tuple(part for part in parts if part)
