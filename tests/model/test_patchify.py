"""Patch pairs: cutting and joining, shapes for one to three axes, time on both sides, the paper's counts."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import randomise

from transfusion.model.init import InitConfig, initialise
from transfusion.model.patchify import (
    LinearPatchConfig,
    ModalityConfig,
    UNetPatchConfig,
    build_patches,
    join_patches,
    split_patches,
    transposed,
    unet_strides,
)
from transfusion.model.transformer import Transformer, TransformerConfig

PATCHES = [(3,), (2, 2), (4, 2), (1, 2, 2)]
KINDS = [LinearPatchConfig(), UNetPatchConfig(channels=(8, 12))]


def test_patches_run_left_to_right_then_down() -> None:
    x = torch.arange(8.0).reshape(1, 1, 2, 4)
    assert split_patches(x, (1, 2))[0].tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert split_patches(x, (2, 2))[0].tolist() == [[0, 1, 4, 5], [2, 3, 6, 7]]


@given(st.sampled_from(PATCHES), st.lists(st.integers(1, 3), min_size=3, max_size=3), st.integers(1, 3))
def test_join_undoes_split(patch: tuple[int, ...], sizes: list[int], channels: int) -> None:
    grid = tuple(sizes[: len(patch)])
    shape = [size * side for size, side in zip(grid, patch, strict=True)]
    x = torch.randn(2, channels, *shape)
    patches = split_patches(x, patch)
    assert patches.shape[1] == torch.tensor(grid).prod()
    assert torch.equal(join_patches(patches, grid, patch), x)


@pytest.mark.parametrize("kind", KINDS, ids=["linear", "unet"])
@pytest.mark.parametrize("patch", PATCHES)
def test_pairs_of_all_axes(patch: tuple[int, ...], kind: LinearPatchConfig | UNetPatchConfig) -> None:
    config = ModalityConfig(channels=2, patch_size=patch, max_grid=(3,) * len(patch), patches=kind)
    pair = build_patches(config, 16)
    randomise(pair)
    x, t = torch.randn(2, 2, *(2 * side for side in patch)), torch.tensor([0.1, 0.9])
    hidden, skips = pair.encode(x, t)
    assert hidden.shape == (2, 2 ** len(patch), 16)
    output = pair.decode(hidden, t, skips)
    assert output.shape == x.shape
    output.square().sum().backward()
    silent = [name for name, parameter in pair.named_parameters() if parameter.grad is None]
    assert not silent


@pytest.mark.parametrize("kind", KINDS, ids=["linear", "unet"])
def test_time_enters(kind: LinearPatchConfig | UNetPatchConfig) -> None:
    pair = build_patches(ModalityConfig(channels=2, patch_size=(2, 2), patches=kind), 16)
    randomise(pair)
    x, hidden = torch.randn(1, 2, 4, 4), torch.randn(1, 4, 16)
    early, late = torch.tensor([0.1]), torch.tensor([0.9])
    assert not torch.allclose(pair.encode(x, early)[0], pair.encode(x, late)[0])
    skips = pair.encode(x, early)[1]
    differs = not torch.allclose(pair.decode(hidden, early, skips), pair.decode(hidden, late, skips))
    assert differs == isinstance(kind, UNetPatchConfig)


@pytest.mark.parametrize(
    ("patch", "levels", "stem", "strides"),
    [
        ((8, 8), 2, (2, 2), [(2, 2), (2, 2)]),
        ((2, 2), 1, (1, 1), [(2, 2)]),
        ((6,), 2, (3,), [(2,), (1,)]),
        ((1, 4, 4), 1, (1, 2, 2), [(1, 2, 2)]),
    ],
)
def test_strides(patch: tuple[int, ...], levels: int, stem: tuple[int, ...], strides: list[tuple[int, ...]]) -> None:
    assert unet_strides(patch, levels) == (stem, strides)


@pytest.mark.parametrize(
    ("depth", "dim", "heads", "ffn", "percent"),
    [(16, 768, 12, 2048, 0.5), (24, 1024, 16, 2816, 0.4), (24, 1536, 24, 4096, 0.4), (24, 2048, 16, 5632, 0.4),
     (32, 4096, 32, 11008, 0.3)],
)  # fmt: skip
def test_linear_pair_has_the_paper_s_share_of_parameters(
    depth: int, dim: int, heads: int, ffn: int, percent: float
) -> None:
    """Reproduce the Δ params column of Table 7, linear rows."""
    with torch.device("meta"):
        trunk = Transformer(TransformerConfig(dim=dim, depth=depth, num_heads=heads, hidden_dim=ffn))
        pair = build_patches(ModalityConfig(channels=8, patch_size=(2, 2)), dim)
    base = sum(p.numel() for p in trunk.parameters()) + 2 * 32_000 * dim
    assert round(100 * sum(p.numel() for p in pair.parameters()) / base, 1) == percent


def test_too_large_a_grid_is_named() -> None:
    pair = build_patches(ModalityConfig(channels=1, patch_size=(2,), max_grid=(3,)), 8)
    with pytest.raises(ValueError, match=r"a grid of \(4,\) patches; the model has positions for \(3,\)"):
        pair.encode(torch.zeros(1, 1, 8), torch.zeros(1))


def test_initial_weights_depend_on_seed_and_name_alone() -> None:
    config = ModalityConfig(channels=2, patch_size=(2, 2), patches=UNetPatchConfig(channels=(8,)))
    pairs = [build_patches(config, 16) for _ in range(3)]
    torch.randn(7)  # the global generator plays no part
    for pair, seed in zip(pairs, (0, 0, 1), strict=True):
        initialise(pair, InitConfig(), seed)
    states = [pair.state_dict() for pair in pairs]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["project_in.weight"], states[2]["project_in.weight"])
    assert float(states[0]["head.weight"].abs().max()) == 0


@pytest.mark.parametrize(("channels", "num_axes"), [((256, 16), 2), ((16, 256), 2), ((64, 64), 1), ((32, 64), 3)])
def test_transposed_convolutions_keep_the_spread(channels: tuple[int, int], num_axes: int) -> None:
    layer = torch.nn.Sequential(transposed(num_axes, channels, (2,) * num_axes))
    initialise(layer, InitConfig(), 0)
    x = torch.randn((16, channels[0], *[4] * num_axes), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert float(layer(x).std()) == pytest.approx(1, abs=0.15)  # a few hundred weights of each output


def test_all_layers_of_a_unet_keep_the_spread() -> None:
    """Every layer that multiplies gives outputs of spread one for inputs of spread one."""
    config = ModalityConfig(channels=4, patch_size=(4, 4), patches=UNetPatchConfig(channels=(64, 128), use_direct=True))
    pair = build_patches(config, 96)
    initialise(pair, InitConfig(), 0)
    zero = {id(pair.head), id(pair.direct_out)}
    with torch.no_grad():
        for layer in pair.modules():
            if not hasattr(layer, "weight") or isinstance(layer, torch.nn.GroupNorm) or id(layer) in zero:
                continue
            is_linear = isinstance(layer, torch.nn.Linear)
            size = (400, layer.in_features) if is_linear else (16, layer.in_channels, 8, 8)
            out = layer(torch.randn(size, generator=torch.Generator().manual_seed(1)))
            inner = out if is_linear else out[..., 1:-1, 1:-1]  # padding sees less
            assert float(inner.std()) == pytest.approx(1, abs=0.2), layer


def test_what_is_drawn_leaves_the_linear_pair_unrounded() -> None:
    """Under autocast too: a rounding of bfloat16 is a level of 255 near 1, and guidance of 3 makes five of it."""
    pair = build_patches(ModalityConfig(channels=2, patch_size=(2, 2)), 16)
    randomise(pair)
    hidden, t, skips = torch.randn(1, 4, 16), torch.zeros(1), (torch.empty(0, 2, 4, 4),)
    expected = pair.decode(hidden, t, skips)
    with torch.autocast("cpu", torch.bfloat16):
        assert pair.decode(hidden, t, skips).dtype is torch.bfloat16  # of a loss, which is a sum of many
        with torch.no_grad():
            assert torch.equal(pair.decode(hidden, t, skips), expected)
