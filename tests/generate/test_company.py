"""A request alone and in company: the same to the bit where it is apart, within a bound where it shares forwards."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny import FLOW, IMAGE_SHAPE, SOUND_SHAPE, image, make_model, sound, text
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from transfusion.diffusion.guidance import Guidance
from transfusion.diffusion.process import make_process
from transfusion.generate.engine import Engine
from transfusion.generate.options import (
    DenoisingOptions,
    FinishedEvent,
    Generated,
    GenerationOptions,
    LatentEvent,
    TokenEvent,
    TokenOptions,
)
from transfusion.segments import Document, Latent, Segment

MODEL, PROCESS = make_model(), make_process(FLOW)
SHAPES = {"image": IMAGE_SHAPE, "sound": SOUND_SHAPE}
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
GUIDED = DenoisingOptions(sampler="heun", num_steps=3, guidance=Guidance(scale=3.0, interval=(0.2, 1.0)))
PLAIN = DenoisingOptions(sampler="ddpm", num_steps=4)

Request = tuple[Document, GenerationOptions]


def request(*segments: Segment, **options: object) -> Request:
    """Make a small request that shares no forward."""
    base: dict[str, object] = {"max_tokens": 5, "max_latents": 2, "shapes": SHAPES, "is_apart": True}
    made = GenerationOptions.model_validate({"denoising": GUIDED, **base, **options})
    return Document(segments, is_complete=False), made


KINDS = [
    request(text(1, 9), begin_with="image", max_tokens=0, seed=1),
    request(text(2, 30), begin_with="image", max_tokens=0, seed=2, denoising=PLAIN),
    request(text(3, 3), max_latents=0, max_tokens=8),
    request(image(1), text(4, 106), max_latents=0),
    request(text(5, 1), begin_with="sound", seed=3),
    request(sound(1), text(6, 4), tokens=TokenOptions(temperature=1.5), seed=4, max_tokens=6),
]


def sharing(request: Request) -> Request:
    """Make the same request share forwards."""
    return request[0], request[1].model_copy(update={"is_apart": False})


def engine(precision: str, max_rows: int = 16) -> Engine:
    """Make an engine of a precision."""
    return Engine(MODEL, PROCESS, precision=PRECISIONS[precision], max_rows=max_rows)


@cache
def alone(kind: int, precision: str) -> Generated:
    """Generate for one kind with nothing beside it."""
    return engine(precision).run([KINDS[kind]])[0]


def same(one: Generated, other: Generated) -> bool:
    """Return whether two results are equal to the bit."""
    pairs = zip(one.generated, other.generated, strict=True)
    return one.is_ended == other.is_ended and all(
        torch.equal(a.values, b.values) if isinstance(a, Latent) and isinstance(b, Latent) else a == b for a, b in pairs
    )


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", range(len(KINDS)))
def test_alone_it_needs_no_setting(kind: int, precision: str) -> None:
    assert same(engine(precision).run([sharing(KINDS[kind])])[0], alone(kind, precision))


kinds = st.integers(0, len(KINDS) - 1)
guests = st.lists(st.tuples(kinds, st.booleans(), st.integers(0, 5)), min_size=1, max_size=8)


@given(st.sampled_from(sorted(PRECISIONS)), guests, kinds, st.integers(0, 5), st.integers(2, 9))
@example("bf16", [(3, False, 0), (1, False, 0)], 0, 2, 9)  # beside longer prompts, with the twin's place before its own
@settings(deadline=None, max_examples=12)
def test_apart_it_is_the_same_to_the_bit_in_any_company(
    precision: str, guests: list[tuple[int, bool, int]], kind: int, arrival: int, max_rows: int
) -> None:
    """Guests come at any step, apart or not; the one that is looked at comes among them."""
    working, coming = engine(precision, max_rows), list[tuple[int, int, Request]]()
    for number, (guest, shares, when) in enumerate(guests):
        coming.append((when, number, sharing(KINDS[guest]) if shares else KINDS[guest]))
    coming.append((arrival, len(guests), KINDS[kind]))
    tickets: dict[int, int] = {}
    found: dict[int, Generated] = {}
    for step in range(100):
        for when, number, made in sorted(coming, key=lambda entry: entry[:2]):
            if when == step:
                tickets[number] = working.submit(*made)
        found |= {event.ticket: event.result for event in working.step() if isinstance(event, FinishedEvent)}
        if step > 5 and working.is_idle:
            break
    assert same(found[tickets[len(guests)]], alone(kind, precision))
    for number, (guest, shares, _) in enumerate(guests):
        assert shares or same(found[tickets[number]], alone(guest, precision))


Call = tuple[
    str, tuple[tuple[object, ...], ...]
]  # name; shape, place in a cache line and first number of what is given


class Calls(TorchDispatchMode):
    """Notes what is computed in the forwards of each ticket, but not what merely moves numbers to and fro."""

    moves = (
        "slice",
        "select",
        "index",
        "copy",
        "view",
        "transpose",
        "as_strided",
        "detach",
        "new_",
        "alias",
        "stack",
        "fill",
    )

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self._engine = engine
        self.by_tickets: dict[tuple[int, ...], list[Call]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = tuple(a for a in args if isinstance(a, Tensor) and a.is_floating_point())
        if given and not any(word in str(func) for word in self.moves):
            under_way = self._engine._forwards.under_way  # pyright: ignore[reportPrivateUsage]
            call = (str(func), tuple((tuple(a.shape), a.data_ptr() % 64, a.flatten()[:1].tolist()) for a in given))
            self.by_tickets.setdefault(under_way, []).append(call)
        return func(*args, **(kwargs or {}))


def calls(requests: Sequence[Request], place: int) -> list[Call]:
    """Return the calls that are made for one of some requests, in forwards of its own."""
    working = engine("fp32")
    with Calls(working) as noted:
        working.run(requests)
    return noted.by_tickets[(place,)]


@pytest.mark.parametrize("kind", [0, 2, 4])
def test_no_call_for_a_row_apart_depends_on_others(kind: int) -> None:
    """Shapes and alignment are what a kernel's choices go by, on every machine: here it may happen to do without."""
    others = [sharing(KINDS[number]) for number in (3, 1)]
    assert calls([*others, KINDS[kind], *others], len(others)) == calls([KINDS[kind]], 0)


