"""Rows of a fixed length, planned on the global order from the lengths of all documents."""

import pickle
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import FLOW, SMALL, ToySource, make_model, text, write_pairs

from transfusion.batch import Batch
from transfusion.config import override
from transfusion.data.errors import BrokenPicture, DataError
from transfusion.data.fit import FittedSource
from transfusion.data.forecast import forecast, planned, rows_line
from transfusion.data.limit import Limit
from transfusion.data.loader import LoaderConfig, Steps, load_steps
from transfusion.data.mixture import MixtureSource
from transfusion.data.order import Place, Shuffled
from transfusion.data.pack import best_fit
from transfusion.data.plan import RowPlan
from transfusion.data.settings import MixtureConfig, SourceConfig
from transfusion.objective import KeyedDraw
from transfusion.recipes import RECIPES
from transfusion.run import open_run, train_run
from transfusion.segments import Document
from transfusion.train.metrics import read_metrics

VOCABULARY = make_model().vocabulary
LENGTH = 64


class Texts(ToySource):
    """Texts that take so many slots each."""

    def __init__(self, lengths: Sequence[int], *, growth: int = 0, broken: Sequence[int] = ()) -> None:
        super().__init__(len(lengths))
        self.lengths, self.growth, self.broken = lengths, growth, broken

    def document(self, index: int, visit: int) -> Document:
        if index in self.broken:
            raise BrokenPicture(f"{index} is broken")
        return self.of(index, visit, self.lengths[index] + self.growth)

    def outline(self, index: int, visit: int | None = None) -> Document:
        return self.of(index, visit or 0, self.lengths[index])

    def of(self, index: int, visit: int, length: int) -> Document:
        self.visited.append(index)
        return Document((text(index % 50, length - 1),), (index, visit))


def loading(batch_size: int = 4, accumulation: int = 1) -> LoaderConfig:
    """Make what decides the rows of a step."""
    return LoaderConfig(batch_size, accumulation, LENGTH, 0, unit="rows")


def steps(source: ToySource, batch_size: int = 4, accumulation: int = 1) -> Steps:
    """Make steps of rows over a source as a run opens it."""
    fitted = FittedSource(source, Limit(VOCABULARY, LENGTH, "drop"), 1.0)
    return Steps(fitted, loading(batch_size, accumulation), VOCABULARY, KeyedDraw(FLOW, 0))


def told(batch: Batch) -> list[int]:
    """Return the slots of each document of a batch, row by row."""
    return [int(count) for row in batch.columns.document_ids for count in np.bincount(row[row >= 0].numpy())]


lengths_of_documents = st.lists(st.integers(1, 16), min_size=1, max_size=60)


@given(lengths_of_documents)
def test_rows_hold_every_document_once_and_are_never_overfull(lengths: list[int]) -> None:
    rows = best_fit(lengths, 16)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    sums = sorted(sum(lengths[index] for index in row) for row in rows)
    assert sums[-1] <= 16
    assert len(sums) == 1 or sums[0] + sums[1] > 16  # else these two were one


@given(lengths_of_documents)
def test_each_document_goes_where_it_fits_best(lengths: list[int]) -> None:
    """As a plain search over all rows finds it."""
    rows: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        free = [16 - sum(lengths[other] for other in row) for row in rows]
        fitting = [space for space in free if space >= lengths[index]]
        if fitting:
            row = max(place for place, space in enumerate(free) if space == min(fitting))
            rows[row].append(index)
        else:
            rows.append([index])
    found = best_fit(lengths, 16)
    assert sorted(sum(lengths[i] for i in row) for row in found) == sorted(sum(lengths[i] for i in row) for row in rows)


def test_what_is_longer_than_a_row_is_named() -> None:
    with pytest.raises(ValueError, match=r"17 slots, more than a row \(train.row_length 16\)"):
        best_fit([3, 17], 16)
    assert best_fit([], 16) == []


def planned_rows(lengths: Sequence[int], *, seed: int = 0) -> RowPlan:
    """Plan rows of 64 slots of one source."""
    order = Shuffled(seed, len(lengths))
    return RowPlan(order, np.array(lengths, np.int32).__getitem__, 64, seed)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 64), min_size=1, max_size=40), st.integers(0, 3))
def test_every_document_comes_once_an_epoch(lengths: list[int], seed: int) -> None:
    """A window ends where a visit does, so nobody is told again before another is told."""
    plan = planned_rows(lengths, seed=seed)
    taken, number = list[Place](), 0
    while len(taken) < 3 * len(lengths):
        (row,) = plan.rows(number, 1)
        assert sum(lengths[place.which] for place in row) <= 64
        taken, number = taken + row, number + 1
    for visit in range(3):
        of_visit = taken[visit * len(lengths) : (visit + 1) * len(lengths)]
        assert sorted(of_visit) == [(index, visit) for index in range(len(lengths))]


