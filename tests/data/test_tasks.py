"""What a model was told follows from its settings alone."""

from pathlib import Path

import pytest

from transfusion.autoencoder.pixels import PixelConfig
from transfusion.data.encode import EncodeConfig
from transfusion.data.sources import DataConfig, FolderConfig, ShapesConfig, TaskWeights
from transfusion.data.tasks import is_text_alone, told_tasks

PIXELS = PixelConfig()
NOWHERE = Path("/nowhere")


@pytest.mark.parametrize(
    ("data", "encode", "tasks"),
    [
        (ShapesConfig(), EncodeConfig(), ("draw", "caption", "ask", "edit")),
        (ShapesConfig(tasks=TaskWeights(edit=0, look=0)), EncodeConfig(caption_first=1), ("draw",)),
        (ShapesConfig(tasks=TaskWeights(edit=0, look=0)), EncodeConfig(caption_first=0), ("caption",)),
        (ShapesConfig(tasks=TaskWeights(draw=0, edit=0)), EncodeConfig(caption_first=1), ("caption", "ask")),
        (ShapesConfig(tasks=TaskWeights(draw=0, look=0, edit=0, story=1)), EncodeConfig(), ("story",)),
        (FolderConfig(path=NOWHERE, layout="pairs"), EncodeConfig(), ("draw", "caption")),
        (FolderConfig(path=NOWHERE, layout="classes"), EncodeConfig(caption_first=1), ("draw",)),
        (FolderConfig(path=NOWHERE, layout="captions"), EncodeConfig(caption_first=0), ("caption",)),
        (FolderConfig(path=NOWHERE, layout="text"), EncodeConfig(pixels=PIXELS), ("write",)),
        (FolderConfig(path=NOWHERE), EncodeConfig(pixels=PIXELS), ("draw", "caption")),  # from before layouts were told
        (FolderConfig(path=NOWHERE), EncodeConfig(), ("write",)),
    ],
)
def test_tasks_follow_from_the_settings(data: DataConfig, encode: EncodeConfig, tasks: tuple[str, ...]) -> None:
    assert told_tasks(data, encode) == tasks
    assert is_text_alone(data, encode) == (tasks == ("write",))
