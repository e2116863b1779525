"""Order, packing and encoding."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import FLOW, ToySource, model_config

from transfusion.batch import Batch
from transfusion.data.encode import EncodeConfig, Encoder
from transfusion.data.loader import LoaderConfig, Steps, load_steps
from transfusion.data.pack import plan_rows, rectangle
from transfusion.objective import KeyedDraw
from transfusion.segments import Document, Latent, Text
from transfusion.tokenizer import ByteTokenizer

VOCABULARY = model_config().vocabulary()
PICTURE = np.zeros((4, 4, 3), dtype=np.uint8)


@given(st.lists(st.integers(1, 16), max_size=40))
def test_packing_keeps_every_document_and_fits(lengths: list[int]) -> None:
    rows = plan_rows(lengths, 16)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    assert all(sum(lengths[index] for index in row) <= 16 for row in rows)
    assert rows == plan_rows(lengths, 16)


def test_packing_lowers_the_rows_where_that_wastes_less() -> None:
    lengths = [6, 6, 6, 6, 4, 4]  # in order at 16: (6, 6, 4), (6, 6, 4)
    assert rectangle(plan_rows(lengths, 16), lengths) == sum(lengths)
    lengths = [7, 7, 7, 4, 4, 4]  # at 16: 14, 15, 4; at 12: three rows of 11
    assert rectangle(plan_rows(lengths, 16), lengths) == sum(lengths)
    assert plan_rows([], 16) == [] and rectangle([], []) == 0


def test_too_long_a_document_is_named() -> None:
    with pytest.raises(ValueError, match=r"17 slots, more than a row \(train.row_length 16\)"):
        plan_rows([3, 17], 16)


def steps(source: ToySource, **changes: int) -> Steps:
    """Make the steps of a source."""
    config = LoaderConfig(**{"batch_size": 5, "accumulation": 1, "row_length": 40, "seed": 0, **changes})
    return Steps(source, config, VOCABULARY, KeyedDraw(FLOW, 0))


def same(one: Batch, other: Batch) -> bool:
    """Return whether two batches are equal to the bit."""
    columns = all(torch.equal(a, b) for a, b in zip(one.columns, other.columns, strict=True))
    return columns and all(
        torch.equal(a.noise, b.noise) and torch.equal(a.t, b.t) for a, b in zip(one.spans, other.spans, strict=True)
    )


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_are_a_function_of_the_step(num_workers: int) -> None:
    expected = [steps(ToySource(13))[step][0] for step in range(2, 6)]
    found = [batches[0] for batches in load_steps(steps(ToySource(13)), 2, 6, num_workers)]
    assert len(found) == 4 and all(same(a, b) for a, b in zip(expected, found, strict=True))


def test_every_epoch_visits_each_document_once_in_another_order() -> None:
    source = ToySource(10)
    epochs = steps(source)
    for step in range(4):
        epochs[step][0].validate(VOCABULARY)
    first, second = source.visited[:10], source.visited[10:]
    assert sorted(first) == sorted(second) == list(range(10)) and first != second


def test_micro_batches_share_the_documents_of_the_step() -> None:
    whole, parts = steps(ToySource())[3], steps(ToySource(), accumulation=2)[3]
    assert [batch.num_documents for batch in parts] == [3, 2]
    assert sum(batch.num_slots for batch in parts) == whole[0].num_slots


def encoder(**changes: float) -> Encoder:
    """Make an encoder of bytes."""
    return Encoder(ByteTokenizer(), EncodeConfig.model_validate(changes), 0)


def test_captions_come_first_in_four_of_five() -> None:
    told = [encoder(caption_dropout=0.0).captioned("ab", PICTURE, (i,)) for i in range(500)]
    share = np.mean([isinstance(document.segments[0], Text) for document in told])
    assert share == pytest.approx(0.8, abs=0.06)  # 3 standard errors
    first = next(document.segments[0] for document in told if isinstance(document.segments[0], Latent))
    assert isinstance(first, Latent) and first.max_t == 0.5 and first.is_target


def test_a_tenth_of_the_prompts_is_dropped() -> None:
    told = [encoder().drawn("ab", PICTURE, (i,)) for i in range(1000)]
    dropped = [document for document in told if len(document.segments) == 1]
    assert len(dropped) == pytest.approx(100, abs=30)
    segment = dropped[0].segments[0]
    assert isinstance(segment, Latent) and not segment.is_announced and segment.is_target


def test_prompts_are_targets_as_in_the_paper_unless_told_otherwise() -> None:
    for learns in (True, False):
        prompt, picture = encoder(caption_dropout=0.0, learns_prompts=learns).drawn("ab", PICTURE, ("k",)).segments
        assert prompt.is_target is learns and picture.is_target
        assert isinstance(picture, Latent) and picture.is_announced


def test_questions_may_come_without_a_caption() -> None:
    picture, word, asked, answer = encoder().conversed(PICTURE, None, [("how many", "two")], ("k",)).segments
    assert [part.is_target for part in (picture, word, asked, answer)] == [False, False, True, True]


def test_questions_are_targets_but_their_first_token_and_pictures_are_clean() -> None:
    document = encoder().conversed(PICTURE, "c", [("how many", "two")], ("k",))
    facts = [
        (part.is_target, part.max_t if isinstance(part, Latent) else bytes(part.tokens)) for part in document.segments
    ]
    assert facts == [(False, 0.0), (True, b"c\n"), (False, b"h"), (True, b"ow many"), (True, b" two\n")]
    prompt = encoder().question_prompt(PICTURE, " how many ? ")
    assert isinstance(prompt, Document) and not prompt.is_complete
    assert bytes(prompt.segments[1].tokens) == b"how many"  # type: ignore[union-attr]


def test_edits_show_a_clean_picture_and_draw_another() -> None:
    before, word, rest, after = encoder(caption_dropout=0.0).edited(PICTURE, "xy", PICTURE, ("k",)).segments
    assert isinstance(before, Latent) and isinstance(after, Latent) and before.max_t == 0.0
    assert [part.is_target for part in (before, word, rest, after)] == [False, False, True, True]


def test_steps_go_to_workers_that_are_not_forked() -> None:
    copied = pickle.loads(pickle.dumps(steps(ToySource(13))))
    assert same(copied[3][0], steps(ToySource(13))[3][0])
