"""Dropout (Srivastava et al. 2014), on a CPU several times as fast as torch's."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from nmt import kernels, products

_LEVELS = 1 << 16


def dropout(x: Tensor, rate: float, training: bool) -> Tensor:
    """Zero each element with probability `rate` and scale the rest by 1 / (1 - rate).

    On a CPU, torch draws one double an element from a generator that runs on one core; here 16 bits serve an
    element, so the rate is met to 1/65,536.
    """
    if not training or rate == 0.0:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, rate, training)
    if _fits(x):
        dropped: Tensor = _Dropout.apply(x, None, rate)  # type: ignore[no-untyped-call]
        return dropped
    count = x.numel()
    draws = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    bits = draws.view(torch.int16)[:count].view(x.shape)
    kept = bits >= _threshold(rate) - _LEVELS // 2
    return x * kept * (1 / (1 - rate))


def add_dropped(x: Tensor, output: Tensor, rate: float, training: bool) -> Tensor:
    """x + dropout(output), in one pass where it can be had."""
    if training and rate and x.shape == output.shape and _fits(x) and _fits(output):
        total: Tensor = _Dropout.apply(output, x, rate)  # type: ignore[no-untyped-call]
        return total
    return x + dropout(output, rate, training)


def _threshold(rate: float) -> int:
    """How many of the levels are dropped."""
    return min(round(rate * _LEVELS), _LEVELS - 1)


class _Call(ctypes.Structure):
    """nmt_dropout_call in dropout.c."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("x", "add", "y")),
        *(("count", ctypes.c_int64), ("seed", ctypes.c_uint64)),
        *((name, ctypes.c_int64) for name in ("threshold", "threads")),
        ("scale", ctypes.c_float),
    ]


@cache
def _library() -> Any:
    library = kernels.library() if products.available() else None
    if library is None or not hasattr(library, "nmt_dropout"):
        return None
    library.nmt_dropout.argtypes, library.nmt_dropout.restype = [ctypes.c_void_p], None
    return library


def _fits(x: Tensor) -> bool:
    """Whether it is for dropout.c. Beyond 2^32 elements its hash would come round again."""
    plain = x.device.type == "cpu" and x.dtype == torch.float32 and x.numel() < 1 << 32
    return plain and _library() is not None


class _Dropout(torch.autograd.Function):
    """The mask is a function of a seed, and is made again for the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, add: Tensor | None, rate: float) -> Tensor:
        # As an integer of 64 bits drawn by torch, so that its seed is the seed.
        ctx.seed = int(torch.empty((), dtype=torch.int64).random_(-(2**63), None)) % (1 << 64)
        ctx.rate = rate
        return _drop(x.contiguous(), None if add is None else add.contiguous(), rate, ctx.seed)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x_grad = _drop(grad.contiguous(), None, ctx.rate, ctx.seed) if ctx.needs_input_grad[0] else None
        return x_grad, grad if ctx.needs_input_grad[1] else None, None


def _drop(x: Tensor, add: Tensor | None, rate: float, seed: int) -> Tensor:
    y = torch.empty_like(x)
    call = _Call(x.data_ptr(), None if add is None else add.data_ptr(), y.data_ptr(), x.numel(), seed)
    call.threshold, call.threads, call.scale = _threshold(rate), torch.get_num_threads(), 1 / (1 - rate)
    _library().nmt_dropout(ctypes.byref(call))
    return y
