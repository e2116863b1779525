"""A fault belongs to the request that caused it: forwards that fail, rows that fail, cancelling, and many readers."""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from tiny import FLOW, IMAGE_SHAPE, SOUND_SHAPE, image, make_model, sound, text
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from transfusion.diffusion.guidance import Guidance
from transfusion.diffusion.process import DiffusionConfig, make_process
from transfusion.diffusion.samplers import Query, Steps
from transfusion.generate.engine import Engine
from transfusion.generate.options import (
    DenoisingOptions,
    Event,
    FailedEvent,
    FinishedEvent,
    Generated,
    GenerationOptions,
    PreviewEvent,
    RequestCancelled,
    TokenEvent,
    TokenOptions,
)
from transfusion.generate.row import Row, Track
from transfusion.model.kv_cache import KVCache
from transfusion.model.transfusion import TransfusionModel
from transfusion.segments import Document, Latent, Segment, Text

MODEL, PROCESS = make_model(), make_process(FLOW)
SHAPES = {"image": IMAGE_SHAPE, "sound": SOUND_SHAPE}
GUIDED = DenoisingOptions(sampler="heun", num_steps=2, guidance=Guidance(scale=2.0, interval=(0.3, 1.0)))
PLAIN = DenoisingOptions(sampler="ddpm", num_steps=2)
WARM = TokenOptions(temperature=1.5)
UNSHRUNK = (Phase.explicit, Phase.reuse, Phase.generate)  # a failing schedule is short, and shrinking it takes minutes
TOLERANCE = 1e-4  # as in test_engine: float32 forwards over other shapes


def request(*segments: Segment, **options: object) -> tuple[Document, GenerationOptions]:
    """Make a small request."""
    base: dict[str, object] = {"max_tokens": 4, "max_latents": 2, "shapes": SHAPES, "denoising": GUIDED}
    return Document(segments, is_complete=False), GenerationOptions.model_validate({**base, **options})


KINDS = [
    request(text(1), max_latents=0),
    request(text(2, 70), begin_with="image", seed=1, preview_every=1),
    request(image(1), text(3), begin_with="sound", seed=2, denoising=PLAIN, max_latents=1),
    request(sound(1), text(4), tokens=WARM, seed=3, max_tokens=6),
    request(text(5), begin_with="image", max_tokens=0, seed=4),
    request(text(6), max_tokens=0),
]


def values_of(event: Event) -> list[object]:
    """Spell an event out as plain values that compare to the bit."""
    if isinstance(event, FinishedEvent):
        parts = [part.tokens if isinstance(part, Text) else part.values.tolist() for part in event.result.generated]
        return ["finished", event.ticket, event.result.is_ended, *parts]
    return [type(event).__name__, *(part.tolist() if isinstance(part, Tensor) else part for part in event)]


class OutOfMemory(TorchDispatchMode):
    """Raises once, at the n-th operation of those that only forwards and the cache's storage use."""

    def __init__(self, place: int) -> None:
        super().__init__()
        self.left = place
        aten: Any = torch.ops.aten
        products = {aten.linear, aten.matmul, aten.conv2d, aten.scaled_dot_product_attention}
        self.kinds = {*products, aten.embedding, aten.new_zeros, aten.index_copy, aten.index_put_}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket in self.kinds:
            self.left -= 1
            if self.left == -1:
                raise torch.OutOfMemoryError("once")
        return func(*args, **(kwargs or {}))


def check_rows(engine: Engine) -> None:
    """No row of the cache belongs to two tracks, or is free and taken."""
    taken = [track.cache_row for row in engine._rows for track in row.tracks]
    assert sorted(taken + engine._free) == list(range(engine.cache.num_rows))
    assert len(engine._rows) <= engine.max_rows


Action = tuple[str, int]
ACTIONS = st.one_of(
    st.tuples(st.just("submit"), st.integers(0, len(KINDS) - 1)),
    st.tuples(st.just("cancel"), st.integers(0, 5)),
    st.tuples(st.just("step"), st.just(-1)),
    st.tuples(st.just("step"), st.integers(0, 150)),
)


