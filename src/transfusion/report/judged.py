"""What an evaluation judged: the table of scores, and examples with their verdicts."""

from collections.abc import Iterable, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from transfusion.evaluate.geneval import Drawn
from transfusion.evaluate.suite import Items, Scores
from transfusion.report.html import image, section

NUM_EXAMPLES = 12


def examples(items: Items) -> str:
    """Show some of everything that was judged."""
    return "\n".join(
        [
            section("Drawn from prompts that training never showed", _drawings(items.drawn)),
            section("Captions", _captions(items)),
            section("Questions", _answers(items)),
            section("Edits: before and after", _edits(items)),
        ]
    )


def score_table(scores: Scores, items: Items) -> str:
    """Lay out all scores, those of what training never showed among them, and what they cost."""
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
    images = " ".join(image(picture, text) for picture in pictures)
    width = ' class="wide"' if len(pictures) > 1 else ""
    verdict = "right" if is_right else "wrong"
    return f'<figure{width}>{images}<figcaption class="{verdict}">{escape(text)}</figcaption></figure>'
