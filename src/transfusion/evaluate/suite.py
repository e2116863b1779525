"""The whole evaluation of a model of the built-in world, and its table of scores."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from rich.table import Table

from transfusion.evaluate.geneval import Drawer, Drawn, evaluate_geneval, geneval_scores, held_out_score
from transfusion.evaluate.understanding import (
    Answered,
    Answerer,
    Captioned,
    Captioner,
    Edited,
    Editor,
    evaluate_captions,
    evaluate_edits,
    evaluate_questions,
)
from transfusion.files import write_whole

SCORES_FILE = "scores.json"


class Evaluated(Drawer, Captioner, Answerer, Editor, Protocol):
    """A model that can be evaluated; ``Transfusion`` is one, a perfect oracle in a test another."""


@dataclass(frozen=True)
class Scores:
    """All scores in [0, 1], and what they cost.

    Attributes:
        geneval: ``"overall"`` and the six categories.
        caption: Share of right captions.
        question: Share of right answers.
        edit: Share of right edits.
        train_seconds: Time of all training steps.
        total_seconds: Time of the whole command.
        parameters: Number of trained numbers.
    """

    geneval: dict[str, float]
    caption: float
    question: float
    edit: float
    train_seconds: float
    total_seconds: float
    parameters: int

    def to_json(self) -> str:
        """Write the scores."""
        return json.dumps(asdict(self), indent=2)

    def save(self, folder: Path) -> Path:
        """Write ``scores.json`` into a folder."""
        return write_whole(folder / SCORES_FILE, self.to_json() + "\n")


class Items(NamedTuple):
    """Every single thing that was judged."""

    drawn: list[Drawn]
    captioned: list[Captioned]
    answered: list[Answered]
    edited: list[Edited]

    def held_out(self) -> float:
        """Return the share of right pictures for colours and shapes that training never shows together."""
        return held_out_score(self.drawn)


def evaluate_shapes(model: Evaluated, resolution: int, *, num_prompts: int = 100, seed: int = 0) -> Items:
    """Evaluate drawing (``num_prompts`` in each category), captions, answers and edits (2 * ``num_prompts`` each)."""
    num_scenes = 2 * num_prompts
    return Items(
        evaluate_geneval(model, num_prompts=num_prompts, seed=seed),
        evaluate_captions(model, resolution, num_scenes=num_scenes, seed=seed),
        evaluate_questions(model, resolution, num_scenes=num_scenes, seed=seed),
        evaluate_edits(model, resolution, num_scenes=num_scenes, seed=seed),
    )


def summarise(items: Items, *, train_seconds: float, total_seconds: float, parameters: int) -> Scores:
    """Reduce all judgements to scores."""
    return Scores(
        geneval=geneval_scores(items.drawn),
        caption=_share(items.captioned),
        question=_share(items.answered),
        edit=_share(items.edited),
        train_seconds=round(train_seconds, 1),
        total_seconds=round(total_seconds, 1),
        parameters=parameters,
    )


def scores_table(scores: Scores) -> Table:
    """Lay the scores out for a terminal."""
    table = Table(title="Scores on prompts and scenes that training never drew")
    table.add_column("what")
    table.add_column("right", justify="right")
    for name, value in scores.geneval.items():
        table.add_row(f"draw: {name.replace('_', ' ')}", f"{value:.1%}", style="bold" if name == "overall" else "")
    for name, value in (("caption", scores.caption), ("question", scores.question), ("edit", scores.edit)):
        table.add_row(name, f"{value:.1%}", style="bold")
    return table


def _share(judged: Sequence[Captioned] | Sequence[Answered] | Sequence[Edited]) -> float:
    return sum(item.is_right for item in judged) / max(len(judged), 1)