def test_branches_of_a_row_apart_stand_in_an_order_of_their_own() -> None:
    """A latent that the model begins by itself: its unconditional branch takes the place that a guest has left."""
    late = request(text(5, 6), tokens=TokenOptions(temperature=1.5), max_tokens=6, max_latents=1)
    assert any(isinstance(part, Latent) for part in engine("fp32").run([late])[0].generated[1:])
    guest = sharing(request(text(1), max_tokens=1, max_latents=0))
    assert calls([guest, late], 1) == calls([late], 0)


def drawn(requests: Sequence[Request], place: int, precision: str) -> Tensor:
    """Return the latent of one of some requests."""
    (latent,) = engine(precision).run(requests)[place].generated
    assert isinstance(latent, Latent)
    return latent.values


@pytest.mark.parametrize("kind", [0, 1])
def test_bound_of_sharing(kind: int) -> None:
    """In company a picture is as near to the float32 one as alone: two roundings, of which none is the better."""
    others = [sharing(other) for other in KINDS[:4]]
    true = drawn([KINDS[kind]], 0, "fp32")
    for place in (0, len(others)):
        company = [*others[:place], sharing(KINDS[kind]), *others[place:]]
        assert float((drawn(company, place, "fp32") - true).abs().max()) < 1e-4
        by_rounding = float((drawn([KINDS[kind]], 0, "bf16") - true).abs().max())
        assert by_rounding > 1e-3  # or nothing would be tested
        assert float((drawn(company, place, "bf16") - true).abs().max()) < 2 * by_rounding


def test_events_come_in_step_with_their_requests() -> None:
    """What a bar needs: evaluations done, by preview, of those in all; and text as it comes."""
    wanted = [request(text(1, 9), begin_with="image", max_tokens=0, preview_every=1), KINDS[2]]
    told = list(engine("fp32").events(wanted))
    done = [event.num_evaluations for place, event in told if hasattr(event, "num_evaluations") and place == 0]
    assert done == list(range(1, GUIDED.num_evaluations))
    kinds = [[type(event) for place, event in told if place == wanted] for wanted in (0, 1)]
    assert kinds[0][-2:] == [LatentEvent, FinishedEvent]
    assert set(kinds[1]) == {TokenEvent, FinishedEvent} and kinds[1][-1] is FinishedEvent
    assert told[0][0] != told[1][0]  # side by side


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "euler", "heun", "dpm_solver_2m"])
@pytest.mark.parametrize("num_steps", [1, 4])
def test_number_of_evaluations(sampler: str, num_steps: int) -> None:
    denoising = DenoisingOptions.model_validate({"sampler": sampler, "num_steps": num_steps})
    wanted = request(text(1), begin_with="image", max_tokens=0, preview_every=1, denoising=denoising)
    told = [event for _, event in engine("fp32").events([wanted])]
    assert len(told) == denoising.num_evaluations - 1 + 2  # a preview of each but the last; latent; end


def test_leaving_events_early_cancels_the_rest() -> None:
    working = engine("fp32")
    for _ in working.events(KINDS):
        break
    assert working.is_idle and working.step() == []
