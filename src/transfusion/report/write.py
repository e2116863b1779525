"""The page: its parts in their order, for any run and for one that was just evaluated."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from transfusion.config import RunConfig, leaves
from transfusion.evaluate.suite import SCORES_FILE, Items, Scores
from transfusion.files import write_whole
from transfusion.report.curves import curves_of, draw
from transfusion.report.go_on import commands, files_of
from transfusion.report.html import image, page, section, table
from transfusion.report.judged import examples, score_table
from transfusion.report.meaning import explained, unit, verdict
from transfusion.samples import Sample, list_samples, read_prompts
from transfusion.train.best import BEST, read_best
from transfusion.train.checkpoint import STEP_PREFIX, checkpoints
from transfusion.train.metrics import read_metrics

REPORT_FILE = "report.html"
MAX_SAMPLES = 8
Rows = Sequence[Mapping[str, float]]  # of metrics
_log = logging.getLogger(__name__)


def write_run_report(run: Path, config: RunConfig) -> Path:
    """Write ``report.html`` into the folder of any run, from what lies there; safe while it is being trained.

    Args:
        run: Folder of the run: its metrics, samples, scores and checkpoints are shown where there are some.
        config: Settings of the run.

    Returns:
        The file.
    """
    rows = read_metrics(run)
    title = f"Run {run.resolve().name}: step {_step(run, rows)} of {config.train.steps}"
    scores = _saved_scores(run)
    parts = [section("Scores", scores)] if scores else []
    return _write(run, config, title, [*parts, *_training(run, config, read_prompts(run), rows)])


def write_report(run: Path, scores: Scores, items: Items, preview_prompts: Sequence[str], config: RunConfig) -> Path:
    """Write ``report.html`` of a run of the built-in world that was evaluated, with all that was judged.

    Args:
        run: Folder of the run; its metrics and samples are shown where there are some.
        scores: The table.
        items: Everything judged; examples are taken from it.
        preview_prompts: Captions of the sample sheets, in their order.
        config: Settings of the run.

    Returns:
        The file.
    """
    title = "Transfusion: one transformer that draws, captions, answers and edits"
    middle = [score_table(scores, items), examples(items)]
    return _write(run, config, title, [*middle, *_training(run, config, preview_prompts, read_metrics(run))])


def _write(run: Path, config: RunConfig, title: str, parts: Sequence[str]) -> Path:
    settings = f"<details><summary>Settings</summary><pre>{escape(config.to_json())}</pre></details>"
    content = page(f"Report of {run.resolve().name}", [f"<h1>{escape(title)}</h1>", *parts, settings])
    # The run's folder may have a name that is not UTF-8.
    return write_whole(run / REPORT_FILE, content.encode("utf-8", "backslashreplace"))


def _training(run: Path, config: RunConfig, prompts: Sequence[str], rows: Rows) -> Iterator[str]:
    """Yield what every run has."""
    yield section("Losses while training", _losses(run, config, rows))
    yield section("The same beginnings, from the first steps to the last", _samples(run, config, prompts))
    is_finished = _step(run, rows) >= config.train.steps
    yield section("How to go on", commands(run, config, prompts, is_finished=is_finished))
    yield section("What lies in the folder", files_of(run))


def _losses(run: Path, config: RunConfig, rows: Rows) -> str:
    curves = curves_of(rows)
    if not curves:
        return "<p>This run has no metrics.</p>"
    parts: list[str] = []
    for curve in curves:
        if "/" in curve.name:  # of one source of a mixture
            parts.append(draw(curve, unit(curve.name.rpartition("/")[2])))
            continue
        found = verdict(curve)
        told = f'<p class="warning">{escape(found.text)}</p>' if found.is_overfit else f"<p>{escape(found.text)}</p>"
        parts.append(f"{draw(curve, unit(curve.name))}<p>{escape(explained(curve.name, config))}</p>{told}")
    return "".join(parts) + _told_held_out(run, config)


def _told_held_out(run: Path, config: RunConfig) -> str:
    average = "" if config.train.ema_decay is None else ", by the averaged weights, which lag behind at first"
    told = (
        f"Held out are records that training never sees{average}; their times and noises are always the same, so that "
        "their losses can be compared from step to step. Those of training are of each step's own documents, and jump."
    )
    best = read_best(run)
    if best is not None:
        losses = ", ".join(f"{name} {value:.4g}" for name, value in best.losses.items())
        told += (
            f" The best checkpoint by them is that of step {best.step} ({losses}); it is kept, and {run / BEST} names "
            "it wherever a model is asked for."
        )
    return f"<p>{escape(told)}</p>"


def _samples(run: Path, config: RunConfig, prompts: Sequence[str]) -> str:
    found = list_samples(run)
    if not found:
        hint = "" if config.train.preview_every else "; train.preview_every=500 keeps some"
        return f"<p>This run kept no samples{hint}.</p>"
    chosen = [found[i] for i in np.unique(np.linspace(0, len(found) - 1, min(len(found), MAX_SAMPLES)).astype(int))]
    rows = table_of(chosen)
    listed = "".join(f"<li>{escape(prompt)}</li>" for prompt in prompts)
    return rows + (f"<p>The prompts of a sheet, in their order:</p><ol>{listed}</ol>" if listed else "")


def table_of(samples: Sequence[Sample]) -> str:
    """Lay out samples, one line for each step."""
    rows = "".join(f"<tr><td>step {sample.step}</td><td>{_shown(sample)}</td></tr>" for sample in samples)
    return f'<table class="sheets">{rows}</table>'


def _shown(sample: Sample) -> str:
    try:
        if sample.file.suffix == ".txt":
            return f'<pre class="text">{escape(sample.file.read_text("utf-8", "replace"))}</pre>'
        with Image.open(sample.file) as picture:
            return image(picture, sample.file.stem)
    except Exception as error:  # of damaged data a decoder may raise anything
        return _told_damage(sample.file, error)


def _told_damage(file: Path, error: Exception) -> str:
    """Say, here and in the page, that a file of the run is passed over."""
    _log.warning("the report goes without %s, which cannot be read (%s: %s)", file, type(error).__name__, error)
    return f"<p>{escape(file.name)} is damaged and left out.</p>"


def _saved_scores(run: Path) -> str:
    """Show the numbers of the run's scores, where it was evaluated."""
    file = run / SCORES_FILE
    try:
        tree = json.loads(file.read_bytes()) if file.is_file() else {}
        rows = [(name, f"{value:.4g}") for name, value in _numbers(tree)]
    except (ValueError, RecursionError) as error:
        return _told_damage(file, error)
    told = f"<p>As the last evaluation wrote them into {SCORES_FILE}; shares of what was right are from 0 to 1.</p>"
    return told + table(rows) if rows else ""


def _numbers(tree: object) -> Iterator[tuple[str, float]]:
    for name, value in leaves(tree, " "):
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield name, float(f"{value}")


def _step(run: Path, rows: Rows) -> int:
    """Return the last step that the run tells of, 0 without one."""
    saved = [int(folder.name.removeprefix(STEP_PREFIX)) for folder in checkpoints(run)]
    return max([*saved, *(int(row["step"]) for row in rows[-1:])], default=0)
