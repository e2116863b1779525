"""Five seeded bugs in every test run; ``make mutants`` runs all."""

import pytest

from mutants.catalogue import MUTANTS
from mutants.mutant import Mutant
from mutants.run import ROOT, is_caught

SAMPLE = [mutant for mutant in MUTANTS if mutant.name.split(":")[0] in ("guidance", "rates", "checkpoint", "mask")][:5]


@pytest.mark.parametrize("mutant", SAMPLE, ids=[mutant.name for mutant in SAMPLE])
def test_seeded_bugs_are_caught(mutant: Mutant) -> None:
    assert is_caught(mutant)


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.name for mutant in MUTANTS])
def test_mutants_do_not_rot(mutant: Mutant) -> None:
    assert (ROOT / "src" / "transfusion" / mutant.file).read_text().count(mutant.old) == 1


def test_there_are_twenty() -> None:
    assert len(MUTANTS) >= 20 and len(SAMPLE) == 5
