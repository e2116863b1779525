"""Recipes of the built-in world."""

from transfusion.config import RunConfig, TrainConfig
from transfusion.data.encode import EncodeConfig
from transfusion.data.sources import ShapesConfig, TaskWeights
from transfusion.diffusion.guidance import Guidance
from transfusion.diffusion.process import DiffusionConfig
from transfusion.diffusion.schedule import ScheduleConfig
from transfusion.generate.options import DenoisingOptions
from transfusion.model.init import InitConfig
from transfusion.model.patchify import ModalityConfig
from transfusion.model.transformer import TransformerConfig
from transfusion.model.transfusion import ModelConfig
from transfusion.objective import ObjectiveConfig
from transfusion.tokenizer import TokenizerConfig
from transfusion.train.optimizer import OptimizerConfig


def tiny() -> RunConfig:
    """Can a laptop learn to draw, caption, answer and edit in eight minutes?

    Command: ``make demo`` or ``transfusion demo``. On 2 cores (AVX-512, fp32) 1400 steps of 64 documents took 446 s,
    the whole command 477 s; GenEval 0.97, captions 0.94, questions 0.92, edits 0.81 (experiments/LOG.md).
    """
    return RunConfig(
        name="demo",
        model=ModelConfig(
            trunk=TransformerConfig(dim=192, depth=5, num_heads=4),
            modalities=(ModalityConfig(channels=0, max_grid=(0, 0)),),
            init=InitConfig(embedding_std=1.5, position_std=1.5),
        ),
        tokenizer=TokenizerConfig(kind="train", vocab_size=400),
        data=ShapesConfig(tasks=TaskWeights(draw=0.28, look=0.41, edit=0.31, story=0.0), questions_per_picture=4),
        encode=EncodeConfig(caption_first=1.0, learns_prompts=False, picture_first_max_t=0.0),
        diffusion=DiffusionConfig(
            schedule=ScheduleConfig(kind="straight", times="logit_normal", mean=2.8, std=1.7, min_t=0.1),
            prediction="x_0",
            loss="v",
        ),
        objective=ObjectiveConfig(text_weight=3.0, diffusion_weight=3.0),
        train=TrainConfig(
            steps=1400,
            batch_size=64,
            row_length=0,
            optimizer=OptimizerConfig(
                kind="muon",
                lr=2e-3,
                muon_lr=4e-3,
                muon_iterations=3,
                weight_decay=0.01,
                warmup_steps=50,
                schedule="constant",
                final_ratio=0.01,
            ),
            preview_every=250,
        ),
        denoising=DenoisingOptions(sampler="euler", num_steps=32, shift=6.0, guidance=Guidance(scale=3.0)),
    )


def small() -> RunConfig:
    """How far does an hour go?

    Command: ``transfusion train small``, then ``transfusion evaluate runs/small``. 6000 steps took 50 minutes, two
    thirds of them on one busy core; GenEval 0.995, captions 0.98, questions 0.95, edits 0.87 (experiments/LOG.md).
    """
    config = tiny()
    return config.model_copy(
        update={
            "name": "small",
            "train": config.train.model_copy(update={"steps": 6000, "preview_every": 1000}),
        }
    )
