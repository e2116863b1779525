"""Evaluators: a perfect oracle scores 1, a blank one 0, and the JSON is what users read."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import ToySource, image, make_model, run_config

from transfusion.data.limit import Limit
from transfusion.data.shapes import CATEGORIES, Scene, caption, detect, edit, prompts, render, sample_scene, scene_for
from transfusion.data.shapes.scene import SceneObject
from transfusion.data.shapes.tasks import true_answer
from transfusion.evaluate import losses
from transfusion.evaluate.losses import bits_per_byte, evaluate_losses, total_loss
from transfusion.evaluate.suite import Items, Scores, evaluate_shapes, scores_table, summarise
from transfusion.keyed import generator
from transfusion.model.transfusion import Outputs, TransfusionModel
from transfusion.objective import TransfusionObjective
from transfusion.report import write_report
from transfusion.segments import Document, Text
from transfusion.tokenizer import ByteTokenizer, Tokenizer, train_tokenizer

NUM_PROMPTS = 12
KNOWN = {prompt.text: prompt for name in CATEGORIES for prompt in prompts(name, NUM_PROMPTS, 0)}


def seen(picture: np.ndarray) -> Scene:
    """Read a scene off a picture with the detector."""
    return Scene(tuple(SceneObject(d.shape, d.colour, d.size, d.x, d.y) for d in detect(picture)))


class Perfect:
    """Does everything right, by rendering and detecting."""

    def generate_images(self, prompts: Sequence[str], *, seed: int = 0) -> list[Image.Image]:
        scenes = [scene_for(KNOWN[text], generator(seed, "perfect", text)) for text in prompts]
        return [Image.fromarray(render(scene)) for scene in scenes]

    def caption(self, images: Sequence[np.ndarray]) -> list[str]:
        return [caption(seen(image), generator(0, "c"), is_complete=True) for image in images]

    def ask_many(self, images: Sequence[np.ndarray], questions: Sequence[str]) -> list[str]:
        return [true_answer(seen(image), asked) or "" for image, asked in zip(images, questions, strict=True)]

    def edit_many(
        self, images: Sequence[np.ndarray], instructions: Sequence[str], *, seed: int = 0
    ) -> list[Image.Image]:
        changes: list[Image.Image] = []
        for i in range(len(images)):
            rng = generator(seed, "edit-scene", i)
            changes.append(Image.fromarray(render(edit(sample_scene(rng, split="test"), rng, split="test").after)))
        return changes


class Blank(Perfect):
    """Draws white pictures and says nothing."""

    def generate_images(self, prompts: Sequence[str], *, seed: int = 0) -> list[Image.Image]:
        return [Image.new("RGB", (32, 32), "white") for _ in prompts]

    def caption(self, images: Sequence[np.ndarray]) -> list[str]:
        return ["" for _ in images]

    def ask_many(self, images: Sequence[np.ndarray], questions: Sequence[str]) -> list[str]:
        return ["" for _ in images]

    def edit_many(
        self, images: Sequence[np.ndarray], instructions: Sequence[str], *, seed: int = 0
    ) -> list[Image.Image]:
        return self.generate_images(instructions)


def scores(items: Items) -> Scores:
    """Summarise with made-up costs."""
    return summarise(items, train_seconds=1.23456, total_seconds=2.0, parameters=7)


@pytest.mark.parametrize(("model", "expected"), [(Perfect(), 1.0), (Blank(), 0.0)])
def test_oracles(model: Perfect, expected: float) -> None:
    found = scores(evaluate_shapes(model, 32, num_prompts=NUM_PROMPTS))
    assert set(found.geneval.values()) == {expected}
    assert (found.caption, found.question, found.edit) == (expected, expected, expected)


def test_json_has_the_documented_keys(tmp_path: Path) -> None:
    found = scores(evaluate_shapes(Blank(), 32, num_prompts=2))
    tree = json.loads(found.save(tmp_path).read_text())
    assert list(tree) == ["geneval", "caption", "question", "edit", "train_seconds", "total_seconds", "parameters"]
    assert list(tree["geneval"]) == ["overall", *CATEGORIES]
    assert tree["train_seconds"] == 1.2 and scores_table(found).row_count == 10


def test_report_is_one_file_and_escapes(tmp_path: Path) -> None:
    items = evaluate_shapes(Blank(), 32, num_prompts=2)
    hostile = items._replace(captioned=[item._replace(text="<script>x</script>") for item in items.captioned])
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss/text": 2.0}\n{"step": 2, "loss/text": 1.0}\n')
    (tmp_path / "samples").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "samples" / "step_00000002.png")
    page = write_report(tmp_path, scores(items), hostile, ["a <b>"], run_config()).read_text()
    assert "<script>" not in page and "&lt;script&gt;" in page and "a &lt;b&gt;" in page
    assert "http" not in page and page.count("<svg") == 1 and "step 2" in page
    assert "nats per token" in page and "How to go on" in page and "✗" in page
    bare = tmp_path / "bare"
    bare.mkdir()
    assert "no metrics" in write_report(bare, scores(items), items, [], run_config()).read_text()


def test_losses_are_means_over_the_source() -> None:
    model, config = make_model(), run_config()
    objective = TransfusionObjective(config.diffusion, config.objective, model.vocabulary)
    found = evaluate_losses(model, objective, ToySource(7), num_documents=50, seed=0)
    again = evaluate_losses(model, objective, ToySource(7), num_documents=7, seed=0)
    assert found == again and set(found) == {"text", "image", "sound"}


class Uniform(TransfusionModel):
    """Finds every id as likely as any other."""

    def forward(self, *arguments: Any, **named: Any) -> Outputs:
        outputs = super().forward(*arguments, **named)
        return outputs._replace(logits=torch.zeros_like(outputs.logits))


class Told(ToySource):
    """Tells some documents."""

    def __init__(self, *told: Document) -> None:
        super().__init__(len(told))
        self.told = told

    def document(self, index: int, visit: int) -> Document:
        return self.told[index]


def bits(source: ToySource, tokenizer: Tokenizer) -> tuple[float | None, float]:
    """Return bits per byte by a model that knows nothing, and the bits of an id."""
    config = run_config()
    model = Uniform(config.model.model_copy(update={"text_vocab_size": tokenizer.size})).eval()
    objective = TransfusionObjective(config.diffusion, config.objective, model.vocabulary)
    found = bits_per_byte(model, objective, source, tokenizer, num_documents=9, seed=0)
    return found, math.log2(model.vocabulary.size)


def test_bits_per_byte_are_exact_for_bytes_whatever_ends_and_begins_beside() -> None:
    told = tuple("né€".encode())
    source = Told(
        Document((Text(told), image(1), Text(told))),  # the beginning of a picture and EOS count neither way
        Document((Text(told, is_target=False), Text(told)), is_complete=False),
        Document((Text(told[:2]),), is_complete=False, next_token=told[2]),  # cut within a letter
    )
    found, each = bits(source, ByteTokenizer())
    assert found == pytest.approx(each, rel=1e-6)


def test_bits_per_byte_count_the_bytes_of_pieces() -> None:
    tokenizer = train_tokenizer(["the the the né€ né€"] * 9, 270)
    whole = tokenizer.encode("the né€ 𝄞")
    found, each = bits(Told(Document((Text(whole),))), tokenizer)
    num_bytes = len("the né€ 𝄞".encode())
    assert len(whole) < num_bytes and found == pytest.approx(each * len(whole) / num_bytes, rel=1e-6)
    assert [sum(tokenizer.num_bytes([token]) for token in whole), tokenizer.num_bytes(whole)] == [num_bytes] * 2


def test_bits_per_byte_of_no_text_are_none() -> None:
    assert bits(Told(Document((image(1),), is_complete=False)), ByteTokenizer())[0] is None


def test_bits_per_byte_agree_with_the_nats() -> None:
    model, config = make_model(), run_config()
    objective = TransfusionObjective(config.diffusion, config.objective, model.vocabulary)
    source = Told(*(Document((Text((1, 2, 3)), Text((4, 5))), is_complete=False) for _ in range(3)))
    nats = evaluate_losses(model, objective, source, num_documents=9, seed=0)["text"]
    found = bits_per_byte(model, objective, source, ByteTokenizer(), num_documents=9, seed=0)
    assert found == pytest.approx(nats / math.log(2), rel=1e-6)


@pytest.mark.parametrize("row", [24, 64, 1000])
def test_packed_documents_have_the_losses_of_single_ones(monkeypatch: pytest.MonkeyPatch, row: int) -> None:
    """Of 40 documents some are longer than the shortest row."""
    model, config = make_model(), run_config()
    objective = TransfusionObjective(config.diffusion, config.objective, model.vocabulary)
    monkeypatch.setattr(losses, "MIN_ROW", row)
    found = evaluate_losses(model, objective, ToySource(), num_documents=40, seed=0)
    monkeypatch.setattr(losses, "MIN_ROW", 0)  # each by itself
    # float32 sums in another order
    assert evaluate_losses(model, objective, ToySource(), num_documents=40, seed=0) == pytest.approx(found, rel=1e-5)
    weights = config.objective
    expected = weights.text_weight * found["text"] + weights.diffusion_weight * (found["image"] + found["sound"])
    assert total_loss(found, weights) == pytest.approx(expected)


def test_what_is_too_long_is_left_out_or_cut_as_in_training() -> None:
    model, config, source = make_model(), run_config(), ToySource(8)
    objective = TransfusionObjective(config.diffusion, config.objective, model.vocabulary)

    def measured(limit: Limit | None) -> dict[str, float]:
        return evaluate_losses(model, objective, source, num_documents=8, seed=0, limit=limit)

    whole = measured(Limit(model.vocabulary, 64, "drop"))
    assert whole == measured(None)
    dropped, cut, refused = (measured(Limit(model.vocabulary, 7, what)) for what in ("drop", "cut", "refuse"))
    assert len({tuple(found.items()) for found in (whole, dropped, cut)}) == 3 and refused == dropped
    assert measured(Limit(model.vocabulary, 1, "drop")) == {}


@pytest.mark.parametrize(
    ("size", "count", "places"),
    [(9, 3, [0, 3, 6]), (2, 3, [0, 1]), (7, 4, [0, 1, 3, 5]), (None, 2, [10**12, 10**12 + 1])],
)
def test_losses_are_of_documents_spread_over_the_source(size: int | None, count: int, places: list[int]) -> None:
    model, config, source = make_model(), run_config(), ToySource(size)
    objective = TransfusionObjective(config.diffusion, config.objective, model.vocabulary)
    evaluate_losses(model, objective, source, num_documents=count, seed=0)
    assert source.visited == places
