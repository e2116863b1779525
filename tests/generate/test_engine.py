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
    FailedEvent,
    FinishedEvent,
    Generated,
    GenerationOptions,
    LatentEvent,
    PreviewEvent,
    TokenEvent,
    TokenOptions,
)
from transfusion.generate.row import Row, Track
from transfusion.generate.token_sampling import draw_token
from transfusion.keyed import generator, normal
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
    spent = options(begin_with="image", max_latents=0)  # the budget holds, whatever is asked for first
    assert all(isinstance(part, Text) for part in engine.run([(prompt, spent)])[0].generated)
    assert engine.run([(prompt, spent.model_copy(update={"max_tokens": 0}))])[0].generated == ()
    drawn = engine.run([(prompt, options(begin_with="image", max_latents=1, max_tokens=0))])[0].generated
    assert [type(part) for part in drawn] == [Latent]
    wordless = options(max_tokens=0, max_latents=2)  # no token is drawn, so none that begins a latent
    assert engine.run([(prompt, wordless)])[0].generated == ()
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


def test_nan_does_not_reach_other_requests() -> None:
    engine, greedy = Engine(MODEL, PROCESS, max_rows=2), options(max_latents=0)
    broken = Document((Latent(torch.full(IMAGE_SHAPE, 3e38), "image"),), is_complete=False)  # its norms overflow
    long, short = (Document((Text(tokens),), is_complete=False) for tokens in ((1, 2, 3), (1,)))
    queue = [(broken, greedy), (long, options(max_latents=0, max_tokens=40)), (short, greedy)]
    tickets = [engine.submit(*request) for request in queue]
    last: dict[int, Event] = {}
    while not engine.is_idle:
        last |= {event.ticket: event for event in engine.step()}
    failed = last[tickets[0]]
    assert isinstance(failed, FailedEvent) and isinstance(failed.error, FloatingPointError)
    for request, ticket in zip(queue[1:], tickets[1:], strict=True):
        finished = last[ticket]
        (alone,) = Engine(MODEL, PROCESS).run([request])
        assert isinstance(finished, FinishedEvent)
        assert finished.result.document.segments == alone.document.segments


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


def test_what_leaves_the_engine_is_the_callers() -> None:
    """Latents may be trained on, and writing to them changes nothing that is still to come."""
    wanted = options(begin_with="image", max_latents=1, max_tokens=6, preview_every=1)

    def tell(*, is_written_to: bool) -> list[Event]:
        engine, events = Engine(MODEL, PROCESS), list[Event]()
        engine.submit(prompts()[0], wanted)
        while not engine.is_idle:
            with torch.inference_mode():  # as an evaluator might
                events += engine.step()
            for event in events if is_written_to else ():
                if isinstance(event, PreviewEvent | LatentEvent):
                    (event.estimate if isinstance(event, PreviewEvent) else event.values).fill_(7.0)
        return events

    plain, written = tell(is_written_to=False), tell(is_written_to=True)
    one, other = plain[-1], written[-1]
    assert isinstance(one, FinishedEvent) and isinstance(other, FinishedEvent)
    assert one.result.generated[1:] == other.result.generated[1:]
    drawn, again = one.result.generated[0], other.result.generated[0]
    assert isinstance(drawn, Latent) and isinstance(again, Latent) and torch.equal(drawn.values, again.values)
    told = [event.values for event in plain if isinstance(event, LatentEvent)]
    told += [event.estimate for event in plain if isinstance(event, PreviewEvent)]
    weight = torch.ones(1, requires_grad=True)
    for values in (drawn.values, *told):
        (values * weight).sum().backward()
    assert weight.grad is not None and len(told) == 5


def test_draws_of_a_row_depend_on_each_part_of_their_key() -> None:
    """A token's on seed and place in the text; a latent's noise on seed and its number, and on the sampler's step."""

    def row(seed: int, count: int, latents: int = 0) -> Row:
        made = Row(0, prompts()[3], options(seed=seed), MODEL.vocabulary, Track(prompts()[3], MODEL.vocabulary, 0))
        made.options = options(seed=seed, tokens=TokenOptions(temperature=1.0), max_latents=9)
        made.main.writer.text([1] * count)
        made.num_latents = latents
        return made

    flat = torch.zeros(MODEL.vocabulary.size)
    for seed, count in ((0, 0), (0, 1), (1, 0), (5, 9)):
        made = row(seed, count)
        allowed = torch.full_like(flat, -torch.inf)
        allowed[: MODEL.vocabulary.text_size + 2] = 0.0
        allowed[MODEL.vocabulary.bos] = -torch.inf
        for begin in (1, 2):
            allowed[MODEL.vocabulary.begin_token(begin)] = 0.0
        uniform = float(generator(seed, "token", len(made.main.writer)).random())
        assert made.choose(flat) == draw_token(allowed, made.options.tokens, uniform)
    assert len({row(0, count).choose(flat) for count in range(12)}) > 3

    def noise(seed: int, latents: int) -> Tensor:
        made = row(seed, 0, latents)
        made.open_latent(1)
        made.start_denoising(PROCESS.schedule, torch.device("cpu"))
        assert made.denoising is not None
        return made.denoising.query.x_t

    assert torch.equal(noise(0, 0), noise(0, 0))
    assert not torch.equal(noise(0, 0), noise(0, 1)) and not torch.equal(noise(0, 0), noise(1, 0))
    for seed, latents in ((0, 0), (0, 1), (3, 0)):
        made = row(seed, 0, latents)
        ddpm = DenoisingOptions(sampler="ddpm", num_steps=4)
        made.options = made.options.model_copy(update={"denoising": ddpm})
        made.open_latent(1)
        made.start_denoising(PROCESS.schedule, torch.device("cpu"))

        def fresh(step: int, ids: tuple[int, int] = (seed, latents)) -> Tensor:
            return normal(IMAGE_SHAPE, ids[0], "sampler", ids[1], step)

        begun = normal(IMAGE_SHAPE, seed, "start", latents)
        wanted = sample(lambda x, t: x / 2, start("ddpm", begun, sampling_times(4), PROCESS.schedule, fresh))
        found = None
        while found is None:
            assert made.denoising is not None
            found = made.advance(made.denoising.query.x_t / 2)
        assert torch.equal(found, wanted)
