"""Which tasks a model was told, from its settings alone: what it can be asked for. It must not read data."""

from transfusion.data.encode import EncodeConfig
from transfusion.data.sources import DataConfig, ShapesConfig


def told_tasks(data: DataConfig, encode: EncodeConfig) -> tuple[str, ...]:
    """Return which of "draw", "caption", "ask", "edit", "story" and "write" a model of these settings was told."""
    is_drawn, is_described = encode.caption_first > 0, encode.caption_first < 1
    if isinstance(data, ShapesConfig):
        tasks = data.tasks
        told = {
            "draw": tasks.draw > 0 and is_drawn,
            "caption": tasks.look > 0 or (tasks.draw > 0 and is_described),
            "ask": tasks.look > 0,
            "edit": tasks.edit > 0,
            "story": tasks.story > 0,
        }
    elif encode.pixels is None:  # nothing was measured when the run began: text alone
        told = {"write": True}
    else:
        told = {"draw": is_drawn, "caption": is_described}
    return tuple(task for task, is_told in told.items() if is_told)
