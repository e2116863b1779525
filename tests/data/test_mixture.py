"""Several sources in one: each with its share of the slots, told in an order that any place can be asked for."""

import json
import pickle
import threading
from collections import Counter
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny import FLOW, ToySource, make_model, run_config, text

from transfusion.cli.verbs import Use, score
from transfusion.config import ConfigError, RunConfig, override
from transfusion.data.encode import EncodeConfig, Encoder
from transfusion.data.errors import DataError
from transfusion.data.forecast import forecast, planned
from transfusion.data.limit import Limit
from transfusion.data.loader import LoaderConfig, Steps, load_steps
from transfusion.data.mixture import MixtureSource, changed_sources
from transfusion.data.order import Merged, Phase, Shuffled, Track
from transfusion.data.settings import FolderConfig, MixtureConfig, ShapesConfig, SourceConfig, settled_like, unaugmented
from transfusion.data.sources import held_out_config, open_reader, open_source
from transfusion.data.tasks import most_pictures, told_tasks
from transfusion.layout import num_slots
from transfusion.objective import KeyedDraw
from transfusion.run import open_run, train_run
from transfusion.segments import Document
from transfusion.tokenizer import ByteTokenizer
from transfusion.train.metrics import read_metrics

VOCABULARY = make_model().vocabulary
LIMIT = Limit(VOCABULARY, 64, "drop")


class Texts(ToySource):
    """Texts of given lengths."""

    def __init__(self, lengths: Sequence[int], *, is_endless: bool = False) -> None:
        super().__init__(None if is_endless else len(lengths))
        self.lengths = lengths

    def document(self, index: int, visit: int) -> Document:
        return Document((text(index % 50, self.lengths[index % len(self.lengths)]),), (index, visit))


def mixture(*sources: ToySource, **facts: Sequence[object]) -> MixtureSource:
    """Mix sources that are called a, b, c."""
    told = [
        SourceConfig.model_validate({"name": name, "path": name, **{key: facts[key][place] for key in facts}})
        for place, (name, _) in enumerate(zip("abc", sources, strict=False))
    ]
    return MixtureSource(MixtureConfig(sources=tuple(told)), sources).fitted(LIMIT, 1.0)


def loading(batch_size: int = 4) -> LoaderConfig:
    """Make what decides the order."""
    return LoaderConfig(batch_size, 1, 64, 0)


def merged(lengths: Sequence[Sequence[int]], phases: Sequence[tuple[int, Sequence[float]]]) -> Merged:
    """Merge tracks of these lengths."""
    tracks = [Track(Shuffled(0, len(each), number), np.array(each, np.float32)) for number, each in enumerate(lengths)]
    return Merged(tracks, [Phase(first, tuple(weights)) for first, weights in phases])


def test_places_come_by_the_middles_of_documents() -> None:
    """Two sources of weights 2 and 1, all documents of four slots: a slot of the first is half as long."""
    order = merged([[4] * 4, [4] * 4], [(0, (2, 1))])
    # middles at 1, 3, 5, 7, ... and at 2, 6, 10, ...
    assert [order.place(number).which for number in range(9)] == [0, 1, 0, 0, 1, 0, 0, 1, 0]
    order = merged([[4] * 4, [2] * 4], [(0, (2, 1))])  # at 1, 3, 5, 7 and at 1, 3, 5, 7: in turn
    assert [order.place(number).which for number in range(6)] == [0, 1, 0, 1, 0, 1]
    order = merged([[2] * 4, [8] * 4], [(0, (1, 1))])  # at 1, 3, 5, ... and at 4, 12: each in the middle of its share
    assert [order.place(number).which for number in range(8)] == [0, 0, 1, 0, 0, 0, 0, 1]


def test_a_change_of_weights_begins_at_its_place() -> None:
    order = merged([[4] * 4, [4] * 4], [(0, (1, 1)), (6, (0, 1)), (9, (3, 1))])
    told = [order.place(number).which for number in range(17)]
    assert told == [0, 1, 0, 1, 0, 1, 1, 1, 1, 0, 0, 1, 0, 0, 0, 1, 0]
    assert order.heads(9) == [3, 6] and order.heads(17) == [9, 8]


LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=40)
WEIGHTS = st.sampled_from([0.0, 0.3, 1.0, 2.0, 7.0])


@st.composite
def orders(draw: st.DrawFn) -> Merged:
    """Draw sources, weights, and steps at which these change."""
    lengths = draw(st.lists(LENGTHS, min_size=1, max_size=4))
    row = st.lists(WEIGHTS, min_size=len(lengths), max_size=len(lengths)).filter(any)
    firsts = sorted(draw(st.sets(st.integers(1, 250), max_size=3)))
    return merged(lengths, [(first, draw(row)) for first in (0, *firsts)])