def play(schedule: list[Action], max_rows: int) -> tuple[list[list[object]], list[Action]]:
    """Follow a schedule, then step until all is done; return what was told, and the actions but failed steps."""
    engine, told, done = Engine(MODEL, PROCESS, max_rows=max_rows), list[list[object]](), list[Action]()
    actions = list(schedule)
    while actions or not engine.is_idle:
        action = actions.pop(0) if actions else ("step", -1)
        try:
            if action[0] == "submit":
                engine.submit(*KINDS[action[1]])
            elif action[0] == "cancel":
                engine.cancel(action[1])
            elif action[1] < 0:
                told += [values_of(event) for event in engine.step()]
            else:
                with OutOfMemory(action[1]):
                    told += [values_of(event) for event in engine.step()]
        except torch.OutOfMemoryError as error:
            assert error.args == ("once",)
        else:
            done.append((action[0], -1) if action[0] == "step" else action)
        check_rows(engine)
    assert not engine._rows and not engine._tickets._waiting
    return told, done


@pytest.fixture(scope="module")
def alone() -> list[Generated]:
    """Run every kind of request by itself."""
    return [Engine(MODEL, PROCESS, max_rows=1).run([kind])[0] for kind in KINDS]


@given(st.lists(ACTIONS, min_size=4, max_size=16), st.integers(1, 3))
@example([("step", 60), ("step", 5), ("submit", 0), ("step", -1), ("step", 90), ("cancel", 0), ("step", 30)], 2)
@settings(deadline=None, max_examples=8, phases=UNSHRUNK)
def test_a_step_that_fails_has_not_happened(schedule: list[Action], max_rows: int) -> None:
    """To the bit: the same submissions, cancellations and whole steps tell the same, whatever failed between them."""
    schedule = [("submit", 1), ("submit", 3), *schedule]
    told, done = play(schedule, max_rows)
    assert (told, done) == play(done, max_rows)


@given(st.lists(ACTIONS, min_size=4, max_size=20), st.integers(1, 3))
@settings(deadline=None, max_examples=8, phases=UNSHRUNK)
def test_company_failures_and_cancellations_change_no_result(
    alone: list[Generated], schedule: list[Action], max_rows: int
) -> None:
    """Up to the rounding of forwards over other shapes, every request that ends gives what it gives alone."""
    told, _ = play(schedule, max_rows)
    kinds = [place for name, place in schedule if name == "submit"]
    for what, ticket, is_ended, *parts in (event for event in told if event[0] == "finished"):
        expected = alone[kinds[int(str(ticket))]]
        assert what == "finished" and is_ended == expected.is_ended and len(parts) == len(expected.generated)
        for part, wanted in zip(parts, expected.generated, strict=True):
            if isinstance(wanted, Latent):
                assert float((torch.tensor(part) - wanted.values).abs().max()) < TOLERANCE
            else:
                assert part == wanted.tokens


def test_a_failed_forward_names_its_tickets() -> None:
    engine = Engine(MODEL, PROCESS)
    for kind in KINDS[:2]:
        engine.submit(*kind)
    with pytest.raises(torch.OutOfMemoryError) as caught, OutOfMemory(20):
        engine.step()
    assert caught.value.__notes__ == ["in the engine's forward of tickets 0"]


def broken_sampler(query: Query) -> Steps:
    """Fail when the first estimate comes."""
    yield query
    raise ArithmeticError("its own sampler")


def test_a_row_that_fails_ends_alone() -> None:
    engine, calm = Engine(MODEL, PROCESS), Engine(MODEL, PROCESS)
    for kind in (KINDS[1], KINDS[1], KINDS[0]):
        engine.submit(*kind)
        calm.submit(*kind)
    told: list[Event] = []
    wanted: list[Event] = []
    for number in range(30):
        told += engine.step()
        wanted += calm.step()
        if number == 0:
            (row,) = [row for row in engine._rows if row.ticket == 0]
            assert row.denoising is not None
            row.denoising.steps.close()
            row.denoising.steps = broken_sampler(row.denoising.query)
            next(row.denoising.steps)
    failed = [event for event in told if isinstance(event, FailedEvent)]
    assert [(event.ticket, str(event.error)) for event in failed] == [(0, "its own sampler")]
    check_rows(engine)
    assert engine.is_idle and calm.is_idle
    ends = {event.ticket: event for event in told if isinstance(event, FinishedEvent)}
    assert ends.keys() == {1, 2}
    for event in wanted:
        if isinstance(event, FinishedEvent) and event.ticket == 2:
            assert values_of(event) == values_of(ends[2])


