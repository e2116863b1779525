"""The same work, done by PyPI's transfusion-pytorch (the ``benchmark`` extra), by its own public methods.

Its solver is the midpoint rule, two evaluations for each of its steps, so 17 times give 32 evaluations.
"""

from collections.abc import Callable

import torch
from transfusion_pytorch import Transfusion

from benchmarks.work import (
    CHANNELS,
    DEPTH,
    DIM,
    EVALUATIONS,
    GRID,
    GUIDANCE,
    LR,
    NEW_TOKENS,
    NUM_HEADS,
    PATCHES,
    PROMPT_TOKENS,
    VOCAB_SIZE,
    ImageWork,
    TextWork,
    TrainWork,
    Work,
)


def build(work: Work) -> Callable[[], None]:
    """Return a function that does the work once."""
    torch.manual_seed(0)
    model = Transfusion(
        num_text_tokens=VOCAB_SIZE,
        dim_latent=CHANNELS,
        modality_default_shape=GRID,
        transformer={"dim": DIM, "depth": DEPTH, "dim_head": DIM // NUM_HEADS, "heads": NUM_HEADS},
    )
    if isinstance(work, TrainWork):
        return _train(model, work)
    return _texts(model, work) if isinstance(work, TextWork) else _images(model, work)


def _train(model: Transfusion, work: TrainWork) -> Callable[[], None]:
    samples = []
    for _ in range(work.rows):
        parts = []
        for _ in range(work.images):
            parts += [torch.randint(VOCAB_SIZE, (PROMPT_TOKENS,)), torch.randn(*GRID, CHANNELS)]
        samples.append(parts + [torch.randint(VOCAB_SIZE, (work.tail,))] * (work.tail > 0))
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, fused=True)
    if work.is_compiled:
        model.transformer.compile()

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=work.precision == "bf16"):
            loss = model(samples)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def _images(model: Transfusion, work: ImageWork) -> Callable[[], None]:
    prompts = [torch.randint(VOCAB_SIZE, (PROMPT_TOKENS,)) for _ in range(work.rows)]
    settings = {
        "max_length": PATCHES - 1,
        "force_modality_at_start": 0,
        "modality_steps": EVALUATIONS // 2 + 1,
        "cfg_scale": GUIDANCE if work.is_guided else 1.0,
    }

    def generate() -> None:
        if work.rows == 1:
            model.sample_one(prompts[0], cache_kv=True, **settings)
        else:
            model.sample_many(prompts, **settings)

    return generate


def _texts(model: Transfusion, work: TextWork) -> Callable[[], None]:
    prompts = torch.randint(VOCAB_SIZE, (work.rows, PROMPT_TOKENS))
    return lambda: _check(model.generate_text_only(prompts, PROMPT_TOKENS + NEW_TOKENS), work)


def _check(tokens: torch.Tensor, work: TextWork) -> None:
    assert tokens.shape == (work.rows, NEW_TOKENS), tokens.shape
