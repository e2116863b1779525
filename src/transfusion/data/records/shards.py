"""Captioned pictures in tars, as WebDataset lays them out: local files, read by place and never unpacked.

    pets-000.tar
        0001.jpg     the picture: of any ending that pictures have, or else told by its content
        0001.txt     its caption; or 0001.caption; or 0001.json, {"caption": "a cat", "split": "train"}
        0002.jpg
        0002.json    {"text": ["a dog", "a brown dog"]}: a record each
    pets-001.tar

Members of one key, the name up to the first dot of its last part, are a record. A path is one tar, a folder of them, or
of folders or tars that are called as splits (train/0.tar, pets-test-0.tar); what "split" in the JSON says goes first.
Where neither says so, members in folders of splits (test/0001.jpg) are of these.

Before a run the headers are read, the captions, and some of each picture, to know it again. Of a tar that is
damaged or cut short the records before that are read; it is named and counted.
"""

import json
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from transfusion.data.decode import Slice
from transfusion.data.errors import DataError, plain
from transfusion.data.formats import NUM_TOLD, SUFFIXES, begins_picture
from transfusion.data.found import Found
from transfusion.data.records.places import Place, find_files
from transfusion.data.records.record import Captioned
from transfusion.data.records.rows import Row
from transfusion.data.records.tally import Tallied, Tally, mark_of_places
from transfusion.data.records.tar import Member, check_plain, members
from transfusion.data.records.within import check_unicode, split_of

TAR = ".tar"
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
CAPTION_KEYS = ("caption", "text", "captions")
LONGEST = 2**20  # bytes of a caption
OTHERS = ("txt", "caption", "json", "cls", "npy", "npz", "pth", "pt", "xml", "tsv", "csv", "mp4", "mp3", "wav", "flac")
EXPECTED = "expected members such as 0001.jpg and 0001.txt (or 0001.json with 'caption')"
Group = dict[str, Member]  # the members of a record, by their endings


class _Said(NamedTuple):
    """The captions of a record, and which member holds them."""

    texts: list[str]
    member: Member
    is_json: bool


def is_tar(name: str) -> bool:
    """Return whether a file is called as a tar, compressed or not."""
    return name.lower().endswith((TAR, *COMPRESSED))


class Shards(Tallied):
    """The captioned pictures of tars."""

    kind = Captioned

    def __init__(self, path: Path, *, is_named: bool = False) -> None:
        """Find where members lie.

        Args:
            path: A tar, or a folder of them.
            is_named: See ``find_files``.

        Raises:
            DataError: There are none, one is compressed, or they hold no captioned picture.
        """
        self._places: list[Place] = find_files(path, is_tar, is_named=is_named)
        if not self._places:
            raise DataError(
                f"{path} holds no tars; expected files such as pets-000.tar, or folders train/, test/ of them"
            )
        self._tally = Tally(6)  # tar; first byte and size of picture and of caption; number in JSON from 1, or 0
        self._num_pictures = 0
        for number, place in enumerate(self._places):
            check_plain(place.file)
            self._tally.begin(place.name)
            self._scan(number, place)
        left_out = dict(self._tally.left_out)
        if not len(self._tally):
            first = next(iter(self._tally.quarantine.values()), "") or next(iter(left_out), "no members")
            raise DataError(f"{path} holds no captioned pictures in its tars; {EXPECTED}; the first: {first}")
        pictures, captions = self._num_pictures, len(self._tally)
        self.found = Found(str(path), "shards", pictures=pictures, captions=captions, left_out=left_out)

    def __getitem__(self, index: int) -> Captioned:
        """Return a captioned picture."""
        number, begin, size, *caption, place = self._tally.numbers(index)
        file, name = self._places[number].file, self._tally.name(index)
        with file.open("rb") as stream:
            member = Member(name, caption[0], caption[1])
            texts = _texts(stream, member, place > 0, f"{file}, the caption of {plain(name)}")
        if place > len(texts):
            raise DataError(f"{file}: the caption of {plain(name)} is another now; leave data alone during a run")
        shown = f", caption {place}" if place > 1 else ""
        picture = Slice(file, begin, size, plain(name))
        return Captioned(f"{self._places[number].name}/{name}{shown}", texts[max(0, place - 1)], picture)

    def digest(self) -> str:
        """Name members, captions and some places of pictures."""
        return f"shards:{self._tally.digest()}"

    def _scan(self, number: int, place: Place) -> None:
        """Take the records of a tar."""
        groups: dict[str, Group] = {}
        last, is_in_turn, twice = "", True, set[str]()
        try:
            for member in members(place.file):
                key, ending = key_of(member.name)
                if not key:
                    self._tally.left_out["member of no record"] += 1
                    continue
                is_in_turn &= key == last or key not in groups
                if ending in groups.setdefault(key, {}):
                    twice.add(key)
                groups[key][ending], last = member, key
        except DataError as error:  # what was being told then may lack its caption or its split
            lost = list(groups) if not is_in_turn else [last] if last else []
            self._tally.leave(place.name, f"{error}; {len(groups) - len(lost)} records before that are read", DAMAGED)
            for key in lost:
                del groups[key]
        with place.file.open("rb") as stream:
            for key, group in groups.items():
                name = f"{place.name}/{key}"
                if key in twice:
                    self._tally.leave(name, f"{place.file}: two members of one name and ending in {key!r}", AMBIGUOUS)
                    continue
                try:
                    self._take(number, stream, group, name)
                except DataError as error:
                    self._tally.leave(name, str(error), UNREAD)

    def _take(self, number: int, stream: BinaryIO, group: Group, name: str) -> None:
        """Take the record of a key, if it is one.

        Raises:
            DataError: Its caption cannot be read, or it has several pictures.
        """
        where = f"{self._places[number].file}, {plain(name.removeprefix(self._places[number].name + '/'))}"
        picture = _picture(stream, group, where)
        if picture is None:
            self._tally.left_out["member without a picture"] += len(group)
            return
        self._num_pictures += 1
        row = _row(stream, group["json"], where) if "json" in group else {}
        split = split_of(row, where) or self._places[number].split
        said = _captions(stream, group, row, where)
        if said is None:
            self._tally.left_out["picture without a caption"] += 1
            return
        mark = mark_of_places(picture.size, partial(_read, stream, picture))
        caption = said.member.begin, said.member.size
        for place, text in enumerate(said.texts, start=1):
            numbers = (number, picture.begin, picture.size, *caption, place if said.is_json else 0)
            folder = picture.name.rpartition("/")[0]
            self._tally.add(picture.name, numbers, mark, text, split, folder=folder)


