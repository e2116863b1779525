"""The report of a run: one self-contained HTML file with curves, pictures and scores.

It reads what a run left in its folder (metrics, sample sheets) and what the evaluation judged; it computes nothing.
"""

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from transfusion.config import RunConfig
from transfusion.evaluate.geneval import Drawn
from transfusion.evaluate.suite import Items, Scores
from transfusion.files import write_whole
from transfusion.pictures import encoded
from transfusion.train.loop import SAMPLES_FOLDER
from transfusion.train.metrics import read_metrics

REPORT_FILE = "report.html"
NUM_EXAMPLES = 12
CURVE_WIDTH, CURVE_HEIGHT, CURVE_MARGIN = 460, 180, 36
MAX_SHEETS = 8
_SHEET = re.compile(r"step_(\d+)\.png")

STYLE = """
:root { color-scheme: light dark; --line: #8884; --good: #1a8f4a; --bad: #c8402f; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.7rem } h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line) }
table { border-collapse: collapse } td, th { padding: .2rem .9rem .2rem 0; text-align: left }
td.number { text-align: right; font-variant-numeric: tabular-nums }
img { image-rendering: pixelated; border: 1px solid var(--line); background: #fff; max-width: 100% }
.grid { display: flex; flex-wrap: wrap; gap: 1rem } figure { margin: 0; width: 9rem }
figure.wide { width: 19rem } figure img { width: 9rem; height: 9rem } figcaption { font-size: .85rem; line-height: 1.3 }
.right::before { content: "✓ "; color: var(--good) } .wrong::before { content: "✗ "; color: var(--bad) }
svg { max-width: 100%; height: auto } pre { overflow-x: auto; background: #8881; padding: .8rem }
.sheets img { width: 100%; border: 0 } .sheets td:first-child { white-space: nowrap; padding-right: 1rem }
"""


def write_report(run: Path, scores: Scores, items: Items, preview_prompts: Sequence[str], config: RunConfig) -> Path:
    """Write ``report.html`` into the folder of a run.

    Args:
        run: Folder of the run; its metrics and samples are shown where there are some.
        scores: The table.
        items: Everything judged; examples are taken from it.
        preview_prompts: Captions of the sample sheets, in their order.
        config: Settings of the run.

    Returns:
        The file.
    """
    parts = [
        "<h1>Transfusion: one transformer that draws, captions, answers and edits</h1>",
        _score_table(scores, items),
        _section("Losses while training", _curves(run)),
        _section("The same prompts, from the first steps to the last", _sheets(run, preview_prompts)),
        _section("Drawn from prompts that training never showed", _drawings(items.drawn)),
        _section("Captions", _captions(items)),
        _section("Questions", _answers(items)),
        _section("Edits: before and after", _edits(items)),
        _section("How to go on", _next_steps(run)),
        f"<details><summary>Settings</summary><pre>{escape(config.to_json())}</pre></details>",
    ]
    head = (
        f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Report of {escape(run.name)}'
    )
    page = f'<!doctype html><html lang="en"><head>{head}</title><style>{STYLE}</style></head><body>'
    return write_whole(run / REPORT_FILE, page + "\n".join(parts) + "</body></html>\n")


def _section(title: str, body: str) -> str:
    return f"<h2>{escape(title)}</h2>{body}"


def _score_table(scores: Scores, items: Items) -> str:
    rows = [(f"draw: {name.replace('_', ' ')}", value) for name, value in scores.geneval.items()]
    rows += [("draw: colour and shape never shown together", items.held_out())]
    rows += [("caption", scores.caption), ("question", scores.question), ("edit", scores.edit)]
    body = "".join(f'<tr><td>{escape(name)}</td><td class="number">{value:.1%}</td></tr>' for name, value in rows)
    facts = (
        f"{scores.parameters / 1e6:.1f} million parameters, trained for {scores.train_seconds:.0f} s; "
        f"the whole command took {scores.total_seconds:.0f} s. A picture counts as right only if an exact detector "
        "finds just what the prompt says."
    )
    return f"<p>{facts}</p><table>{body}</table>"


def _curves(run: Path) -> str:
    rows = read_metrics(run)
    names = sorted({name for row in rows for name in row if name.startswith("loss/")})
    points = {name: [(row["step"], row[name]) for row in rows if _is_drawable(row, name)] for name in names}
    curves = [_curve(name, found) for name, found in points.items() if found]
    return f'<div class="grid">{"".join(curves)}</div>' if curves else "<p>This run has no metrics.</p>"


