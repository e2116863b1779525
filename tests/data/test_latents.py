"""Latents once: folders of latents give what encoding on the fly gives, whatever happened while they were made."""

import errno
import json
import math
import os
from collections.abc import Generator, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from averages import CHANNELS, FACTOR, Averages, given
from PIL import Image
from small_autoencoders import save_small

from transfusion.autoencoder.opening import open_network
from transfusion.autoencoder.pretrained import PretrainedSpace, open_pretrained, settled
from transfusion.autoencoder.remembered import Remembered
from transfusion.autoencoder.settings import PretrainedConfig
from transfusion.autoencoder.space import CARRIED_FILES, LatentSpace, Moments, Picture
from transfusion.data import prepare as module
from transfusion.data.augment import WHOLE, View, draw_view
from transfusion.data.encode import EncodeConfig, Encoder
from transfusion.data.errors import DataError
from transfusion.data.latents import (
    LatentFolder,
    agreed_space,
    read_latents,
    shard_name,
    space_of,
)
from transfusion.data.latents_index import Latents, LatentsSettings, Psnr
from transfusion.data.layouts import LATENTS_FILE, UNFINISHED_FILE, layout_of
from transfusion.data.prepare import Progress, make_plan, prepare
from transfusion.data.readers import ImageFolder, open_picture
from transfusion.data.sources import FolderConfig, FolderSource, held_out_config, open_reader, open_source
from transfusion.keyed import generator
from transfusion.segments import Latent, Text
from transfusion.tokenizer import ByteTokenizer

SIZE = (8, 16)
OWN = PretrainedConfig(path="somewhere", digest="abc", channels=CHANNELS, factor=FACTOR, mean=(0.0, 0.5), std=(1.0, 2))
FLIPPED = View(is_flipped=True)
U = {"fp16": 2.0**-11, "bf16": 2.0**-8}  # unit roundoff: a stored number is off by at most this share of it


SPACE = Averages()
ENCODER = Encoder(ByteTokenizer(), EncodeConfig(), 3, SPACE)


def wanted(**facts: object) -> LatentsSettings:
    given = {"size": SIZE, "per_shard": 4, "autoencoder": OWN, **facts}
    return LatentsSettings.model_validate(given)


def save_pictures(folder: Path, names: list[str]) -> Path:
    rng = np.random.default_rng(0)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (12, 20, 3), dtype=np.uint8)).save(folder / name)
    return folder


def captions(folder: Path, count: int = 10, *, is_marked: bool = False) -> Path:
    """Write pictures in an order that is not that of their names, every third with two captions, one broken."""
    names = [f"{(7 * i) % count:02d}.png" for i in range(count)]
    save_pictures(folder, names)
    (folder / names[4]).write_bytes(b"broken")
    rows: list[dict[str, str]] = []
    for i, name in enumerate(names):
        for number in range(2 if i % 3 == 0 else 1):
            mark = {"split": ("train", "test", "val")[i % 3]} if is_marked else {}
            rows.append({"file": name, "text": f"caption {number} of {name}", **mark})
    rows.append({"file": names[1], "text": "a caption that comes later"} | ({"split": "test"} if is_marked else {}))
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def pairs(folder: Path) -> Path:
    names = [f"{i:02d}{ending}" for i in range(60) for ending in ((".png", ".bmp") if i % 5 == 0 else (".png",))]
    save_pictures(folder, names)
    for i in range(60):
        (folder / f"{i:02d}.txt").write_text(f"number {i}" if i != 7 else " ")
    return folder


def classes(folder: Path) -> Path:
    parts = [f"{split}/{name}" for split in ("train", "test") for name in "ab"]
    return save_pictures(folder, [f"{part}/{i}.png" for part in parts for i in range(3)])


def run(steps: Generator[Progress, None, Latents], until: int | None = None) -> Iterator[Progress]:
    """Prepare, to the end or until so many reports."""
    for number, progress in enumerate(steps, 1):
        yield progress
        if number == until:
            steps.close()
            return


