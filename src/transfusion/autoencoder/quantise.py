"""Vector quantisation: the nearest codes with a straight-through gradient, averages of codes, and the revival of those
that nothing uses. It must not know networks.

K: codes; D: numbers of a code; N: vectors of a batch.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from transfusion.keyed import generator

MOST_DISTANCES = 2**26  # held at once
SMALL = 1e-5  # of Laplace's smoothing


class Quantised(NamedTuple):
    """What a quantiser makes of vectors.

    Attributes:
        vectors: The codes in place of them, (B, D, h, w); their gradient goes to the vectors as it is.
        codes: (B·h·w,) int64.
        flat: The vectors themselves, (B·h·w, D), without gradient.
        codebook_loss: Mean squared distance that draws codes to vectors.
        commitment_loss: The same that draws vectors to codes.
    """

    vectors: Tensor
    codes: Tensor
    flat: Tensor
    codebook_loss: Tensor
    commitment_loss: Tensor


def nearest(vectors: Tensor, codebook: Tensor) -> Tensor:
    """Return the number of the nearest code of each vector.

    Args:
        vectors: (N, D) float32.
        codebook: (K, D) float32.

    Returns:
        (N,) int64; of two that are equally near the first.
    """
    rows = max(1, MOST_DISTANCES // len(codebook))
    centre = codebook.mean(0)  # distances are of products, which lose those of numbers far from zero
    codes = codebook - centre
    return torch.cat([torch.cdist(part - centre, codes).argmin(1) for part in vectors.split(rows)])


def quantise(vectors: Tensor, codebook: Tensor) -> Quantised:
    """Put the nearest codes in the place of vectors (arXiv 1711.00937, equations 1 to 3).

    Args:
        vectors: (B, D, h, w) float32.
        codebook: (K, D) float32.
    """
    with torch.autocast(vectors.device.type, enabled=False):
        count, dim, height, width = vectors.shape
        flat = vectors.permute(0, 2, 3, 1).reshape(-1, dim)
        codes = nearest(flat.detach(), codebook.detach())
        found = codebook[codes].view(count, height, width, dim).permute(0, 3, 1, 2)
        codebook_loss = (found - vectors.detach()).square().mean()
        commitment_loss = (found.detach() - vectors).square().mean()
        straight = (vectors + (found - vectors).detach()).contiguous()
        return Quantised(straight, codes, flat.detach(), codebook_loss, commitment_loss)


def _sums(vectors: Tensor, codes: Tensor, counts: Tensor) -> Tensor:
    """Sum the vectors (N, D) of each code, (K, D) float32, in their order: on a GPU too the same bits each time, where
    additions into one place at once have none. Takes memory for the vectors alone, and no table of (N, K).

    Args:
        vectors: (N, D).
        codes: (N,) the code of each.
        counts: (K,) how many each code has.
    """
    sorted_ones = vectors[codes.argsort(stable=True)].double()  # so that a sum is rounded once
    return torch.segment_reduce(sorted_ones, "sum", lengths=counts, axis=0, unsafe=True).float()


class CodeUse(nn.Module):
    """How codes are used: steps since each was, and the sums of which averaged codes are made. All of it is buffers."""

    unused: Tensor
    counts: Tensor
    sums: Tensor

    def __init__(self, num_codes: int, code_dim: int, *, unused: int) -> None:
        """Begin with codes that count as unused for so many steps."""
        super().__init__()
        self._begun = unused
        self.register_buffer("unused", torch.zeros(num_codes, dtype=torch.int64))
        self.register_buffer("counts", torch.zeros(num_codes))
        self.register_buffer("sums", torch.zeros(num_codes, code_dim))

    def begin(self) -> None:
        """Fill the buffers."""
        self.unused.fill_(self._begun)
        self.counts.zero_()
        self.sums.zero_()

    @torch.no_grad()
    def note(self, codes: Tensor) -> None:
        """Count a step in which ``codes`` (N,) were used."""
        is_used = torch.bincount(codes, minlength=len(self.unused)) > 0
        self.unused.copy_(torch.where(is_used, 0, self.unused + 1))

    @torch.no_grad()
    def average(self, codebook: Tensor, vectors: Tensor, codes: Tensor, decay: float) -> None:
        """Move each code to the moving average of the vectors that were its own (arXiv 1711.00937, appendix A.1).

        Args:
            codebook: (K, D), is changed; a code that never had a vector stays.
            vectors: (N, D) of a batch.
            codes: (N,) the code of each.
            decay: Of the averages, in [0, 1).
        """
        counts = torch.bincount(codes, minlength=len(codebook))
        self.counts.mul_(decay).add_(counts, alpha=1 - decay)
        self.sums.mul_(decay).add_(_sums(vectors, codes, counts), alpha=1 - decay)
        is_known = self.counts > SMALL
        averages = self.sums / self.counts.clamp(min=SMALL)[:, None]
        codebook.copy_(torch.where(is_known[:, None], averages, codebook))


class Revival(NamedTuple):
    """Codes that are put elsewhere: their numbers (M,) int64, and where to, (M, D)."""

    codes: Tensor
    vectors: Tensor


def find_revival(use: CodeUse, vectors: Tensor, after: int, seed: int, step: int) -> Revival:
    """Choose for each code that was unused for ``after`` steps a vector of the batch, by a keyed draw.

    Args:
        use: Says for how long.
        vectors: (N, D); one is taken twice only where there are fewer than codes to revive.
        after: Steps; 0: no code is revived.
        seed: The run's.
        step: The step's number.
    """
    dead = (use.unused >= after).nonzero().flatten() if after else use.unused.new_zeros(0)
    rng = generator(seed, "revival", step)
    rows = rng.choice(len(vectors), size=len(dead), replace=len(dead) > len(vectors))
    return Revival(dead, vectors[torch.from_numpy(rows).to(vectors.device)])


@torch.no_grad()
def revive(revival: Revival, use: CodeUse, tables: list[Tensor], moments: list[Tensor]) -> None:
    """Put dead codes where vectors are, and forget what was known of them.

    Args:
        revival: Which, and where to.
        use: Counts them as used just now.
        tables: Codebooks (K, D), trained and averaged: both are changed.
        moments: The optimizer's of the codebook, (K, D): become zero there.
    """
    codes, vectors = revival
    for table in tables:
        table[codes] = vectors
    for moment in moments:
        moment[codes] = 0.0
    use.unused[codes] = 0
    use.counts[codes] = 1.0
    use.sums[codes] = vectors
