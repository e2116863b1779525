"""Matrices held in the dtype in which they are multiplied: half the memory, and the same bits.

Autocast rounds a matrix each time it multiplies with it; held rounded, it is rounded once. Norms, embeddings,
positions, the time embedding, the text head and the last layer of the linear pair stay float32, as they are computed
or added in it. It must not know files.
"""

import torch
from torch import nn

from transfusion.model.patchify import LinearPatches, TimeEmbedding
from transfusion.model.transfusion import TransfusionModel

MATRICES = (
    nn.Linear,
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
)


def hold_matrices(model: TransfusionModel, dtype: torch.dtype) -> None:
    """Round a model's matrices in place, for use alone: what is rounded off is gone, and such a model is not saved.

    Args:
        model: Computes in this dtype from here on, wherever it is called.
        dtype: bfloat16, or float32, which leaves the model as it is.
    """
    if dtype is torch.float32:
        return
    apart = {id(model.head)}
    for found in model.modules():
        if isinstance(found, TimeEmbedding):
            apart |= {id(part) for part in found.modules()}
        elif isinstance(found, LinearPatches):
            apart.add(id(found.project_out))
    for part in model.modules():
        if isinstance(part, MATRICES) and id(part) not in apart:
            part.to(dtype)
    model.held_dtype = dtype