@settings(deadline=None, max_examples=40)
@given(orders(), st.lists(st.integers(0, 2000), max_size=4))
def test_any_place_is_what_a_walk_comes_to(order: Merged, asked: list[int]) -> None:
    """A resumed run and every worker ask for places that nobody walked to."""
    walked = [order.place(number) for number in range(300)]
    again = Merged(order.tracks, order._phases)
    for number in asked:
        found = again.place(number)
        assert number >= 300 or found == walked[number]
        assert again.place(number + 1) == Merged(order.tracks, order._phases).place(number + 1)
    counts = Counter(place.which for place in walked)
    assert [counts[track] for track in range(len(order.tracks))] == order.heads(300)
    for track in range(len(order.tracks)):  # each goes through its own documents in their order
        assert [place.before for place in walked if place.which == track] == list(range(counts[track]))


@settings(deadline=None, max_examples=50)
@given(st.lists(LENGTHS, min_size=2, max_size=4), st.data(), st.integers(1, 3000))
def test_every_source_has_its_share_of_the_slots_to_a_document(
    lengths: list[list[int]], data: st.DataObject, number: int
) -> None:
    weights = data.draw(st.lists(st.sampled_from([0.3, 1.0, 2.0, 7.0]), min_size=len(lengths), max_size=len(lengths)))
    order = merged(lengths, [(0, weights)])
    slots = [track.begin(head) for track, head in zip(order.tracks, order.heads(number), strict=True)]
    for (one, a), (other, b) in product(enumerate(weights), repeat=2):
        assert abs(slots[one] / a - slots[other] / b) <= (max(lengths[one]) / a + max(lengths[other]) / b) / 2 + 1e-3


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.lists(st.integers(1, 70), min_size=2, max_size=12), min_size=1, max_size=3),
    st.data(),
    st.integers(1, 9),
)
def test_every_record_comes_once_an_epoch_or_is_rejected(
    lengths: list[list[int]], data: st.DataObject, batch_size: int
) -> None:
    """For any weights, sizes and steps: what is too long for a row is named, all else comes once before any again."""
    for each in lengths:
        each[0] = 3  # at least one fits
    weights = data.draw(st.lists(st.sampled_from([0.3, 1.0, 2.0]), min_size=len(lengths), max_size=len(lengths)))
    source = mixture(*map(Texts, lengths), weight=weights)
    rejected = {name for name, each in zip("abc", lengths, strict=False) for _ in each if max(each) > 63}
    assert {name.partition(":")[0] for name in source.quarantine} == rejected
    order = source.order(loading(batch_size))
    told = [order.place(number) for number in range(200)]
    for name, fitted in source.each.items():
        of_source = [place for place in told if source.part(place.which) == name]
        assert fitted.size is not None
        for start in range(0, len(of_source) - fitted.size + 1, fitted.size):
            epoch = of_source[start : start + fitted.size]
            assert len({place.which for place in epoch}) == fitted.size
            assert {place.before for place in epoch} == {start // fitted.size}


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 20), st.integers(1, 8), st.integers(0, 2**31))
def test_a_resume_at_any_step_takes_what_it_would_have_taken(first: int, batch_size: int, seed: int) -> None:
    source = mixture(Texts([3, 9, 4]), Texts([30] * 5), Texts([7], is_endless=True), changes=[[], [[7, 5]], []])
    config = LoaderConfig(batch_size, 1, 64, seed)
    whole, later = (Steps(source, config, VOCABULARY, KeyedDraw(FLOW, 0)) for _ in range(2))
    walked = [whole[step][0] for step in range(first + 2)]
    copied = pickle.loads(pickle.dumps(later))  # as workers get it
    for step in (first, first + 1):
        assert copied[step][0].columns.tokens.equal(walked[step].columns.tokens)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_workers_take_what_one_process_takes(num_workers: int) -> None:
    source = mixture(Texts([3, 9, 4]), Texts([30] * 5))
    steps = Steps(source, loading(), VOCABULARY, KeyedDraw(FLOW, 0))
    expected = [steps[step][0] for step in range(3, 8)]
    found = [batches[0] for batches in load_steps(steps, 3, 8, num_workers)]
    assert all(
        a.columns.tokens.equal(b.columns.tokens) and a.slots == b.slots for a, b in zip(expected, found, strict=True)
    )