def test_rows_of_a_long_visit_are_full() -> None:
    lengths = [5 + 3 * (index % 8) for index in range(30_000)]
    plan = planned_rows(lengths)
    assert plan.fill > 0.97 and plan.mean == pytest.approx(64 / np.mean(lengths), rel=0.03)
    taken = [place.which for row in plan.rows(0, 1000) for place in row]
    order = Shuffled(0, 30_000)
    first = {order.place(place).which for place in range(len(taken))}
    assert len(set(taken)) == len(taken) and len(first & set(taken)) > 0.7 * len(taken)  # to a window or so


def test_whoever_goes_on_within_a_window_takes_the_same_rows() -> None:
    lengths = [5 + 3 * (index % 8) for index in range(9000)]
    whole = planned_rows(lengths)
    for row in (0, 1, 255, 300, 2000):
        begun = RowPlan(Shuffled(0, 9000), np.array(lengths, np.int32).__getitem__, 64, 0, planned=whole.planned(row))
        assert begun.rows(row, 300) == whole.rows(row, 300) and begun.planned(row) == whole.planned(row)
    assert len(whole.planned(2000)) == 2 and whole.planned(2000)[1] <= 2000


def test_rows_of_a_window_are_shuffled() -> None:
    """As they are packed, the longest documents come first: steps would be of long ones, then of short ones."""
    lengths = [5 + 3 * (index % 16) for index in range(3000)]
    plan = planned_rows(lengths)
    longest = [max(lengths[place.which] for place in row) for row in plan.rows(0, 200)]
    assert np.mean(longest[:100]) == pytest.approx(np.mean(longest[100:]), rel=0.1)


def test_a_step_is_so_many_whole_rows_whatever_came_before() -> None:
    source = Texts([3 + index % 20 for index in range(200)])
    one = steps(source)
    found = one[7]
    assert [batch.columns.tokens.shape for batch in found] == [(4, LENGTH)]
    assert found[0].num_slots > 0.9 * 4 * LENGTH
    assert torch.equal(found[0].columns.tokens, steps(source)[7][0].columns.tokens)
    assert torch.equal(found[0].columns.tokens, pickle.loads(pickle.dumps(one))[7][0].columns.tokens)
    parts = steps(source, accumulation=2)[7]
    assert [len(part.columns.tokens) for part in parts] == [2, 2]
    assert sorted(length for part in parts for length in told(part)) == sorted(told(found[0]))
    found[0].validate(VOCABULARY)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_rows_are_the_same_from_any_step_on_and_by_any_workers(num_workers: int) -> None:
    source = Texts([3 + index % 20 for index in range(200)])
    whole = [batches[0].columns.tokens for batches in load_steps(steps(source), 0, 12, 0)]
    later = [batches[0].columns.tokens for batches in load_steps(steps(source), 8, 12, num_workers)]
    assert len(later) == 4 and all(torch.equal(a, b) for a, b in zip(whole[8:], later, strict=True))


def test_what_is_told_longer_than_it_was_measured_is_left_out_where_there_is_no_room() -> None:
    source = Texts([32] * 8, growth=1)  # two would have filled a row
    (batch,) = steps(source)[0]
    assert told(batch) == [33] * 4 and batch.num_dropped == 4


def test_a_row_whose_documents_are_all_broken_is_padding() -> None:
    source = Texts([LENGTH] * 4, broken=[1])
    (batch,) = steps(source)[0]
    assert sorted(told(batch)) == [LENGTH] * 3 and len(batch.broken) == 1 and batch.columns.tokens.shape == (4, LENGTH)
    with pytest.raises(DataError, match=r"no document of step 0 fits into a row.*\d are broken, the first: "):
        steps(Texts([LENGTH] * 4, broken=range(4)))[0]


def test_a_source_without_end_fills_its_rows_as_it_is_told() -> None:
    endless = ToySource()
    found = [steps(endless)[number][0] for number in range(3)]
    assert all(batch.columns.tokens.shape == (4, LENGTH) and batch.num_slots > 0.8 * 4 * LENGTH for batch in found)
    one = steps(endless)
    endless.visited.clear()
    assert one[0] and one[1] and len(set(endless.visited)) == len(endless.visited) > 8  # each has its own


def test_a_run_of_rows_goes_on_to_the_bit(tmp_path: Path) -> None:
    """It trains, its metrics say how full rows are, and stopped and begun again it ends with the same weights."""
    data = write_pairs(tmp_path / "data", ["red " * (1 + number % 5) for number in range(30)])
    told = ("data.kind=folder", f"data.path={data}", "data.hold_out=0", "train.row_length=100", "train.log_every=1")
    rows = ("train.batch_unit=rows", "train.batch_size=2", "train.steps=6", "train.checkpoint_every=100")
    config = override(RECIPES["tiny"](), [*SMALL, *told, *rows, "train.precision=fp32"])
    for run, stops in ((tmp_path / "quiet", ()), (tmp_path / "stopped", (2, 3))):
        for stop in (*stops, 6):
            state, source = open_run(config, run, is_resumed=True, device="cpu")
            asked = threading.Event()
            for report in train_run(state, source, run, asked):
                if report.step.step == stop:
                    asked.set()
    found = [row for row in read_metrics(tmp_path / "quiet") if "row_fill" in row]
    assert len(found) == 6 and all(0.5 < row["row_fill"] <= 1 and row["latents_per_row"] >= 1 for row in found)
    quiet, stopped = (
        next((tmp_path / name / "checkpoints").glob("step_*6/model.safetensors")).read_bytes()
        for name in ("quiet", "stopped")
    )
    assert quiet == stopped


