"""What it costs to share no forward, and what sharing does to a picture: a JSON line for each number of requests.

``python -m benchmarks.company [--model PATH] [--precision bf16] [--rounds N] [--rows 1 2 4 8 16]``

Without a model it is one of the size of ``benchmarks.work`` whose zero weights are drawn. Times are of this process on
one thread, the least of some rounds in turns.
"""

import argparse
import json
import time
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.ours import PROCESS
from benchmarks.work import CHANNELS, DEPTH, DIM, GRID, GUIDANCE, NUM_HEADS, VOCAB_SIZE
from transfusion.diffusion.guidance import Guidance
from transfusion.diffusion.process import make_process
from transfusion.generate.engine import Engine
from transfusion.generate.options import DenoisingOptions, GenerationOptions
from transfusion.model.patchify import ModalityConfig
from transfusion.model.transformer import TransformerConfig
from transfusion.model.transfusion import ModelConfig, TransfusionModel
from transfusion.pretrained import Transfusion
from transfusion.segments import Document, Latent, Text

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
PROMPTS = (9, 40, 20, 5)  # tokens, in turns
SHARED, APART = False, True
LEVELS = 255
EVALUATIONS, NEW_TOKENS = 16, 16

Request = tuple[Document, GenerationOptions]
MakeEngine = Callable[[torch.dtype], Engine]


def untrained() -> tuple[MakeEngine, tuple[int, ...], int, float]:
    """Return how to make an engine over a new model, the shape of its latents, its vocabulary and levels per unit."""
    modality = ModalityConfig(channels=CHANNELS, patch_size=(1, 1))
    trunk = TransformerConfig(dim=DIM, depth=DEPTH, num_heads=NUM_HEADS)
    model = TransfusionModel(ModelConfig(text_vocab_size=VOCAB_SIZE, trunk=trunk, modalities=(modality,)))
    model.initialise_weights(0)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1 and not weight.any():
                weight.copy_(torch.randn(weight.shape, generator=draw) / weight.shape[-1] ** 0.5)

    def make(precision: torch.dtype) -> Engine:
        return Engine(model, make_process(PROCESS), precision=precision, ranges={"image": (-1.0, 1.0)})

    return make, (CHANNELS, *GRID), VOCAB_SIZE, LEVELS / 2


def trained(path: str) -> tuple[MakeEngine, tuple[int, ...], int, float]:
    """Return the same of a checkpoint."""
    found = Transfusion.from_pretrained(path)
    process, ranges = make_process(found.config.diffusion), found.engine().ranges

    def make(precision: torch.dtype) -> Engine:
        return Engine(found.model, process, precision=precision, ranges=ranges)

    least, largest = ranges["image"]
    return make, found.options().shapes["image"], found.model.vocabulary.text_size, LEVELS / (largest - least)


def requests(count: int, shape: tuple[int, ...], vocabulary: int, scale: float | None) -> list[Request]:
    """Make requests for pictures, guided by a scale, or, with None, for text."""
    draw = torch.Generator().manual_seed(0)
    made: list[Request] = []
    for seed in range(count):
        tokens = torch.randint(vocabulary, (PROMPTS[seed % len(PROMPTS)],), generator=draw).tolist()
        prompt = Document((Text(tuple(tokens)),), is_complete=False)
        if scale is None:
            made.append((prompt, GenerationOptions(max_tokens=NEW_TOKENS, max_latents=0, seed=seed)))
            continue
        denoising = DenoisingOptions(sampler="euler", num_steps=EVALUATIONS, shift=6.0, guidance=Guidance(scale=scale))
        options = GenerationOptions(
            max_tokens=0, begin_with="image", shapes={"image": shape}, denoising=denoising, seed=seed
        )
        made.append((prompt, options))
    return made


def placed(made: list[Request], *, is_apart: bool) -> list[Request]:
    """Return requests that share forwards, or that do not."""
    return [(prompt, options.model_copy(update={"is_apart": is_apart})) for prompt, options in made]


def values(engine: Engine, made: list[Request]) -> Tensor:
    """Return all latents that an engine draws."""
    parts = [part for result in engine.run(made) for part in result.generated]
    return torch.stack([part.values for part in parts if isinstance(part, Latent)])


def cost(engine: Engine, made: list[Request], rounds: int) -> float:
    """Return how many times the work of sharing it is to share nothing."""
    best = {SHARED: float("inf"), APART: float("inf")}
    for _ in range(rounds):
        for is_apart in best:
            placed_requests = placed(made, is_apart=is_apart)
            begun = time.process_time()
            engine.run(placed_requests)
            best[is_apart] = min(best[is_apart], time.process_time() - begun)
    return best[APART] / best[SHARED]


def _short(number: float) -> float:
    return float(f"{number:.2g}")


def main() -> None:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="a checkpoint or a run")
    parser.add_argument("--precision", choices=sorted(PRECISIONS), default="fp32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, nargs="*", default=[1, 2, 4, 8, 16])
    options = parser.parse_args()
    torch.set_num_threads(1)
    make, shape, vocabulary, levels_per_unit = trained(options.model) if options.model else untrained()
    engine = make(PRECISIONS[options.precision])
    for name, scale in (("image-guided", GUIDANCE), ("image-plain", 1.0), ("text", None)):
        for count in options.rows:
            made = requests(count, shape, vocabulary, scale)
            line: dict[str, object] = {"case": name, "rows": count, "precision": options.precision}
            line["apart_to_shared"] = round(cost(engine, made, options.rounds), 2)
            if scale is not None:
                shared, apart = (values(engine, placed(made, is_apart=is_apart)) for is_apart in (SHARED, APART))
                true = values(make(torch.float32), placed(made, is_apart=True))
                line["levels_shared"] = _short(float((shared - apart).abs().max()) * levels_per_unit)
                line["levels_of_precision"] = _short(float((apart - true).abs().max()) * levels_per_unit)
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
