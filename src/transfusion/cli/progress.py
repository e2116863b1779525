"""That something is under way, and how far it has come: on standard error if that is a terminal, and nowhere else."""

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any

from PIL.Image import Image
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

Follow = Callable[[object, int, float, Mapping[str, Any]], None]


@contextmanager
def drawing(count: int, finished: Callable[[int, Image], None] | None = None) -> Generator[Follow | None]:
    """Show a bar while pictures are drawn; it is gone at the end.

    Args:
        count: How many pictures.
        finished: Is told each that is drawn, by its place.

    Yields:
        What ``generate_images`` shall call after each step of each picture; None where nobody looks or listens.
    """
    with _progress(BarColumn(), TaskProgressColumn()) as progress:
        if progress.disable and finished is None:
            yield None
            return
        task = progress.add_task(f"drawing {count}" if count > 1 else "drawing", total=None)

        def follow(model: object, step: int, t: float, preview: Mapping[str, Any]) -> None:
            del model, t
            if finished is not None and step == preview["num_steps"] - 1:
                finished(preview["index"], preview["picture"])
            progress.update(task, advance=1, total=count * preview["num_steps"])

        yield follow


@contextmanager
def counting(doing: str, total: int) -> Generator[Callable[[int], None]]:
    """Show a bar of how many are done, and for how long it will go on.

    Yields:
        What shall be told how many are done.
    """
    with _progress(BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()) as progress:
        task = progress.add_task(doing, total=total)
        yield lambda done: progress.update(task, completed=done)


@contextmanager
def working(doing: str) -> Generator[None]:
    """Show what is done meanwhile, and for how long already; it is gone at the end."""
    with _progress(SpinnerColumn()) as progress:
        progress.add_task(doing, total=None)
        yield


def _progress(*columns: ProgressColumn) -> Progress:
    console = Console(stderr=True)
    is_seen = console.is_terminal
    told = TextColumn("{task.description}", markup=False)
    return Progress(told, *columns, TimeElapsedColumn(), console=console, transient=True, disable=not is_seen)
