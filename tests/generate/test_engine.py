"""The engine: equal to a loop without a cache, whatever else it does beside."""

import asyncio

import pytest
import torch
from tiny import FLOW, IMAGE_SHAPE, SOUND_SHAPE, documents, image, make_model, text
from torch import Tensor

from transfusion.diffusion.guidance import Guidance, apply
from transfusion.diffusion.process import make_process
from transfusion.diffusion.samplers import sample, start
from transfusion.diffusion.schedule import sampling_times
from transfusion.generate.engine import Engine
from transfusion.generate.options import (
    DenoisingOptions,
    Event,
    FinishedEvent,
    Generated,
    GenerationOptions,
    LatentEvent,
    PreviewEvent,
    TokenEvent,
    TokenOptions,
)
from transfusion.keyed import normal
from transfusion.layout import Writer, stack
from transfusion.mask import attention_mask
from transfusion.model.transfusion import NoisedSpans, Outputs
from transfusion.segments import Document, Latent, Text, null_prompt

MODEL, PROCESS = make_model(), make_process(FLOW)
SHAPES = {"image": IMAGE_SHAPE, "sound": SOUND_SHAPE}
TOLERANCE = 1e-4  # float32 forwards over other shapes, through a few sampling steps
DENOISING = DenoisingOptions(sampler="heun", num_steps=3, guidance=Guidance(scale=2.0))


def options(**changes: object) -> GenerationOptions:
    """Make options of a small request."""
    base: dict[str, object] = {"max_tokens": 5, "max_latents": 2, "shapes": SHAPES, "denoising": DENOISING}
    return GenerationOptions.model_validate({**base, **changes})


def prompts() -> list[Document]:
    """Make prompts of every kind."""
    return [Document(document.segments, is_complete=False) for document in documents(8)]


def run_full(writer: Writer, latents: list[tuple[int, int, Tensor, float]]) -> Outputs:
    """Run all slots of a writer at once, without a cache; latents are (start, modality, x_t, t)."""
    columns = stack([writer.columns()])
    spans = [
        NoisedSpans(
            m, x[None], torch.tensor([t]), torch.arange(s, s + MODEL.vocabulary.modality(m).num_patches(x.shape))[None]
        )
        for s, m, x, t in latents
    ]
    last = torch.tensor([len(writer) - 1])
    with torch.inference_mode():
        return MODEL(columns, spans, last, attention_mask(columns, "dense"))


def draw_without_cache(prompt: Document, seed: int, scale: float) -> Tensor:
    """Draw one image after a prompt by full forwards, one branch at a time."""
    guidance = Guidance(scale=scale)

    def estimate(document: Document, x_t: Tensor, t: float) -> Tensor:
        writer = Writer(MODEL.vocabulary)
        found = [
            (s.start, MODEL.vocabulary.index(s.latent.modality), s.latent.values, 0.0)
            for s in writer.document(document)
        ]
        writer.begin(1)
        place = writer.patches(4, 1)
        outputs = run_full(writer, [*found, (place, 1, x_t, t)])
        return PROCESS.to_x_0(outputs.predictions[-1], x_t[None], torch.tensor([t]))[0]

    def denoise(x_t: Tensor, t: float) -> Tensor:
        return apply(estimate(prompt, x_t, t), estimate(null_prompt(prompt), x_t, t), t, guidance)

    begun = start(
        "heun", normal(IMAGE_SHAPE, seed, "start", 0), sampling_times(3), PROCESS.schedule, lambda i: torch.zeros(())
    )
    return sample(denoise, begun)


@pytest.mark.parametrize("scale", [1.0, 2.0])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_drawn_image_is_that_of_full_forwards(number: int, scale: float) -> None:
    prompt = prompts()[number]
    denoising = DENOISING.model_copy(update={"guidance": Guidance(scale=scale)})
    wanted = options(begin_with="image", max_tokens=0, seed=9, denoising=denoising)
    latent = Engine(MODEL, PROCESS).run([(prompt, wanted)])[0].generated[0]
    assert isinstance(latent, Latent)
    assert float((latent.values - draw_without_cache(prompt, 9, scale)).abs().max()) < TOLERANCE


