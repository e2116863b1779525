"""The work, done by this package. Making the batch from documents is part of every step, as it is for the peer."""

from collections.abc import Callable

import torch

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
    PROMPT_TOKENS,
    VOCAB_SIZE,
    ImageWork,
    TextWork,
    TrainWork,
    Work,
)
from transfusion.batch import collate
from transfusion.diffusion.guidance import Guidance
from transfusion.diffusion.process import DiffusionConfig, make_process
from transfusion.diffusion.schedule import ScheduleConfig
from transfusion.generate.engine import Engine
from transfusion.generate.options import DenoisingOptions, GenerationOptions
from transfusion.layout import num_slots
from transfusion.model.patchify import ModalityConfig
from transfusion.model.transformer import TransformerConfig
from transfusion.model.transfusion import ModelConfig, TransfusionModel
from transfusion.objective import KeyedDraw, ObjectiveConfig, TransfusionObjective
from transfusion.segments import Document, Latent, Text
from transfusion.train.optimizer import OptimizerConfig, build_optimizers

PROCESS = DiffusionConfig(schedule=ScheduleConfig(kind="straight"), prediction="v", loss="v")


def build(work: Work) -> Callable[[], None]:
    """Return a function that does the work once."""
    model = TransfusionModel(
        ModelConfig(
            text_vocab_size=VOCAB_SIZE,
            trunk=TransformerConfig(dim=DIM, depth=DEPTH, num_heads=NUM_HEADS),
            modalities=(ModalityConfig(channels=CHANNELS, patch_size=(1, 1)),),
        )
    )
    model.initialise_weights(0)
    return _train(model, work) if isinstance(work, TrainWork) else _generate(model, work)


def _text(draw: torch.Generator, count: int) -> Text:
    return Text(tuple(torch.randint(VOCAB_SIZE, (count,), generator=draw).tolist()))


def _document(work: TrainWork, row: int) -> Document:
    draw = torch.Generator().manual_seed(row)
    segments: list[Text | Latent] = []
    for _ in range(work.images):
        segments += [_text(draw, PROMPT_TOKENS), Latent(torch.randn(CHANNELS, *GRID, generator=draw), "image")]
    segments += [_text(draw, work.tail)] * (work.tail > 0)
    return Document(tuple(segments), ("row", row))


def _train(model: TransfusionModel, work: TrainWork) -> Callable[[], None]:
    objective = TransfusionObjective(PROCESS, ObjectiveConfig(), model.vocabulary)
    (optimizer,) = build_optimizers(model, OptimizerConfig(lr=LR))
    documents = [_document(work, row) for row in range(work.rows)]
    length = num_slots(documents[0], model.vocabulary)
    draw = KeyedDraw(PROCESS, 0)
    if work.is_compiled:
        model.compile()

    def step() -> None:
        batch = collate([[document] for document in documents], model.vocabulary, draw, length)
        with torch.autocast("cpu", torch.bfloat16, enabled=work.precision == "bf16"):
            losses = objective(model, batch)
        objective.total(losses, {name: loss.count for name, loss in losses.items()}).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def _generate(model: TransfusionModel, work: ImageWork | TextWork) -> Callable[[], None]:
    draw = torch.Generator().manual_seed(0)
    prompts = [Document((_text(draw, PROMPT_TOKENS),), is_complete=False) for _ in range(work.rows)]
    if isinstance(work, TextWork):
        # a new model's text head is zero: the most likely token is always 0, so no text ends early
        options = GenerationOptions(max_tokens=NEW_TOKENS, max_latents=0)
    else:
        guidance = Guidance(scale=GUIDANCE if work.is_guided else 1.0)
        options = GenerationOptions(
            max_tokens=0,
            begin_with="image",
            shapes={"image": (CHANNELS, *GRID)},
            denoising=DenoisingOptions(sampler="euler", num_steps=EVALUATIONS, guidance=guidance),
        )
    engine = Engine(model, make_process(PROCESS))

    def generate() -> None:
        results = engine.run([(prompt, options) for prompt in prompts])
        for result in results:
            last = result.document.segments[-1]
            made = len(last.tokens) if isinstance(last, Text) else last.values.numel()
            assert made in (NEW_TOKENS, CHANNELS * GRID[0] * GRID[1]), made

    return generate