def prepared(source: Path, to: Path, *, space: LatentSpace = SPACE, processes: int = 1, **facts: object) -> Path:
    list(run(prepare(make_plan(source, to, wanted(**facts)), partial(given, space), processes=processes)))
    return to


def opened(path: Path, *, draws: bool = True, **settings: object) -> FolderSource:
    encoder = replace(ENCODER, draws=draws)
    found = open_source(FolderConfig.model_validate({"path": path, **settings}), encoder, 100)
    assert isinstance(found, FolderSource)
    return found


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def told(source: FolderSource) -> list[object]:
    """Return what visits of a source are told."""
    return [
        (document.key, [part.tokens if isinstance(part, Text) else part.values.tolist() for part in document.segments])
        for index in range(source.size)
        for visit in (0, 1)
        for document in [source.document(index, visit)]
    ]


@pytest.mark.parametrize("facts", [{}, {"hold_out": 0}, {"hold_out": 0.4}, {"hold_out": 0.4, "split": "test"}])
@pytest.mark.parametrize("make", [captions, partial(captions, count=60), pairs, classes])
def test_a_run_on_latents_is_told_what_a_run_on_pictures_is(
    tmp_path: Path, make: partial[Path], facts: dict[str, object]
) -> None:
    source = make(tmp_path / "pictures")
    if make is classes and facts.get("hold_out"):
        facts = {"split": "test"}  # they mark their splits
    latents = prepared(source, tmp_path / "latents", has_std=True, has_flip=True, per_shard=7)
    one, other = (opened(path, **facts, flip=True, resolution=SIZE) for path in (source, latents))
    assert told(one) == told(other) and one.size > 0
    assert [one.name(i) for i in range(one.size)] == [other.name(i) for i in range(other.size)]
    assert (one.left_for_others, one.quarantine) == (other.left_for_others, other.quarantine)
    assert one.preview_prompts() == other.preview_prompts() and list(one.texts()) == list(other.texts())
    assert all(np.array_equal(*(s.outline(i).segments[1].values.shape for s in (one, other))) for i in range(one.size))  # pyright: ignore
    assert (one.found.splits, one.found.held_out, one.found.records) == (
        other.found.splits, other.found.held_out, other.found.records,
    )  # fmt: skip
    configs = [FolderConfig.model_validate({"path": path, **facts, "resolution": SIZE}) for path in (source, latents)]
    held = [held_out_config(config) for config in configs]
    assert len({None if each is None else each.model_dump_json(exclude={"path", "layout"}) for each in held}) == 1
    if held[1] is not None:
        plain = [open_source(each, ENCODER, 100) for each in held if isinstance(each, FolderConfig)]
        assert told(plain[0]) == told(plain[1])  # pyright: ignore[reportArgumentType]


def test_marked_splits_stay(tmp_path: Path) -> None:
    source = captions(tmp_path / "pictures", is_marked=True)
    latents = prepared(source, tmp_path / "latents", has_std=True)
    for split in ("train", "test", "val", None):
        one, other = (opened(path, split=split, resolution=SIZE) for path in (source, latents))
        assert told(one) == told(other) and one.left_for_others == other.left_for_others
    with pytest.raises(DataError, match="has no records of split 'dev'"):
        opened(latents, split="dev")
    with pytest.raises(DataError, match="marks its splits itself"):
        opened(latents, hold_out=0.5)


def test_moments_are_those_of_encoding_on_the_fly(tmp_path: Path) -> None:
    source = captions(tmp_path / "pictures")
    folder = LatentFolder(prepared(source, tmp_path / "latents", has_std=True, has_flip=True))
    assert len(folder.captions) > 10
    for index, row in enumerate(folder.captions):
        picture = open_picture(source / row.file, SIZE)
        for view, shown in ((WHOLE, picture), (FLIPPED, picture[:, ::-1])):
            made, found = SPACE.moments(np.ascontiguousarray(shown)), folder.view(index, view)
            assert torch.equal(made.mean, found.mean) and found.mean.dtype == torch.float32
            assert made.std is not None and found.std is not None and torch.equal(made.std, found.std)
        assert not torch.equal(folder.view(index, WHOLE).mean.flip(-1), folder.view(index, FLIPPED).mean)