def greedy_text(prompt: Document, count: int) -> tuple[Text, ...]:
    """Go on with text by full forwards, over the clean latents of a document."""
    writer = Writer(MODEL.vocabulary)
    spans = [
        (s.start, MODEL.vocabulary.index(s.latent.modality), s.latent.values, 0.0) for s in writer.document(prompt)
    ]
    tokens: list[int] = []
    allowed = [*range(MODEL.vocabulary.text_size), MODEL.vocabulary.eos]
    while len(tokens) < count:
        token = allowed[int(run_full(writer, spans).logits[0, allowed].argmax())]
        if token == MODEL.vocabulary.eos:
            break
        tokens.append(token)
        writer.text([token])
    return (Text(tuple(tokens)),) if tokens else ()


def test_greedy_text_is_that_of_full_forwards() -> None:
    prompt = Document((image(3), text(1)), is_complete=False)
    found = Engine(MODEL, PROCESS).run([(prompt, options(max_latents=0))])[0]
    assert found.generated == greedy_text(prompt, 5)


@pytest.mark.parametrize("number", range(8))
def test_text_after_a_drawn_image_sees_it_clean(number: int) -> None:
    prompt = prompts()[number]
    wanted = options(begin_with="image", max_latents=1, max_tokens=6, seed=number)
    found = Engine(MODEL, PROCESS).run([(prompt, wanted)])[0]
    drawn = found.generated[0]
    assert isinstance(drawn, Latent)
    begun = Document((*prompt.segments, drawn), is_complete=False)
    assert found.generated[1:] == greedy_text(begun, 6)


def same(one: Generated, other: Generated) -> bool:
    """Return whether two results have equal text and equal latents up to rounding."""
    if len(one.generated) != len(other.generated) or one.is_ended != other.is_ended:
        return False
    for a, b in zip(one.generated, other.generated, strict=True):
        if isinstance(a, Text) or isinstance(b, Text):
            if a != b:
                return False
        elif a.modality != b.modality or float((a.values - b.values).abs().max()) > TOLERANCE:
            return False
    return True


def requests() -> list[tuple[Document, GenerationOptions]]:
    """Make requests that reach every state at different times."""
    kinds = [
        options(seed=1, tokens=TokenOptions(temperature=1.5), max_tokens=9),
        options(seed=2, begin_with="image"),
        options(seed=3, begin_with="sound", denoising=DENOISING.model_copy(update={"sampler": "ddpm"})),
        options(seed=4, max_tokens=0, begin_with="image", denoising=DenoisingOptions(sampler="euler", num_steps=5)),
        options(seed=5, tokens=TokenOptions(temperature=2.0), max_latents=3, max_tokens=12),
    ]
    return [(prompt, kinds[i % len(kinds)]) for i, prompt in enumerate(prompts())]


@pytest.mark.parametrize("max_rows", [1, 3, 16])
def test_rows_do_not_influence_each_other(max_rows: int) -> None:
    together = Engine(MODEL, PROCESS, max_rows=max_rows).run(requests())
    alone = [Engine(MODEL, PROCESS, max_rows=1).run([request])[0] for request in requests()]
    assert all(same(a, b) for a, b in zip(together, alone, strict=True))
    kinds = {type(part) for result in together for part in result.generated}
    assert kinds == {Text, Latent}


def test_a_used_engine_is_as_good_as_new() -> None:
    engine = Engine(MODEL, PROCESS, max_rows=2)
    first, second = engine.run(requests()), engine.run(requests())
    assert all(same(a, b) for a, b in zip(first, second, strict=True))
    assert engine.is_idle