def test_run_keeps_the_events_of_others() -> None:
    engine = Engine(MODEL, PROCESS)
    mine = engine.submit(*KINDS[0])
    engine.run([KINDS[1], KINDS[3]])
    assert not engine.is_idle
    told = engine.step()
    assert {event.ticket for event in told} == {mine} and isinstance(told[-1], FinishedEvent)
    assert engine.is_idle and engine.step() == []


def test_run_raises_the_error_of_its_own_request_and_cancels_the_rest() -> None:
    engine = Engine(MODEL, PROCESS)
    broken = request(Latent(torch.full(IMAGE_SHAPE, 3e38), "image"), max_latents=0)
    mine = engine.submit(*KINDS[0])
    with pytest.raises(FloatingPointError, match="largest logit"):
        engine.run([KINDS[1], broken, KINDS[3]])
    check_rows(engine)
    told: list[Event] = []
    while not engine.is_idle:
        told += engine.step()
    assert {event.ticket for event in told} == {mine}
    theirs = engine.submit(*broken)
    engine.run([KINDS[1]])
    (failed,) = engine.step()
    assert isinstance(failed, FailedEvent) and failed.ticket == theirs
    with pytest.raises(ValueError, match="token id 99"):
        engine.run([KINDS[1], request(Text((99,)))])
    assert engine.is_idle
    with pytest.raises(torch.OutOfMemoryError), OutOfMemory(30):
        engine.run([KINDS[1], KINDS[3]])
    assert engine.is_idle and engine.run([KINDS[0]])


def test_an_engine_without_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="max_rows is 0"):
        Engine(MODEL, PROCESS, max_rows=0)


def test_streams_share_an_engine_with_each_other_and_with_run() -> None:
    engine = Engine(MODEL, PROCESS)
    (one,), (other,), (third,) = (Engine(MODEL, PROCESS).run([KINDS[i]]) for i in (1, 3, 0))

    async def read(place: int) -> Generated:
        events = [event async for event in engine.stream(*KINDS[place])]
        assert len({event.ticket for event in events}) == 1
        assert isinstance(events[-1], FinishedEvent)
        return events[-1].result

    async def all_at_once() -> list[Generated]:
        ran = asyncio.to_thread(engine.run, [KINDS[0]])
        first, second, (last,) = await asyncio.gather(read(1), read(3), ran)
        return [first, second, last]

    for found, wanted in zip(asyncio.run(all_at_once()), (one, other, third), strict=True):
        assert [type(part) for part in found.generated] == [type(part) for part in wanted.generated]
        texts = [[part for part in result.generated if isinstance(part, Text)] for result in (found, wanted)]
        assert texts[0] == texts[1]
    assert engine.is_idle and not engine._rows


def test_a_stream_that_is_left_frees_its_row_once() -> None:
    engine = Engine(MODEL, PROCESS, max_rows=2)

    async def leave() -> None:
        left = engine.stream(*KINDS[1])
        async for _ in left:
            break  # not closed yet: its request stays at work beside those that follow
        assert [event async for event in engine.stream(*KINDS[0])]
        assert engine.run([KINDS[4]])
        await left.aclose()
        assert engine.is_idle
        check_rows(engine)
        assert [event async for event in engine.stream(*KINDS[3])]

    asyncio.run(leave())
    assert engine.is_idle and not engine._rows


