"""The paper's own settings (Tables 2 and 7, section 4)."""

from transfusion.config import RunConfig, TrainConfig
from transfusion.diffusion.guidance import Guidance
from transfusion.diffusion.process import DiffusionConfig
from transfusion.diffusion.schedule import ScheduleConfig
from transfusion.generate.options import DenoisingOptions
from transfusion.model.patchify import LinearPatchConfig, ModalityConfig
from transfusion.model.transformer import TransformerConfig
from transfusion.model.transfusion import ModelConfig
from transfusion.objective import ObjectiveConfig
from transfusion.train.optimizer import OptimizerConfig


def paper() -> RunConfig:
    """What does the paper train? Its 0.16B model: linear 2x2 patches of 32x32x8 latents, cosine DDPM, noise, λ = 5.

    Times in training are the discrete schedule's 1,000 levels.

    The data are the built-in world's until a data set of latents is given: change ``data`` and the modality's
    channels together.
    """
    return RunConfig(
        name="paper",
        model=ModelConfig(
            trunk=TransformerConfig(dim=768, depth=16, num_heads=12, hidden_dim=2048),
            modalities=(ModalityConfig(channels=3, patch_size=(2, 2), patches=LinearPatchConfig()),),
        ),
        diffusion=DiffusionConfig(schedule=ScheduleConfig(num_levels=1000)),
        objective=ObjectiveConfig(text_weight=1.0, diffusion_weight=5.0),
        train=TrainConfig(
            steps=250_000,
            batch_size=512,
            batch_unit="rows",
            row_length=4096,
            ema_decay=None,
            preview_every=5000,
            optimizer=OptimizerConfig(lr=3e-4, warmup_steps=4000, schedule="cosine", final_ratio=0.05),
        ),
        denoising=DenoisingOptions(sampler="ddpm", num_steps=250, guidance=Guidance(scale=3.0)),
    )
