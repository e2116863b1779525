"""What ``show`` tells: of a picture where it comes from and the command that draws it again; of a folder the model."""

import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from transfusion.cli.card import describe, told_card
from transfusion.cli.signed import origin_of
from transfusion.cli.texts import is_hidden, visible
from transfusion.config import ConfigError
from transfusion.data.errors import DataError
from transfusion.generate.options import DenoisingOptions
from transfusion.notes import read_record
from transfusion.provenance import Provenance, ProvenanceError, changed_options, from_record
from transfusion.train.best import meant
from transfusion.train.manifest import EMA_FILE, MODEL_FILE, CheckpointError, read_manifest
from transfusion.train.saved import load_settings

AGAIN = "-again"
SHORT_DIGEST = 12
TOLD_OPTIONS = frozenset({"sampler", "num_steps", "guidance.scale"})  # by the command
DEVIATIONS = {
    "fp32": "some of its values may be rounded to the next of 255 levels",
    "bf16": "it differs by a few of 255 levels",
}
KEPT_CONTROLS = "\n\t"  # in quotes a shell takes these as they are, and a terminal shows them as what they are


class Shown(NamedTuple):
    """What is told, as a JSON value and as a text."""

    value: dict[str, object]
    text: str


def show(path: Path, known: Mapping[str, Collection[str]]) -> Shown:
    """Tell what is known of a picture's file, or of a model's folder.

    Args:
        path: The file, or the folder of a run, a checkpoint or an exported model.
        known: The options of every verb: the command that draws a picture again has no other.

    Raises:
        ConfigError: There is nothing there.
        DataError: The file is no picture, or no picture of ours.
        CheckpointError: The folder holds no whole checkpoint.
    """
    path = meant(path)
    if path.is_dir():
        card = describe(path)
        return Shown(card, told_card(card))
    if not path.is_file():
        raise ConfigError(f"there is no file or folder {str(path)!r}; name a picture, a run or a checkpoint")
    return _shown_picture(path, known)


def read_provenance(file: Path) -> Provenance:
    """Read where a picture comes from.

    Raises:
        DataError: The file is no picture, or says nothing, or what it says is damaged.
    """
    try:
        record = read_record(file)
        if record is None:
            raise DataError(
                f"{file} does not say where it comes from: transfusion did not write it, or its note was lost (BMP and "
                "PPM keep none; editors and web sites often drop them)"
            )
        return from_record(record)
    except (OSError, Image.DecompressionBombError) as error:
        raise DataError(
            f"{file} is no picture that can be read ({error}); of a model show its folder, not a file in it"
        ) from error
    except DataError:
        raise
    except (ProvenanceError, ValueError, SyntaxError) as error:  # SyntaxError: Pillow's, of a broken PNG
        raise DataError(f"what {file} says of where it comes from is damaged: {error}") from error


def _shown_picture(file: Path, known: Mapping[str, Collection[str]]) -> Shown:
    found = read_provenance(file)
    output = file.with_name(f"{file.stem}{AGAIN}{file.suffix}")
    again = command(found, output, known.get(found.task, ()))
    doubts = list(_doubts(found))
    value: dict[str, object] = {
        "file": str(file),
        **asdict(found),
        "denoising": found.denoising.model_dump(mode="json"),
        "command": again,
        "warnings": doubts,
    }
    return Shown(value, "\n".join(_lines(found, again, doubts)))


def _lines(found: Provenance, again: str | None, doubts: Sequence[str]) -> Iterator[str]:
    last = found.seed + len(found.prompts) - 1
    is_sheet = found.task == "generate" and len(found.prompts) > 1
    yield f"drawn by   transfusion {found.task}"
    for number, prompt in enumerate(found.prompts):
        yield (
            f"{'said' if found.task == 'chat' else 'prompt'}     {visible(prompt)}"
            if not number
            else (f"           {visible(prompt)}")
        )
    if found.negative is not None:
        yield f"away from  {visible(found.negative)}"
    yield f"seed       {found.seed}" + (f" to {last}, one for each prompt" if is_sheet else "")
    yield f"sampling   {_sampling(found.denoising)}"
    if found.picture is not None:
        yield f"picture    {visible(found.picture.path)} (sha256 {visible(found.picture.sha256)})"
    if found.model is not None:
        yield f"model      {visible(found.model.path)}"
        yield f"weights    sha256 {visible(found.model.sha256)}"
    yield f"computed   on {visible(found.device)} in {visible(found.precision)}"
    yield from (f"note       {visible(doubt)}" for doubt in doubts)
    if again is None:
        yield f"A picture of `{found.task}` follows from all that was said before; no one command draws it again."
    else:
        yield "The same picture again:"
        yield again