def test_numbers_of_records_go_both_ways() -> None:
    source = mixture(Texts([3, 9, 4]), Texts([7], is_endless=True), Texts([5, 5]))
    assert source.size is None
    numbers = [source.index(0, 2), source.index(2, 0), source.index(1, 0), source.index(1, 9)]
    assert numbers == [2, 3, 5, 14] and [source.at(number) for number in numbers] == [(0, 2), (2, 0), (1, 0), (1, 9)]
    assert [source.part(number) for number in range(7)] == ["a", "a", "a", "c", "c", "b", "b"]
    assert source.name(3) == "c: toy 0" and mixture(Texts([3]), Texts([4, 4])).size == 3


def test_what_comes_is_foretold() -> None:
    source = planned(mixture(Texts([7] * 10), Texts([29] * 5), weight=[1, 3]), loading(), 10)  # of 8 and of 30 slots
    first, second = forecast(source, loading(), 10)
    assert (first.name, first.size, first.mean, first.documents) == ("a", 10, 8, 22)
    assert second.documents == 18 and second.share == pytest.approx(0.754, abs=1e-3) and second.epochs == 3.6
    lines = source.found.line().splitlines()
    assert len(lines) == 2 and lines[1].startswith(
        "source 'b': found: toy documents; trains on 5 records; 75.4% of the"
    )
    assert lines[1].endswith("slots (45.0% of the documents, 30 slots each), each told 3.60 times by the last step")
    endless = planned(mixture(Texts([6], is_endless=True)), loading(), 10).found.line()
    assert endless.endswith("new ones always")


def test_more_repeats_than_may_be_are_refused_and_the_step_is_named() -> None:
    source = mixture(Texts([7] * 10), Texts([29] * 5), weight=[1, 3], max_repeats=[None, 3])
    order = source.order(loading())
    step = next(step for step in range(10) if order.merged.heads(4 * step + 4)[1] > 15)
    with pytest.raises(
        DataError, match=rf"'b' has 5 records.*3.60 times.*data.sources.1.max_repeats=3 times.* {step} on"
    ):
        planned(source, loading(), 10)
    assert planned(source, loading(), step).sources is source.sources  # in fewer steps all is well
    with pytest.raises(DataError, match="weight of 'a' from step 10 on, and the last of train.steps=10 is step 9"):
        planned(mixture(Texts([3]), Texts([3]), changes=[[[10, 2]], []]), loading(), 10)


def test_a_source_of_weight_nought_waits_for_its_step() -> None:
    source = mixture(Texts([6] * 10), Texts([6] * 5), weight=[1, 0], changes=[[], [[8, 1]]])
    order = source.order(loading())
    told = [source.part(order.place(number).which) for number in range(40)]
    assert set(told[:32]) == {"a"} and Counter(told[32:]) == {"a": 4, "b": 4}


# Settings


def test_sources_are_spelt_as_is_handy() -> None:
    spelt = [
        [{"name": "books", "data": {"kind": "folder", "path": "x/books"}, "weight": 2}, {"data": {"kind": "shapes"}}],
        [{"path": "x/books", "weight": 2}, {"kind": "shapes"}],
    ]
    configs = [override(RunConfig(), ["data.kind=mixture", f"data.sources={json.dumps(each)}"]) for each in spelt]
    assert configs[0] == configs[1] and isinstance(data := configs[0].data, MixtureConfig)
    assert [(source.name, source.weight) for source in data.sources] == [("books", 2), ("shapes", 1)]
    plain = override(RunConfig(), ['data.sources=["x/a", "b"]', "data.kind=mixture", "data.resolution=16"])
    assert isinstance(plain.data, MixtureConfig) and [each.data.size for each in plain.data.sources] == [(16, 16)] * 2
    changed = override(plain, ["data.sources.1.weight=3", "data.sources.0.data.layout=text"])
    assert isinstance(changed.data, MixtureConfig) and changed.data.sources[1].weight == 3
    assert RunConfig.model_validate_json(changed.to_json()) == changed
    with pytest.raises(ConfigError, match="data.sources.0.data.wieght: Extra inputs"):
        override(RunConfig(), ["data.kind=mixture", 'data.sources=[{"path": "a", "wieght": 2}]'])
    with pytest.raises(ConfigError, match="two sources are called 'a'"):
        override(RunConfig(), ["data.kind=mixture", 'data.sources=["x/a", "y/a"]'])


