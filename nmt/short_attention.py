"""Attention of short sentences with its gradients, in C (`native/attention.c`), on a CPU with AVX-512.

`usable` says whether it can be had; `nmt/models/attention.py` has the same in torch.

B sentences, H heads, Q queries, S keys, N width of a head.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nmt import kernels, products

_int, _pointer = ctypes.c_int64, ctypes.c_void_p


class _Rows(ctypes.Structure):
    """rows_of_heads in attention.c."""

    _fields_ = [("data", _pointer), *((name, _int) for name in ("sentence", "position", "head"))]


class _Attention(ctypes.Structure):
    """nmt_attention in attention.c."""

    _fields_ = [
        *((name, _int) for name in ("sentences", "heads", "width", "queries", "keys", "causal")),
        ("bias", _pointer),
        *((name, _Rows) for name in ("query", "key", "value", "context")),
        ("weights", _pointer),
        *((name, _Rows) for name in ("context_grad", "query_grad", "key_grad", "value_grad")),
        ("room", _pointer),
        ("threads", _int),
    ]


@cache
def _library() -> Any:
    library = kernels.library() if products.available() else None
    if library is None or not hasattr(library, "nmt_attention_forward"):
        return None
    library.nmt_attention_room.argtypes, library.nmt_attention_room.restype = [_int, _int], _int
    for name in ("nmt_attention_forward", "nmt_attention_backward"):
        function = getattr(library, name)
        function.argtypes, function.restype = [_pointer], None
    return library


def usable(query_BHQN: Tensor, key_BHSN: Tensor, value_BHSN: Tensor, bias: Tensor | None) -> bool:
    """Whether these can be had: float32 on the CPU, heads of whole vectors, a bias (B, 1, 1, S) or none."""
    sentences, _, _, width = query_BHQN.shape
    return (
        query_BHQN.dtype == key_BHSN.dtype == value_BHSN.dtype == torch.float32
        and query_BHQN.device.type == "cpu"
        and width % 16 == 0
        and query_BHQN.stride(3) == key_BHSN.stride(3) == value_BHSN.stride(3) == 1
        and value_BHSN.shape == key_BHSN.shape
        and (
            bias is None
            or (bias.shape == (sentences, 1, 1, key_BHSN.size(2)) and bias.dtype == torch.float32)
        )
        and not torch.is_autocast_enabled("cpu")
        and _library() is not None
    )


def attend(
    query_BHQN: Tensor, key_BHSN: Tensor, value_BHSN: Tensor, bias_B11S: Tensor | None, *, causal: bool
) -> Tensor:
    """softmax(q k' / sqrt(N) + bias) v: (B, H, Q, N), with the heads of a query beside each other in memory.

    Args:
        query_BHQN, key_BHSN, value_BHSN: what `usable` accepts, of any strides but the last.
        bias_B11S: 0 or -inf, of any strides; without a gradient.
        causal: query i looks at keys 0 .. i.
    """
    context: Any = _ShortAttention.apply(query_BHQN, key_BHSN, value_BHSN, bias_B11S, causal)  # type: ignore[no-untyped-call]
    found: Tensor = context
    return found


class _ShortAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query_BHQN: Tensor,
        key_BHSN: Tensor,
        value_BHSN: Tensor,
        bias_B11S: Tensor | None,
        causal: bool,
    ) -> Tensor:
        sentences, heads, queries, _ = query_BHQN.shape
        keys = key_BHSN.size(2)
        bias_B11S = None if bias_B11S is None else bias_B11S.contiguous()
        context_BHQN = _heads_together(query_BHQN)
        weights = None
        if any(ctx.needs_input_grad[:3]):
            weights = query_BHQN.new_empty(sentences, heads, queries, keys + -keys % 16)
        call, room = _call(query_BHQN, key_BHSN, value_BHSN, bias_B11S, causal, weights)
        call.context = _rows(context_BHQN)
        _library().nmt_attention_forward(ctypes.byref(call))
        ctx.save_for_backward(query_BHQN, key_BHSN, value_BHSN, bias_B11S, weights)
        ctx.causal = causal
        del room
        return context_BHQN

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BHQN: Tensor) -> tuple[Tensor | None, ...]:
        query_BHQN, key_BHSN, value_BHSN, bias_B11S, weights = ctx.saved_tensors
        if grad_BHQN.stride(3) != 1:
            grad_BHQN = grad_BHQN.contiguous()
        grads = _grads_of(query_BHQN, key_BHSN, value_BHSN)
        call, room = _call(query_BHQN, key_BHSN, value_BHSN, bias_B11S, ctx.causal, weights)
        call.context_grad = _rows(grad_BHQN)
        call.query_grad, call.key_grad, call.value_grad = map(_rows, grads)
        _library().nmt_attention_backward(ctypes.byref(call))
        del room
        return (*grads, None, None)


def _call(
    query_BHQN: Tensor,
    key_BHSN: Tensor,
    value_BHSN: Tensor,
    bias_B11S: Tensor | None,
    causal: bool,
    weights: Tensor | None,
) -> tuple[_Attention, Tensor]:
    """And the room it works in, which must live as long."""
    sentences, heads, queries, width = query_BHQN.shape
    keys, threads = key_BHSN.size(2), torch.get_num_threads()
    room = torch.empty(threads * (_library().nmt_attention_room(keys, width) // 4))
    call = _Attention(sentences, heads, width, queries, keys, causal)
    if bias_B11S is not None:
        call.bias = bias_B11S.data_ptr()
    call.query, call.key, call.value = map(_rows, (query_BHQN, key_BHSN, value_BHSN))
    call.weights = None if weights is None else weights.data_ptr()
    call.room, call.threads = room.data_ptr(), threads
    return call, room


def _grads_of(query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
    """Room for gradients: of what are parts of one projection beside each other (`nmt.models.parts`)."""
    for first, *rest in ((query, key, value), (key, value)):
        count, apart = 1 + len(rest), first.size(1) * first.size(3)
        if first.stride(2) == count * apart and all(
            other.shape == first.shape
            and other.stride() == first.stride()
            and other.data_ptr() == first.data_ptr() + number * apart * first.itemsize
            for number, other in enumerate(rest, start=1)
        ):
            sentences, heads, positions, width = first.shape
            whole = first.new_empty(sentences, positions, count, heads, width)
            grads = [part.transpose(1, 2) for part in whole.unbind(2)]
            return grads if count == 3 else [_heads_together(query), *grads]
    return [_heads_together(x) for x in (query, key, value)]


def _rows(x_BHQN: Tensor) -> _Rows:
    return _Rows(x_BHQN.data_ptr(), x_BHQN.stride(0), x_BHQN.stride(2), x_BHQN.stride(1))


def _heads_together(like_BHQN: Tensor) -> Tensor:
    """An empty tensor whose memory is (B, Q, H, N)."""
    sentences, heads, queries, width = like_BHQN.shape
    return like_BHQN.new_empty(sentences, queries, heads, width).transpose(1, 2)
