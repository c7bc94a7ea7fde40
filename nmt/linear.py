"""A linear layer with its gradients, in C (`native/linear.c`), for training on a CPU with AVX-512.

Factors of products are float32, or inside `products_of` rounded to bfloat16 or int8 (`native/bytes.h`); sums
and everything else are float32. `available` says whether it can be had.

N rows, I and O widths of input and output.
"""

from __future__ import annotations

import ctypes
import threading
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
_NARROWEST = 8  # of int8: a column or two are no matrix
_kind: ContextVar[torch.dtype] = ContextVar("kind", default=torch.float32)


class _Linear(ctypes.Structure):
    """nmt_linear in linear.h."""

    _fields_ = [
        *((name, _pointer) for name in ("x", "weight", "bias")),
        *((name, _int) for name in ("rows", "inputs", "outputs", "kind", "relu", "threads")),
        *((name, _pointer) for name in ("panels", "x_panels", "grads", "room", "y", "y_grad", "x_grad")),
        *((name, _pointer) for name in ("weight_grad", "bias_grad")),
    ]


@cache
def _library() -> Any:
    library = kernels.library() if fused_loss.available(torch.float32) else None
    if library is None or not hasattr(library, "nmt_linear_grads"):
        return None
    for name in ("nmt_linear_room", "nmt_linear_panels", "nmt_linear_grads"):
        function = getattr(library, name)
        function.argtypes, function.restype = [_int, _int, _int], _int
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


def linear(x: Tensor, weight_OI: Tensor, bias_O: Tensor | None, *, relu: bool = False) -> Tensor:
    """x W' + b, or with `relu` max(0, x W' + b): (..., I) -> (..., O). In C where gradients are wanted and it
    can, else as torch does it."""
    wanted = torch.is_grad_enabled() and (x.requires_grad or weight_OI.requires_grad)
    ours = x.dtype == weight_OI.dtype == torch.float32 and x.device.type == "cpu"
    many = x.numel() >= _FEWEST * x.size(-1)
    kind = _kind.get()
    if kind == torch.int8 and min(weight_OI.shape) < _NARROWEST:
        kind = torch.float32
    if not (wanted and ours and many and available(kind)) or torch.is_autocast_enabled("cpu"):
        y = F.linear(x, weight_OI, bias_O)
        return F.relu(y) if relu else y
    return _LinearFunction.apply(x, weight_OI, bias_O, kind, relu)  # type: ignore[no-any-return, no-untyped-call]


class _Scratch(threading.local):
    """Memory that a call works in and leaves behind: new memory would cost the system a page at a time."""

    def __init__(self) -> None:
        self.held: dict[str, Tensor] = {}

    def take(self, name: str, count: int) -> Tensor:
        """Room for so many float32 in this thread, until it is taken again."""
        held = self.held.get(name)
        if held is None or held.numel() < count:
            del held
            self.held.pop(name, None)
            held = self.held[name] = torch.empty(count)
        return held


_scratch = _Scratch()


def give_back_memory() -> None:
    """What calls of this thread have left behind."""
    _scratch.held.clear()


class Linear(nn.Linear):
    """nn.Linear by `linear`."""

    def forward(self, x: Tensor, *, relu: bool = False) -> Tensor:
        return linear(x, self.weight, self.bias, relu=relu)


class _LinearFunction(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight_OI: Tensor, bias_O: Tensor | None, kind: torch.dtype, relu: bool
    ) -> Tensor:
        x, weight_OI = x.contiguous(), weight_OI.contiguous()
        outputs, inputs = weight_OI.shape
        y = x.new_empty(*x.shape[:-1], outputs)
        call = _call(x, weight_OI, y, kind, relu)
        bias_O = None if bias_O is None else bias_O.contiguous()
        panels = _scratch.take("panels", _library().nmt_linear_panels(call.kind, inputs, outputs))
        call.bias, call.panels = _address(bias_O), panels.data_ptr()
        _library().nmt_linear_forward(ctypes.byref(call))
        ctx.save_for_backward(x, weight_OI, y if relu else None)
        ctx.kind = kind
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight_OI, y = ctx.saved_tensors
        grad = grad.contiguous()
        call = _call(x, weight_OI, y, ctx.kind, y is not None)
        outputs, inputs = weight_OI.shape
        x_wanted, weight_wanted, bias_wanted, *_ = ctx.needs_input_grad
        laid_out = _library().nmt_linear_panels
        panels = _scratch.take("panels", laid_out(call.kind, outputs, inputs))
        x_panels = _scratch.take("x_panels", laid_out(call.kind, call.rows, inputs))
        grads = _scratch.take("grads", _library().nmt_linear_grads(call.kind, call.rows, outputs))
        x_grad = torch.empty_like(x) if x_wanted else None
        weight_grad = torch.empty_like(weight_OI) if weight_wanted else None
        bias_grad = x.new_empty(outputs) if bias_wanted else None
        call.panels, call.x_panels, call.grads = map(_address, (panels, x_panels, grads))
        call.y_grad = grad.data_ptr()
        call.x_grad, call.weight_grad, call.bias_grad = map(_address, (x_grad, weight_grad, bias_grad))
        _library().nmt_linear_backward(ctypes.byref(call))
        return x_grad, weight_grad, bias_grad, None, None


def _call(x: Tensor, weight_OI: Tensor, y: Tensor | None, kind: torch.dtype, relu: bool) -> _Linear:
    outputs, inputs = weight_OI.shape
    threads = torch.get_num_threads()
    room = threads * _library().nmt_linear_room(kernels.KINDS[kind], inputs, outputs)
    call = _Linear(x.data_ptr(), weight_OI.data_ptr(), None, x.numel() // inputs, inputs, outputs)
    call.kind, call.relu, call.threads = kernels.KINDS[kind], relu, threads
    call.room, call.y = _scratch.take("room", room).data_ptr(), _address(y)
    return call


def _address(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()
