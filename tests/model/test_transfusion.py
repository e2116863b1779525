"""The network as a whole: how precise its logits are, and what compiling it changes."""

import pytest
import torch
from tiny import FLOW, IMAGE_SHAPE, documents, make_model, text
from torch.nn.attention.flex_attention import flex_attention

from transfusion.batch import collate
from transfusion.diffusion.process import make_process
from transfusion.generate.engine import Engine
from transfusion.generate.options import DenoisingOptions, GenerationOptions
from transfusion.mask import MaskKernel, attention_mask
from transfusion.model.transformer import flex_kernel
from transfusion.model.transfusion import Outputs, TransfusionModel
from transfusion.objective import KeyedDraw, ObjectiveConfig, TransfusionObjective
from transfusion.segments import Document

TOLERANCE = 2e-5  # float32 sums over keys in another order


def test_logits_that_choose_a_token_are_float32_under_autocast() -> None:
    model = make_model()
    batch = collate([[documents(4)[-1]]], model.vocabulary, KeyedDraw(FLOW, 0), 16)
    mask = attention_mask(batch.columns, "dense")
    seen: list[torch.Tensor] = []
    model.trunk.register_forward_hook(lambda _, __, hidden: seen.append(hidden))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        outputs: Outputs = model(batch.columns, [], batch.text_slots, mask)
    hidden = seen[0].flatten(0, 1)[batch.text_slots].float()
    assert torch.equal(outputs.logits, hidden @ model.head.weight.T) or (
        float((outputs.logits - hidden @ model.head.weight.T).abs().max()) < 1e-6
    )
    rounded = outputs.logits.bfloat16().float()
    assert float((outputs.logits == rounded).float().mean()) < 0.1, (
        "the logits carry no more than bfloat16's eight bits"
    )


def losses(model: TransfusionModel, attention: MaskKernel) -> dict[str, float]:
    """Compute the losses of some packed documents."""
    batch = collate([documents(4)], model.vocabulary, KeyedDraw(FLOW, 0), 128)
    found = TransfusionObjective(FLOW, ObjectiveConfig(attention=attention), model.vocabulary)(model, batch)
    return {name: float(part.sum.detach()) for name, part in found.items()}


def test_flex_is_dense_and_one_kernel_where_it_matters() -> None:
    model = make_model()
    with torch.no_grad():  # the kernel knows no backward on a CPU
        assert losses(model, "flex") == pytest.approx(losses(model, "dense"), rel=TOLERANCE)
    assert flex_kernel(torch.device("cpu")) is flex_attention
    assert flex_kernel(torch.device("cuda")) is not flex_attention


def test_previews_do_not_spend_a_compiled_models_versions() -> None:
    model = make_model()
    model.compile(backend="eager")
    with torch.no_grad():  # of numbers of rows that are multiplied the other way round where nothing is compiled
        for length in (20, 24, 28):
            batch = collate([[documents(4)[-1]]], model.vocabulary, KeyedDraw(FLOW, 0), length)
            assert model(batch.columns, [], batch.text_slots, attention_mask(batch.columns, "dense"))
    counters = torch._dynamo.utils.counters["frames"]
    num_frames = counters["total"]
    options = GenerationOptions(
        max_tokens=2,
        begin_with="image",
        shapes={"image": IMAGE_SHAPE},
        denoising=DenoisingOptions(sampler="euler", num_steps=2),
    )
    engine = Engine(model, make_process(FLOW))
    assert engine.run([(Document((text(0, 2 + place),), is_complete=False), options) for place in range(3)])
    assert counters["total"] == num_frames > 0
