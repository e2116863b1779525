"""Where a picture comes from: what was asked for, how it was drawn, and by which weights.

One value, written into a picture's file as a note and read back from it. It must not know models, nor formats of files.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal, TypeVar, get_args

from pydantic import ValidationError

from transfusion.generate.options import DenoisingOptions
from transfusion.notes import Note

NAME = "transfusion"
VERSION = 1
MAX_NUMBER = 10**100  # there are numbers that Python reads and does not write
Task = Literal["generate", "edit", "chat", "write"]
Found = TypeVar("Found")


class ProvenanceError(ValueError):
    """A note of a picture is damaged, or of a later version; the message says what of it."""


@dataclass(frozen=True)
class Origin:
    """A file by its place and content.

    Attributes:
        path: The checkpoint of a model, or the file of a picture, in full.
        sha256: Digest of the weights that drew, or of the picture's file.
    """

    path: str
    sha256: str


@dataclass(frozen=True)
class Provenance:
    """Where a picture, or a sheet of several, comes from.

    Attributes:
        task: The verb that drew it.
        prompts: What was asked for: the prompts of a sheet in order, an instruction, or what was said before.
        seed: Key of the draws; picture i of a sheet has ``seed + i``.
        denoising: How it was sampled, in full.
        model: The checkpoint, with the digest of the weights; None where the model came from no file.
        picture: What was edited.
        device: Where it was drawn.
        precision: Compute dtype.
        negative: What guidance led away from.
        beside: How many others were drawn in the same forwards, and are in files of their own: in bf16 that moves a
            picture a little.
        is_apart: Whether each was drawn by itself.
    """

    task: Task
    prompts: tuple[str, ...]
    seed: int
    denoising: DenoisingOptions
    model: Origin | None = None
    picture: Origin | None = None
    device: str = "cpu"
    precision: str = "fp32"
    negative: str | None = None
    beside: int = 0
    is_apart: bool = False

    def to_json(self) -> str:
        """Write it as a JSON object in ASCII: what is not, half a surrogate pair included, is escaped."""
        tree = {**asdict(self), "denoising": self.denoising.model_dump(mode="json")}
        return json.dumps({"version": VERSION, "software": software(), **tree})

    def note(self) -> Note:
        """Return what a picture's file says."""
        lines = {
            "prompt": "\n".join(self.prompts),
            "task": self.task,
            "seed": str(self.seed),
            "sampler": self.denoising.sampler,
            "steps": str(self.denoising.num_steps),
            "guidance": f"{self.denoising.guidance.scale:g}",
        }
        lines |= {} if self.negative is None else {"negative prompt": self.negative}
        for name, origin in (("model", self.model), ("picture", self.picture)):
            if origin is not None:
                lines |= {name: origin.path, f"{name} sha256": origin.sha256}
        return Note(self.to_json(), {**lines, "Software": software()})


def software() -> str:
    """Name this program and its version."""
    try:
        return f"{NAME} {version(NAME)}"
    except PackageNotFoundError:
        return NAME


def from_record(record: object) -> Provenance:
    """Read what ``Provenance.to_json`` wrote; entries of later versions are passed over.

    Args:
        record: The JSON object.

    Raises:
        ProvenanceError: An entry is missing or is not what it should be.
    """
    if not isinstance(record, dict):
        raise ProvenanceError(f"expected a JSON object, got {str(record)!r:.80}")
    try:
        return Provenance(
            task=_task(record["task"]),
            prompts=tuple(_of(str, text, "prompts") for text in _of(list, record["prompts"], "prompts")),
            seed=_of(int, record["seed"], "seed"),
            denoising=DenoisingOptions.model_validate(record["denoising"]),
            model=_origin(record.get("model"), "model"),
            picture=_origin(record.get("picture"), "picture"),
            negative=_optional(record.get("negative"), "negative"),
            beside=_of(int, record.get("beside", 0), "beside"),
            is_apart=record.get("is_apart") is True,
            device=_of(str, record.get("device", "cpu"), "device"),
            precision=_of(str, record.get("precision", "fp32"), "precision"),
        )
    except KeyError as error:
        raise ProvenanceError(f"it lacks {error}") from error
    except ValidationError as error:
        found = error.errors()[0]
        raise ProvenanceError(f"denoising.{'.'.join(map(str, found['loc']))}: {found['msg']}") from error


def _task(found: object) -> Task:
    for task in get_args(Task):
        if found == task:
            return task
    raise ProvenanceError(f"task is {found!r:.80}; expected {', '.join(get_args(Task))}")


def _origin(found: object, name: str) -> Origin | None:
    if found is None:
        return None
    entries = _of(dict, found, name)
    return Origin(_of(str, entries["path"], f"{name}.path"), _of(str, entries["sha256"], f"{name}.sha256"))


def _optional(found: object, name: str) -> str | None:
    return None if found is None else _of(str, found, name)


def _of(kind: type[Found], found: object, name: str) -> Found:
    if isinstance(found, int) and abs(found) > MAX_NUMBER:
        raise ProvenanceError(f"{name} is a number of hundreds of digits; expected one of at most 100")
    if not isinstance(found, kind) or isinstance(found, bool):
        raise ProvenanceError(f"{name} is {found!r:.80}; expected {kind.__name__}")
    return found


def changed_options(
    drawn: DenoisingOptions, now: DenoisingOptions, told: Collection[str]
) -> Mapping[str, tuple[object, object]]:
    """Return the options of sampling that differ, but for those that a verb is ``told``: what they were, are now."""
    trees = [_flat(options.model_dump(mode="json")) for options in (drawn, now)]
    names = [name for name in trees[0] if name not in told]
    return {name: (trees[0][name], trees[1][name]) for name in names if trees[0][name] != trees[1][name]}


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
