"""Keys: equal ones draw alike, and different ones never share a draw."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import FLOW, ToySource, image, make_model, text

from transfusion.data.encode import EncodeConfig, Encoder
from transfusion.data.loader import LoaderConfig, Steps
from transfusion.data.shapes import corpus, prompts
from transfusion.data.sources import ShapesConfig, ShapesSource, open_reader
from transfusion.diffusion.process import make_process
from transfusion.evaluate.understanding import evaluate_captions, evaluate_edits, evaluate_questions
from transfusion.generate import row
from transfusion.generate.engine import Engine
from transfusion.generate.options import DenoisingOptions, GenerationOptions
from transfusion.keyed import Key, generator, normal, stable_fraction, subseed
from transfusion.objective import KeyedDraw
from transfusion.segments import Document, Text
from transfusion.tokenizer import ByteTokenizer

PARTS = st.lists(
    st.one_of(st.integers(-(2**70), 2**70), st.text(alphabet='a1,"\\x1f:[]\\\udc80', max_size=4)), max_size=4
)


def draw(*key: Key) -> float:
    """Draw for a key of seed, stream and ids."""
    seed, stream, *ids = key
    assert isinstance(seed, int) and isinstance(stream, str)
    return float(generator(seed, stream, *ids).random())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("x", 1, 2), ("x\x1fint:1", 2)),
        (("1",), (1,)),
        (("a", "b"), ("ab",)),
        (("a", ""), ("a",)),
        (('a", "b',), ("a", "b")),
        ((1, 23), (12, 3)),
        (("\udc80",), ("\\udc80",)),
    ],
)
def test_separators_inside_a_part_do_not_collide(one: tuple[Key, ...], other: tuple[Key, ...]) -> None:
    assert draw(0, "noise", *one) != draw(0, "noise", *other)


@given(PARTS, PARTS)
def test_keys_share_a_draw_only_if_they_are_equal(one: list[Key], other: list[Key]) -> None:
    assert (draw(0, "s", *one) == draw(0, "s", *other)) == (one == other)


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8])
def test_any_integer_is_the_number_it_is(kind: type[np.integer]) -> None:
    assert draw(0, "s", 3) == draw(0, "s", kind(3)) == float(generator(kind(0), "s", 3).random())
    assert draw(0, "s", "3") != draw(0, "s", kind(3))


def test_every_part_of_a_key_counts() -> None:
    draws = [
        draw(0, "s", "a", 1),
        draw(1, "s", "a", 1),
        draw(0, "t", "a", 1),
        draw(0, "s", "b", 1),
        draw(0, "s", "a", 2),
    ]
    assert len(set(draws)) == 5
    assert subseed(0, "s", 1) != subseed(0, "s", 2)
    assert float(normal((1,), 0, "s", 1)) != float(normal((1,), 0, "s", 2))


def test_what_is_no_key_is_refused() -> None:
    with pytest.raises(TypeError):
        generator(0, "s", 1.5)  # type: ignore[arg-type]


def test_draws_do_not_change_between_versions() -> None:
    assert (round(draw(0, "noise", "a", 1), 6), subseed(0, "init", "x") % 1000) == (0.732005, 228)


PICTURE = np.zeros((16, 16, 3), np.uint8)
SMALL_WORLD = ShapesConfig(resolution=16)


def encoder(seed: int) -> Encoder:
    """Make an encoder whose every draw is even."""
    return Encoder(ByteTokenizer(), EncodeConfig(caption_first=0.5, caption_dropout=0.5), seed)


def orders(seed: int, name: str, visit: int) -> list[object]:
    """Return the order and dropout of sixty-four records."""
    told = [encoder(seed).captioned("a", PICTURE, (name, i, visit)) for i in range(64)]
    return [[type(part).__name__ for part in document.segments] for document in told]


def time_alone(seed: int, name: str, index: int, number: int) -> object:
    """Return the time of a latent."""
    return KeyedDraw(FLOW, seed)(Document((image(0),), (name, index)), number, image(0)).t


def noise_alone(seed: int, name: str, index: int, number: int) -> object:
    """Return the noise of a latent."""
    return KeyedDraw(FLOW, seed)(Document((image(0),), (name, index)), number, image(0)).noise.tolist()


def order(seed: int, visit: int) -> list[int]:
    """Return the order of a source's documents on a visit."""
    source = ToySource(30)
    steps = Steps(source, LoaderConfig(30, 1, 64, seed), make_model().vocabulary, KeyedDraw(FLOW, 0))
    _ = steps[visit]
    return source.visited


