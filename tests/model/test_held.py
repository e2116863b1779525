"""Matrices held in bf16: half the memory, and to the bit what autocast makes of float32 ones."""

from copy import deepcopy

import pytest
import torch
from tiny import FLOW, IMAGE_SHAPE, SOUND_SHAPE, documents, equal, make_model
from torch import nn

from transfusion.batch import collate
from transfusion.diffusion.process import make_process
from transfusion.generate.engine import Engine
from transfusion.generate.options import DenoisingOptions, Generated, GenerationOptions, TokenOptions
from transfusion.model.held import MATRICES, hold_matrices
from transfusion.model.transfusion import TransfusionModel
from transfusion.objective import KeyedDraw, ObjectiveConfig, TransfusionObjective
from transfusion.segments import Document, Text


def held() -> TransfusionModel:
    """Make the tiny model with its matrices in bf16."""
    model = make_model()
    hold_matrices(model, torch.bfloat16)
    return model


def test_only_matrices_are_rounded() -> None:
    model, whole = held(), make_model()
    rounded = {name for name, value in model.named_parameters() if value.dtype is torch.bfloat16}
    assert {"trunk.blocks.0.ffn.up.weight", "trunk.blocks.1.attention.out.weight"} <= rounded
    assert {"patches.0.stem.weight", "patches.0.head.weight", "patches.1.project_in.bias"} <= rounded
    assert not rounded & {"head.weight", "embed.weight", "patches.0.time.out.weight", "patches.1.time.hidden.bias"}
    for name, value in model.named_parameters():
        wide = whole.get_parameter(name)
        assert torch.equal(value, wide.to(value.dtype))
        if name not in rounded:
            is_apart = (
                name.startswith(("embed.", "head.", "patches.1.project_out."))
                or ".time.hidden." in name
                or ".time.out." in name
            )
            assert value.dtype is torch.float32 and (is_apart or "norm" in name or ".positions." in name), name
    trunk = [value for part in model.trunk.modules() if isinstance(part, MATRICES) for value in part.parameters()]
    assert all(value.element_size() == 2 for value in trunk)


def test_float32_stays_as_it_is() -> None:
    model = make_model()
    hold_matrices(model, torch.float32)
    assert equal(model.state_dict(), make_model().state_dict()) and model.held_dtype is torch.float32


def generated(model: TransfusionModel) -> list[Generated]:
    """Look, draw and write with bf16 products."""
    options = GenerationOptions(
        max_tokens=6,
        max_latents=2,
        begin_with="image",
        shapes={"image": IMAGE_SHAPE, "sound": SOUND_SHAPE},
        tokens=TokenOptions(temperature=1.0),
        denoising=DenoisingOptions(sampler="euler", num_steps=3),
    )
    prompts = [Document(found.segments, is_complete=False) for found in documents(5)]
    engine = Engine(model, make_process(FLOW), precision=torch.bfloat16)
    return engine.run([(prompt, options) for prompt in prompts])


def test_what_is_generated_is_the_same_to_the_bit() -> None:
    for one, other in zip(generated(held()), generated(make_model()), strict=True):
        assert len(one.generated) == len(other.generated)
        for a, b in zip(one.generated, other.generated, strict=True):
            assert a == b if isinstance(a, Text) or isinstance(b, Text) else torch.equal(a.values, b.values)


def losses(model: nn.Module) -> dict[str, float]:
    """Measure the losses of some documents."""
    vocabulary = make_model().vocabulary
    batch = collate([[document] for document in documents(5)], vocabulary, KeyedDraw(FLOW, 0), 24)
    with torch.inference_mode():
        found = TransfusionObjective(FLOW, ObjectiveConfig(), vocabulary)(model, batch)  # pyright: ignore
    return {name: float(loss.sum) for name, loss in found.items()}


@pytest.mark.parametrize("copied", [False, True])
def test_it_computes_in_bf16_wherever_it_is_called(copied: bool) -> None:
    model = deepcopy(held()) if copied else held()
    with torch.autocast("cpu", torch.bfloat16):
        wanted = losses(make_model())
    assert losses(model) == wanted != losses(make_model())
