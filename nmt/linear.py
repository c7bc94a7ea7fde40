"""A linear layer with its gradients, in C (`native/linear.c`), for training on a CPU with AVX-512.

Factors of products are float32, or inside `products_of(torch.bfloat16)` rounded to bfloat16; sums and
everything else are float32. `available` says whether it can be had.

N rows, I and O widths of input and output.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from nmt import fused_loss, kernels

_int, _pointer = ctypes.c_int64, ctypes.c_void_p
# Laying the matrix out costs as much as some rows gain.
_FEWEST = 512
_kind: ContextVar[torch.dtype] = ContextVar("kind", default=torch.float32)


class _Linear(ctypes.Structure):
    """nmt_linear in linear.c."""

    _fields_ = [
        *((name, _pointer) for name in ("x", "weight", "bias")),
        *((name, _int) for name in ("rows", "inputs", "outputs", "pairs", "threads")),
        *((name, _pointer) for name in ("panels", "by_outputs", "room", "y", "y_grad", "x_grad")),
        *((name, _pointer) for name in ("weight_grads", "bias_grads")),
    ]


@cache
def _library() -> Any:
    library = kernels.library() if fused_loss.available(torch.float32) else None
    if library is None or not hasattr(library, "nmt_linear_forward"):
        return None
    library.nmt_linear_room.argtypes, library.nmt_linear_room.restype = [_int, _int], _int
    for name in ("nmt_linear_forward", "nmt_linear_backward"):
        function = getattr(library, name)
        function.argtypes, function.restype = [_pointer], None
    return library


def available(kind: torch.dtype) -> bool:
    """Whether products can be of this type."""
    return _library() is not None and fused_loss.available(kind)


@contextmanager
def products_of(kind: torch.dtype) -> Iterator[None]:
    """Factors of `linear` are of this type."""
    token = _kind.set(kind)
    try:
        yield
    finally:
        _kind.reset(token)


def product_type() -> torch.dtype:
    """Of factors, as `products_of` has set it."""
    return _kind.get()


def linear(x: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
    """x W' + b: (..., I) -> (..., O). In C where gradients are wanted and it can, else as torch does it."""
    wanted = torch.is_grad_enabled() and (x.requires_grad or weight_OI.requires_grad)
    ours = x.dtype == weight_OI.dtype == torch.float32 and x.device.type == "cpu"
    many = x.numel() >= _FEWEST * x.size(-1)
    if not (wanted and ours and many and available(_kind.get())) or torch.is_autocast_enabled("cpu"):
        return F.linear(x, weight_OI, bias_O)
    y: Tensor = _LinearFunction.apply(x, weight_OI, bias_O, _kind.get())  # type: ignore[no-untyped-call]
    return y


class Linear(nn.Linear):
    """nn.Linear by `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


class _LinearFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_OI: Tensor, bias_O: Tensor | None, kind: torch.dtype) -> Tensor:
        x, weight_OI = x.contiguous(), weight_OI.contiguous()
        call, room = _call(x, weight_OI, kind)
        outputs, inputs = weight_OI.shape
        y = x.new_empty(*x.shape[:-1], outputs)
        bias_O = None if bias_O is None else bias_O.contiguous()
        words = (inputs + 1) // 2 if call.pairs else inputs
        panels = x.new_empty((outputs + -outputs % 32) * words)
        call.bias, call.y, call.panels = _address(bias_O), y.data_ptr(), panels.data_ptr()
        _library().nmt_linear_forward(ctypes.byref(call))
        ctx.save_for_backward(x, weight_OI)
        ctx.kind = kind
        del room
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight_OI = ctx.saved_tensors
        grad = grad.contiguous()
        call, room = _call(x, weight_OI, ctx.kind)
        outputs, inputs = weight_OI.shape
        copied = (outputs + 1) // 2 if call.pairs else outputs if inputs % 32 else 0
        by_outputs = x.new_empty(copied * (inputs + -inputs % 32) + 32) if copied else None
        x_wanted, weight_wanted, bias_wanted, _ = ctx.needs_input_grad
        x_grad = torch.empty_like(x) if x_wanted else None
        weight_grads = x.new_zeros(call.threads, outputs, inputs) if weight_wanted else None
        bias_grads = x.new_zeros(call.threads, outputs) if bias_wanted else None
        call.y_grad, call.by_outputs, call.x_grad = grad.data_ptr(), _address(by_outputs), _address(x_grad)
        call.weight_grads, call.bias_grads = _address(weight_grads), _address(bias_grads)
        _library().nmt_linear_backward(ctypes.byref(call))
        del room
        return x_grad, fused_loss.summed(weight_grads), fused_loss.summed(bias_grads), None


def _call(x: Tensor, weight_OI: Tensor, kind: torch.dtype) -> tuple[_Linear, Tensor]:
    """And the room it works in, which must live as long."""
    outputs, inputs = weight_OI.shape
    threads = fused_loss.threads_for(weight_OI)
    room = x.new_empty(threads * (_library().nmt_linear_room(inputs, outputs) // 4))
    rows = x.numel() // inputs
    call = _Linear(x.data_ptr(), weight_OI.data_ptr(), None, rows, inputs, outputs)
    call.pairs, call.threads, call.room = kind == torch.bfloat16, threads, room.data_ptr()
    return call, room


def _address(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()