@pytest.mark.parametrize("dtype", list(U))
def test_halves_are_off_by_their_rounding_alone(tmp_path: Path, dtype: str) -> None:
    source = captions(tmp_path / "pictures")
    folder = LatentFolder(prepared(source, tmp_path / "latents", has_std=True, dtype=dtype))
    exact = LatentFolder(prepared(source, tmp_path / "exact", has_std=True))
    for index in range(len(folder.captions)):
        for found, made in zip(folder.view(index, WHOLE), exact.view(index, WHOLE), strict=True):
            assert found is not None and made is not None and found.dtype == torch.float32
            assert bool(((found - made).abs() <= U[dtype] * made.abs() + 2.0**-25).all())  # least of fp16: 2^-24
            assert not torch.equal(found, made)
    assert (tmp_path / "latents" / shard_name(0)).stat().st_size < (tmp_path / "exact" / shard_name(0)).stat().st_size


def test_without_flip_and_posterior_neither_is_stored(tmp_path: Path) -> None:
    latents = prepared(captions(tmp_path / "pictures"), tmp_path / "latents", space=Averages(has_std=False))
    assert LatentFolder(latents).view(0, WHOLE).std is None
    with pytest.raises(DataError, match=r"holds no latents of flipped pictures \(a flipped latent .* --flip"):
        open_reader(FolderConfig(path=latents, flip=True))
    with pytest.raises(DataError, match=r"data.crop=0.5 of .*: each visit has a crop of its own"):
        open_reader(FolderConfig(path=latents, crop=0.5))
    with pytest.raises(DataError, match="knows no spread to store"):
        prepared(tmp_path / "pictures", tmp_path / "b", space=Averages(has_std=False), has_std=True)


def test_a_flip_is_the_same_draw_as_on_pictures(tmp_path: Path) -> None:
    latents = opened(prepared(captions(tmp_path / "p"), tmp_path / "latents", has_flip=True), flip=True)
    folder, found = LatentFolder(tmp_path / "latents"), list[bool]()
    for visit in range(40):
        (latent,) = [part for part in latents.document(0, visit).segments if isinstance(part, Latent)]
        row = folder.captions[0]
        view = draw_view(generator(3, "augment", row.file, row.number, visit), flip=True, crop=1.0)
        assert torch.equal(latent.values, folder.view(0, view).mean)
        found.append(view.is_flipped)
    assert 10 < sum(found) < 30


def test_the_posterior_is_drawn_from_where_that_is_asked(tmp_path: Path) -> None:
    source = captions(tmp_path / "pictures")
    latents = prepared(source, tmp_path / "latents", has_std=True)
    mean, drawn = (opened(latents, draws=draws) for draws in (False, True))
    assert told(mean) == told(opened(prepared(source, tmp_path / "plain"))) != told(drawn)
    for index, row in enumerate(drawn.pictures.captions):
        (latent,) = [part for part in drawn.document(index, 0).segments if isinstance(part, Latent)]
        moments = LatentFolder(latents).view(index, WHOLE)
        rng = generator(3, "posterior", row.file, row.number, 0, 0)
        assert torch.equal(latent.values, moments.draw(rng))


def test_a_picture_of_two_names_is_on_one_side_as_it_was(tmp_path: Path) -> None:
    data = save_pictures(tmp_path / "d", [f"cat/{number}.png" for number in range(20)])
    (data / "pet").mkdir()
    for number in range(20):
        (data / "pet" / f"{number}.png").symlink_to(data / "cat" / f"{number}.png")
    to = prepared(data, tmp_path / "l")
    sides = [
        {Path(row.file).name for row in LatentFolder(to, split=s, hold_out=0.3).captions} for s in ("train", "test")
    ]
    assert all(sides) and not sides[0] & sides[1]