def test_cancelling_in_the_middle_of_a_step_waits_for_its_forwards() -> None:
    """A hook stands for another thread: it cancels while a forward is under way."""
    engine = Engine(MODEL, PROCESS, max_rows=2)
    first, second = engine.submit(*KINDS[1]), engine.submit(*KINDS[0])
    later: list[int] = []

    def cancel(*_: object) -> None:
        if engine.is_idle or later:
            return
        engine.cancel(first)
        assert engine._rows[0].ticket == first, "its row stays until the forwards have returned"
        later.append(engine.submit(*KINDS[3]))

    engine.step()
    hook = MODEL.trunk.blocks[1].register_forward_pre_hook(cancel)
    try:
        told = engine.step()
    finally:
        hook.remove()
    assert {event.ticket for event in told} == {second} and [row.ticket for row in engine._rows] == [second]
    check_rows(engine)
    while not engine.is_idle:
        told += engine.step()
        check_rows(engine)
    ends = {event.ticket: event.result for event in told if isinstance(event, FinishedEvent)}
    assert ends.keys() == {second, *later}
    (alone,) = Engine(MODEL, PROCESS).run([KINDS[0]])
    assert ends[second].generated == alone.generated


def test_a_stream_that_is_cancelled_in_a_step_or_by_its_ticket_ends() -> None:
    engine = Engine(MODEL, PROCESS)

    async def time_out() -> None:
        async def read() -> None:
            async for _ in engine.stream(*KINDS[1]):
                pass

        task = asyncio.create_task(read())
        await asyncio.sleep(0)  # its first step is under way in a thread
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        stream = engine.stream(*KINDS[1])
        event = await anext(stream)
        engine.cancel(event.ticket)
        with pytest.raises(RequestCancelled, match="request 1 was cancelled"):
            await anext(stream)

    asyncio.run(time_out())
    assert engine.is_idle and engine.run([KINDS[0]])
    check_rows(engine)


def test_a_cancelled_request_tells_nothing_more() -> None:
    engine = Engine(MODEL, PROCESS)
    gone, stays = engine.submit(*KINDS[0]), engine.submit(*KINDS[0])
    engine.run([KINDS[0]])
    engine.cancel(gone)
    assert {event.ticket for event in engine.step()} == {stays}
    assert not any(isinstance(event, TokenEvent) for event in engine.step())


def test_guidance_acts_in_the_first_step_alone() -> None:
    """The estimate of the first step is guided where the interval has its beginning, t = 1, in it."""
    some = [Guidance(scale=3.0, interval=interval) for interval in ((0.99, 1.0), (0.0, 0.98))]
    first: list[Tensor] = []
    for guidance in (Guidance(), *some):
        options = DenoisingOptions(sampler="ddim", num_steps=4, guidance=guidance)
        kind = request(text(2), begin_with="image", max_tokens=0, preview_every=1, denoising=options, max_latents=1)
        engine = Engine(MODEL, make_process(DiffusionConfig()))
        engine.submit(*kind)
        told = [event for _ in range(2) for event in engine.step()]
        first.append(next(event.estimate for event in told if isinstance(event, PreviewEvent)))
    assert not torch.allclose(first[0], first[1], atol=0.1) and torch.allclose(first[0], first[2], atol=TOLERANCE)


def interrupted(engine: Engine, name: str, owner: object, place: int, *, after: bool) -> list[Event]:
    """Step to the end; the ``place``-th call of a method is interrupted, before or after it has done its work."""
    whole, calls, told = getattr(owner, name), [0], list[Event]()

    def cut(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] == place and not after:
            raise KeyboardInterrupt
        result = whole(*args, **kwargs)
        if calls[0] == place:
            raise KeyboardInterrupt
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, cut)
        for _ in range(60):
            try:
                told += engine.step()
            except KeyboardInterrupt:
                calls.append(place)
            if engine.is_idle:
                break
    assert calls[1:] == [place], "one interrupt came"
    assert engine.is_idle and not engine._rows
    check_rows(engine)
    return told


CUT = [0, 3, 5, 1]
WRITES: list[tuple[type, str]] = [
    (Row, "choose"),
    (KVCache, "advance"),
    (Track, "mark_written"),
    (Track, "__init__"),
    (TransfusionModel, "forward"),
]


@pytest.mark.parametrize("place", [1, 2])
@pytest.mark.parametrize(("owner", "name"), [*WRITES, (Row, "advance"), (Row, "take"), (Row, "start_denoising")])
def test_an_interrupt_changes_nothing(owner: type, name: str, place: int) -> None:
    """Wherever it comes but within a row's change, stepping on tells to the bit what it would have told."""
    engine, calm, wanted = Engine(MODEL, PROCESS), Engine(MODEL, PROCESS), list[Event]()
    for kind in CUT:
        engine.submit(*KINDS[kind])
        calm.submit(*KINDS[kind])
    while not calm.is_idle:
        wanted += calm.step()
    told = interrupted(engine, name, owner, place, after=False)
    assert [values_of(event) for event in told] == [values_of(event) for event in wanted]


