"""Output projection and cross-entropy with gradients in one call (`native/fused_loss.c`), on a CPU.

`available` says whether it is compiled and the processor has AVX-512; `nmt/loss.py` has the same in torch.

N positions, D width, V vocabulary, W threads.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import torch
from torch import Tensor

from nmt import kernels, products

_int, _pointer = ctypes.c_int64, ctypes.c_void_p
# Bytes for each thread of the machine to add gradients of a matrix up, each that takes part for itself.
_ROOM = 1 << 27


class _Loss(ctypes.Structure):
    """nmt_loss in fused_loss.c."""

    _fields_ = [
        *((name, _pointer) for name in ("hidden", "weight", "bias", "target")),
        *((name, _int) for name in ("rows", "width", "vocabulary", "kind", "gradient", "threads")),
        *((name, ctypes.c_float) for name in ("smoothing", "z_loss")),
        *((name, _pointer) for name in ("panels", "by_outputs", "room", "hidden_grad", "weight_grads")),
        *((name, _pointer) for name in ("bias_grads", "smoothed", "plain")),
    ]


@cache
def _library() -> Any:
    library = kernels.library() if products.available() else None
    if library is None or not hasattr(library, "nmt_loss_by_outputs"):
        return None
    library.nmt_can_pair.restype = _int
    for name in ("nmt_loss_room", "nmt_loss_panels", "nmt_loss_by_outputs"):
        function = getattr(library, name)
        function.argtypes, function.restype = [_int, _int, _int], _int
    library.nmt_cross_entropy.argtypes, library.nmt_cross_entropy.restype = [_pointer], None
    return library


def available(kind: torch.dtype) -> bool:
    """Whether factors of products can be of this type: float32, bfloat16, or int8; sums are float32."""
    if _library() is None or kind not in kernels.KINDS:
        return False
    return kind != torch.bfloat16 or bool(_library().nmt_can_pair())


def cross_entropy(
    hidden_ND: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
    target_N: Tensor,
    *,
    smoothing: float,
    kind: torch.dtype,
    gradient: bool,
    z_loss: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """As `nmt.loss.cross_entropy_sum`: losses with and without smoothing, gradients of the first.

    Args:
        hidden_ND, weight_VD, bias_V: float32, on the CPU.
        kind: of the factors of products.

    Returns:
        Two scalars, and gradients of hidden states, matrix and bias, which are None where not wanted.

    Raises:
        IndexError: a target is not in the vocabulary.
    """
    if len(target_N) and not 0 <= int(target_N.min()) <= int(target_N.max()) < len(weight_VD):
        raise IndexError(f"a target is not among the {len(weight_VD)} outputs")
    hidden_ND, weight_VD, target_N = hidden_ND.contiguous(), weight_VD.contiguous(), target_N.contiguous()
    rows, width = hidden_ND.shape
    vocabulary, threads, library = len(weight_VD), threads_for(weight_VD), _library()
    number = kernels.KINDS[kind]
    shape = (number, width, vocabulary)
    panels = torch.empty(library.nmt_loss_panels(*shape))
    copied = library.nmt_loss_by_outputs(*shape)
    by_outputs = torch.empty(copied) if copied and gradient else None
    room = torch.empty(threads * library.nmt_loss_room(*shape))
    hidden_grad = torch.empty_like(hidden_ND) if gradient else None
    weight_grads = torch.zeros((threads, vocabulary, width)) if gradient else None
    bias_grads = torch.zeros((threads, vocabulary)) if gradient and bias_V is not None else None
    smoothed_W, plain_W = torch.zeros((2, threads), dtype=torch.float64)
    call = _Loss(
        *map(_address, (hidden_ND, weight_VD, None if bias_V is None else bias_V.contiguous(), target_N)),
        *(rows, width, vocabulary, number, gradient, threads, smoothing, z_loss),
        *map(
            _address, (panels, by_outputs, room, hidden_grad, weight_grads, bias_grads, smoothed_W, plain_W)
        ),
    )
    library.nmt_cross_entropy(ctypes.byref(call))
    weight_grad, bias_grad = summed(weight_grads), summed(bias_grads)
    if kind == torch.int8 and smoothing:  # what it spreads evenly, which C has left out
        if hidden_grad is not None:
            hidden_grad -= smoothing * weight_VD.mean(dim=0)
        if weight_grad is not None:
            weight_grad -= smoothing / vocabulary * hidden_ND.sum(dim=0)
        if bias_grad is not None:
            bias_grad -= smoothing / vocabulary * rows
    return smoothed_W.sum().float(), plain_W.sum().float(), hidden_grad, weight_grad, bias_grad


def threads_for(weight: Tensor) -> int:
    """How many threads may add up a gradient of this size."""
    threads = torch.get_num_threads()
    return max(1, min(threads, threads * _ROOM // weight.nbytes))


def summed(parts: Tensor | None) -> Tensor | None:
    """The sum over the first axis, in order: what each thread has added up."""
    if parts is None:
        return None
    total = parts[0]
    for part in parts[1:]:
        total += part
    return total


def _address(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()