DAMAGED, AMBIGUOUS, UNREAD = "tar that is damaged", "record that is told twice", "caption that cannot be read"


def key_of(name: str) -> tuple[str, str]:
    """Return the key of a member and its ending; both empty for one that belongs to no record, as hidden ones.

    >>> key_of("a/0001.jpg"), key_of("a.b/0001.seg.PNG"), key_of("a/.DS_Store"), key_of("readme")
    (('a/0001', 'jpg'), ('a.b/0001', 'seg.png'), ('', ''), ('', ''))
    """
    folder, slash, file = name.rpartition("/")
    stem, dot, ending = file.partition(".")
    return (folder + slash + stem, ending.lower()) if stem and dot else ("", "")


def _picture(stream: BinaryIO, group: Group, where: str) -> Member | None:
    """Return the picture among the members of a record, by its ending or else its content; None where there is none.

    Raises:
        DataError: There are several.
    """
    found = [member for ending, member in group.items() if f".{ending}" in SUFFIXES]
    found = found or [member for ending, member in group.items() if f".{ending.split('.')[-1]}" in SUFFIXES]
    unknown = [member for ending, member in group.items() if ending.split(".")[-1] not in OTHERS]
    found = found or [each for each in unknown if begins_picture(_read(stream, each, 0, min(each.size, NUM_TOLD)))]
    if len(found) > 1:
        names = ", ".join(plain(member.name) for member in found[:4])
        raise DataError(f"{where}: expected one picture of a key; got {names}")
    return found[0] if found else None


def _captions(stream: BinaryIO, group: Group, row: Row, where: str) -> _Said | None:
    """Return the captions of a record, of the first member that has one; None where there is none."""
    for ending in ("txt", "caption"):
        if ending in group:
            return _Said(_texts(stream, group[ending], False, where), group[ending], False)
    if any(row.get(key) is not None for key in CAPTION_KEYS):
        return _Said(_listed(row, where), group["json"], True)
    return None


def _texts(stream: BinaryIO, member: Member, is_json: bool, where: str) -> list[str]:
    """Read the captions of a member.

    Raises:
        DataError: It is not UTF-8, blank, or too long.
    """
    if is_json:
        return _listed(_row(stream, member, where), where)
    text = " ".join(_text(stream, member, where).split())
    if not text:
        raise DataError(f"{where}: the caption is empty; write one, or take the picture away")
    return [text]


def _listed(row: Row, where: str) -> list[str]:
    """Return the captions that JSON holds."""
    value = next((row[key] for key in CAPTION_KEYS if row.get(key) is not None), None)
    texts = cast(list[object], value) if isinstance(value, list) else [value]
    found = [" ".join(text.split()) for text in texts if isinstance(text, str)]
    if not texts or len(found) < len(texts) or not all(found):
        raise DataError(f"{where}: expected a caption, or a list of them; got {value!r:.80}")
    check_unicode(found, where)
    return found


def _row(stream: BinaryIO, member: Member, where: str) -> Row:
    """Read the JSON of a record."""
    try:
        row = json.loads(_text(stream, member, where))
    except (ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{where}: its JSON cannot be read ({error}); expected an object such as {{...}}") from error
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected a JSON object; got {row!r:.80}")
    return cast(Row, row)


def _text(stream: BinaryIO, member: Member, where: str) -> str:
    if member.size > LONGEST:
        raise DataError(f"{where}: a caption of {member.size} bytes, more than {LONGEST}; shorten it")
    try:
        return _read(stream, member, 0, member.size).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: byte {error.start} of its caption is not UTF-8; save it as UTF-8") from error


def _read(stream: BinaryIO, member: Member, begin: int, size: int) -> bytes:
    """Return so many bytes of a member from a place on."""
    stream.seek(member.begin + begin)
    return stream.read(size)
