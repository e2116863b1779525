"""Recipe for your own captioned pictures, or plain text."""

from transfusion.config import RunConfig
from transfusion.data.encode import EncodeConfig
from transfusion.data.sources import FolderConfig
from transfusion.model.patchify import ModalityConfig, UNetPatchConfig
from transfusion.recipes.shapes import tiny


def folder() -> RunConfig:
    """What does the demo's recipe learn from your own captioned pictures?

    Command: ``transfusion train folder data.path=DIR``, where DIR holds pictures and a captions.jsonl of
    {"file", "text"}, or one sub-folder per class; ``data.path=FILE.txt`` trains on text alone.
    """
    config = tiny()
    image = ModalityConfig(max_grid=(8, 8), patches=UNetPatchConfig(channels=(48, 96), use_attention=False))
    return config.model_copy(
        update={
            "name": "folder",
            "model": config.model.model_copy(update={"modalities": (image,)}),
            "data": FolderConfig(),
            "encode": EncodeConfig(),
            "train": config.train.model_copy(update={"steps": 5000, "batch_size": 64, "preview_every": 500}),
        }
    )
