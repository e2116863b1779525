"""Layout tables written by hand: the columns of documents, slot by slot."""

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from transfusion.layout import IGNORE, PADDING, PADDING_SLOT, Writer, has_targets, join, layout, num_slots, stack
from transfusion.segments import Document, Latent, Modality, Segment, Text, Vocabulary, null_prompt

# Text ids 0-9; BOS 10, EOS 11; image: BEGIN 12, END 13; sound: BEGIN 14, END 15.
VOCABULARY = Vocabulary(10, (Modality("image", 1, (2, 2)), Modality("sound", 2, (3,))))
BOS, EOS, BOI, EOI, BOA, EOA = 10, 11, 12, 13, 14, 15
N = IGNORE


def image(rows: int = 2, columns: int = 4, **facts: bool) -> Latent:
    """Make an image of rows x columns pixels, so rows * columns / 4 patches."""
    is_target, is_announced = facts.get("is_target", True), facts.get("is_announced", True)
    is_private = facts.get("is_private", False)
    values = torch.zeros(1, rows, columns)
    return Latent(values, "image", is_target=is_target, is_announced=is_announced, is_private=is_private)


def sound(length: int = 6) -> Latent:
    """Make a sound of length / 3 patches."""
    return Latent(torch.zeros(2, length), "sound")


def text(*tokens: int) -> Text:
    """Make text that is a target."""
    return Text(tokens)


def prompt(*tokens: int) -> Text:
    """Make text that is no target."""
    return Text(tokens, is_target=False)


# Name, segments, is_complete, tokens, targets, span ids.
TABLE: list[tuple[str, tuple[Segment, ...], bool, list[int], list[int], list[int]]] = [
    ("empty", (), True, [BOS], [N], [-1]),
    ("empty prompt", (), False, [BOS], [N], [-1]),
    ("empty text", (text(),), True, [BOS], [EOS], [-1]),
    ("one token", (text(1),), True, [BOS, 1], [1, EOS], [-1] * 2),
    ("open text", (text(1, 2),), False, [BOS, 1, 2], [1, 2, N], [-1] * 3),
    ("text", (text(1, 2, 3),), True, [BOS, 1, 2, 3], [1, 2, 3, EOS], [-1] * 4),
    ("two texts", (text(1), text(2)), True, [BOS, 1, 2], [1, 2, EOS], [-1] * 3),
    ("prompt text", (prompt(1, 2),), True, [BOS, 1, 2], [N, N, N], [-1] * 3),
    ("question, answer", (prompt(1, 2), text(3)), True, [BOS, 1, 2, 3], [N, N, 3, EOS], [-1] * 4),
    ("answer, question", (text(3), prompt(1)), True, [BOS, 3, 1], [3, N, N], [-1] * 3),
    ("image", (image(),), True, [BOS, BOI, 0, 0, EOI], [BOI, N, N, N, EOS], [-1, -1, 0, 0, -1]),
    ("image prompt", (image(),), False, [BOS, BOI, 0, 0, EOI], [BOI, N, N, N, N], [-1, -1, 0, 0, -1]),
    (
        "caption, image",
        (text(1, 2), image()),
        True,
        [BOS, 1, 2, BOI, 0, 0, EOI],
        [1, 2, BOI, N, N, N, EOS],
        [-1, -1, -1, -1, 0, 0, -1],
    ),
    (
        "image, caption",
        (image(), text(1, 2)),
        True,
        [BOS, BOI, 0, 0, EOI, 1, 2],
        [BOI, N, N, N, 1, 2, EOS],
        [-1, -1, 0, 0, -1, -1, -1],
    ),
    (
        "text around an image",
        (text(1), image(), text(2)),
        True,
        [BOS, 1, BOI, 0, 0, EOI, 2],
        [1, BOI, N, N, N, 2, EOS],
        [-1, -1, -1, 0, 0, -1, -1],
    ),
    (
        "two images in a row",
        (image(2, 2), image(2, 2)),
        True,
        [BOS, BOI, 0, EOI, BOI, 0, EOI],
        [BOI, N, N, BOI, N, N, EOS],
        [-1, -1, 0, -1, -1, 1, -1],
    ),
    (
        "looked at, not drawn",
        (image(2, 2, is_target=False), text(5)),
        True,
        [BOS, BOI, 0, EOI, 5],
        [N, N, N, 5, EOS],
        [-1, -1, 0, -1, -1],
    ),
    (
        "edit",
        (image(2, 2, is_target=False), prompt(4), image(2, 2)),
        True,
        [BOS, BOI, 0, EOI, 4, BOI, 0, EOI],
        [N, N, N, N, BOI, N, N, EOS],
        [-1, -1, 0, -1, -1, -1, 1, -1],
    ),
    (
        "dropped caption",
        null_prompt(Document((text(1, 2), image(2, 2)))).segments,
        True,
        [BOS, BOI, 0, EOI],
        [N, N, N, EOS],
        [-1, -1, 0, -1],
    ),
    (
        "dropped instruction",
        null_prompt(Document((image(2, 2, is_target=False), prompt(4), image(2, 2)))).segments,
        True,
        [BOS, BOI, 0, EOI, BOI, 0, EOI],
        [N, N, N, N, N, N, EOS],
        [-1, -1, 0, -1, -1, 1, -1],
    ),
    ("sound", (sound(),), True, [BOS, BOA, 0, 0, EOA], [BOA, N, N, N, EOS], [-1, -1, 0, 0, -1]),
    (
        "sound and image",
        (text(7), sound(3), image(2, 2), text(8)),
        True,
        [BOS, 7, BOA, 0, EOA, BOI, 0, EOI, 8],
        [7, BOA, N, N, BOI, N, N, 8, EOS],
        [-1, -1, -1, 0, -1, -1, 1, -1, -1],
    ),
    (
        "four patches, raster",
        (image(4, 4),),
        True,
        [BOS, BOI, 0, 0, 0, 0, EOI],
        [BOI, N, N, N, N, N, EOS],
        [-1, -1, 0, 0, 0, 0, -1],
    ),
    (
        "story",
        (text(1), image(2, 2), text(2), image(2, 2)),
        True,
        [BOS, 1, BOI, 0, EOI, 2, BOI, 0, EOI],
        [1, BOI, N, N, 2, BOI, N, N, EOS],
        [-1, -1, -1, 0, -1, -1, -1, 1, -1],
    ),
    (
        "image before a prompt text",
        (image(2, 2), prompt(3), text(4)),
        True,
        [BOS, BOI, 0, EOI, 3, 4],
        [BOI, N, N, N, 4, EOS],
        [-1, -1, 0, -1, -1, -1],
    ),
]


