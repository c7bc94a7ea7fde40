"""Parts of one projection, such as queries, keys and values, with a gradient that is not copied together."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def parts(x: Tensor, count: int) -> tuple[Tensor, ...]:
    """``x.chunk(count, dim=-1)``, for a last dimension of so many equal parts. Gradients that lie beside each
    other in memory, as `nmt.short_attention` leaves them, become that of x as they are."""
    if not x.requires_grad or not torch.is_grad_enabled():
        return x.chunk(count, dim=-1)
    found: tuple[Tensor, ...] = _Parts.apply(x, count)  # type: ignore[no-untyped-call]
    return found


class _Parts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, count: int) -> tuple[Tensor, ...]:
        return x.chunk(count, dim=-1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        whole = _whole(grads)
        return torch.cat(grads, dim=-1) if whole is None else whole, None


def _whole(grads: tuple[Tensor, ...]) -> Tensor | None:
    """What they are parts of; None where they are not the whole of a tensor, in order."""
    first, width = grads[0], grads[0].size(-1)
    row = width * len(grads)
    expected = list(first.shape[:-1])
    strides, size = [1], row
    for length in reversed(expected):
        strides.insert(0, size)
        size *= length
    for number, grad in enumerate(grads):
        apart = grad.storage_offset() - first.storage_offset()
        same = grad.untyped_storage().data_ptr() == first.untyped_storage().data_ptr()
        if not same or apart != number * width or list(grad.stride()) != strides or grad.shape != first.shape:
            return None
    return first.as_strided((*expected, row), strides)