@pytest.mark.parametrize(
    ("owner", "name", "is_torn"),
    [(Row, "take", True), (Row, "advance", True), (Row, "close_latent", True), *((*pair, False) for pair in WRITES)],
)
def test_an_interrupt_within_a_change_ends_that_row_alone(owner: type, name: str, is_torn: bool) -> None:
    engine, calm = Engine(MODEL, PROCESS), Engine(MODEL, PROCESS)
    for kind in CUT:
        engine.submit(*KINDS[kind])
        calm.submit(*KINDS[kind])
    told, wanted = interrupted(engine, name, owner, 2, after=True), list[Event]()
    while not calm.is_idle:
        wanted += calm.step()
    failed = [event for event in told if isinstance(event, FailedEvent)]
    assert len(failed) == is_torn and all("interrupt came while request" in str(event.error) for event in failed)
    torn = {event.ticket for event in failed}
    ends, calm_ends = (
        [event for event in events if isinstance(event, FinishedEvent) and event.ticket not in torn]
        for events in (told, wanted)
    )
    assert len(ends) == len(CUT) - is_torn
    for end, calm_end in zip(ends, calm_ends, strict=True):
        assert end.ticket == calm_end.ticket
        for part, whole in zip(end.result.generated, calm_end.result.generated, strict=True):
            if isinstance(part, Latent) and isinstance(whole, Latent):
                assert float((part.values - whole.values).abs().max()) < TOLERANCE
            else:
                assert part == whole


class NoPictures(TorchDispatchMode):
    """Stands for a device without room for the convolutions of pictures."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket is torch.ops.aten.conv2d or func.overloadpacket is torch.ops.aten.convolution:
            raise torch.OutOfMemoryError("no room")
        return func(*args, **(kwargs or {}))


@contextmanager
def without_pictures(engine: Engine) -> Generator[None]:
    """Make every forward with pictures fail, in whichever thread it runs."""
    forward = engine.model.forward

    def fail(*args: Any) -> Any:
        with NoPictures():
            return forward(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine.model, "forward", fail)
        yield


def test_a_forward_that_fails_ends_its_own_readers_alone(alone: list[Generated]) -> None:
    engine = Engine(MODEL, PROCESS)

    async def read(place: int) -> Event:
        return [event async for event in engine.stream(*KINDS[place])][-1]

    async def all_at_once() -> list[Any]:
        ran = asyncio.to_thread(engine.run, [KINDS[0]])
        return await asyncio.gather(read(0), read(1), ran, read(4), return_exceptions=True)

    with without_pictures(engine):
        event, picture, ran, other = asyncio.run(all_at_once())
    assert isinstance(event, FinishedEvent) and event.result.generated == alone[0].generated
    assert ran[0].generated == alone[0].generated
    assert isinstance(picture, torch.OutOfMemoryError) and isinstance(other, torch.OutOfMemoryError)
    assert engine.is_idle and not engine._rows
    check_rows(engine)


def test_a_request_of_step_can_try_again_unless_it_fails_alone(alone: list[Generated]) -> None:
    """Readers of the forward that fails end before requests that ``step`` may do again; those end at the last."""
    engine = Engine(MODEL, PROCESS)
    mine = engine.submit(*KINDS[4])
    with pytest.raises(torch.OutOfMemoryError, match="once"), OutOfMemory(20):
        engine.run([KINDS[4], KINDS[4]])
    assert not engine.is_idle
    while not engine.is_idle:
        told = engine.step()
    assert isinstance(told[-1], FinishedEvent) and told[-1].ticket == mine
    theirs = engine.submit(*KINDS[4])
    with without_pictures(engine):
        assert engine.run([KINDS[0]])[0].generated == alone[0].generated
    (failed,) = engine.step()
    assert isinstance(failed, FailedEvent) and failed.ticket == theirs and "no room" in str(failed.error)
    check_rows(engine)