def scene(seed: int, index: int, visit: int) -> object:
    """Return a document of the built-in world."""
    told = ShapesSource(ShapesConfig(resolution=16), encoder(seed)).document(index, visit)
    return [part.tokens if isinstance(part, Text) else part.values.tolist() for part in told.segments]


class Silent:
    """Says and draws nothing."""

    def caption(self, images: list[np.ndarray]) -> list[str]:
        return [""] * len(images)

    def ask_many(self, images: list[np.ndarray], questions: list[str]) -> list[str]:
        return [""] * len(images)

    def edit_many(self, images: list[np.ndarray], instructions: list[str], *, seed: int = 0) -> list[object]:
        return list(images)


DRAWS: list[tuple[Callable[..., object], tuple[Key, ...], tuple[Key, ...]]] = [
    (orders, (0, "a", 0), (1, "b", 1)),
    (time_alone, (0, "a", 0, 0), (1, "b", 1, 1)),
    (noise_alone, (0, "a", 0, 0), (1, "b", 1, 1)),
    (order, (0, 0), (1, 1)),
    (scene, (0, 0, 0), (1, 1, 1)),
    (lambda seed: ShapesSource(ShapesConfig(), encoder(seed)).preview_prompts(), (0,), (1,)),
    (lambda seed: list(corpus(seed, 5)), (0,), (1,)),
    (
        lambda seed: np.asarray(open_reader(ShapesConfig(resolution=16), seed).sample_pictures()).mean((1, 2)).tolist(),
        (0,),
        (1,),
    ),
    (lambda category, seed: [p.text for p in prompts(category, 5, seed)], ("colors", 0), ("counting", 1)),
    (lambda seed: [c.scene for c in evaluate_captions(Silent(), 16, num_scenes=5, seed=seed)], (0,), (1,)),
    (lambda seed: [a.question for a in evaluate_questions(Silent(), 16, num_scenes=5, seed=seed)], (0,), (1,)),
    (lambda seed: [e.change for e in evaluate_edits(Silent(), 16, num_scenes=5, seed=seed)], (0,), (1,)),
]


@pytest.mark.parametrize(("drawn", "key", "other"), DRAWS)
def test_every_draw_depends_on_each_part_of_its_key(
    drawn: Callable[..., object], key: tuple[Key, ...], other: tuple[Key, ...]
) -> None:
    expected = drawn(*key)
    assert drawn(*key) == expected
    for place in range(len(key)):
        changed = (*key[:place], other[place], *key[place + 1 :])
        assert drawn(*changed) != expected, f"part {place}"


def test_every_text_has_its_number() -> None:
    assert stable_fraction("hold-out:cat/1.png") == 0.3408806774874759  # as it always was
    odd = [stable_fraction(text) for text in ("caf\udce9", "caf\udce8", "caf\ud800", "caf\\udce9")]
    assert len(set(odd)) == 4 and all(0 <= fraction < 1 for fraction in odd)


def test_the_engine_s_draws_have_all_parts_and_never_the_same_key(monkeypatch: pytest.MonkeyPatch) -> None:
    keys: list[tuple[Key, ...]] = []

    def noted(shape: tuple[int, ...], *key: Key) -> object:
        keys.append(key)
        return normal(shape, *key)  # type: ignore[arg-type]

    monkeypatch.setattr(row, "normal", noted)
    options = GenerationOptions(
        max_tokens=0, begin_with="image", shapes={"image": (2, 4, 4)}, seed=7, denoising=DenoisingOptions(num_steps=3)
    )
    engine = Engine(make_model(), make_process(FLOW))
    first = engine.run([(Document((text(1),), is_complete=False), options)])[0].document
    assert keys == [(7, "start", 0), (7, "sampler", 0, 0), (7, "sampler", 0, 1)]
    made = row.Row(0, first, options, engine.model.vocabulary, row.Track(first, engine.model.vocabulary, 0))
    made.num_latents = 1
    made.open_latent(1)
    made.start_denoising(engine.process.schedule, engine.device)
    assert keys[-1] == (7, "start", 1)
