"""What is known of a model without running it: tasks, sizes, data, steps, losses, scores, checkpoints."""

from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

from safetensors import safe_open

from transfusion.autoencoder.spaces import latent_shape
from transfusion.cli.texts import visible
from transfusion.config import CONFIG_FILE, RunConfig, leaves
from transfusion.data.tasks import told_tasks
from transfusion.evaluate.suite import SCORES_FILE
from transfusion.files import row_of
from transfusion.tokenizer import TOKENIZER_FILE, Tokenizer
from transfusion.train.best import read_best
from transfusion.train.checkpoint import CHECKPOINTS, checkpoints
from transfusion.train.facts import read_facts
from transfusion.train.manifest import (
    EMA_FILE,
    MODEL_FILE,
    RESUMED_FILES,
    STATE_FILE,
    CheckpointError,
    read_manifest,
    reading,
    verify,
)
from transfusion.train.metrics import read_metrics
from transfusion.train.saved import find_checkpoint, load_settings
from transfusion.train.tensors import utf8_name

ALL_TASKS = ("draw", "caption", "ask", "edit", "story", "write")
LOSSES = ("loss/", "held_out/")
LABEL_WIDTH = 11
SHOWN_DIGEST = 40  # characters of what names the data


def describe(path: Path) -> dict[str, Any]:
    """Gather what is known of a model.

    Args:
        path: A run, a checkpoint or an exported model.

    Returns:
        A JSON value; what is not known is None or empty.

    Raises:
        CheckpointError: There is no whole checkpoint.
    """
    run = path if (path / CHECKPOINTS).is_dir() else _run_of(path)
    saved = _checkpoints(run, path)
    whole = [row for row in saved if row["fault"] is None]
    # They are checked already: of the newest whole one only the settings are read once more.
    newest = Path(whole[-1]["path"]) if whole else path
    folder = find_checkpoint(newest, hashed={CONFIG_FILE, TOKENIZER_FILE} if whole else None)
    config, tokenizer = load_settings(folder)
    state = _state(folder)
    told, best = told_tasks(config.data, config.encode), None if run is None else read_best(run)
    return {
        "model": str(folder),
        "run": None if run is None else str(run),
        "name": config.name,
        "tasks": list(told),
        "untold": [task for task in ALL_TASKS if task not in told],
        "parameters": _parameters(folder),
        "weights": _weights(folder),
        "pictures": _pictures(config),
        "vocabulary": _vocabulary(config, tokenizer),
        "data": {**config.data.model_dump(mode="json"), "digest": state.get("data")},
        "training": _training(config, state),
        "losses": _losses(run, state.get("step")),
        "scores": None if run is None else _json(run / SCORES_FILE),
        "best": None if best is None else best._asdict(),
        "checkpoints": saved,
    }


def _run_of(checkpoint: Path) -> Path | None:
    parent = checkpoint.absolute().parent
    return parent.parent if parent.name == CHECKPOINTS else None


def _checkpoints(run: Path | None, path: Path) -> list[dict[str, Any]]:
    """List the checkpoints of a run, oldest first, or the one that is shown; each read in full and checked."""
    return [_checked(folder) for folder in (checkpoints(path) if run == path else [path])]


def _checked(folder: Path) -> dict[str, Any]:
    lacking: list[str] = []
    fault: str | None = None
    try:
        verify(folder, unneeded=RESUMED_FILES)
        named = read_manifest(folder)
        lacking = sorted(name for name in RESUMED_FILES if not (folder / name).is_file() or name not in named)
    except CheckpointError as error:
        fault = str(error)
    return {"path": str(folder), "fault": fault, "can_go_on": fault is None and not lacking}


def _state(folder: Path) -> dict[str, Any]:
    """Read what a training checkpoint says of its run; nothing where it is gone."""
    return read_facts(folder)._asdict() if (folder / STATE_FILE).is_file() else {}


def _json(file: Path) -> dict[str, Any] | None:
    with reading(file):
        return row_of(file.read_bytes()) if file.is_file() else None


def _parameters(folder: Path) -> dict[str, int]:
    """Count the trained numbers by part of the network, from the head of the file of weights alone."""
    file = folder / MODEL_FILE
    counts: dict[str, int] = {}
    with reading(file), utf8_name(file) as path, safe_open(path, framework="pt") as tensors:
        for name in sorted(tensors.keys()):
            number = 1
            for size in tensors.get_slice(name).get_shape():
                number *= size
            part = name.split(".")[0]
            counts[part] = counts.get(part, 0) + number
    return {"all": sum(counts.values()), **counts}


def _weights(folder: Path) -> dict[str, Any]:
    named = read_manifest(folder)
    kinds = {"averaged": EMA_FILE, "trained": MODEL_FILE}
    return {kind: named[file]._asdict() for kind, file in kinds.items() if file in named}