def test_limits() -> None:
    prompt = prompts()[0]
    engine = Engine(MODEL, PROCESS)
    text_only = engine.run([(prompt, options(max_latents=0, max_tokens=7))])[0]
    assert all(isinstance(part, Text) for part in text_only.generated)
    assert sum(len(part.tokens) for part in text_only.generated if isinstance(part, Text)) <= 7
    assert engine.run([(prompt, options(max_tokens=0, max_latents=0))])[0].generated == ()
    free = engine.run([(prompt, options(max_latents=0))])[0].generated[0]
    assert isinstance(free, Text)
    stopped = engine.run([(prompt, options(max_latents=0, stop_tokens=(free.tokens[0],)))])[0]
    assert stopped.generated == (Text(free.tokens[:1]),) and stopped.is_ended  # it ends the text and belongs to it


def test_seeds_decide() -> None:
    engine, prompt = Engine(MODEL, PROCESS), prompts()[0]
    one, again, other = engine.run(
        [(prompt, options(begin_with="image", max_tokens=0, seed=seed)) for seed in (1, 1, 2)]
    )
    assert same(one, again) and not same(one, other)


def test_bad_requests_are_named() -> None:
    engine = Engine(MODEL, PROCESS)
    with pytest.raises(ValueError, match="begin_with 'image' has no entry in shapes"):
        engine.submit(prompts()[0], options(begin_with="image", shapes={}))
    with pytest.raises(ValueError, match="not positive multiples"):
        engine.submit(prompts()[0], options(shapes={"image": (2, 3, 4)}))
    with pytest.raises(KeyError, match="no modality 'video'"):
        engine.submit(prompts()[0], options(shapes={"video": (2, 3, 4)}))


def test_a_bad_prompt_is_refused_before_any_work() -> None:
    engine = Engine(MODEL, PROCESS)
    bad = Document((Latent(torch.zeros(2, 5, 5), "image"),), is_complete=False)
    with pytest.raises(ValueError, match="5"):
        engine.submit(bad, options())
    assert engine.is_idle


def test_nan_does_not_reach_other_requests() -> None:
    engine, greedy = Engine(MODEL, PROCESS, max_rows=2), options(max_latents=0)
    broken = Document((Latent(torch.full(IMAGE_SHAPE, torch.nan), "image"),), is_complete=False)
    long, short = (Document((Text(tokens),), is_complete=False) for tokens in ((1, 2, 3), (1,)))
    queue = [(broken, greedy), (long, options(max_latents=0, max_tokens=40)), (short, greedy)]
    found = engine.run(queue)
    for request, result in zip(queue[1:], found[1:], strict=True):
        (alone,) = Engine(MODEL, PROCESS).run([request])
        assert result.document.segments == alone.document.segments


def test_streams_do_not_share_an_engine() -> None:
    engine = Engine(MODEL, PROCESS)

    async def both() -> None:
        first = engine.stream(prompts()[0], options())
        await anext(first)
        with pytest.raises(RuntimeError, match="an Engine for each"):
            await anext(engine.stream(prompts()[1], options()))
        await first.aclose()  # pyright: ignore[reportAttributeAccessIssue]
        assert engine.is_idle
        assert [event async for event in engine.stream(prompts()[1], options())]

    asyncio.run(both())


def test_cancelled_rows_leave() -> None:
    engine = Engine(MODEL, PROCESS, max_rows=1)
    first, second = (engine.submit(prompts()[0], options(begin_with="image")) for _ in range(2))
    engine.step()
    engine.cancel(first)
    engine.cancel(999)
    finished = [event.ticket for _ in range(40) for event in engine.step() if isinstance(event, FinishedEvent)]
    assert finished == [second] and engine.is_idle


def test_stream_tells_previews_then_the_latent_then_the_end() -> None:
    async def collect() -> list[Event]:
        engine = Engine(MODEL, PROCESS)
        wanted = options(begin_with="image", max_tokens=2, max_latents=1, preview_every=2)
        return [event async for event in engine.stream(prompts()[0], wanted)]

    events = asyncio.run(collect())
    kinds = [type(event) for event in events]
    assert kinds[:3] == [PreviewEvent, PreviewEvent, LatentEvent]
    assert kinds[-1] is FinishedEvent and set(kinds[3:-1]) <= {TokenEvent}
    last = events[-1]
    assert isinstance(last, FinishedEvent) and isinstance(last.result.generated[0], Latent)
