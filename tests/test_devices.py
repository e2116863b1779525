"""Everything that is asked of a model goes to the model's device: shown by one that is not the CPU."""

from copy import deepcopy

import pytest
import torch
from elsewhere import ELSEWHERE, Elsewhere
from tiny import FLOW, IMAGE_SHAPE, SOUND_SHAPE, ToySource, documents, image, make_model, run_config, sound, text

from transfusion.config import ConfigError
from transfusion.devices import KINDS, choose_precision, find_device, num_devices
from transfusion.diffusion.guidance import Guidance
from transfusion.diffusion.process import make_process
from transfusion.diffusion.samplers import SamplerName
from transfusion.evaluate.losses import evaluate_losses
from transfusion.generate.engine import Engine
from transfusion.generate.options import DenoisingOptions, GenerationOptions, LatentEvent, PreviewEvent, TokenOptions
from transfusion.objective import ObjectiveConfig, TransfusionObjective
from transfusion.pretrained import Transfusion
from transfusion.segments import Document, Latent
from transfusion.tokenizer import ByteTokenizer

HERE = make_model()
SAMPLERS: tuple[SamplerName, ...] = ("ddpm", "ddim", "euler", "heun", "dpm_solver_2m")
TOLERANCE = 1e-4  # as in test_engine: kernels may differ in the order of their sums


@pytest.fixture(scope="module")
def there() -> object:
    """Move a model elsewhere."""
    with Elsewhere():
        return deepcopy(HERE).to(ELSEWHERE)


def test_a_device_by_its_name() -> None:
    best = next(kind for kind in KINDS if num_devices(kind))
    assert find_device("auto").type == best and find_device("cpu") == torch.device("cpu")
    for name, message in (
        ("tpu", "'tpu' is unknown; expected auto, cpu"),
        ("cuda:99", "'cuda:99' is not here"),
        ("meta", "'meta' is not here"),
        ("cpu:1", "'cpu:1' is not here"),
        ("", "'' is unknown"),
    ):
        with pytest.raises(ConfigError, match=message):
            find_device(name)
    assert choose_precision("auto", torch.device("cpu")) in ("fp32", "bf16")
    assert choose_precision("bf16", torch.device("cpu")) == "bf16"
    with pytest.raises(ConfigError, match="precision 'fp8' is unknown"):
        choose_precision("fp8", torch.device("cpu"))


def test_the_device_refuses_to_mix() -> None:
    with Elsewhere():
        moved, stayed = torch.ones(2, device=ELSEWHERE), torch.ones(2)
        assert moved.device == ELSEWHERE and (moved + 1).cpu().tolist() == [2, 2] and float(moved.sum()) == 2
        assert (moved + stayed.to(ELSEWHERE)).to("cpu").tolist() == [2, 2]
        assert (moved * torch.tensor(3.0)).cpu().tolist() == [3, 3]
        assert (moved[torch.tensor([0])] + moved[0]).cpu().tolist() == [2]
        moved[:1] = 5
        assert moved.cpu().tolist() == [5, 1]
        for mixed in (lambda: moved + stayed, lambda: stayed[moved.long()], lambda: torch.cat((stayed, moved))):
            with pytest.raises(RuntimeError, match="mixes"):
                mixed()
        with pytest.raises(RuntimeError, match="numpy"):
            moved.numpy()


def wanted(number: int, sampler: SamplerName) -> tuple[Document, GenerationOptions]:
    """Make a request that goes through text, looking, drawing and guidance."""
    prompt = Document(((image(1), text(number)), (text(2), sound(1)), (text(3, 70),))[number % 3], is_complete=False)
    denoising = DenoisingOptions(sampler=sampler, num_steps=2, guidance=Guidance(scale=2.0, rescale=0.5), clip=3.0)
    options = GenerationOptions(
        max_tokens=3,
        begin_with=("image", "sound")[number % 2],
        shapes={"image": IMAGE_SHAPE, "sound": SOUND_SHAPE},
        tokens=TokenOptions(temperature=float(number % 2), top_k=5, top_p=0.9),
        denoising=denoising,
        preview_every=1,
        seed=number,
    )
    return prompt, options


def test_the_engine_keeps_to_the_models_device(there: torch.nn.Module) -> None:
    requests = [wanted(number, sampler) for number, sampler in enumerate(SAMPLERS)]
    here = Engine(HERE, make_process(FLOW)).run(requests)
    with Elsewhere():
        engine = Engine(there, make_process(FLOW), max_rows=3)  # pyright: ignore[reportArgumentType]
        found = engine.run(requests)
        for one, other in zip(here, found, strict=True):
            assert [type(part) for part in one.generated] == [type(part) for part in other.generated]
            for part, again in zip(one.generated, other.generated, strict=True):
                if isinstance(part, Latent) and isinstance(again, Latent):
                    assert again.values.device.type == "cpu"
                    assert float((part.values - again.values).abs().max()) < TOLERANCE
                else:
                    assert part == again

        engine.submit(*requests[0])
        while not engine.is_idle:
            for event in engine.step():
                if isinstance(event, PreviewEvent | LatentEvent):
                    assert (event.estimate if isinstance(event, PreviewEvent) else event.values).device == ELSEWHERE
        drawn = Latent(torch.zeros(IMAGE_SHAPE, device=ELSEWHERE), "image")
        assert engine.run([(Document((image(3), drawn)), requests[0][1])])


def test_scores_and_losses_are_those_of_the_cpu(there: torch.nn.Module) -> None:
    document = Document((*documents(3)[-1].segments, image(4)), ("scored", 1))
    config = run_config()
    objective = TransfusionObjective(FLOW, ObjectiveConfig(), HERE.vocabulary)
    losses = evaluate_losses(HERE, objective, ToySource(), num_documents=3, seed=0)
    score = Transfusion(HERE, ByteTokenizer(), config).score(document)
    with Elsewhere():
        again = evaluate_losses(there, objective, ToySource(), num_documents=3, seed=0)  # pyright: ignore
        other = Transfusion(there, ByteTokenizer(), config)  # pyright: ignore
        moved = other.score(document)
        drawn = Latent(torch.zeros(IMAGE_SHAPE, device=ELSEWHERE), "image", max_t=0.0)
        assert other.score(Document((image(3), drawn), ("both", 1))).denoising["image"] > 0
    assert again == pytest.approx(losses, rel=1e-4)
    assert moved.log_likelihood == pytest.approx(score.log_likelihood, rel=1e-4)
    assert moved.denoising == pytest.approx(score.denoising, rel=1e-4)