def test_neither_shards_nor_processes_move_a_bit(tmp_path: Path) -> None:
    source = captions(tmp_path / "pictures")
    one, two = (prepared(source, tmp_path / str(n), processes=n, has_std=True, space=Averages()) for n in (1, 2))
    assert contents(one) == contents(two) and len(list(one.glob("latents_*"))) == 3
    large = LatentFolder(prepared(source, tmp_path / "large", per_shard=100, has_std=True))
    small = LatentFolder(one)
    for index in range(len(small.captions)):
        assert torch.equal(small.view(index, WHOLE).mean, large.view(index, WHOLE).mean)


@pytest.mark.parametrize("until", [1, 2, 3, 4])
def test_what_a_kill_leaves_is_gone_on_with(tmp_path: Path, until: int) -> None:
    source, to = captions(tmp_path / "pictures"), tmp_path / "latents"
    whole = prepared(source, tmp_path / "whole")
    list(run(prepare(make_plan(source, to, wanted()), lambda: SPACE), until))
    if until > 1:  # what is cut by a kill: a row, a shard that no row tells of, one that is half written
        with (to / UNFINISHED_FILE).open("ab") as stream:
            stream.write(b'{"shard": 2, "fac')
        (to / f".{shard_name(2)}.partial").write_bytes(b"half")
    with pytest.raises(DataError, match="not all encoded yet; go on by the same command" if until > 1 else "holds no"):
        layout_of(to)
    space = Averages()
    reports = list(run(prepare(make_plan(source, to, wanted()), lambda: space)))
    assert reports[0] == Progress(min(4 * (until - 1), 10), 10, 0) and reports[-1][:2] == (10, 10)
    assert contents(to) == contents(whole)
    assert max(space.encoded.values(), default=1) == 1  # a picture of several captions too
    assert sum(space.encoded.values()) == {1: 9, 2: 5, 3: 2, 4: 0}[until]  # the broken one is of the second shard


def test_what_is_finished_is_checked_and_left(tmp_path: Path) -> None:
    source = captions(tmp_path / "pictures")
    to = prepared(source, tmp_path / "latents")
    before, times = contents(to), {file.name: file.stat().st_mtime_ns for file in to.iterdir()}
    space = Averages()
    assert list(run(prepare(make_plan(source, to, wanted()), lambda: space))) == [Progress(10, 10, 0)]
    assert not space.encoded and times == {file.name: file.stat().st_mtime_ns for file in to.iterdir()}
    for name in (shard_name(1), "records.jsonl", CARRIED_FILES[0]):
        (to / name).write_bytes(b"x" + before[name][1:])
        list(run(prepare(make_plan(source, to, wanted()), lambda: space)))
        assert contents(to) == before, name


@pytest.mark.parametrize("place", [3, 200, -1])
def test_a_damaged_shard_is_refused_by_name(tmp_path: Path, place: int) -> None:
    to = prepared(captions(tmp_path / "pictures"), tmp_path / "latents")
    data = bytearray((to / shard_name(1)).read_bytes())
    data[place] ^= 1
    (to / shard_name(1)).write_bytes(data)
    with pytest.raises(DataError, match=f"{shard_name(1)} is damaged: its SHA-256 is not that of latents.json"):
        opened(to)
    (to / shard_name(1)).write_bytes(data[:-1])
    with pytest.raises(DataError, match=f"{shard_name(1)} has .* bytes, not"):
        opened(to)
    (to / shard_name(1)).unlink()
    with pytest.raises(DataError, match=rf"{shard_name(1)} cannot be read \(No such file"):
        opened(to)


