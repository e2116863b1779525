"""Sources: every token of a text is learnt once, and every record has a key of its own."""

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from transfusion.data.encode import EncodeConfig, Encoder
from transfusion.data.readers import TextFile
from transfusion.data.sources import FolderConfig, ShapesConfig, ShapesSource, TaskWeights, TextSource, open_source
from transfusion.diffusion.process import DiffusionConfig
from transfusion.layout import IGNORE, layout
from transfusion.objective import KeyedDraw
from transfusion.segments import Document, Latent, Text, Vocabulary
from transfusion.tokenizer import ByteTokenizer

VOCABULARY = Vocabulary(256, ())
ENCODER = Encoder(ByteTokenizer(), EncodeConfig(), 0)


def pairs(document: Document) -> list[tuple[int, int]]:
    """Return (token, target) of every slot that has a target."""
    columns = layout(document, VOCABULARY).columns
    return [(a, b) for a, b in zip(columns.tokens.tolist(), columns.targets.tolist(), strict=True) if b != IGNORE]


@given(length=st.integers(1, 60), chunk_length=st.integers(1, 20))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_token_of_a_text_is_a_target_once(tmp_path: Path, length: int, chunk_length: int) -> None:
    tokens = tuple(range(length))  # all different, so that a pair names its place
    (tmp_path / "t.txt").write_bytes(bytes(tokens))
    source = TextSource(TextFile(tmp_path / "t.txt"), ENCODER, chunk_length)
    found = [pair for index in range(source.size) for pair in pairs(source.document(index, 0))]
    begin, end = VOCABULARY.bos, VOCABULARY.eos
    assert found == [(begin, 0), *pairwise(tokens), (tokens[-1], end)]


def test_a_passage_cut_by_a_split_neither_begins_nor_ends(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("".join(f"line {i}\n" for i in range(3000)))
    source = TextSource(TextFile(tmp_path / "t.txt", split="test", hold_out=0.3), ENCODER, 255)
    found = Counter(pair for index in range(source.size) for pair in pairs(source.document(index, 0)))
    whole = Counter(pair for pair in found if VOCABULARY.bos in pair or VOCABULARY.eos in pair)
    passages = TextFile(tmp_path / "t.txt", split="test", hold_out=0.3).passages
    assert sum(whole.values()) == sum(p.begins for p in passages) + sum(p.ends for p in passages)


def test_captions_of_one_picture_draw_apart(tmp_path: Path) -> None:
    Image.fromarray(np.full((16, 16, 3), 9, np.uint8)).save(tmp_path / "a.png")
    rows = [{"file": "a.png", "text": "the same caption"} for _ in range(40)]
    (tmp_path / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = open_source(FolderConfig(path=tmp_path, resolution=16), ENCODER, 100)
    assert source.size == 40
    told = [source.document(i, visit) for i in range(40) for visit in (0, 1)]
    assert len({document.key for document in told}) == 80
    draw = KeyedDraw(DiffusionConfig(), 0)
    latents = [(document, part) for document in told for part in document.segments if isinstance(part, Latent)]
    drawn = [draw(document, 0, latent) for document, latent in latents]
    assert len({found.t for found in drawn}) == len({float(found.noise[0, 0, 0]) for found in drawn}) == 80
    assert len({type(document.segments[0]) for document in told}) == 2  # both orders


def shapes(tasks: TaskWeights, **encode: float) -> list[Document]:
    """Tell a hundred documents of the built-in world."""
    encoder = Encoder(ByteTokenizer(), EncodeConfig.model_validate(encode), 0)
    source = ShapesSource(ShapesConfig(tasks=tasks, resolution=16), encoder)
    return [source.document(i, 0) for i in range(100)]


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 0, 0), (0.5, 30, 70), (1.0, 100, 100)])
def test_captioned_scenes_are_told_in_both_orders(share: float, least: int, most: int) -> None:
    told = shapes(TaskWeights(draw=1, look=0, edit=0), caption_first=share, caption_dropout=0, picture_first_max_t=0.5)
    assert least <= sum(isinstance(document.segments[0], Text) for document in told) <= most
    limits = {part.max_t for d in told for part in d.segments if isinstance(part, Latent) and part is d.segments[0]}
    assert limits == ({0.5} if share < 1 else set())


def test_a_world_of_so_many_documents_comes_again() -> None:
    config = ShapesConfig(resolution=16, num_documents=5, tasks=TaskWeights(draw=1, look=0, edit=0))
    encoder = Encoder(ByteTokenizer(), EncodeConfig(caption_dropout=0), 0)
    few, endless = (
        ShapesSource(config, encoder),
        ShapesSource(config.model_copy(update={"num_documents": None}), encoder),
    )
    assert (few.size, endless.size) == (5, None) and few.found.records == 5
    assert few.digest() != endless.digest() and "num_documents" not in endless.digest()

    def told(source: ShapesSource, index: int, visit: int) -> set[object]:
        parts = source.document(index, visit).segments
        return {part.tokens if isinstance(part, Text) else float(part.values.sum()) for part in parts}

    for index in range(5):
        assert told(few, index, 0) == told(few, index, 1) == told(endless, index, 0)
        keys = {few.document(index, visit).key for visit in range(3)}
        assert len(keys) == 3  # noise, times and order are drawn anew
    orders = [isinstance(few.document(index, visit).segments[0], Text) for index in range(5) for visit in range(20)]
    assert 0 < sum(orders) < 100


def test_an_outline_is_as_long_as_what_is_told() -> None:
    encoder = Encoder(ByteTokenizer(), EncodeConfig(caption_dropout=1.0), 0)
    source = ShapesSource(ShapesConfig(resolution=16), encoder)
    longer = [len(source.outline(i).segments) - len(source.document(i, 0).segments) for i in range(30)]
    assert min(longer) == 0 and max(longer) > 0
