"""Vector quantisation: the straight-through gradient against finite differences of its surrogate, revival, averages."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from transfusion.autoencoder.quantise import CodeUse, find_revival, nearest, quantise, revive

BETA = 0.25


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def decoder_loss(vectors: Tensor) -> Tensor:
    """Stand for a decoder and its loss: smooth, and not a sum over places."""
    return (vectors.sin() * vectors.roll(1, -1).exp()).mean() + vectors.square().mean().sqrt()


def test_the_nearest_codes_are_found() -> None:
    vectors, codebook = drawn(500, 3), drawn(40, 3, seed=1)
    brute = (vectors[:, None] - codebook[None]).square().sum(-1).argmin(1)
    assert torch.equal(nearest(vectors, codebook), brute)


@pytest.mark.parametrize("offset", [3.0, 300.0])
def test_the_nearest_codes_are_found_far_from_zero(offset: float) -> None:
    """But for those that are as near as float32 tells numbers of this size apart."""
    codebook = 0.1 * drawn(1024, 8) + offset
    vectors = codebook[:700] + 0.03 * drawn(700, 8, seed=1)
    distances = (vectors.double()[:, None] - codebook.double()[None]).square().sum(-1)
    found = distances.gather(1, nearest(vectors, codebook)[:, None])[:, 0]
    assert bool((found.sqrt() <= distances.min(1).values.sqrt() + 8 * offset * 2.0**-23).all())


def test_codes_stand_in_the_places_of_their_vectors() -> None:
    codebook = drawn(7, 3)
    codes = torch.tensor([[[0, 1], [2, 3]], [[4, 5], [6, 0]]])  # (B, h, w)
    vectors = codebook[codes].permute(0, 3, 1, 2)
    found = quantise(vectors + 1e-4, codebook)
    assert torch.equal(found.codes, codes.flatten())
    assert torch.allclose(found.vectors, vectors, atol=1e-6)


def test_the_straight_through_gradient_is_that_of_the_surrogate() -> None:
    """With the codes held, vectors have the gradient of the decoder's loss at z_q and of the commitment, and codes that
    of the codebook's loss alone: central differences in float64, whose error is about 1e-9 here.
    """
    vectors, codebook = drawn(2, 3, 2, 2).double(), drawn(5, 3, seed=1).double()
    z, e = vectors.clone().requires_grad_(True), codebook.clone().requires_grad_(True)
    found = quantise(z, e)
    (decoder_loss(found.vectors) + found.codebook_loss + BETA * found.commitment_loss).backward()
    held = found.codes.view(2, 2, 2)

    def at(codes: Tensor) -> Tensor:
        return codes[held].permute(0, 3, 1, 2)

    def of_vectors(moved: Tensor) -> Tensor:  # the decoder sees z_q moved as the vectors are
        return decoder_loss(at(codebook) + moved - vectors) + BETA * (at(codebook) - moved).square().mean()

    def of_codes(moved: Tensor) -> Tensor:
        return (at(moved) - vectors).square().mean()

    assert z.grad is not None and e.grad is not None
    assert torch.allclose(z.grad, differences(of_vectors, vectors), atol=1e-7)
    assert torch.allclose(e.grad, differences(of_codes, codebook), atol=1e-7)
    assert z.grad.abs().min() > 1e-6 and e.grad.abs().max() > 1e-3


def differences(loss: object, at: Tensor, width: float = 1e-5) -> Tensor:
    """Return central differences of a loss by each number."""
    assert callable(loss)
    result = torch.zeros_like(at)
    for place in range(at.numel()):
        step = torch.zeros(at.numel(), dtype=at.dtype)
        step[place] = width
        step = step.view(at.shape)
        result.view(-1)[place] = (loss(at + step) - loss(at - step)) / (2 * width)
    return result


def test_a_code_is_revived_after_so_many_steps_and_forgotten_everywhere() -> None:
    use = CodeUse(6, 2, unused=0)
    for _ in range(3):
        use.note(torch.tensor([0, 1, 1, 5]))
    assert use.unused.tolist() == [0, 0, 3, 3, 3, 0]
    vectors = drawn(9, 2)
    assert len(find_revival(use, vectors, 4, 0, 7).codes) == 0
    assert len(find_revival(use, vectors, 0, 0, 7).codes) == 0
    revival = find_revival(use, vectors, 3, 0, 7)
    assert revival.codes.tolist() == [2, 3, 4]
    again, other = find_revival(use, vectors, 3, 0, 7), find_revival(use, vectors, 3, 0, 8)
    assert torch.equal(revival.vectors, again.vectors) and not torch.equal(revival.vectors, other.vectors)
    rows = [(vectors == vector).all(1).nonzero().item() for vector in revival.vectors]
    assert len(set(rows)) == 3
    tables, moments = [drawn(6, 2), drawn(6, 2)], [torch.ones(6, 2), torch.ones(6, 2)]
    before = [table.clone() for table in tables]
    revive(revival, use, tables, moments)
    for table, old, moment in zip(tables, before, moments, strict=True):
        assert torch.equal(table[2:5], revival.vectors) and torch.equal(table[[0, 1, 5]], old[[0, 1, 5]])
        assert moment.tolist() == [[1.0] * 2] * 2 + [[0.0] * 2] * 3 + [[1.0] * 2]
    assert use.unused.tolist() == [0] * 6
    assert torch.equal(use.sums[2:5], revival.vectors) and use.counts[2:5].tolist() == [1.0] * 3


def test_more_dead_codes_than_vectors_take_some_twice() -> None:
    use = CodeUse(6, 2, unused=5)
    use.begin()
    assert find_revival(use, drawn(2, 2), 5, 0, 0).vectors.shape == (6, 2)


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_averaged_codes_are_the_means_of_their_vectors(decay: float) -> None:
    use, codebook = CodeUse(3, 2, unused=0), drawn(3, 2)
    untouched = codebook[2].clone()
    vectors = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 8.0]])
    use.average(codebook, vectors, torch.tensor([0, 0, 1]), decay)
    assert codebook[:2].tolist() == [[2.0, 0.0], [0.0, 8.0]] and torch.equal(codebook[2], untouched)
    use.average(codebook, torch.tensor([[6.0, 0.0]]), torch.tensor([0]), decay)
    weights = torch.tensor([decay * 2, 1.0])  # of the mean 2 of two vectors, then of 6
    assert codebook[0, 0] == pytest.approx(float((weights * torch.tensor([2.0, 6.0])).sum() / weights.sum()))


class Largest(TorchDispatchMode):
    """Notes how many numbers the largest tensor has that any operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        made_ones = made if isinstance(made, tuple | list) else (made,)
        self.numbers = max([self.numbers, *(each.numel() for each in made_ones if isinstance(each, Tensor))])
        return made


def test_averages_of_many_codes_are_right_and_take_no_table_of_vectors_and_codes() -> None:
    """Sums are rounded to float32 once: within half a last place of the exact sum, which float64 is far nearer to."""
    num_codes, count = 16_384, 3000
    use, codebook, vectors = CodeUse(num_codes, 8, unused=0), drawn(num_codes, 8), 300 + drawn(count, 8, seed=1)
    codes = torch.randint(0, num_codes, (count,), generator=torch.Generator().manual_seed(2))
    codes[:900] = 5  # one that many have
    with Largest() as largest:
        use.average(codebook, vectors, codes, 0.0)
    assert largest.numbers <= 8 * num_codes
    exact = torch.zeros(num_codes, 8, dtype=torch.float64).index_add_(0, codes, vectors.double())
    assert bool(((use.sums - exact).abs() <= 2.0**-24 * exact.abs()).all())
    assert torch.equal(use.counts, torch.bincount(codes, minlength=num_codes).float()) and use.counts[5] >= 900
