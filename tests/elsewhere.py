"""A device that is not the CPU, on a CPU: tensors that say they are elsewhere, and operations that refuse to mix.

Within ``Elsewhere()`` a tensor made on or moved to ``ELSEWHERE`` holds its values in ordinary memory but reports that
device. As on an accelerator, an operation on tensors of both places is an error unless the one of the CPU is a scalar
or an index, and what is read into Python or NumPy must be moved to the CPU first.
"""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.backend_registration import (
    _setup_privateuseone_for_python_backend as setup_privateuseone_for_python_backend,
)

setup_privateuseone_for_python_backend("elsewhere")
torch.elsewhere.get_amp_supported_dtype = lambda: [torch.bfloat16]  # pyright: ignore
ELSEWHERE = torch.device("elsewhere", 0)
_aten: Any = torch.ops.aten
MOVES = {_aten._to_copy, _aten.copy_, _aten.to}
TAKES_INDICES = {_aten.index, _aten.index_put_, _aten.index_put, _aten._index_put_impl_}


class Moved(Tensor):
    """A tensor that reports another device."""

    inner: Tensor

    @staticmethod
    def __new__(cls: type["Moved"], inner: Tensor) -> "Moved":
        facts: dict[str, Any] = {"dtype": inner.dtype, "device": ELSEWHERE, "requires_grad": False}
        with torch.inference_mode(False):  # views of wrappers made in it cannot be told apart from their base
            made = Tensor._make_wrapper_subclass(cls, inner.size(), inner.stride(), inner.storage_offset(), **facts)
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class Elsewhere(TorchDispatchMode):
    """Within it, tensors can be made elsewhere."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    kind = func.overloadpacket
    tensors = [part for part in tree_flatten((args, kwargs))[0] if isinstance(part, Tensor)]
    moved = [part for part in tensors if isinstance(part, Moved)]
    takes_any = kind in TAKES_INDICES and isinstance(args[0], Moved)  # indices of the CPU are taken along
    checked = tree_flatten([args[0], *args[2:]])[0] if takes_any else tensors
    stayed = [part for part in checked if isinstance(part, Tensor) and not isinstance(part, Moved) and part.dim() > 0]
    if stayed and any(isinstance(part, Moved) for part in checked) and kind not in MOVES:
        shapes = [tuple(part.shape) for part in stayed]
        raise RuntimeError(f"{func} mixes tensors of {ELSEWHERE} and of the CPU, those of shapes {shapes}")
    target = next((part for part in (*args, kwargs.get("device")) if isinstance(part, torch.device)), None)
    is_there = bool(moved) if target is None else target.type == ELSEWHERE.type
    if target is None and (kind in MOVES or kind in TAKES_INDICES):
        is_there = isinstance(args[0], Moved)
    args, kwargs = tree_map(_inner, (args, kwargs))
    if kind is _aten._fused_sdp_choice:
        return 0  # plain products: the choice of kernels is the real device's
    found = func(*args, **kwargs)
    for part in moved:  # what is changed in place keeps its face
        if is_there and found is part.inner:
            return part
    return tree_map(lambda part: Moved(part) if is_there and isinstance(part, Tensor) else part, found)


def _inner(part: Any) -> Any:
    """Return what an argument is on the CPU."""
    if isinstance(part, torch.device):
        return torch.device("cpu")
    return part.inner if isinstance(part, Moved) else part
