"""Recipe for your own captioned pictures, or plain text."""

from transfusion.config import RunConfig
from transfusion.data.encode import EncodeConfig
from transfusion.data.sources import FolderConfig
from transfusion.model.patchify import ModalityConfig, UNetPatchConfig
from transfusion.recipes.shapes import tiny
from transfusion.tokenizer import TokenizerConfig


def folder() -> RunConfig:
    """What does the demo's recipe learn from your own captioned pictures?

    Command: ``transfusion train folder data.path=DIR``, where DIR holds pictures and a captions.jsonl of
    {"file", "text"} or a metadata.jsonl of {"file_name", "text"}, or NAME.png with NAME.txt, or one sub-folder per
    class; ``data.path=FILE.txt`` trains on text alone.
    """
    config = tiny()
    patches = UNetPatchConfig(channels=(32, 64), use_attention=False, use_direct=True)
    times = config.diffusion.schedule.model_copy(update={"mean": 0.8, "std": 1.2})
    return config.model_copy(
        update={
            "name": "folder",
            "model": config.model.model_copy(
                update={"modalities": (ModalityConfig(channels=0, max_grid=(0, 0), patches=patches),)}
            ),
            "tokenizer": TokenizerConfig(kind="train", vocab_size=1024),
            "data": FolderConfig(),
            "encode": EncodeConfig(),
            "diffusion": config.diffusion.model_copy(update={"schedule": times}),
            "train": config.train.model_copy(update={"steps": 6000, "preview_every": 500}),
            "denoising": config.denoising.model_copy(update={"shift": 2.0}),
        }
    )
