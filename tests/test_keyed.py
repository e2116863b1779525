"""Keys: equal ones draw alike, and different ones never share a draw."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transfusion.keyed import Key, generator, normal, subseed

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
