"""Where a picture comes from: exact round trips, and what is damaged is named."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transfusion.diffusion.guidance import Guidance
from transfusion.generate.options import DenoisingOptions
from transfusion.provenance import Origin, Provenance, ProvenanceError, changed_options, from_record

DENOISING = DenoisingOptions(sampler="heun", num_steps=7, shift=6.0, guidance=Guidance(scale=0.1), clip=1.5)
TOLD = {"sampler", "num_steps", "guidance.scale"}
FULL = Provenance("edit", ("make it blue",), 3, DENOISING, Origin("/m", "ab"), Origin("/p.png", "cd"), "cuda:1", "bf16")


@given(st.lists(st.text(st.characters(exclude_categories=())), max_size=3), st.integers(), st.text())
def test_it_round_trips_whatever_the_text(prompts: list[str], seed: int, path: str) -> None:
    drawn = replace(FULL, prompts=tuple(prompts), seed=seed, model=Origin(path, "ab"), negative=path, beside=seed)
    text = drawn.to_json()
    assert text.isascii() and from_record(json.loads(text)) == drawn


def test_what_people_read() -> None:
    lines = FULL.note().lines
    assert lines["prompt"] == "make it blue" and lines["seed"] == "3" and lines["sampler"] == "heun"
    assert lines["steps"] == "7" and lines["guidance"] == "0.1" and lines["model sha256"] == "ab"
    assert lines["picture"] == "/p.png" and lines["Software"].startswith("transfusion ")


def test_later_versions_may_say_more() -> None:
    assert from_record({**json.loads(FULL.to_json()), "version": 9, "mood": "good"}) == FULL


@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [
        ("task", "sing", "task is 'sing'; expected generate, edit"),
        ("prompts", "a", "prompts is 'a'; expected list"),
        ("prompts", [1], "prompts is 1; expected str"),
        ("seed", True, "seed is True; expected int"),
        ("seed", None, "seed is None"),
        ("seed", 10**101, "seed is a number of hundreds of digits"),
        ("beside", -(10**4200), "beside is a number"),
        ("denoising", {"sampler": "magic"}, "denoising.sampler"),
        ("model", {"path": "x"}, "it lacks 'sha256'"),
        ("model", "x", "model is 'x'; expected dict"),
        ("picture", {"path": 1, "sha256": ""}, "picture.path is 1"),
    ],
)
def test_what_is_damaged_is_named(entry: str, value: Any, message: str) -> None:
    with pytest.raises(ProvenanceError, match=message):
        from_record({**json.loads(FULL.to_json()), entry: value})
    with pytest.raises(ProvenanceError, match="expected a JSON object"):
        from_record([1])
    with pytest.raises(ProvenanceError, match="it lacks 'seed'"):
        from_record({"task": "edit", "prompts": []})


def test_options_that_no_verb_is_told() -> None:
    other = DenoisingOptions(sampler="ddpm", num_steps=9, shift=2.0, guidance=Guidance(scale=2.0, rescale=0.5))
    assert changed_options(DENOISING, DENOISING, ()) == {}
    assert changed_options(DENOISING, other, TOLD) == {
        "shift": (6.0, 2.0),
        "clip": (1.5, None),
        "guidance.rescale": (0.0, 0.5),
    }