def mixed(
    *weights: float, changes: Sequence[object] = ((), ()), max_repeats: Sequence[float | None] = (None, None)
) -> MixtureSource:
    """Mix texts of 8 and of 20 slots."""
    told = zip("ab", weights, changes, max_repeats, strict=True)
    config = MixtureConfig(
        sources=tuple(
            SourceConfig.model_validate(
                {"name": name, "path": name, "weight": weight, "changes": change, "max_repeats": repeats}
            )
            for name, weight, change, repeats in told
        )
    )
    return MixtureSource(config, [Texts([8] * 400), Texts([20] * 300)]).fitted(Limit(VOCABULARY, LENGTH, "drop"), 1.0)


def test_rows_of_a_mixture_have_their_shares_of_the_slots() -> None:
    source = planned(mixed(3, 1), loading(), 100)
    found = Steps(source, loading(), VOCABULARY, KeyedDraw(FLOW, 0))
    slots = sum((found[step][0].slots for step in range(128)), Counter[str]())
    assert slots["a"] / slots.total() == pytest.approx(0.75, abs=0.02)
    assert [each.share for each in forecast(source, loading(), 100)] == pytest.approx([0.75, 0.25], abs=0.01)


def test_weights_change_at_their_step_to_a_row_or_two() -> None:
    """Windows end where they do; forecast, and taken up from any step on."""
    change = [[16, 1], [300, 0]]
    changed = planned(mixed(1, 0, changes=([], change)), loading(), 400)
    found = Steps(changed, loading(), VOCABULARY, KeyedDraw(FLOW, 0))
    slots = [found[step][0].slots for step in range(400)]
    assert not any(each["b"] for each in slots[:16]) and not any(each["b"] for each in slots[301:])
    between = sum(slots[16:300], Counter[str]())
    assert between["b"] / between.total() == pytest.approx(0.5, abs=0.02)
    taken = sum(slots, Counter[str]())
    assert [each.share for each in forecast(changed, loading(), 400)] == pytest.approx(
        [taken[name] / taken.total() for name in "ab"], abs=0.02
    )
    for step in (10, 17, 290, 310):
        begun = Steps(changed, loading(), VOCABULARY, KeyedDraw(FLOW, 0), planned=found[step - 1][0].planned)
        assert torch.equal(begun[step][0].columns.tokens, found[step][0].columns.tokens)
        assert torch.equal(begun[step + 40][0].columns.tokens, found[step + 40][0].columns.tokens)


def test_a_source_of_few_repeats_is_told_through_before_it_begins_anew() -> None:
    source = planned(mixed(1, 1, max_repeats=[2, None]), loading(), 50)
    found = Steps(source, loading(), VOCABULARY, KeyedDraw(FLOW, 0))
    count, seen = 0, Counter[int]()
    for step in range(120):
        seen.update(key for key, visit in found_keys(found, source, step) if source.at(key)[0] == 0)
        count += 1
        if seen and max(seen.values()) > 1:
            break
    assert len(seen) == 400 and count < 120  # nobody twice before all were told


def found_keys(steps: Steps, source: MixtureSource, step: int) -> list[tuple[int, int]]:
    """Return the records of a step, with their visits."""
    plan = RowPlan(source.order(loading()), source.slots_of, LENGTH, 0)
    return [tuple(place) for row in plan.rows(4 * step, 4) for place in row]


def test_a_mixture_with_a_source_without_end_has_no_rows() -> None:
    config = MixtureConfig(sources=tuple(SourceConfig(name=name, path=Path(name)) for name in "ab"))
    source = MixtureSource(config, [Texts([8] * 4), ToySource()]).fitted(Limit(VOCABULARY, LENGTH, "drop"), 1.0)
    with pytest.raises(DataError, match=r"source 'b' of the mixture has no end.*train.batch_unit=documents"):
        source.order(loading())


def test_how_full_rows_are_is_said_before_the_first_step() -> None:
    limit = Limit(VOCABULARY, LENGTH, "drop")
    full = FittedSource(Texts([8] * 400), limit, 1.0)
    assert rows_line(full, loading(), VOCABULARY, 100) == (
        "rows of 64 slots, 100.0% full; 8.0 documents each, so the run tells each 8.00 times"
    )
    empty = rows_line(FittedSource(Texts([33] * 400), limit, 1.0), loading(), VOCABULARY, 100)
    assert empty.startswith("rows of 64 slots, 51.6% full: longer rows (train.row_length) waste less; 1.0 documents")
    assert rows_line(full, LoaderConfig(4, 1, LENGTH, 0), VOCABULARY, 100) == ""
