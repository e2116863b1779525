"""Augmentation: keyed crops and flips of what training sees, and of nothing else."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps
from tiny import small

from transfusion.autoencoder.pixels import PixelConfig, decode_pixels
from transfusion.cli.verbs import Use, score
from transfusion.config import ConfigError
from transfusion.data.augment import WHOLE, View, draw_view, kept_size, seen
from transfusion.data.encode import EncodeConfig, Encoder, Picture
from transfusion.data.errors import DataError
from transfusion.data.readers import ImageFolder, open_picture
from transfusion.data.sources import FolderConfig, held_out_config, open_reader, open_source
from transfusion.keyed import generator
from transfusion.segments import Latent
from transfusion.tokenizer import ByteTokenizer

PIXELS = PixelConfig()
ENCODER = Encoder(ByteTokenizer(), EncodeConfig(pixels=PIXELS), 3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write eight pictures of 40 x 32 whose colours say where a pixel stands; two of them are of the split test."""
    rows: list[dict[str, str]] = []
    for i in range(8):
        across, down = np.meshgrid(np.linspace(0, 255, 40), np.linspace(0, 255, 32))
        picture = np.stack([across, down, np.full_like(across, 20 * i)], axis=2)
        Image.fromarray(picture.astype(np.uint8)).save(tmp_path / f"{i}.png")
        rows.append({"file": f"{i}.png", "text": f"picture {i}", "split": "train" if i < 6 else "test"})
    (tmp_path / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def told(config: FolderConfig, visits: int = 8) -> Iterator[tuple[str, int, Picture]]:
    """Yield the pictures that visits see, with names."""
    source = open_source(config, ENCODER, 100)
    for index in range(source.size or 0):
        for visit in range(visits):
            (latent,) = [part for part in source.document(index, visit).segments if isinstance(part, Latent)]
            yield source.name(index), visit, decode_pixels(latent.values, PIXELS)


def test_pictures_are_seen_whole_by_default(folder: Path) -> None:
    for name, _, picture in told(FolderConfig(path=folder, resolution=16)):
        assert np.array_equal(picture, open_picture(folder / name, 16))


def test_half_of_the_visits_see_the_picture_flipped(folder: Path) -> None:
    found: list[bool] = []
    for name, visit, picture in told(FolderConfig(path=folder, resolution=16, flip=True), visits=20):
        plain = open_picture(folder / name, 16)
        is_flipped = draw_view(generator(3, "augment", name, 0, visit), flip=True, crop=1.0).is_flipped
        assert np.array_equal(picture, plain[:, ::-1] if is_flipped else plain)
        found.append(is_flipped)
    assert 0.35 < np.mean(found) < 0.65


def test_crops_are_parts_of_the_picture_of_every_side_down_to_the_least(folder: Path) -> None:
    sides: list[float] = []
    for _, _, picture in told(FolderConfig(path=folder, resolution=16, crop=0.5), visits=30):
        assert picture.shape == (16, 16, 3)
        across, down = picture[8, :, 0].astype(float), picture[:, 8, 1].astype(float)
        sides += [(across[14] - across[1]) / 13 * 15, (down[14] - down[1]) / 13 * 15]
        assert across[-1] > across[0]  # never flipped
    across, down = np.array(sides).reshape(-1, 2).T / 255
    assert np.allclose(across, down * 0.8, atol=0.04)  # the aspect is kept: the centre has 0.8 of the width
    assert 0.46 < down.min() < 0.56 and 0.94 < down.max() < 1.02


def test_a_view_is_a_function_of_the_record_and_the_visit(folder: Path) -> None:
    config = FolderConfig(path=folder, resolution=16, crop=0.5, flip=True)
    first, second = list(told(config)), list(told(config))
    assert all(np.array_equal(one[2], other[2]) for one, other in zip(first, second, strict=True))
    assert len({picture.tobytes() for _, _, picture in first}) == len(first)


@given(key=st.integers(0, 10**6), crop=st.floats(0.01, 1.0))
def test_flips_and_crops_do_not_depend_on_each_other(key: int, crop: float) -> None:
    def view(*, flip: bool, crop: float) -> View:
        return draw_view(generator(0, "augment", key), flip=flip, crop=crop)

    both = view(flip=True, crop=crop)
    assert both.box == view(flip=False, crop=crop).box
    assert both.is_flipped == view(flip=True, crop=1.0).is_flipped
    assert view(flip=False, crop=1.0) == WHOLE
    if both.box is not None:
        left, top, right, bottom = both.box
        assert 0 <= left < right <= 1 and 0 <= top < bottom <= 1
        assert right - left >= crop - 1e-9 and abs((right - left) - (bottom - top)) < 1e-9


def test_crops_stand_anywhere_in_the_picture() -> None:
    boxes = [draw_view(generator(0, "augment", key), flip=False, crop=0.5).box for key in range(400)]
    for axis in (0, 1):
        places = [box[axis] / (1 - box[axis + 2] + box[axis]) for box in boxes if box is not None]
        assert np.allclose(np.quantile(places, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.08)


def test_a_crop_is_the_crop_of_the_kept_picture_resized() -> None:
    picture = np.random.default_rng(0).integers(0, 255, (64, 32, 3), dtype=np.uint8)
    found = seen(picture, View((0.25, 0.5, 0.75, 1.0), is_flipped=True), (16, 8))
    wanted = Image.fromarray(picture[32:, 8:24]).resize((8, 16), Image.Resampling.LANCZOS)
    inside = slice(3, -3), slice(3, -3)  # a pixel at the edge of a crop is weighed with those beyond, which are known
    assert np.array_equal(found[inside], np.asarray(ImageOps.mirror(wanted))[inside])


def test_pictures_are_kept_so_large_that_the_smallest_crop_has_full_detail(folder: Path) -> None:
    assert kept_size((400, 300), (16, 16), 0.25) == (64, 64)
    assert kept_size((400, 30), (16, 16), 0.25) == (30, 30)  # and no larger than they are
    assert kept_size((4, 4), (16, 16), 0.25) == (4, 4)
    assert kept_size((400, 300), (16, 8), 0.5) == (32, 16)
    kept = ImageFolder(folder, 8, crop=0.5)
    assert kept[0].picture.shape == (16, 16, 3) and kept.view(0, WHOLE).shape == (16, 16, 3)
    assert kept.view(0, View((0.0, 0.0, 1.0, 1.0))).shape == (8, 8, 3)
    assert ImageFolder(folder, 16, crop=0.1)[0].picture.shape == (32, 32, 3)


def test_held_out_pictures_samples_and_scores_are_plain(folder: Path) -> None:
    config = FolderConfig(path=folder, resolution=16, crop=0.5, flip=True)
    held_out = held_out_config(config)
    assert held_out == config.model_copy(
        update={"split": "test", "crop": 1.0, "flip": False, "hold_out": 0.0, "layout": "captions"}
    )
    plain, measured = (
        open_reader(each).sample_pictures() for each in (FolderConfig(path=folder, resolution=16), config)
    )
    assert plain is not None and measured is not None and np.array_equal(plain, measured)


def test_what_is_evaluated_is_plain(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    found: list[str] = []
    for setting in ("data.crop=1", "data.crop=0.4"):
        model = small("data.kind=folder", f"data.path={folder}", "data.resolution=16", "data.hold_out=0", setting)
        saved = tmp_path_factory.mktemp("model") / "saved"
        model.save_pretrained(saved)
        found.append(score(Use(saved, "cpu"), ["data.split=test"], num_prompts=1, seed=0)[0])
    assert found[0] == found[1]
    with pytest.raises(ConfigError, match="'data.flip=true' reaches nothing: what is evaluated is seen whole"):
        score(Use(saved, "cpu"), ["data.flip=true"], num_prompts=1, seed=0)


@pytest.mark.parametrize("setting", [{"flip": True}, {"crop": 0.5}])
def test_text_is_neither_cropped_nor_flipped(tmp_path: Path, setting: dict[str, object]) -> None:
    (tmp_path / "a.txt").write_text("some text")
    config = FolderConfig.model_validate({"path": tmp_path / "a.txt", **setting})
    with pytest.raises(DataError, match=r"a.txt is text: data.crop and data.flip are of pictures"):
        open_reader(config)