def _pictures(config: RunConfig) -> list[dict[str, Any]]:
    height, width = config.data.size
    shape = latent_shape(config.autoencoder, config.data.size)
    rows: list[dict[str, Any]] = []
    for modality in config.model.modalities:
        is_known = modality.name == "image" and shape is not None and len(shape) == len(modality.patch_size) + 1
        size: dict[str, Any] = {}
        if is_known and shape is not None:
            grid = [side // patch for side, patch in zip(shape[1:], modality.patch_size, strict=True)]
            size = {"side": height, "height": height, "width": width, "latent": list(shape), "slots": prod(grid)}
        named = {"patch_size": list(modality.patch_size), "channels": modality.channels}
        rows.append({"name": modality.name, **named, "patches": modality.patches.kind, **size})
    return rows


def _vocabulary(config: RunConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    return {"tokenizer": config.tokenizer.kind, "size": tokenizer.size, "with_specials": config.model.vocabulary().size}


def _training(config: RunConfig, state: Mapping[str, Any]) -> dict[str, Any]:
    train = config.train
    tree = train.model_dump(mode="json")
    return {
        "steps": state.get("step"),
        "wanted": train.steps,
        "seconds": state.get("train_seconds"),
        "batch_size": train.batch_size,
        "batch_unit": train.batch_unit,
        "row_length": train.row_length,
        "precision": train.precision,
        "seed": train.seed,
        "init": tree.get("init"),
        "optimizer": tree["optimizer"],
    }


def _losses(run: Path | None, step: int | None) -> dict[str, dict[str, float]]:
    """Return each loss as the metrics last have it, up to the checkpoint: {name: {"value", "step"}}."""
    found: dict[str, dict[str, float]] = {}
    for row in read_metrics(run) if run is not None else []:
        if step is None or row["step"] <= step:
            named = {name: value for name, value in row.items() if name.startswith(LOSSES)}
            found |= {name: {"value": value, "step": row["step"]} for name, value in named.items()}
    return found


def told_card(card: Mapping[str, Any]) -> str:
    """Tell what ``describe`` found, for a person."""
    return "\n".join(f"{label:{LABEL_WIDTH}}{visible(text)}".rstrip() for label, text in _rows(card))


def _rows(card: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    training, data = card["training"], card["data"]
    yield "model", card["model"]
    yield "told to", ", ".join(card["tasks"]) or "do nothing"
    yield "not told", ", ".join(card["untold"]) or "-"
    parts = [f"{name} {_count(number)}" for name, number in card["parameters"].items() if name != "all"]
    yield "parameters", f"{_count(card['parameters']['all'])}: {', '.join(parts)}"
    for kind, facts in card["weights"].items():
        yield "weights", f"{kind}, {facts['bytes'] / 1e6:.1f} MB, sha256 {facts['sha256']}"
    for row in card["pictures"]:
        yield ("pictures" if row["name"] == "image" else row["name"]), _told_modality(row)
    vocabulary = card["vocabulary"]
    specials = vocabulary["with_specials"] - vocabulary["size"]
    yield "vocabulary", f"{vocabulary['size']} ids ({vocabulary['tokenizer']}) and {specials} special ones"
    yield "data", _told_data(data)
    if data["digest"] and data["kind"] != "shapes":
        yield "", f"digest {data['digest']:.{SHOWN_DIGEST}}"
    yield "trained", _told_steps(training)
    optimizer = training["optimizer"]
    of_a_step = f"{training['batch_size']} {training['batch_unit']} a step"
    yield "", f"{of_a_step}, rows of {training['row_length']}, {training['precision']}"
    yield "", f"{optimizer['kind']}, lr {optimizer['lr']:g}, {optimizer['schedule']}, seed {training['seed']}"
    if training["init"] is not None:
        yield "begun from", str(training["init"])
    yield from _rows_of_results(card)


def _rows_of_results(card: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for number, (name, last) in enumerate(card["losses"].items()):
        yield ("" if number else "losses"), f"{name} {last['value']:.4f} at step {last['step']}"
    for number, (name, value) in enumerate(leaves(card["scores"] or {}, " ")):
        yield ("" if number else "scores"), f"{name} {value}"
    if (best := card["best"]) is not None:
        yield "best", f"step {best['step']}, " + ", ".join(f"{n} {v:.4f}" for n, v in leaves(best, " ") if n != "step")
    for number, row in enumerate(card["checkpoints"]):
        whole = "whole" if row["can_go_on"] else "whole, for use: no training can go on from it"
        told = whole if row["fault"] is None else f"damaged: {row['fault']}"
        yield ("" if number else "checkpoints"), f" {Path(row['path']).name}: {told}"


def _told_modality(row: Mapping[str, Any]) -> str:
    patches = "x".join(map(str, row["patch_size"]))
    size = f"{row['height']}x{row['width']} pixels, {row['slots']} slots each, " if "slots" in row else ""
    return f"{size}{row['patches']} patches of {patches}, {row['channels']} channels"


def _told_data(data: Mapping[str, Any]) -> str:
    if data["kind"] == "mixture":
        return "; ".join(f"{s['name']} (weight {s['weight']:g}): {_told_data(s['data'])}" for s in data["sources"])
    if data["kind"] == "shapes":
        tasks = ", ".join(f"{name} {weight:g}" for name, weight in data["tasks"].items() if weight)
        return f"the built-in world of shapes ({tasks})"
    more = {name: data.get(name) for name in ("layout", "split", "hold_out") if data.get(name)}
    return ", ".join([data["path"], *(f"{name} {value}" for name, value in more.items())])


def _told_steps(training: Mapping[str, Any]) -> str:
    if training["steps"] is None:
        return f"steps not kept (of {training['wanted']} wanted)"
    seconds = training["seconds"]
    return f"{training['steps']} of {training['wanted']} steps" + (f" in {seconds:.0f} s" if seconds else "")


def _count(number: int) -> str:
    return f"{number / 1e6:.2f} M" if number >= 1e5 else f"{number:,}"
