"""Pictures drawn as an instruction says, of other pictures or of none: rows of JSON.

    {"instruction": "<img><|image_1|></img> make it blue", "input_images": ["jpg/1.jpg"], "output_image": "jpg/2.jpg"}
    {"input": "jpg/1.jpg", "instruction": "make it blue", "output": "jpg/2.jpg"}
    {"original_image": "jpg/1.jpg", "edit_prompt": "make it blue", "edited_image": "jpg/2.jpg"}
    {"instruction": "a blue star", "output_image": "jpg/2.jpg"}                            no picture: drawn from words

The first is OmniGen's: a picture stands where the instruction has its number, and may do so several times; those whose
number it lacks come first. ``split`` is optional; other fields are passed over. Names are relative to a folder.
"""

import re
from pathlib import Path

from transfusion.data.errors import DataError
from transfusion.data.formats import SUFFIXES
from transfusion.data.records.conversations import names_of
from transfusion.data.records.mapped import Mapped, MappedRecords, RowItems
from transfusion.data.records.record import Edit, Part
from transfusion.data.records.rows import Row
from transfusion.data.records.within import picture_at, split_of

EDITS_FILES = ("edits.json", "edits.jsonl")
INPUTS = (
    *("input_images", "input_image", "original_image", "source_image", "source_img", "image", "images"),
    *("source", "input"),
)
OUTPUTS = ("output_image", "edited_image", "target_image", "target_img", "output", "target")
INSTRUCTIONS = ("instruction", "edit_prompt", "edit", "prompt")
PLACEHOLDER = re.compile(r"\s*(?:<img>\s*)?<\|image_(\d+)\|>(?:\s*</img>)?\s*")
EXPECTED = '{"instruction": ..., "input_images": [...], "output_image": ...}'


class Edits(RowItems):
    """Rows of edits."""

    def made(self, index: int) -> Mapped:
        """Return the edit of a row."""
        row, where = self._rows[index], self._rows.where(index)
        instruction = next((row[key] for key in INSTRUCTIONS if row.get(key) is not None), None)
        outputs = names_of(row, OUTPUTS, where)
        if not isinstance(instruction, str) or len(outputs) != 1:
            raise DataError(f"{where}: expected an instruction and one output picture; rows are {EXPECTED}")
        inputs = [picture_at(self._images, name, where) for name in names_of(row, INPUTS, where)]
        prompt = _prompt(instruction, inputs, where)
        output = picture_at(self._images, outputs[0], where)
        return Mapped(Edit(f"{self._rows.file.name}:{index}", prompt, output), split_of(row, where))


def edits(file: Path, images: Path) -> MappedRecords:
    """Open rows of edits.

    Raises:
        DataError: A row is none; names it.
    """
    return MappedRecords(Edits(file, images), "edits", file, images)


def speaks_of_edits(row: Row) -> str:
    """Return what of a row says that it is an edit, and no question and answer in words; empty where nothing does."""
    output = next((key for key in OUTPUTS if key in row), "")
    value, is_told = row.get(output), any(isinstance(row.get(key), str) for key in INSTRUCTIONS)
    is_picture = isinstance(value, str) and Path(value).suffix.lower() in SUFFIXES
    return f"rows with {output!r}" if is_told and is_picture else ""


def _prompt(instruction: str, inputs: list[Path], where: str) -> tuple[Part, ...]:
    """Put pictures where the instruction has their numbers, and the others before it."""
    pieces = PLACEHOLDER.split(instruction)
    numbers = [int(number) for number in pieces[1::2]]
    if wrong := next((number for number in numbers if not 1 <= number <= len(inputs)), None):
        raise DataError(f"{where}: the instruction has <|image_{wrong}|>, and there are {len(inputs)} input pictures")
    if 0 in numbers:
        raise DataError(f"{where}: the instruction has <|image_0|>; the first input picture is <|image_1|>")
    parts: list[Part] = [picture for number, picture in enumerate(inputs, start=1) if number not in numbers]
    for place, piece in enumerate(pieces):
        if place % 2:
            parts.append(inputs[int(piece) - 1])
        elif piece.strip():
            parts.append(piece.strip())
    return tuple(parts)
