"""The k largest of many."""

from __future__ import annotations

import torch
from torch import Tensor

from nmt import kernels


def top_k(x: Tensor, k: int, block: int = 64) -> tuple[Tensor, Tensor]:
    """As ``x.topk(k)`` on the last axis, several times as fast on a CPU for k far below the size.

    The k largest elements lie in the k blocks with the largest maxima.
    """
    size = x.size(-1)
    if x.dim() == 2 and k <= size and kernels.usable(x):
        return kernels.top_k(x, k)
    if k * 8 >= size // block or x.is_cuda:
        best = x.topk(k, dim=-1)
        return best.values, best.indices
    whole = size // block * block
    blocks = x[..., :whole].reshape(*x.shape[:-1], whole // block, block)
    chosen = blocks.amax(dim=-1).topk(k, dim=-1).indices  # (..., k)
    inside = blocks.gather(-2, chosen[..., None].expand(*chosen.shape, block)).flatten(-2)
    position = (chosen[..., None] * block + torch.arange(block, device=x.device)).flatten(-2)
    if whole < size:
        inside = torch.cat((inside, x[..., whole:]), dim=-1)
        rest = torch.arange(whole, size, device=x.device).expand(*position.shape[:-1], -1)
        position = torch.cat((position, rest), dim=-1)
    best = inside.topk(k, dim=-1)
    return best.values, position.gather(-1, best.indices)