def test_what_the_folder_says_of_itself_is_checked(tmp_path: Path) -> None:
    to = prepared(captions(tmp_path / "pictures"), tmp_path / "latents")
    text = (to / LATENTS_FILE).read_text()
    (to / LATENTS_FILE).write_text(text.replace("0.5", "0.25", 1))
    with pytest.raises(DataError, match="does not have the digest that it names"):
        opened(to)
    (to / LATENTS_FILE).write_text(text.replace('"version": 1', '"version": 2'))
    with pytest.raises(DataError, match="latents.json is not what transfusion prepare latents writes .version:"):
        opened(to)
    (to / LATENTS_FILE).write_text(text)
    (to / "records.jsonl").write_bytes((to / "records.jsonl").read_bytes().replace(b"caption", b"kaption"))
    with pytest.raises(DataError, match="records.jsonl is damaged"):
        opened(to)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"size": (16, 16)}, "--resolution 8x16, and 16x16 is asked for"),
        ({"dtype": "bf16"}, "--dtype fp32, and bf16"),
        ({"has_std": True}, "--posterior False, and True"),
        ({"has_flip": True}, "--flip False, and True"),
        ({"device": "cuda"}, "--device cpu, and cuda"),
        ({"per_shard": 5}, "pictures of a shard 4, and 5"),
        ({"autoencoder": OWN.model_copy(update={"digest": "xyz"})}, "an autoencoder of digest abc, and xyz"),
        ({"autoencoder": OWN.model_copy(update={"mean": (0.1, 0.5)})}, r"a mean of \(0.0, 0.5\), and \(0.1, 0.5\)"),
    ],
)
@pytest.mark.parametrize("is_finished", [True, False])
def test_other_settings_are_refused_with_both_values(
    tmp_path: Path, facts: dict[str, object], message: str, is_finished: bool
) -> None:
    source, to = captions(tmp_path / "pictures"), tmp_path / "latents"
    list(run(prepare(make_plan(source, to, wanted()), lambda: SPACE), None if is_finished else 2))
    before = contents(to)
    with pytest.raises(DataError, match=f"holds latents prepared with {message}"):
        make_plan(source, to, wanted(**facts))
    assert contents(to) == before


def test_other_data_and_other_files_are_refused(tmp_path: Path) -> None:
    source = captions(tmp_path / "pictures")
    to = prepared(source, tmp_path / "latents")
    with pytest.raises(DataError, match="holds other files; name an empty folder"):
        make_plan(source, source, wanted())
    before = (source / "01.png").read_bytes()
    for other in (before + b"0", before[:-1] + b"0"):  # of another size, and of the same
        (source / "01.png").write_bytes(other)
        with pytest.raises(DataError, match="holds latents of other data than .*: captions or pictures differ"):
            make_plan(source, to, wanted())


def test_names_that_are_not_utf_8(tmp_path: Path) -> None:
    names = [os.fsdecode(name) for name in (b"cat/caf\xe9.png", b"cat/th\xe9.png", b"cat/1.png", b"t\xe9/1.png")]
    source = tmp_path / "pictures"
    save_pictures(source, ["1.png"])
    for name in names:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((source / "1.png").read_bytes())
    (source / "1.png").unlink()
    (source / names[0]).write_bytes(b"broken")
    latents = prepared(source, tmp_path / "latents")
    folder = LatentFolder(latents)
    assert [row.file for row in folder.captions] == names[2:0:-1]
    assert set(folder.quarantine) == {"cat/caf\\udce9.png", "t\\udce9"}
    assert set(folder.quarantine) == set(opened(source).quarantine)
    assert prepared(source, latents) == latents


def test_a_full_disk_is_told_and_gone_on_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, to = captions(tmp_path / "pictures"), tmp_path / "latents"

    def full(file: Path, content: bytes | str) -> Path:
        if file.name == shard_name(1):
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, content)

    write = module.write_whole
    with monkeypatch.context() as patched:
        patched.setattr(module, "write_whole", full)
        with pytest.raises(DataError, match=r"cannot be written to \(No space left .*\); what is finished stays"):
            prepared(source, to)
    assert (to / shard_name(0)).is_file() and not (to / LATENTS_FILE).exists()
    assert contents(prepared(source, to)) == contents(prepared(source, tmp_path / "whole"))


def test_broken_pictures_are_named_and_left_out(tmp_path: Path) -> None:
    source = captions(tmp_path / "pictures")
    latents = read_latents(prepared(source, tmp_path / "latents"))
    broken = {file: reason for shard in latents.shards for file, reason in shard.broken.items()}
    assert broken == ImageFolder(source, 8).quarantine and len(broken) == 1
    for file in source.glob("*.png"):
        file.write_bytes(b"no picture")
    with pytest.raises(DataError, match="none of the 10 pictures of .* can be read; the first: .*"):
        prepared(source, tmp_path / "none")