@pytest.mark.parametrize(("segments", "is_complete", "tokens", "targets", "spans"), [row[1:] for row in TABLE],
                         ids=[row[0] for row in TABLE])  # fmt: skip
def test_columns_are_those_of_the_table(
    segments: tuple[Segment, ...], is_complete: bool, tokens: list[int], targets: list[int], spans: list[int]
) -> None:
    document = Document(segments, is_complete=is_complete)
    columns, places = layout(document, VOCABULARY, document_id=3)
    assert columns.tokens.tolist() == tokens
    assert columns.targets.tolist() == targets
    assert columns.span_ids.tolist() == spans
    assert columns.positions.tolist() == list(range(len(tokens)))
    assert columns.document_ids.tolist() == [3] * len(tokens)
    assert num_slots(document, VOCABULARY) == len(tokens)
    assert [place.start for place in places] == [spans.index(i) for i in range(len(places))]
    assert all(place.num_patches == spans.count(i) for i, place in enumerate(places))


def test_modality_and_private_columns() -> None:
    document = Document((text(1), image(2, 2, is_private=True), sound(3)))
    columns, _ = layout(document, VOCABULARY)
    assert columns.modality.tolist() == [0, 0, 0, 1, 0, 0, 2, 0]
    assert columns.private.tolist() == [0, 0, 0, 1, 0, 0, 0, 0]


def test_table_has_twenty_documents() -> None:
    assert len(TABLE) >= 20


SEGMENTS = st.lists(
    st.one_of(
        st.lists(st.integers(0, 9), max_size=4).map(lambda tokens: Text(tuple(tokens))),
        st.builds(image, st.sampled_from([2, 4]), st.sampled_from([2, 4])),
        st.sampled_from([3, 6]).map(sound),
    ),
    max_size=6,
)