def _sampling(options: DenoisingOptions) -> str:
    told = f"{options.sampler}, {options.num_steps} steps, guidance {options.guidance.scale:g}"
    low, high = options.guidance.interval
    told += f" for t in [{low:g}, {high:g}]" if (low, high) != (0.0, 1.0) else ""
    told += f", rescale {options.guidance.rescale:g}" if options.guidance.rescale else ""
    told += f", shift {options.shift:g}" if options.shift != 1 else ""
    return told + (f", clip {options.clip:g}" if options.clip is not None else "")


def _doubts(found: Provenance) -> Iterator[str]:
    """Say what stands between a picture and its being drawn again."""
    if found.model is None:
        yield "the model that drew it came from no file; the command needs its folder"
        return
    folder = Path(found.model.path)
    wanted = found.model.sha256[:SHORT_DIGEST]
    try:
        now, config = weights_digest(folder), load_settings(folder).config
    except CheckpointError:
        yield f"the model is no longer at {folder}; the command needs the one whose weights have sha256 {wanted}..."
    else:
        if now != found.model.sha256:
            yield (
                f"the model at {folder} has other weights now (sha256 {now[:SHORT_DIGEST]}..., was {wanted}...): the "
                "command draws another picture"
            )
        told = TOLD_OPTIONS if found.task == "generate" else frozenset[str]()
        for name, (was, is_now) in changed_options(found.denoising, config.denoising, told).items():
            yield f"denoising.{name} was {was}; the model's settings say {is_now}: the command draws another picture"
    if found.beside:
        many = "others" if found.beside > 1 else "other"
        yield (
            f"it was drawn together with {found.beside} {many} in {found.precision}; drawn by itself "
            f"{DEVIATIONS.get(found.precision, 'it differs a little')} (generate --apart draws what does not)"
        )
    yield from _doubts_of_picture(found)


def _doubts_of_picture(found: Provenance) -> Iterator[str]:
    if found.task != "edit":
        return
    if found.picture is None:
        yield "the picture that was edited came through a pipe; the command needs it as a file"
        return
    now = origin_of(Path(found.picture.path))
    if now is None:
        yield f"the picture that was edited is no longer at {found.picture.path}"
    elif now.sha256 != found.picture.sha256:
        yield f"the picture at {found.picture.path} is not the one that was edited: it changed since"


def weights_digest(folder: Path) -> str:
    """Return the SHA-256 of the weights that a verb takes from a checkpoint, as its manifest has it.

    Raises:
        CheckpointError: There is no checkpoint.
    """
    named = read_manifest(folder)
    for name in (EMA_FILE, MODEL_FILE):
        if name in named:
            return named[name].sha256
    raise CheckpointError(f"the manifest of {folder} names no weights")


def command(found: Provenance, output: Path, options: Collection[str]) -> str | None:
    """Return the command line that draws a picture again, quoted for a shell; None where there is none.

    Args:
        found: Where the picture comes from.
        output: The file that it shall write.
        options: Flags that the verb knows; others are left out.
    """
    if found.task not in ("generate", "edit"):
        return None
    denoising = found.denoising
    flags = {
        "--seed": str(found.seed),
        "--steps": str(denoising.num_steps),
        "--sampler": denoising.sampler,
        "--guidance": repr(denoising.guidance.scale),
        "--negative-prompt": found.negative,
        "--device": found.device,
        "--precision": found.precision,
    }
    told = [part for flag, value in flags.items() if flag in options and value is not None for part in (flag, value)]
    told += ["--apart"] if found.is_apart and "--apart" in options else []
    picture = [found.picture.path if found.picture else "PICTURE"] if found.task == "edit" else []
    named = [found.model.path if found.model else "MODEL", *picture, *found.prompts]
    return " ".join(quoted(part) for part in ("transfusion", found.task, "-o", str(output), *told, "--", *named))


def quoted(part: str) -> str:
    """Quote an argument for a shell, so that nothing in it is run, nor reaches a terminal as a control character.

    Plain quotes where they do; ``$'...'``, which bash, zsh and ksh read, for control characters and for bytes that are
    not UTF-8.
    """
    if all(character in KEPT_CONTROLS or not is_hidden(character) for character in part):
        return shlex.quote(part)
    return "$'" + "".join(_told_to_shell(character) for character in part) + "'"


def _told_to_shell(character: str) -> str:
    if not is_hidden(character):
        return f"\\{character}" if character in "\\'" else character
    try:
        raw = character.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half a surrogate pair that stands for no byte: no argument can hold it
        raw = b"?"
    return "".join(f"\\x{byte:02x}" for byte in raw)
