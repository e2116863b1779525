"""A short run on each format of captioned pictures, and on texts of a table."""

import threading
from collections.abc import Callable
from pathlib import Path

import datasets
import pytest
from data.test_idx import write
from data.test_records import small
from data.test_shards import pets, png, write_tar

from transfusion.config import override
from transfusion.data.errors import DataError
from transfusion.data.latents_index import LatentsSettings
from transfusion.data.prepare import make_plan
from transfusion.data.sources import FolderConfig
from transfusion.recipes import RECIPES
from transfusion.run import open_run, train_run
from transfusion.train.autoencoder.pictures import picture_rows


def shards(folder: Path) -> None:
    """Write tars, one of them cut short, with a picture that is broken."""
    file = write_tar(folder / "pets-0.tar", [*pets(range(12)), ("9.png", b"no picture"), ("9.txt", b"broken")])
    write_tar(folder / "pets-1.tar", pets(range(12, 24)))
    (folder / "pets-2.tar").write_bytes(file.read_bytes()[:5000])


def table(folder: Path) -> None:
    """Save a table of the library."""
    rows = {"image": [{"bytes": png(i)} for i in range(20)], "text": [f"pet {i}" for i in range(20)]}
    datasets.Dataset.from_dict(rows).save_to_disk(str(folder))


def table_text(folder: Path) -> None:
    """Save a table of texts."""
    datasets.Dataset.from_dict({"text": [f"text {i} " * 30 for i in range(20)]}).save_to_disk(str(folder))


def idx(folder: Path) -> None:
    """Write files as MNIST has them."""
    write(folder, "train-", 20)
    write(folder, "t10k-", 8, ending=".gz")


@pytest.mark.parametrize("make", [shards, table, table_text, idx], ids=lambda make: make.__name__)
def test_a_run_takes_steps_and_says_what_it_found(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "data")
    config = override(RECIPES["folder"](), small(tmp_path / "data", "train.batch_size=4", "train.max_dropped=0.9"))
    state, source = open_run(config, tmp_path / "run", is_resumed=False, device="cpu")
    assert isinstance(state.config.data, FolderConfig) and state.config.data.layout == make.__name__
    assert len(list(train_run(state, source, tmp_path / "run", threading.Event()))) == 3
    if make is shards:
        assert "cut short" in source.quarantine["pets-2.tar"]
    again, source = open_run(state.config, tmp_path / "run", is_resumed=True, device="cpu")
    assert again.step == 3 and list(train_run(again, source, tmp_path / "run", threading.Event())) == []


@pytest.mark.parametrize(
    ("make", "remedy"),
    [
        (shards, r"unpack each tar .*tar -xf"),
        (table, "captions.jsonl"),
        (table_text, "text has none"),
        (idx, "captions"),
    ],
)
def test_where_pictures_in_files_are_needed_the_refusal_says_what_to_do(
    make: Callable[[Path], None], remedy: str, tmp_path: Path
) -> None:
    make(tmp_path / "data")
    for layout in ("auto", make.__name__):
        config = FolderConfig.model_validate({"path": tmp_path / "data", "layout": layout})
        with pytest.raises(DataError, match=rf"has layout {make.__name__}, and pictures in files .*{remedy}"):
            picture_rows(config)
    with pytest.raises(DataError, match=rf"has layout {make.__name__}, and pictures in files .*{remedy}"):
        make_plan(tmp_path / "data", tmp_path / "latents", LatentsSettings.model_construct())
