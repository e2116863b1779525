"""How a training's steps are shown: a bar where somebody looks, a line now and then where not."""

import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

BAR_WIDTH = 20
SMOOTHING = 0.05
PLAIN_SECONDS = 10.0


class Shown(NamedTuple):
    """What is shown of a step: its number, numbers that are smoothed, and those of what is held out, if it has any."""

    step: int
    numbers: Mapping[str, float]
    held_out: Mapping[str, float]


def say_where_it_stands(run: Path, step: int, total: int, console: Console) -> None:
    """Say of a run that goes on at which step, and of one that is finished how to go on for longer."""
    if step >= total:
        console.print(
            f"finished: step {step} of {total}; to go on for longer: transfusion train {run} "
            f"train.steps={2 * total} --change   Begin anew: add --anew"
        )
    elif step:
        console.print(f"resuming at step {step} of {total} (--anew begins anew)")


def say_stopped(run: Path, step: int, again: str, console: Console) -> None:
    """Say of a run that was stopped by which command it goes on."""
    console.print(f"stopped after step {step}; the state is saved in {run}. Go on: {again}")


def show_steps(steps: Iterable[Shown], first: int, total: int, console: Console) -> None:
    """Show steps as they come.

    Args:
        steps: Each.
        first: Steps that were done before.
        total: All steps.
        console: Where a bar is drawn if it is a terminal; else lines go to standard error.
    """
    if console.is_terminal:
        _show_bars(steps, first, total, console)
    else:
        _show_lines(steps, first, total)


class _Smoothed:
    """Moving averages of losses and speed, and the last held-out losses, as one line."""

    def __init__(self) -> None:
        self._means: dict[str, float] = {}
        self._held_out: dict[str, float] = {}

    def line(self, shown: Shown) -> str:
        for name, value in shown.numbers.items():
            self._means[name] = self._means.get(name, value) + SMOOTHING * (value - self._means.get(name, value))
        self._held_out.update({f"held out {name}": value for name, value in shown.held_out.items()})
        numbers = {**self._means, **self._held_out}
        return "  ".join(
            f"{name} {value:.0f}" if value > 99 else f"{name} {value:.3f}" for name, value in numbers.items()
        )


def _show_bars(steps: Iterable[Shown], first: int, total: int, console: Console) -> None:
    whole = Column(no_wrap=True)  # a narrow terminal breaks the losses into lines, and never these
    columns = (
        MofNCompleteColumn(table_column=whole),
        TimeRemainingColumn(table_column=whole),
        TextColumn("{task.description}"),
        BarColumn(bar_width=BAR_WIDTH),
    )
    smoothed, line, last = _Smoothed(), "", first
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=total, completed=first)
        for shown in steps:
            line, last = smoothed.line(shown), shown.step
            progress.update(task, completed=last, description=line)
    if line:
        console.print(f"step {last}/{total}  {line}")


def _show_lines(steps: Iterable[Shown], first: int, total: int) -> None:
    smoothed = _Smoothed()
    begun = last = time.perf_counter()
    for shown in steps:
        line, now = smoothed.line(shown), time.perf_counter()
        if now - last >= PLAIN_SECONDS or shown.step == total:
            last = now
            left = (now - begun) / max(shown.step - first, 1) * (total - shown.step)
            print(f"step {shown.step}/{total}  {line}  left {left:.0f} s", file=sys.stderr, flush=True)