def test_pictures_of_all_sources_are_of_one_size() -> None:
    with pytest.raises(
        ConfigError, match=r"pictures of 'b' are brought to \[64, 64\], and data.resolution is \[32, 32\]"
    ):
        override(RunConfig(), ["data.kind=mixture", 'data.sources=["a", {"path": "b", "resolution": 64}]'])
    with pytest.raises(ConfigError, match="brought to"):
        override(RunConfig(), ["data.kind=mixture", "data.resolution=[16,32]", 'data.sources=[{"kind": "shapes"}]'])
    with pytest.raises(DataError, match="a mixture has no sources: give them"):
        open_reader(MixtureConfig())


def test_a_mixture_is_told_what_any_of_its_sources_tells() -> None:
    sources = ({"path": "a", "layout": "text"}, {"path": "b", "layout": "captions"}, {"kind": "shapes"})
    data = MixtureConfig.model_validate({"sources": sources})
    assert told_tasks(data, EncodeConfig()) == ("draw", "caption", "ask", "edit", "write") and most_pictures(data) == 2
    alone = MixtureConfig.model_validate({"sources": sources[:1]})
    assert told_tasks(alone, EncodeConfig()) == ("write",) and most_pictures(alone) == 1
    flipped = MixtureConfig.model_validate({"sources": [{"path": "b", "flip": True}]})
    assert flipped != unaugmented(flipped) == MixtureConfig.model_validate({"sources": ["b"]})


# Files


