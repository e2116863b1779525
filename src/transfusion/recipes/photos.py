"""Recipe for pictures of 128 pixels and more, through a pretrained autoencoder."""

from transfusion.autoencoder.settings import PretrainedConfig
from transfusion.config import RunConfig
from transfusion.data.encode import EncodeConfig
from transfusion.data.sources import FolderConfig
from transfusion.model.init import InitConfig
from transfusion.model.patchify import ModalityConfig
from transfusion.model.transformer import TransformerConfig
from transfusion.model.transfusion import ModelConfig
from transfusion.recipes.folder import folder


def photos() -> RunConfig:
    """What does an evening of two cores learn from photographs of 128 pixels?

    Command: ``transfusion train photos data.path=DIR``, where DIR holds what ``transfusion prepare latents`` made of
    pictures; or pictures in any layout, with ``autoencoder.path=`` a path or a name on the hub.
    """
    config = folder()
    times = config.diffusion.schedule.model_copy(update={"mean": 0.8, "std": 1.2, "min_t": 0.15})
    return config.model_copy(
        update={
            "name": "photos",
            "model": ModelConfig(
                trunk=TransformerConfig(dim=256, depth=8, num_heads=4, use_qk_norm=True),
                modalities=(ModalityConfig(channels=0, patch_size=(2, 2), max_grid=(0, 0)),),
                init=InitConfig(embedding_std=1.5, position_std=1.5),
            ),
            "autoencoder": PretrainedConfig(),
            "data": FolderConfig(resolution=128),
            "encode": EncodeConfig(learns_prompts=False, picture_first_max_t=0.0),
            "diffusion": config.diffusion.model_copy(update={"schedule": times}),
            "train": config.train.model_copy(update={"steps": 3000, "batch_size": 32, "preview_every": 250}),
            "denoising": config.denoising.model_copy(update={"num_steps": 24, "shift": 4.0}),
        }
    )
