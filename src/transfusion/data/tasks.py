"""Which tasks a model was told, from its settings alone: what it can be asked for, and how many pictures its records
have. It must not read data.
"""

from transfusion.data.encode import EncodeConfig
from transfusion.data.settings import TEXT_ALONE, DataConfig, Layout, MixtureConfig, ShapesConfig
from transfusion.data.shapes import MOST_PAGES

TASKS = ("draw", "caption", "ask", "chat", "edit", "story", "write")
ROOM = {"draw": 2, "look": 2, "edit": 2, "story": MOST_PAGES}  # a conversation takes that of a picture more

ROOM_OF: dict[Layout, str] = {"interleaved": "story", "conversations": "look", "edits": "edit", "own": "story"}


def told_tasks(data: DataConfig, encode: EncodeConfig) -> tuple[str, ...]:
    """Return which of "draw", "caption", "ask", "chat", "edit", "story" and "write" a model of these settings was told.

    Args:
        data: What it was trained on; a run that has begun knows the layout of a folder.
        encode: How that was told: captioned pictures are drawn where the caption came first, and described where the
            picture did.
    """
    if isinstance(data, MixtureConfig):
        each = [told_tasks(source.data, encode) for source in data.sources]
        return tuple(task for task in TASKS if any(task in told for told in each))
    if is_text_alone(data, encode):
        return ("write",)
    is_drawn, is_described = encode.caption_first > 0, encode.caption_first < 1
    if not isinstance(data, ShapesConfig):
        told = {"draw": is_drawn, "caption": is_described}
        if data.layout == "interleaved":
            told = {"draw": True, "story": True, "write": True}
        elif data.layout == "conversations":
            told = {"caption": encode.turns == "plain", "ask": encode.turns != "plain", "chat": encode.turns != "plain"}
        elif data.layout == "edits":
            told = {"draw": True, "edit": True}
        elif data.layout == "own":
            told = dict.fromkeys(("draw", "caption", "ask", "chat", "edit", "story", "write"), True)  # nobody knows
    else:
        tasks = data.tasks
        told = {
            "draw": tasks.draw > 0 and is_drawn,
            "caption": (tasks.look > 0 and encode.turns in ("lines", "plain")) or (tasks.draw > 0 and is_described),
            "ask": tasks.look > 0 and encode.turns != "plain",
            "edit": tasks.edit > 0,
            "story": tasks.story > 0,
        }
    return tuple(task for task, is_told in told.items() if is_told)


def most_pictures(data: DataConfig) -> int:
    """Return for how many pictures a row needs room: as many as a record of the tasks that these data tell has at most,
    and no fewer than two in the built-in world.
    """
    if isinstance(data, MixtureConfig):
        return max((most_pictures(source.data) for source in data.sources), default=1)
    if not isinstance(data, ShapesConfig):
        return ROOM[ROOM_OF[data.layout]] if data.layout in ROOM_OF else 1
    weights: dict[str, float] = data.tasks.model_dump()
    return max(ROOM[task] for task, weight in weights.items() if weight > 0)


def is_text_alone(data: DataConfig, encode: EncodeConfig) -> bool:
    """Return whether a run of these settings knows no pictures: its layout is text, or, in settings from before layouts
    were told, it has measured no pixels.
    """
    if isinstance(data, MixtureConfig):
        return all(is_text_alone(source.data, encode) for source in data.sources)
    if isinstance(data, ShapesConfig):
        return False
    return data.layout in TEXT_ALONE or (data.layout == "auto" and encode.pixels is None)