def test_a_latent_that_is_not_finite_is_named(tmp_path: Path) -> None:
    class Large(Averages):
        def moments(self, picture: Picture) -> Moments:
            return Moments(super().moments(picture).mean * 1e6)

    with pytest.raises(DataError, match=r"00.png: its latent is not finite in fp16; take --dtype fp32"):
        prepared(captions(tmp_path / "pictures"), tmp_path / "latents", space=Large(), dtype="fp16")


def test_the_size_is_the_folders(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    to = prepared(captions(tmp_path / "pictures"), tmp_path / "latents")
    reader = open_reader(FolderConfig(path=to))
    assert isinstance(reader.config, FolderConfig)
    assert (reader.config.layout, reader.config.size, reader.sample_pictures()) == ("latents", SIZE, None)
    assert open_reader(reader.config).config == reader.config
    caplog.set_level("INFO")
    assert open_reader(FolderConfig(path=to, resolution=64)).config == reader.config
    assert "latents of pictures of 8x16, and not of 64x64 as data.resolution says" in caplog.text
    digests = {open_reader(FolderConfig(path=to, split=split, hold_out=0.5)).digest() for split in ("train", "test")}
    assert len(digests) == 2 and all(digest.startswith("latents:") for digest in digests)


def test_a_run_has_the_space_of_its_latents(tmp_path: Path) -> None:
    to = prepared(captions(tmp_path / "pictures"), tmp_path / "latents")
    assert space_of(to) == OWN.model_copy(update={"path": str(to)})
    assert agreed_space(to, PretrainedConfig()) == space_of(to)
    kept = agreed_space(to, PretrainedConfig(path="named", digest="abc", tile=64, is_carried=False))
    assert kept == OWN.model_copy(update={"path": "named", "tile": 64, "is_carried": False})
    with pytest.raises(DataError, match=r"autoencoder.digest is xyz, theirs abc"):
        agreed_space(to, PretrainedConfig(digest="xyz"))
    with pytest.raises(DataError, match="transfusion prepare latents PICTURES --like runs/a --to NEW"):
        agreed_space(to, PretrainedConfig(channels=5), like=Path("runs/a"))
    other = agreed_space(to, PretrainedConfig(mean=(0.0, 0.0), std=(1.0, 2.0)))
    assert other == space_of(to).model_copy(update={"mean": (0.0, 0.0)})
    with pytest.raises(DataError, match="holds no spread to draw from"):
        agreed_space(to, PretrainedConfig(posterior="sample"))
    spread = prepared(tmp_path / "pictures", tmp_path / "spread", has_std=True)
    assert agreed_space(spread, PretrainedConfig(posterior="sample")).posterior == "sample"


@pytest.mark.parametrize("dtype", ["fp32", *U])
def test_a_model_with_other_statistics_reads_latents_brought_to_its_own(tmp_path: Path, dtype: str) -> None:
    """Each of the two ways rounds two times in float32, and what is stored once: so far apart are they at most."""
    source, to = captions(tmp_path / "pictures"), tmp_path / "latents"
    path = str(save_small(tmp_path / "kl", "AutoencoderKL"))
    network, pictures = open_network(path), open_reader(FolderConfig(path=source, resolution=SIZE)).sample_pictures()
    assert pictures is not None
    own = settled(PretrainedConfig(path=path, posterior="sample"), network, pictures)
    assert own.mean is not None and own.std is not None
    wanted_one = own.model_copy(
        update={"mean": tuple(3 + each for each in own.mean), "std": tuple(each / 7 for each in own.std)}
    )
    plan = make_plan(source, to, wanted(autoencoder=own, has_flip=True, has_std=True, dtype=dtype))
    list(run(prepare(plan, partial(open_pretrained, own))))
    folder, exact = LatentFolder(to), PretrainedSpace(wanted_one, network)
    for space, is_own in ((PretrainedSpace(own, network), True), (Remembered(exact), False)):
        read = open_source(FolderConfig(path=to, flip=True), replace(ENCODER, space=space), 100)
        assert isinstance(read, FolderSource)
        for index, row in enumerate(folder.captions):
            picture = open_picture(source / row.file, SIZE)
            for view, shown in ((WHOLE, picture), (FLIPPED, picture[:, ::-1])):
                found, held = read.pictures.view(index, view), folder.view(index, view)
                assert isinstance(found, Moments) and found.std is not None and held.std is not None
                if is_own:
                    assert torch.equal(found.mean, held.mean) and torch.equal(found.std, held.std)
                    continue
                made = exact.moments(np.ascontiguousarray(shown))
                assert made.std is not None and found.mean.dtype == found.std.dtype == torch.float32
                u = U.get(dtype, 0.0) + 4 * 2.0**-24
                assert bool(((found.mean - made.mean).abs() <= u * (7 * held.mean.abs() + made.mean.abs())).all())
                assert bool(((found.std - made.std).abs() <= u * made.std + 2.0**-21).all())
                assert not torch.allclose(found.mean, held.mean)
    other = settled(
        PretrainedConfig(path=path), open_network(save_small(tmp_path / "b", "AutoencoderKL", seed=1)), pictures
    )
    space = PretrainedSpace(other, open_network(tmp_path / "b"))
    with pytest.raises(DataError, match="not of the autoencoder that is asked for"):
        open_source(FolderConfig(path=to), replace(ENCODER, space=space), 100)


def test_folders_that_tell_no_psnr_are_read(tmp_path: Path) -> None:
    to = prepared(captions(tmp_path / "pictures"), tmp_path / "latents")
    text = (to / LATENTS_FILE).read_text()
    assert ' "psnr": null,\n' in text
    (to / LATENTS_FILE).write_text(text.replace(' "psnr": null,\n', ""))
    assert read_latents(to).psnr is None and LatentFolder(to).sheet() is None


def test_a_psnr_without_a_loss_is_infinite() -> None:
    found = Psnr.of([math.inf, 20.0, 30.0])
    assert (found.pictures, found.mean, found.least, found.most) == (3, 25.0, 20.0, None)
    assert str(found) == "3 pictures 25.0 dB on average, 20.0 to inf" and Psnr.of([math.inf]).mean is None
    assert Psnr.model_validate_json(found.model_dump_json()) == found


def test_a_real_autoencoder_and_its_latents(tmp_path: Path) -> None:
    source = captions(tmp_path / "pictures")
    asked = PretrainedConfig(path=str(save_small(tmp_path / "kl", "AutoencoderKL")))
    pictures = open_reader(FolderConfig(path=source, resolution=SIZE)).sample_pictures()
    assert pictures is not None
    config = settled(asked.model_copy(update={"posterior": "sample"}), open_network(asked.path), pictures)
    to = tmp_path / "latents"
    plan = make_plan(source, to, wanted(autoencoder=config, has_flip=True, has_std=True))
    list(run(prepare(plan, partial(open_pretrained, config))))
    space = open_pretrained(space_of(to))  # carried by the folder
    folder = LatentFolder(to)
    for index, row in enumerate(folder.captions):
        made = space.moments(open_picture(source / row.file, SIZE))
        found = folder.view(index, WHOLE)
        assert torch.equal(found.mean, made.mean) and made.std is not None
        assert found.std is not None and torch.equal(found.std, made.std)
    drawn = [folder.view(index, WHOLE).draw(np.random.default_rng(index)) for index in range(len(folder.captions))]
    values = torch.stack(drawn)
    assert float(values.mean().abs()) < 0.2 and 0.7 < float(values.std()) < 1.3  # normalised


def test_threads_move_no_bit_of_a_latent(tmp_path: Path) -> None:
    """Convolutions of a larger network differ in their last bits between one thread and two."""
    config = PretrainedConfig(path=str(save_small(tmp_path, "AutoencoderKL")))
    pictures = np.zeros((1, *SIZE, 3), np.uint8)
    space = open_pretrained(settled(config, open_network(config.path), pictures))
    found: list[int] = []
    space.network.module.get_submodule("encoder").register_forward_pre_hook(
        lambda *_: found.append(torch.get_num_threads())
    )
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        space.moments(pictures[0])
        assert found == [1] and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