def folder(where: Path) -> Path:
    """Write books, captioned pictures, and text with pictures in turn."""
    words = [f"word{number}" for number in range(40)]
    rng = np.random.default_rng(0)

    def told(count: int) -> str:
        return " ".join(rng.choice(words, count))

    (where / "books").mkdir()
    for number in range(3):
        (where / "books" / f"{number}.txt").write_text("\n\n".join(told(60) for _ in range(30)))
    (where / "pets").mkdir()
    rows = [{"file": f"{number}.png", "text": told(int(rng.integers(2, 20)))} for number in range(60)]
    for number, row in enumerate(rows):
        Image.new("RGB", (16, 16), (4 * number, 99, 7)).save(where / "pets" / str(row["file"]))
    (where / "pets" / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    part = {"type": "image", "file": "pets/1.png"}
    turns = [
        [{"type": "text", "text": told(int(rng.integers(5, 60)))}, part] * int(rng.integers(1, 5)) for _ in range(60)
    ]
    (where / "documents.jsonl").write_text("".join(json.dumps({"segments": turn}) + "\n" for turn in turns))
    return where


def told_of(where: Path, *more: str) -> RunConfig:
    """Make a run of the three at 2 : 1 : 1."""
    sources = [
        {"name": "text", "path": str(where / "books"), "weight": 2},
        {"name": "captions", "path": str(where / "pets")},
        {"name": "both", "path": str(where / "documents.jsonl")},
    ]
    base = run_config(4).model_dump(mode="json")
    base["model"]["modalities"] = [{**base["model"]["modalities"][0], "channels": 3, "max_grid": [8, 8]}]
    given = ["data.kind=mixture", f"data.sources={json.dumps(sources)}", "data.resolution=16", "train.row_length=256"]
    return override(RunConfig.model_validate(base), [*given, "train.evaluate_every=2", *more])


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the files."""
    return folder(tmp_path_factory.mktemp("data"))


def test_shares_of_slots_are_kept_within_one_in_a_hundred(books: Path) -> None:
    """Also where captions are dropped, of documents as they are told and not as their outlines say."""
    state, source = open_run(told_of(books, "encode.caption_dropout=0.5"), books / "no", is_resumed=False)
    assert isinstance(source, MixtureSource)
    limit = Limit(state.model.vocabulary, 256, "drop")
    order, slots = source.order(loading()), Counter[str]()
    for number in range(1500):
        place = order.place(number)
        document = limit.fitted(source.outline(*place))
        assert document is not None
        slots[source.part(place.which)] += num_slots(document, limit.vocabulary)
    shares = {name: count / slots.total() for name, count in slots.items()}
    assert shares == pytest.approx({"text": 0.5, "captions": 0.25, "both": 0.25}, abs=0.01)


def test_a_run_on_a_mixture_trains_measures_and_goes_on(books: Path, tmp_path: Path) -> None:
    config = told_of(books)
    state, source = open_run(config, tmp_path, is_resumed=True)
    assert source.found.line().count("source '") == 3
    stop = threading.Event()
    for report in train_run(state, source, tmp_path, stop):
        if report.step.step == 2:
            stop.set()
    assert state.step == 2 and state.slots is not None and set(state.slots) == {"text", "captions", "both"}
    again, source = open_run(config, tmp_path, is_resumed=True)
    assert again.slots == state.slots
    list(train_run(again, source, tmp_path, threading.Event()))
    rows = read_metrics(tmp_path)
    shares = [rows[-2].get(f"share/{name}", 0) + rows[-1].get(f"share/{name}", 0) for name in again.slots or {}]
    assert sum(shares) == pytest.approx(1, abs=1e-12)  # each is rounded once
    names = {name for row in rows for name in row if name.startswith("held_out/")}
    assert {"held_out/text", "held_out/image", "held_out/captions/image", "held_out/both/text"} <= names
    assert json.loads((tmp_path / "best.json").read_text())["losses"].keys() == {"text", "image"}
    assert "captions/image" in (tmp_path / "report.html").read_text()
    use = Use(tmp_path, "cpu", "fp32")
    facts = json.loads(score(use, [], num_prompts=1, seed=0)[0])["sources"]
    assert facts.keys() == {"captions", "both"} and facts["captions"]["losses"].keys() == {"text", "image"}
    own = ["data.kind=folder", f"data.path={books / 'pets'}", "data.resolution=16", "data.split=test"]
    assert json.loads(score(use, own, num_prompts=1, seed=0)[0]) == facts["captions"]
    with pytest.raises(ConfigError, match="is measured what is held out of each source"):
        score(use, ["data.resolution=16"], num_prompts=1, seed=0)

    whole, source = open_run(config, tmp_path / "whole", is_resumed=True)
    list(train_run(whole, source, tmp_path / "whole", threading.Event()))
    assert all(a.equal(b) for a, b in zip(whole.model.parameters(), again.model.parameters(), strict=True))
    assert whole.slots == again.slots


def test_changed_data_of_one_source_are_named_and_taken_where_that_is_told(tmp_path: Path) -> None:
    config = told_of(folder(tmp_path), "train.checkpoint_every=1")
    state, source = open_run(config, tmp_path / "run", is_resumed=True)
    stop = threading.Event()
    for report in train_run(state, source, tmp_path / "run", stop):
        if report.step.step == 2:
            stop.set()
    table = tmp_path / "pets" / "captions.jsonl"
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    table.write_text("".join(json.dumps({**row, "text": f"{row['text']} now"}) + "\n" for row in rows))
    with pytest.raises(ConfigError, match="the data of captions changed since .*with --change"):
        open_run(config, tmp_path / "run", is_resumed=True)
    state, source = open_run(config, tmp_path / "run", is_resumed=True, is_change_wanted=True)
    assert (tmp_path / "run" / "best.json").exists()
    list(train_run(state, source, tmp_path / "run", threading.Event()))
    rows = [json.loads(line) for line in (tmp_path / "run" / "changes.jsonl").read_text().splitlines()]
    assert state.step == 4 and [(row["step"], row.get("setting")) for row in rows] == [(0, None), (2, "data")]
    metrics = [row for row in read_metrics(tmp_path / "run") if row["step"] == 2 and "held_out/text" in row]
    assert len(metrics) == 2 and metrics[0] != metrics[1]  # the best is chosen among losses on the new ones alone
    open_run(config, tmp_path / "run", is_resumed=True)
    assert changed_sources("shapes", source.digest()) == []


def test_what_is_held_out_of_each_is_a_mixture(books: Path) -> None:
    data = told_of(books).data
    reader = open_reader(data)
    held = held_out_config(data)
    assert isinstance(held, MixtureConfig)
    assert [source.name for source in held.sources] == ["captions", "both"]  # of a text so short nothing is
    assert all(isinstance(s.data, FolderConfig) and s.data.split == "test" for s in held.sources)
    assert settled_like(data, reader.config) == reader.config
    pictures = reader.sample_pictures()
    assert pictures is not None and pictures.shape[1:] == (16, 16, 3)
    assert next(iter(reader.texts())).startswith("word")
    source = open_source(data, Encoder(ByteTokenizer(), EncodeConfig(), 0), 255, at_most=3)
    assert len(source.preview_prompts()) == 8
    with pytest.raises(ValueError, match="take fitted"):
        Steps(source, loading(), VOCABULARY, KeyedDraw(FLOW, 0))


def test_a_bad_source_is_named(books: Path) -> None:
    class Long(Texts):
        """One that fits nowhere."""

    with pytest.raises(DataError, match="source 'b': 2 of 2 documents are too long"):
        mixture(Texts([3]), Long([90, 90]))
    with pytest.raises(ConfigError, match="lies within the data"):
        open_run(told_of(books), books / "books", is_resumed=False)
    assert ShapesConfig() == settled_like(ShapesConfig(), MixtureConfig())