@given(SEGMENTS)
def test_every_target_is_the_next_token_and_patches_and_begins_have_none(segments: list[Segment]) -> None:
    columns, _ = layout(Document(tuple(segments)), VOCABULARY)
    following = [*columns.tokens.tolist()[1:], EOS]
    for slot, (token, target, modality) in enumerate(
        zip(columns.tokens.tolist(), columns.targets.tolist(), columns.modality.tolist(), strict=True)
    ):
        if modality or token in (BOI, BOA):
            assert target == IGNORE
        elif target != IGNORE:
            assert target == following[slot]
        assert target not in (EOI, EOA, BOS)


@example([prompt(1)], True, None, None)
@example([prompt(1), text()], True, None, None)
@example([prompt(1), image(is_target=False)], False, None, None)
@example([], True, None, None)
@given(SEGMENTS, st.booleans(), st.sampled_from([None, 3]), st.sampled_from([None, "image"]))
def test_has_targets_says_whether_a_slot_or_a_latent_is_one(
    segments: list[Segment], is_complete: bool, next_token: int | None, next_latent: str | None
) -> None:
    document = Document(tuple(segments), (), is_complete, next_token, next_latent)
    columns, spans = layout(document, VOCABULARY)
    is_learnt = bool((columns.targets != IGNORE).any()) or any(span.latent.is_target for span in spans)
    assert has_targets(document) == is_learnt


@given(SEGMENTS, st.data())
def test_writing_on_is_the_same_as_writing_at_once(segments: list[Segment], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(segments)))
    whole = Writer(VOCABULARY)
    whole.document(Document(tuple(segments), is_complete=False))
    parts = Writer(VOCABULARY)
    parts.document(Document(tuple(segments[:cut]), is_complete=False))
    seen = len(parts)
    parts.document(Document(tuple(segments[cut:]), is_complete=False))
    for one, two in zip(whole.columns(seen), parts.columns(seen), strict=True):
        assert torch.equal(one, two)


def test_join_pads_and_stack_makes_rows() -> None:
    columns, _ = layout(Document((text(1),)), VOCABULARY)
    rows = stack([join([columns], 4), join([columns, columns], 4)])
    assert rows.tokens.tolist() == [[BOS, 1, 0, 0], [BOS, 1, BOS, 1]]
    assert rows.document_ids.tolist() == [[0, 0, PADDING, PADDING], [0, 0, 0, 0]]
    assert rows.targets[0].tolist() == [1, EOS, IGNORE, IGNORE]
    assert PADDING_SLOT.targets.tolist() == [IGNORE]


def test_bad_latents_are_named() -> None:
    with pytest.raises(KeyError, match="no modality 'video'; this model has: image, sound"):
        layout(Document((Latent(torch.zeros(1, 2, 2), "video"),)), VOCABULARY)
    with pytest.raises(ValueError, match=r"axes \(2, 3\), not positive multiples of its patch_size \(2, 2\)"):
        layout(Document((image(2, 3),)), VOCABULARY)
    with pytest.raises(ValueError, match=r"shape \(1, 2\); expected \(1, axis_0, axis_1\)"):
        layout(Document((Latent(torch.zeros(1, 2), "image"),)), VOCABULARY)
    with pytest.raises(ValueError, match=r"\(2, 0\)"):
        layout(Document((Latent(torch.zeros(1, 2, 0), "image"),)), VOCABULARY)


def test_special_tokens() -> None:
    assert VOCABULARY.size == 16
    assert [VOCABULARY.begun_by(token) for token in range(16)] == [0] * 12 + [1, 0, 2, 0]
    assert [VOCABULARY.begin_token(1), VOCABULARY.end_token(1), VOCABULARY.begin_token(2)] == [BOI, EOI, BOA]


def test_where_a_document_was_cut_its_last_slot_foretells_what_follows() -> None:
    text = Text((3, 4, 5))
    whole = layout(Document((text,)), VOCABULARY).columns.targets.tolist()
    cut = layout(Document((text,), is_complete=False, next_token=7), VOCABULARY).columns.targets.tolist()
    prompt = layout(Document((text,), is_complete=False), VOCABULARY).columns.targets.tolist()
    assert (whole[-1], cut[-1], prompt[-1]) == (VOCABULARY.eos, 7, IGNORE) and whole[:-1] == cut[:-1] == prompt[:-1]
    dropped = null_prompt(Document((text,), is_complete=False, next_token=7))
    assert layout(dropped, VOCABULARY).columns.targets.tolist() == [IGNORE]
