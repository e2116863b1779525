"""Clean estimates stay where the data can be: within a given range, a number, or that of standardised latents."""

import pytest
import torch
from tiny import IMAGE_SHAPE, make_model, run_config

from transfusion.autoencoder.pixels import PixelConfig, pixel_range
from transfusion.data.encode import IMAGE, EncodeConfig
from transfusion.diffusion.process import DiffusionConfig, make_process
from transfusion.diffusion.samplers import SamplerName
from transfusion.generate.engine import STANDARDISED, Engine
from transfusion.generate.options import DenoisingOptions, GenerationOptions
from transfusion.pretrained import Transfusion
from transfusion.segments import Document, Latent
from transfusion.tokenizer import ByteTokenizer

PROCESS = make_process(DiffusionConfig())  # an untrained noise prediction: estimates of any size


def drawn(engine: Engine, sampler: SamplerName = "ddim", clip: float | None = None) -> torch.Tensor:
    """Draw one image."""
    options = GenerationOptions(
        max_tokens=0,
        begin_with="image",
        shapes={"image": IMAGE_SHAPE},
        denoising=DenoisingOptions(sampler=sampler, num_steps=5, clip=clip),
    )
    latent = engine.run([(Document((), is_complete=False), options)])[0].generated[0]
    assert isinstance(latent, Latent) and latent.values.dtype is torch.float32
    return latent.values


def wild_engine(ranges: dict[str, tuple[float, float]] | None = None) -> Engine:
    """Make an engine whose model is wrong by far."""
    model = make_model()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    return Engine(model, PROCESS, ranges=ranges)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "euler", "heun", "dpm_solver_2m"])
def test_estimates_are_kept_within_the_range(sampler: SamplerName) -> None:
    found = drawn(wild_engine({"image": (-0.5, 0.25)}), sampler)
    assert (float(found.min()), float(found.max())) == (-0.5, 0.25)


def test_a_number_clips_at_that_number() -> None:
    found = drawn(wild_engine({"image": (-0.5, 0.25)}), clip=0.75)
    assert (float(found.min()), float(found.max())) == (-0.75, 0.75)


def test_latents_of_an_unknown_range_count_as_standardised() -> None:
    found = drawn(wild_engine({"sound": (-0.5, 0.5)}))
    assert (float(found.min()), float(found.max())) == STANDARDISED


def test_a_model_knows_the_range_of_its_pixels() -> None:
    config = run_config()
    pixels = PixelConfig(mean=0.9, std=0.1)
    config = config.model_copy(update={"encode": EncodeConfig(pixels=pixels)})
    assert Transfusion(make_model(), ByteTokenizer(), config).engine().ranges == {IMAGE: pixel_range(pixels)}
