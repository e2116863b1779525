"""A tiny model and toy documents that the gates share."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from transfusion.config import RunConfig, TrainConfig, override
from transfusion.data.found import Found
from transfusion.diffusion.process import DiffusionConfig
from transfusion.diffusion.schedule import ScheduleConfig
from transfusion.generate.options import DenoisingOptions
from transfusion.keyed import generator, normal
from transfusion.model.patchify import LinearPatchConfig, ModalityConfig, UNetPatchConfig
from transfusion.model.transformer import TransformerConfig
from transfusion.model.transfusion import ModelConfig, TransfusionModel
from transfusion.pretrained import Transfusion
from transfusion.recipes import RECIPES
from transfusion.segments import Document, Latent, Text
from transfusion.tokenizer import ByteTokenizer, TokenizerConfig
from transfusion.train.optimizer import OptimizerConfig

TEXT_SIZE = 20
IMAGE_SHAPE = (2, 4, 4)
SOUND_SHAPE = (3, 6)
FLOW = DiffusionConfig(
    schedule=ScheduleConfig(kind="straight", times="logit_normal", min_t=0.05), prediction="x_0", loss="v"
)


def model_config() -> ModelConfig:
    """Text, an image modality carried by a U-Net and a 1-D signal carried by a linear pair."""
    image = ModalityConfig(
        name="image", channels=2, patch_size=(2, 2), max_grid=(4, 4), patches=UNetPatchConfig(channels=(8,))
    )
    sound = ModalityConfig(name="sound", channels=3, patch_size=(2,), patches=LinearPatchConfig())
    trunk = TransformerConfig(dim=32, depth=2, num_heads=4, num_kv_heads=2, use_qk_norm=True)
    return ModelConfig(text_vocab_size=TEXT_SIZE, trunk=trunk, modalities=(image, sound))


def randomise(model: nn.Module, seed: int = 0, std: float = 0.15) -> None:
    """Give every matrix random weights: the initial ones are zero where training wants them to be."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.copy_(std * torch.randn(parameter.shape, generator=draw))


def make_model(seed: int = 0) -> TransfusionModel:
    """Make a tiny model whose outputs are far from zero."""
    model = TransfusionModel(model_config())
    model.initialise_weights(seed)
    randomise(model, seed)
    return model.eval()


def image(key: int, **facts: float) -> Latent:
    """Make a keyed image."""
    return Latent(normal(IMAGE_SHAPE, 0, "image", key), "image", max_t=facts.get("max_t", 1.0))


def sound(key: int, length: int = 6) -> Latent:
    """Make a keyed sound."""
    return Latent(normal((3, length), 0, "sound", key), "sound")


def text(key: int, length: int = 3) -> Text:
    """Make keyed text."""
    return Text(tuple(generator(0, "text", key).integers(0, TEXT_SIZE, length).tolist()))


def documents(count: int) -> list[Document]:
    """Make documents of every kind."""
    kinds = (
        lambda i: (text(i), image(i)),
        lambda i: (image(i), text(i, 5)),
        lambda i: (text(i, 1), sound(i), image(i), text(i + 1, 2)),
        lambda i: (text(i, 7),),
        lambda i: (sound(i, 4), sound(i + 1)),
    )
    return [Document(kinds[i % len(kinds)](i), key=("toy", i)) for i in range(count)]


class ToySource:
    """An endless source of toy documents."""

    def __init__(self, size: int | None = None) -> None:
        """Make it end after ``size`` documents, or never."""
        self.size = size
        self.visited: list[int] = []
        self.quarantine: dict[str, str] = {}
        self.left_for_others: dict[str, int] = {}
        self.found = Found("toy documents", "shapes", size)

    def document(self, index: int, visit: int) -> Document:
        """Return a keyed document."""
        self.visited.append(index)
        found = documents(index % 50 + 1)[-1]
        return Document(found.segments, ("toy", index, visit))

    def outline(self, index: int, visit: int | None = None) -> Document:
        """Return the document: it is told in one way."""
        return self.document(index, visit or 0)

    def name(self, index: int) -> str:
        """Name a document."""
        return f"toy {index}"

    def texts(self) -> list[str]:
        """Return nothing to learn a tokenizer from."""
        return []

    def preview_prompts(self) -> list[str]:
        """Return no prompts."""
        return []

    def digest(self) -> str:
        """Name the data."""
        return "toy"


def run_config(steps: int = 6, **train: object) -> RunConfig:
    """Make settings for a tiny run over the built-in world or a toy source."""
    return RunConfig(
        name="toy",
        model=model_config().model_copy(update={"text_vocab_size": None}),
        tokenizer=TokenizerConfig(),
        diffusion=FLOW,
        train=TrainConfig.model_validate(
            {
                "steps": steps,
                "batch_size": 6,
                "row_length": 64,
                "num_workers": 0,
                "precision": "fp32",
                "checkpoint_every": 3,
                "log_every": 1,
                "optimizer": OptimizerConfig(kind="muon", lr=1e-2, muon_lr=1e-2, warmup_steps=2, clip=1.0),
                **train,
            }
        ),
        denoising=DenoisingOptions(sampler="euler", num_steps=3),
    )


SMALL = ("model.trunk.dim=32", "model.trunk.depth=1", "denoising.num_steps=3", "tokenizer.kind=bytes")


def small(*settings: str) -> Transfusion:
    """Make what a user holds, over the built-in world at 32 pixels and with bytes, its weights random."""
    config = override(RECIPES["tiny"](), [*SMALL, "train.precision=fp32", *settings])
    model = TransfusionModel(config.model)
    model.initialise_weights(0)
    randomise(model)
    return Transfusion(model.eval(), ByteTokenizer(), config)


def write_pairs(folder: Path, texts: Sequence[str]) -> Path:
    """Make a folder of pictures of 32 pixels, each in another red, with their captions; return it."""
    folder.mkdir()
    for number, told in enumerate(texts):
        Image.new("RGB", (32, 32), (256 * number // len(texts), 0, 0)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(told)
    return folder


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Return whether two sets of named tensors are equal to the bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def mobile_tensors(base: int = 4) -> dict[str, Tensor]:
    """Make the tensors of a narrow MobileNetV2."""
    counts = [(base, 2), (base + 1, 3), (base + 2, 4), (base + 3, 3), (base + 4, 3), (base + 5, 1)]
    shapes = [(base, 3, 3), (base, 1, 3), (base, base, 1)]
    width = base
    for out, blocks in counts:
        for _ in range(blocks):
            shapes += [(2 * width, width, 1), (2 * width, 1, 3), (out, 2 * width, 1)]
            width = out
    shapes += [(8, width, 1), (5, 8, 1)]
    tensors: dict[str, Tensor] = {}
    for number, (out, within, side) in enumerate(shapes):
        weight = _drawn(number, out, within, side, side) * math.sqrt(2 / (within * side * side))
        tensors[f"conv{number:02}.weight"] = weight.half()
        tensors[f"conv{number:02}.bias"] = (0.1 * _drawn(number, out)).half()
    return tensors


def _drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