def _is_drawable(row: Mapping[str, object], name: str) -> bool:
    """Return whether a row has a point of a curve; what is written into the file by hand may be anything."""
    numbers = [value for key in ("step", name) if type(value := row.get(key)) in (int, float)]
    return len(numbers) == 2 and all(abs(float(f"{value}")) < float("inf") for value in numbers)


def _curve(name: str, points: Sequence[tuple[float, float]]) -> str:
    """Draw one loss over the steps as an SVG, on a logarithmic scale."""
    steps = np.array([step for step, _ in points])
    values = np.log(np.maximum([value for _, value in points], 1e-9))
    low, high = float(values.min()), float(max(values.max(), values.min() + 1e-6))
    x = CURVE_MARGIN + steps / max(steps.max(), 1) * (CURVE_WIDTH - 2 * CURVE_MARGIN)
    y = CURVE_MARGIN + (high - values) / (high - low) * (CURVE_HEIGHT - 2 * CURVE_MARGIN)
    path = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    label = f"{escape(name)}: {np.exp(values[0]):.3g} → {np.exp(values[-1]):.3g}, {steps[-1]:.0f} steps (log scale)"
    return (
        f'<svg viewBox="0 0 {CURVE_WIDTH} {CURVE_HEIGHT}" width="{CURVE_WIDTH}" role="img" aria-label="{label}">'
        f'<text x="{CURVE_MARGIN}" y="20" fill="currentColor" font-size="14">{label}</text>'
        f'<polyline points="{path}" fill="none" stroke="#3b7dd8" stroke-width="2"/></svg>'
    )


def _sheets(run: Path, prompts: Sequence[str]) -> str:
    named = [(_SHEET.fullmatch(file.name), file) for file in (run / SAMPLES_FOLDER).glob("*.png")]
    files = [file for _, file in sorted((int(step[1]), file) for step, file in named if step)]
    if not files:
        return "<p>This run kept no samples.</p>"
    chosen = [files[i] for i in np.unique(np.linspace(0, len(files) - 1, min(len(files), MAX_SHEETS)).astype(int))]
    rows = "".join(
        f"<tr><td>step {int(file.stem.split('_')[1])}</td><td>{_image(Image.open(file), file.stem)}</td></tr>"
        for file in chosen
    )
    listed = " · ".join(escape(prompt) for prompt in prompts)
    return f'<table class="sheets">{rows}</table><p>{listed}</p>'


def _drawings(drawn: Sequence[Drawn]) -> str:
    chosen: list[Drawn] = []
    for category in dict.fromkeys(item.prompt.category for item in drawn):
        chosen += [item for item in drawn if item.prompt.category == category][: NUM_EXAMPLES // 2]
    return _grid(_figure([item.picture], item.prompt.text, item.is_right) for item in chosen)


def _captions(items: Items) -> str:
    return _grid(_figure([item.picture], item.text, item.is_right) for item in items.captioned[:NUM_EXAMPLES])


def _answers(items: Items) -> str:
    return _grid(
        _figure([item.picture], f"{item.question}? {item.text}", item.is_right)
        for item in items.answered[:NUM_EXAMPLES]
    )


def _edits(items: Items) -> str:
    return _grid(
        _figure([item.before, item.picture], item.change.instruction, item.is_right)
        for item in items.edited[:NUM_EXAMPLES]
    )


def _grid(figures: Iterable[str]) -> str:
    return f'<div class="grid">{"".join(figures)}</div>'


def _figure(pictures: Sequence[Image.Image | NDArray[np.uint8]], text: str, is_right: bool) -> str:
    images = " ".join(_image(picture, text) for picture in pictures)
    width = ' class="wide"' if len(pictures) > 1 else ""
    verdict = "right" if is_right else "wrong"
    return f'<figure{width}>{images}<figcaption class="{verdict}">{escape(text)}</figcaption></figure>'


def _image(picture: Image.Image | NDArray[np.uint8], text: str) -> str:
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    data = encoded(image.convert("RGB"))
    return f'<img alt="{escape(text)}" src="data:image/png;base64,{base64.b64encode(data).decode()}">'


def _next_steps(run: Path) -> str:
    name = escape(str(run))
    lines = [
        f"transfusion generate {name} 'a red circle left of a blue square' 'three green stars' -o out.png",
        f"transfusion caption {name} out.png",
        f"transfusion ask {name} out.png 'how many stars are there'",
        f"transfusion edit {name} out.png 'make the red circle yellow' -o edited.png",
        f"transfusion chat {name}",
        "transfusion train small                       # an hour instead of minutes",
        "transfusion train folder data.path=DIR        # your own captioned pictures",
    ]
    return f"<pre>{chr(10).join(lines)}</pre>"
