"""The short form of ``make fuzz``, and the damage itself."""

import random
from pathlib import Path

import pytest

from fuzz.damage import damaged
from fuzz.run import failure, fuzz, tell, write
from fuzz.targets import TARGETS, Target


@pytest.mark.parametrize("target", list(TARGETS.values()), ids=[target.name for target in list(TARGETS.values())])
def test_nothing_but_our_own_errors_leaves(tmp_path: Path, target: Target) -> None:
    outcome = fuzz(target, seed=0, numbers=range(target.num_short), kept=tmp_path)
    assert outcome.failures == []
    assert outcome.num_refused > target.num_short // 10, "the damage reaches nothing"


@pytest.mark.parametrize("target", TARGETS.values(), ids=list(TARGETS))
def test_whole_inputs_are_read(tmp_path: Path, target: Target) -> None:
    for number, case in enumerate(target.seeds()):
        assert failure(target, write(case, tmp_path / str(number))) is True


def test_damage_is_a_function_of_its_key() -> None:
    seeds = [{"a": bytes(range(200)), "b": b"other"}]
    cases = [damaged(seeds, random.Random(i)) for i in range(50)]
    assert cases == [damaged(seeds, random.Random(i)) for i in range(50)]
    assert sum(case != seeds[0] for case in cases) > 45


def test_a_failure_is_found_kept_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def read(folder: Path) -> None:
        if (folder / "a").read_bytes() != bytes(8):
            raise KeyError("what no one catches")

    target = Target("toy", lambda: [{"a": bytes(8)}], read, (ValueError,), 0)
    outcome = fuzz(target, seed=0, numbers=range(20), kept=tmp_path)
    assert len(outcome.failures) > 10
    number = outcome.failures[0][0]
    assert isinstance(failure(target, tmp_path / str(number)), KeyError)
    tell(target, outcome, tmp_path)
    told = capsys.readouterr().out
    assert "FAILED" in told and f"fuzz.run toy --case {tmp_path / str(number)}" in told and "no one catches" in told
