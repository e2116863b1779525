"""What is longer than a row: dropped, cut or refused, and never a reason to die in mid-training."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiny import ToySource, documents, image, make_model, text

from transfusion.batch import TimeAndNoise
from transfusion.data.encode import EncodeConfig, Encoder
from transfusion.data.errors import DataError
from transfusion.data.fit import FittedSource
from transfusion.data.limit import Limit, TooLong, cut
from transfusion.data.loader import LoaderConfig, Steps
from transfusion.data.sources import FolderConfig, open_source
from transfusion.layout import IGNORE, layout, num_slots
from transfusion.model.transfusion import ModelConfig
from transfusion.segments import Document, Latent, Text
from transfusion.tokenizer import ByteTokenizer

VOCABULARY = make_model().vocabulary
KEY = ("k", 1)


def limit(row_length: int, policy: TooLong = "drop") -> Limit:
    """Make a limit."""
    return Limit(VOCABULARY, row_length, policy)


def caption(length: int) -> Document:
    """Make a document of a caption and a picture: 1 + length + 2 + 4 slots."""
    return Document((text(1, length), image(1)), KEY)


@pytest.mark.parametrize("policy", ["drop", "cut", "refuse"])
def test_what_fits_stays_as_it_is(policy: TooLong) -> None:
    document = caption(5)
    assert limit(num_slots(document, VOCABULARY), policy).fitted(document) is document


def test_what_does_not_is_dropped_cut_or_refused() -> None:
    document = caption(9)
    length = num_slots(document, VOCABULARY)
    assert limit(length - 1).fitted(document) is None
    shorter = limit(length - 4, "cut").fitted(document)
    assert shorter is not None and num_slots(shorter, VOCABULARY) == length - 4 and shorter.key == KEY
    with pytest.raises(DataError, match=rf"document \('k', 1\) takes {length} slots.*train.row_length {length - 1}"):
        limit(length - 1, "refuse").fitted(document)
    with pytest.raises(DataError, match="takes"):
        limit(5, "cut").fitted(document)  # not even the picture fits


def test_what_follows_a_cut_is_no_target_and_what_was_cut_off_is() -> None:
    (told,) = (part for part in caption(9).segments if isinstance(part, Text))
    shorter = cut(caption(9), 2)
    assert shorter is not None
    columns = layout(shorter, VOCABULARY).columns
    assert columns.targets.tolist()[:7] == list(told.tokens[:7]) and columns.targets.tolist()[7] == IGNORE  # not BEGIN
    last = cut(Document((image(1), told), KEY), 2)
    assert last is not None and not last.is_complete
    assert int(layout(last, VOCABULARY).columns.targets[-1]) == told.tokens[7]
    prompt = cut(Document((Text(told.tokens, is_target=False),), KEY), 2)
    assert prompt is not None and prompt.next_token is None


def test_whole_turns_are_cut_from_the_end_first() -> None:
    turns = Document((image(1), Text((1, 2)), Text((3,), is_target=False), Text((4, 5, 6))), KEY)
    tokens = {excess: cut(turns, excess) for excess in range(1, 7)}
    texts = {e: [p.tokens for p in d.segments if isinstance(p, Text)] if d else None for e, d in tokens.items()}
    assert texts == {
        1: [(1, 2), (3,), (4, 5)],
        2: [(1, 2), (3,), (4,)],
        3: [(1, 2), (3,)],
        4: [(1, 2)],
        5: [(1,)],
        6: None,
    }
    assert [d.next_token for d in tokens.values() if d] == [6, 5, 4, None, 2]  # a question's first token is no target


@given(st.integers(0, 30), st.integers(1, 40))
def test_a_cut_document_fits_or_is_not_cut(number: int, excess: int) -> None:
    document = documents(number + 1)[-1]
    spare = sum(len(part.tokens) - 1 for part in document.segments if isinstance(part, Text))
    found = cut(document, excess)
    assert (found is None) == (spare < excess)
    if found is not None:
        assert num_slots(found, VOCABULARY) == num_slots(document, VOCABULARY) - excess


def test_nothing_is_foretold_across_a_cut() -> None:
    gap = Document((Text((1, 2, 3)), Text(()), Text((4, 5)), image(1)), KEY)
    shorter = cut(gap, 3)
    assert shorter is not None
    columns = layout(shorter, VOCABULARY).columns
    pairs = list(zip(columns.tokens.tolist(), columns.targets.tolist(), strict=True))
    assert pairs[:4] == [(VOCABULARY.bos, 1), (1, IGNORE), (4, IGNORE), (VOCABULARY.begin_token(1), IGNORE)]


class Captions(ToySource):
    """Captions of given lengths, ten of them without an end."""

    def __init__(self, lengths: list[int], *, is_endless: bool = False) -> None:
        super().__init__(None if is_endless else len(lengths))
        self.lengths = lengths

    def document(self, index: int, visit: int) -> Document:
        return Document(caption(self.lengths[index % len(self.lengths)]).segments, ("c", index, visit))


LONG = Captions([3, 3, 90, 3, 3, 3, 3, 3, 3, 3])


def test_a_fitted_source_leaves_out_and_names_what_is_too_long() -> None:
    source = FittedSource(LONG, limit(40), 0.1)
    assert source.size == 9 and [source.document(i, 0).key[1] for i in range(9)] == [0, 1, 3, 4, 5, 6, 7, 8, 9]
    assert source.found.left_out == {"record too long for a row": 1} and source.found.records == 9
    assert list(source.quarantine) == ["toy 2"] and "slots, more than a row" in source.quarantine["toy 2"]
    with pytest.raises(DataError, match=r"1 of 10 documents are too long.*train.max_dropped 0.05.*\(toy 2\) takes 97"):
        FittedSource(LONG, limit(40), 0.05)
    with pytest.raises(DataError, match=r"document 2 \(toy 2\)"):
        FittedSource(LONG, limit(40, "refuse"), 1.0)
    assert FittedSource(LONG, limit(40, "cut"), 0.0).size == 10
    assert not FittedSource(LONG, limit(40, "cut"), 0.0).found.left_out
    endless = FittedSource(Captions(LONG.lengths, is_endless=True), limit(40), 0.2)
    assert endless.found.left_out == {"record too long for a row, of the first 64": 7} and endless.size is None
    assert [source.name(i) for i in (1, 2)] == ["toy 1", "toy 3"]
    with pytest.raises(DataError, match="2 of 2 documents are too long"):
        FittedSource(Captions([90, 90]), limit(40), 1.0)


def test_pictures_that_the_model_cannot_take_are_told_before_training() -> None:
    class Large(ToySource):
        def document(self, index: int, visit: int) -> Document:
            return Document((Latent(image(1).values.repeat(1, 6, 6), "image"),), ("l", index))

    with pytest.raises(DataError, match=r"does not fit the model.*positions for \(4, 4\)"):
        FittedSource(Large(3), limit(400), 0.0)


def draw(document: Document, number: int, latent: Latent) -> TimeAndNoise:
    """Draw nothing."""
    return TimeAndNoise(0.5, latent.values)


def steps(source: ToySource, policy: TooLong, accumulation: int = 1) -> Steps:
    """Make steps of five documents in rows of 40 slots."""
    return Steps(source, LoaderConfig(5, accumulation, 40, 0, policy), VOCABULARY, draw)


def test_longer_documents_met_later_are_settled_by_the_settings() -> None:
    """A source without end is looked at for a while only."""
    endless = Captions(LONG.lengths, is_endless=True)
    (batch,) = steps(endless, "drop")[0]
    assert (batch.num_documents, batch.num_dropped) == (4, 1)
    assert steps(endless, "drop")[1][0].num_dropped == 0
    (shorter,) = steps(endless, "cut")[0]
    assert (shorter.num_documents, shorter.num_dropped) == (5, 0)
    with pytest.raises(DataError, match="takes 97 slots"):
        steps(endless, "refuse")[0]
    assert [b.num_dropped for b in steps(endless, "drop", 2)[0]] == [1, 0]
    with pytest.raises(DataError, match="of the 5 documents of step 0 only 0 fit"):
        steps(Captions([90], is_endless=True), "drop")[0]


QUESTION = Text(tuple(b"what is it? " * 3), is_target=False)
ANSWERS = {
    "long": (QUESTION, Text(tuple(b"a star" * 9))),
    "asked long": (Text(QUESTION.tokens * 2, is_target=False), Text(tuple(b"a star"))),
    "silent": (Text(tuple(b"what?"), is_target=False),),
    "seen": (Latent(image(1).values, "image", is_target=False), Text(tuple(b"what?"), is_target=False)),
    "empty": (),
}


@pytest.mark.parametrize(
    ("name", "policy", "expected"),
    [
        ("long", "cut", True),
        ("asked long", "cut", False),
        ("silent", "cut", False),
        ("silent", "drop", False),
        ("silent", "refuse", False),
        ("seen", "drop", False),
        ("empty", "drop", False),
    ],
)
def test_what_nothing_is_learnt_of_is_left_out_and_counted(name: str, policy: TooLong, expected: bool) -> None:
    class Asked(ToySource):
        def document(self, index: int, visit: int) -> Document:
            answer = Text(tuple(b"yes"))
            return Document(ANSWERS[name] if index % 3 == 1 else (answer,), ("asked", index, visit))

    is_cut = name == "asked long"  # then it counts for the share that may be dropped
    source = FittedSource(Asked(6), limit(40, policy), 0.4 if is_cut else 0.0)
    assert source.size == (6 if expected else 4)
    why = f"record of which nothing would be learnt{' once it is cut' if is_cut else ''}"
    assert source.found.left_out == ({} if expected else {why: 2})
    assert list(source.quarantine) == ([] if expected else ["toy 1", "toy 4"])
    if not expected:
        told = "raise train.row_length to at least 79" if is_cut else "nothing that a model would learn"
        assert told in source.quarantine["toy 1"]
        with pytest.raises(DataError, match="nothing would be learnt of any of 2 documents; the first: document 0"):
            FittedSource(Only(name), limit(40, policy), 1.0)
    loaded = Steps(Asked(), LoaderConfig(6, 1, 40, 0, policy), VOCABULARY, draw)[0][0]
    assert (loaded.num_documents, loaded.num_dropped) == ((6, 0) if expected else (4, 2))


class Mixed(ToySource):
    """Documents of kinds."""

    def __init__(self, *names: str) -> None:
        """Take a kind for each."""
        super().__init__(len(names))
        self._names = names

    def document(self, index: int, visit: int) -> Document:
        """Return one."""
        return Document(KINDS[self._names[index]], ("mixed", index, visit))


KINDS = {**ANSWERS, "short": (Text(tuple(b"yes")),)}


def test_what_is_cut_to_nothing_counts_for_the_share_that_may_be_dropped() -> None:
    told = (
        r"^9 of 12 documents are too long, and hold nothing .* once they are cut, .*\(train.max_dropped 0.7, which may"
    )
    source = Mixed("silent", "short", *["asked long"] * 9, "short")
    with pytest.raises(DataError, match=told + r".*the first: document 2 .*at least 79"):
        FittedSource(source, limit(40, "cut"), 0.7)
    assert FittedSource(source, limit(40, "cut"), 0.75).size == 2


def test_an_error_says_of_which_kind_the_documents_are_that_leave_none() -> None:
    one = Mixed("silent", "long", "silent")
    with pytest.raises(
        DataError, match="^1 of 3 documents are too long, and nothing .* any of the others; the first: doc"
    ):
        FittedSource(one, limit(40), 0.0)
    with pytest.raises(DataError, match="^nothing would be learnt of any of 2 documents; .* once it is cut"):
        FittedSource(Mixed("asked long", "silent"), limit(40, "cut"), 0.0)
    with pytest.raises(DataError, match="^2 of 2 documents are too long; the first"):
        FittedSource(Mixed("long", "asked long"), limit(40), 0.0)


class Only(ToySource):
    """Two documents of one kind."""

    def __init__(self, name: str) -> None:
        """Take the kind."""
        super().__init__(2)
        self._name = name

    def document(self, index: int, visit: int) -> Document:
        """Return one."""
        return Document(ANSWERS[self._name], ("only", index, visit))


def test_lengths_are_counted_in_tokens(tmp_path: Path) -> None:
    """A hundred Chinese letters are three hundred bytes."""
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    rows = [{"file": "a.png", "text": "猫" * 100}] + [{"file": "a.png", "text": "a cat " * 18}] * 30
    (tmp_path / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    encoder = Encoder(ByteTokenizer(), EncodeConfig(caption_dropout=1.0), 0)
    source = open_source(FolderConfig(path=tmp_path, resolution=8), encoder, 255)
    fitted = FittedSource(source, Limit(ModelConfig().vocabulary(), 256, "drop"), 0.05)
    assert fitted.size == 30 and list(fitted.quarantine) == ["a.png"]
