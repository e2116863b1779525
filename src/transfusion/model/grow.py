"""Trained weights for a model of a somewhat different shape: what fits is taken, and the rest is named with its size.

A vocabulary, a grid of positions, the depth and the modalities may differ. It must not know where weights come from,
nor tokenizers.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from transfusion.model.transfusion import ModelConfig, TransfusionModel

TOKEN_ROWS = frozenset({"embed.weight", "head.weight"})
PATCHES, BLOCKS = "patches.", "trunk.blocks."
INTO_STREAM = (".attention.out.weight", ".ffn.down.weight")
Grid = tuple[int, ...]


class Part(NamedTuple):
    """A parameter that is not the trained one as it was: its name, its size, and what became of it."""

    name: str
    shape: tuple[int, ...]
    what: str

    def __str__(self) -> str:
        """Say it."""
        return f"{self.name} ({' x '.join(map(str, self.shape))}): {self.what}"


class Fit(NamedTuple):
    """What of the trained model stands where in the new one.

    Attributes:
        text_rows: For every id of the new tokenizer the trained one's of the same meaning, or None; None where the
            tokenizer is the same.
        grids: Of a modality's name the largest grid of patches that the trained model saw, and that the new one will
            see; where a name is missing, those of its ``max_grid``.
        is_anew: Whether a parameter of the new model begins anew, though it may have the shape.
    """

    text_rows: Sequence[int | None] | None
    grids: Mapping[str, tuple[Grid, Grid]]
    is_anew: Callable[[str], bool]


def take_over(model: TransfusionModel, weights: Mapping[str, Tensor], old: ModelConfig, fit: Fit) -> list[Part]:
    """Fill a model, which has its initial weights, with trained ones.

    Blocks behind the trained depth begin by passing on what they are given, so the model computes what it did.

    Args:
        model: Is filled.
        weights: The trained model's parameters by name.
        old: The trained model's settings.
        fit: What stands where.

    Returns:
        The parameters that are new, resized or dropped; none where both models are alike.
    """
    rows = _rows(model, old, fit)
    state, used, parts = model.state_dict(), set[str](), list[Part]()
    for name, tensor in state.items():
        old_name = _old_name(name, model.config, old)
        trained = None if old_name is None or fit.is_anew(name) else weights.get(old_name)
        if trained is None:
            what = "new"
        elif name in TOKEN_ROWS and tensor.shape[1:] == trained.shape[1:]:
            what = _fill_rows(tensor, trained, rows)
        elif ".positions.tables." in name and tensor.shape[1:] == trained.shape[1:]:
            what = _fill_positions(tensor, trained, _grids(name, model.config, old, fit))
        elif tensor.shape == trained.shape:
            what = ""
            tensor.copy_(trained)
        else:
            trained, what = None, f"new, for it was {' x '.join(map(str, trained.shape))}"
        if trained is None and _is_added_block(name, old) and name.endswith(INTO_STREAM):
            tensor.zero_()
            what += " and zero: its block passes on what it is given"
        used |= set() if old_name is None else {old_name}
        parts += [Part(name, tuple(tensor.shape), what)] if what else []
    return parts + [Part(name, tuple(weights[name].shape), "dropped") for name in weights if name not in used]


def interpolated(table: Tensor, size: int) -> Tensor:
    """Stretch a (positions, D) table to ``size`` positions, linearly between the middles of its patches.

    Example:
        >>> interpolated(torch.tensor([[0.0], [1.0]]), 4).flatten().tolist()
        [0.0, 0.25, 0.75, 1.0]
    """
    return F.interpolate(table.T[None], size=size, mode="linear", align_corners=False)[0].T


def _rows(model: TransfusionModel, old: ModelConfig, fit: Fit) -> list[int | None]:
    """Return for every id of the new vocabulary the trained one's, or None; special ids by their meaning."""
    new, trained = model.vocabulary, old.vocabulary()
    text = range(new.text_size) if fit.text_rows is None else fit.text_rows
    places = {name: trained.text_size + place for place, name in enumerate(trained.specials)}
    return [*text, *(places.get(name) for name in new.specials)]


def _fill_rows(tensor: Tensor, trained: Tensor, rows: Sequence[int | None]) -> str:
    pairs = [(new, old) for new, old in enumerate(rows) if old is not None]
    new, old = (torch.tensor([pair[place] for pair in pairs], dtype=torch.int64) for place in (0, 1))
    tensor[new] = trained[old]
    if rows == list(range(len(trained))):
        return ""
    return f"{len(pairs)} rows kept, {len(rows) - len(pairs)} new, {len(trained) - len(pairs)} dropped"


def _fill_positions(tensor: Tensor, trained: Tensor, grids: tuple[int, int]) -> str:
    """Fill the positions along one axis: those that were used are stretched where more will be."""
    before, after = min(grids[0], len(trained)), min(grids[1], len(tensor))
    if after > before:
        tensor[:after] = interpolated(trained[:before], after)
        return f"{before} positions interpolated to {after}"
    kept = min(len(trained), len(tensor))
    tensor[:kept] = trained[:kept]
    if len(trained) == len(tensor):
        return ""
    return f"{kept} positions kept, {len(tensor) - kept} new, {len(trained) - kept} dropped"


def _grids(name: str, new: ModelConfig, old: ModelConfig, fit: Fit) -> tuple[int, int]:
    """Return how many positions of a table were used, and how many will be."""
    axis, modality = int(name.rpartition(".")[2]), new.modalities[_number(name, PATCHES)]
    trained = next(other for other in old.modalities if other.name == modality.name)
    before, after = fit.grids.get(modality.name, (trained.max_grid, modality.max_grid))
    assert before is not None and after is not None, f"{name} has no grid"
    return before[axis], after[axis]


def _old_name(name: str, new: ModelConfig, old: ModelConfig) -> str | None:
    """Return a parameter's name in the trained model, where a modality may have another number, or none."""
    if not name.startswith(PATCHES):
        return name
    number = _number(name, PATCHES)
    places = [place for place, other in enumerate(old.modalities) if other.name == new.modalities[number].name]
    return f"{PATCHES}{places[0]}{name.removeprefix(f'{PATCHES}{number}')}" if places else None


def _is_added_block(name: str, old: ModelConfig) -> bool:
    return name.startswith(BLOCKS) and _number(name, BLOCKS) >= old.trunk.depth


def _number(name: str, prefix: str) -> int:
    return int(name.removeprefix(prefix).partition(".")[0])
