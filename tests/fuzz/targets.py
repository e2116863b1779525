"""What is fuzzed: where files of anyone's enter, and the errors that may leave.

Each target has seeds, small whole inputs as files by name, and a function that reads a folder of them.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from averages import CHANNELS, FACTOR, Averages
from PIL import Image
from tiny import make_model, model_config, run_config
from tokenizers import Tokenizer as LibraryTokenizer
from tokenizers import decoders, models, normalizers, pre_tokenizers

from fuzz.damage import Case
from transfusion.autoencoder.settings import PretrainedConfig
from transfusion.cli.training import find_config
from transfusion.config import ConfigError, from_json, override
from transfusion.data.decode import open_picture
from transfusion.data.encode import EncodeConfig, Encoder
from transfusion.data.errors import BrokenPicture, DataError
from transfusion.data.formats import readable
from transfusion.data.latents import shard_name, space_of
from transfusion.data.latents_index import FileFacts, Latents, LatentsSettings
from transfusion.data.prepare import held_settings, make_plan, prepare
from transfusion.data.readers import ImageFolder, read_captions
from transfusion.data.sources import FolderConfig, open_reader
from transfusion.pretrained import Transfusion
from transfusion.tokenizer import ByteTokenizer, TokenizerError, check_tokenizer, load_tokenizer, train_tokenizer
from transfusion.train.checkpoint import newest, publish
from transfusion.train.manifest import MANIFEST, CheckpointError, verify
from transfusion.train.saved import write_pretrained

STEP = "step_00000003"


class Target(NamedTuple):
    """A way in.

    Attributes:
        name: What it is called on the command line.
        seeds: Makes whole inputs.
        read: Reads a folder.
        errors: What may leave ``read``.
        num_short: Cases of the short form.
    """

    name: str
    seeds: Callable[[], Sequence[Case]]
    read: Callable[[Path], object]
    errors: tuple[type[Exception], ...]
    num_short: int


def pictures() -> list[Case]:
    """Make a picture in every format, mode and way of writing that Pillow has, with EXIF."""
    colours = np.random.default_rng(0).integers(0, 255, (24, 20, 4), dtype=np.uint8)
    base = Image.fromarray(colours, "RGBA")
    deep = Image.fromarray(colours[..., 0].astype(np.uint16) * 256)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E], exif[0x011A] = 6, "description", 72.0
    exif.get_ifd(0x8769).update({0x9003: "2020:01:01 00:00:00", 0x829A: 0.01})
    ways: dict[str, list[dict[str, object]]] = {
        "JPEG": [{"exif": exif}, {"progressive": True}],
        "PNG": [{"exif": exif}, {"transparency": 0}],
        "WEBP": [{"exif": exif}, {"lossless": True}],
        "TIFF": [{"exif": exif}, {"compression": "tiff_lzw"}, {"compression": "tiff_deflate"}, {"compression": "jpeg"}],
    }
    found: list[Case] = []
    plugins = [each.plugin for each in readable() if each.plugin != "HEIF"]
    for plugin in [*plugins, "MPO"]:
        for mode in ("RGB", "P", "L", "RGBA", "1", "CMYK", "I;16"):
            for way in ways.get(plugin, [{}]):
                stream = BytesIO()
                try:
                    (deep if mode == "I;16" else base.convert("RGB").convert(mode)).save(stream, plugin, **way)  # type: ignore[arg-type]
                except (OSError, ValueError, TypeError, RuntimeError):
                    continue  # no such mode in this format
                found.append({"a.png": stream.getvalue()})
    return found


def read_picture(folder: Path) -> object:
    return open_picture(folder / "a.png", 16)


def captions() -> list[Case]:
    """Make folders of two pictures with captions."""
    stream = BytesIO()
    Image.new("RGB", (8, 8), "red").save(stream, "PNG")
    rows = [{"file": f"{i}.png", "text": f"a réd square {i}", "split": "train"} for i in range(2)]
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    odd = '{"file": "0.png", "text": "\\u00e9\\ud83d\\ude00", "n": [1, 2.5e3, null, {"a": true}]}\r\n' + lines
    return [
        {"captions.jsonl": text.encode(), "0.png": stream.getvalue(), "1.png": stream.getvalue()}
        for text in (lines, odd, "\ufeff" + lines)
    ]


def read_folder(folder: Path) -> object:
    read_captions(folder, "train")
    return ImageFolder(folder, 8).digest()


def tokenizers() -> list[Case]:
    """Make files of every model of the library."""
    bpe = train_tokenizer(["a red circle and a blue square"] * 9, 270)._library
    bpe.add_special_tokens(["<s>"])
    words = LibraryTokenizer(models.WordLevel({"a": 0, "red": 1, "[UNK]": 5}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.enable_truncation(4)
    pieces = LibraryTokenizer(models.WordPiece({"[UNK]": 0, "red": 1, "##s": 2}, unk_token="[UNK]"))
    pieces.normalizer = normalizers.BertNormalizer()
    pieces.decoder = decoders.WordPiece()
    unigram = LibraryTokenizer(models.Unigram([("<unk>", 0.0), ("▁red", -1.0), ("a", -2.0)], 0, True))
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    return [{"tokenizer.json": made.to_str().encode()} for made in (bpe, words, pieces, unigram)]


def read_tokenizer(folder: Path) -> object:
    tokenizer = load_tokenizer(folder / "tokenizer.json")
    check_tokenizer(tokenizer, ["a red circle", "Réds ✓\n", ""])
    return tokenizer.decode(range(min(tokenizer.size, 300)))


def configs() -> list[Case]:
    """Make settings with assignments, one a line."""
    lines = ["train.steps=7", "train.optimizer.betas=[0.9,0.99]", "data.kind=folder", "model.modalities.0.name=x"]
    lines += ["train.ema_decay=null", 'name="x"', "train.steps=3\ntrain.seed=1"]
    tree = run_config().to_json().encode()
    return [{"config.json": tree, "overrides": line.encode()} for line in lines]


def read_config(folder: Path) -> object:
    if not (folder / "config.json").exists():
        return None
    config = find_config(str(folder / "config.json"), [])
    lines = (folder / "overrides").read_bytes() if (folder / "overrides").exists() else b""
    return from_json(override(config, lines.decode(errors="surrogateescape").split("\n")).to_json(), "here")


def checkpoints() -> list[Case]:
    """Make a whole checkpoint of a tiny model."""
    config = run_config().model_copy(update={"model": model_config()})
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = train_tokenizer(["a red circle"], 257)
        model = make_model()
        published = publish(Path(folder) / STEP, lambda into: write_pretrained(into, model, tokenizer, config))
        return [{file.name: file.read_bytes() for file in published.iterdir()}]


def read_checkpoint(folder: Path) -> object:
    """Look for the newest, verify, and load, also what does not verify."""
    run = folder / "run"
    (run / "checkpoints" / STEP).mkdir(parents=True)
    for file in folder.iterdir():
        if file.is_file():
            shutil.copy(file, run / "checkpoints" / STEP)
    newest(run)
    try:
        verify(folder)
    finally:
        loaded = Transfusion.from_pretrained(folder)
    return loaded


def latents() -> list[Case]:
    """Make a folder of latents of six pictures, one of them broken."""
    settings = LatentsSettings(
        size=(8, 8),
        per_shard=4,
        has_std=True,
        autoencoder=PretrainedConfig(path="x", digest="d", channels=CHANNELS, factor=FACTOR, mean=(0, 0), std=(1, 1)),
    )
    with tempfile.TemporaryDirectory() as folder:
        source, to = Path(folder) / "pictures", Path(folder) / "latents"
        source.mkdir()
        for i in range(6):
            Image.new("RGB", (8, 8), (40 * i, 0, 0)).save(source / f"{i}.png")
        (source / "5.png").write_bytes(b"broken")
        rows = [{"file": f"{i % 6}.png", "text": f"a réd square {i}"} for i in range(8)]
        (source / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        list(prepare(make_plan(source, to, settings), Averages))
        return [{file.name: file.read_bytes() for file in to.iterdir()}]


def read_latents_folder(folder: Path) -> object:
    """Open it as training does, and every record."""
    reader = open_reader(FolderConfig(path=folder, layout="latents", hold_out=0.0))
    source = reader.source(Encoder(ByteTokenizer(), EncodeConfig(), 0, Averages()), 100)
    space_of(folder)
    return [source.document(index, 0) for index in range(source.size or 0)]


def read_sealed_latents(folder: Path) -> object:
    """Read damaged latents that ``latents.json`` names as they are, as someone else may write them."""
    file = folder / "latents.json"
    try:
        told = Latents.model_validate_json(file.read_bytes())
    except (ValueError, OSError):
        return read_latents_folder(folder)
    facts = {name: _fact(folder / name) for name in told.files}
    shards = [shard.model_copy(update=_fact(folder / shard_name(number))) for number, shard in enumerate(told.shards)]
    files = {name: FileFacts.model_validate(fact) for name, fact in facts.items()}
    told = told.model_copy(update={"files": files, "shards": tuple(shards)})
    file.write_text(told.model_copy(update={"digest": told.named()}).model_dump_json())
    return read_latents_folder(folder)


def _fact(file: Path) -> dict[str, object]:
    data = file.read_bytes() if file.is_file() else b""
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def read_begun(folder: Path) -> object:
    """Go on with latents that are damaged, as ``prepare`` does."""
    return held_settings(folder)


def begun() -> list[Case]:
    """Make what is known of latents that are not all encoded."""
    (whole,) = latents()
    told = Latents.model_validate_json(whole["latents.json"])
    rows: list[object] = [{"settings": told.settings.model_dump(mode="json"), "plan": told.plan}]
    rows += [{"shard": number, "facts": shard.model_dump()} for number, shard in enumerate(told.shards)]
    return [{"preparing.jsonl": "".join(json.dumps(row) + "\n" for row in rows).encode()}]


def read_sealed(folder: Path) -> object:
    """Load a damaged checkpoint whose manifest fits, as someone else may write it."""
    files = [file for file in sorted(folder.iterdir()) if file.is_file() and file.name != MANIFEST]
    facts = {
        file.name: {"bytes": file.stat().st_size, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
        for file in files
    }
    (folder / MANIFEST).write_text(json.dumps(facts))
    return Transfusion.from_pretrained(folder)


OURS = (DataError, ConfigError, CheckpointError, TokenizerError)
TARGETS = {
    target.name: target
    for target in (
        Target("pictures", pictures, read_picture, (BrokenPicture,), 800),
        Target("captions", captions, read_folder, (DataError,), 300),
        Target("tokenizers", tokenizers, read_tokenizer, (TokenizerError,), 500),
        Target("configs", configs, read_config, (ConfigError,), 100),
        Target("checkpoints", checkpoints, read_checkpoint, OURS, 60),
        Target("latents", latents, read_latents_folder, (DataError,), 80),
        Target("sealed latents", latents, read_sealed_latents, (DataError,), 200),
        Target("begun latents", begun, read_begun, (DataError,), 200),
        Target("sealed", checkpoints, read_sealed, OURS, 60),
    )
}
