"""Which split the names of files tell."""

import pytest

from transfusion.data.records.places import splits_named

HASH, OTHER_HASH = "-0123456789abcdef", "-fedcba9876543210"


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        ([f"train-00000-of-00001{HASH}.parquet", f"test-00000-of-00001{OTHER_HASH}.parquet"], ["train", "test"]),
        (["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"], ["train", "train"]),
        (["pets-train-000.tar", "pets-train-001.tar", "pets-val-000.tar"], ["train", "train", "val"]),
        (["pets-000.tar", "test.tar"], ["pets", "test"]),  # nothing is for training: refused by the splits
        (["pets-000.tar", "train.tar"], None),
        (["train_sft-0.parquet", "test_sft-0.parquet", "rest-0.parquet"], ["train", "test", "rest"]),
        (["pets-000.tar", "pets-001.tar"], None),
    ],
)
def test_names_tell_splits_where_all_do(names: list[str], splits: list[str] | None) -> None:
    assert splits_named(names) == ({} if splits is None else dict(zip(names, splits, strict=True)))
