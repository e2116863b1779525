"""What one does next with a run, as commands that fit it, and what its files are."""

import shlex
from collections.abc import Sequence
from html import escape
from pathlib import Path

from transfusion.config import RunConfig
from transfusion.data.sources import FolderConfig, MixtureConfig, ShapesConfig
from transfusion.data.tasks import is_text_alone, told_tasks
from transfusion.report.html import table
from transfusion.train.best import BEST, read_best

FILES = {
    "checkpoints/": "the newest checkpoints and the best one: weights, settings, and what a run needs to go on",
    "best.json": "which checkpoint foretells held-out records best, and its losses",
    "metrics.jsonl": "one row of numbers for every logged step: losses, learning rate, speed, held-out losses",
    "tensorboard/": "the same numbers for TensorBoard",
    "samples/": "what the model drew or wrote after some steps",
    "report.html": "this page",
    "scores.json": "the scores of an evaluation",
    "changes.jsonl": "when the run began, from what, and settings that were changed while it went on",
    "quarantine.jsonl": "records that were left out, each with the reason",
}


def commands(run: Path, config: RunConfig, prompts: Sequence[str], *, is_finished: bool) -> str:
    """List commands that fit a run: its kind of data and tasks, its own prompts."""
    name = shlex.quote(str(run))
    has_pictures = not is_text_alone(config.data, config.encode)
    lines = _of_pictures(name, config, prompts) if has_pictures else _of_text(name)
    if read_best(run) is not None:
        verb = "generate" if has_pictures else "write"
        lines.append((f"transfusion {verb} {name}/{BEST} ...", "by the checkpoint with the best held-out losses"))
    if isinstance(config.data, MixtureConfig):
        lines.append((f"transfusion evaluate {name}", "losses on what is held out of each source"))
    elif isinstance(config.data, FolderConfig) and config.data.hold_out != 0:
        lines.append((f"transfusion evaluate {name} data.split=test", "losses on what was held out"))
    lines.append((f"tensorboard --logdir {name}/tensorboard", "curves while it trains (pip install tensorboard)"))
    if not is_finished:
        lines.append((f"transfusion train {name}", "goes on to the last step"))
    else:
        lines.append((f"transfusion train {name} train.steps={2 * config.train.steps} --change", "goes on for longer"))
    width = max(len(line) for line, _ in lines)
    return "<pre>" + "\n".join(escape(f"{line:{width}}   # {comment}") for line, comment in lines) + "</pre>"


def _of_pictures(name: str, config: RunConfig, prompts: Sequence[str]) -> list[tuple[str, str]]:
    drawn = " ".join(shlex.quote(prompt) for prompt in prompts[:2]) or "'what to draw'"
    draw = (f"transfusion generate {name} {drawn} -o out.png", "draws")
    look = (f"transfusion caption {name} out.png", "describes pictures")
    ask = (f"transfusion ask {name} out.png 'how many stars are there'", "answers questions")
    edit = (f"transfusion edit {name} out.png 'make the red circle yellow' -o edited.png", "changes a picture")
    chat = (f"transfusion chat {name}", "all of it in turn")
    if isinstance(config.data, ShapesConfig):
        tasks = config.data.tasks
        looking = [look, ask] if tasks.look else []
        return [*([draw] if tasks.draw else []), *looking, *([edit] if tasks.edit else []), chat]
    if isinstance(config.data, MixtureConfig):
        told = told_tasks(config.data, config.encode)
        known = {
            "draw": [draw],
            "caption": [look],
            "ask": [ask],
            "chat": [chat],
            "edit": [edit],
            "write": _of_text(name),
        }
        return [line for task in told for line in known.get(task, [])]
    share = config.encode.caption_first
    return [*([draw] if share else []), *([look] if share < 1 else [])]


def _of_text(name: str) -> list[tuple[str, str]]:
    return [(f"transfusion write {name} 'how the text begins'", "goes on with a text")]


def files_of(run: Path) -> str:
    """Say what the files of a run are, those that it has."""
    return table(
        [(file, escape(what)) for file, what in FILES.items() if (run / file).exists() or file == "report.html"]
    )
