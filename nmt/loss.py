"""Cross-entropy with label smoothing and log-probabilities, without ever holding all the logits.

N positions, D width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from nmt import fused_loss

# Rows of logits held at once. On a CPU few enough to stay in cache (256 x 8,000 float32 is 8 MB), enough for
# the matrix products to run at full speed; a GPU is kept busy by 16 times as many, and the gradient of the
# matrix, which a chunk reads and writes, is added up in few turns.
CHUNK = 256
GPU_CHUNK = 4096


# Of z_loss, above which gradients may have a sign that shares in `native/bytes.h` have not: they do where
# log Z < -1 / (2 z_loss).
_MOST_Z_LOSS = 1e-3


def chunk_rows(device: torch.device) -> int:
    return GPU_CHUNK if device.type == "cuda" else CHUNK


def cross_entropy_sum(
    hidden_ND: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
    target_N: Tensor,
    *,
    smoothing: float = 0.0,
    z_loss: float = 0.0,
    chunk: int | None = None,
    factors: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    """Output projection and cross-entropy in one, over chunks of positions.

    The result equals ``F.cross_entropy(hidden @ weight.T + bias, target, label_smoothing=smoothing,
    reduction="sum")``: the target distribution is ``(1 - smoothing)`` on the target plus ``smoothing``
    spread evenly over the vocabulary (Szegedy et al. 2016, sec. 7). Sums, not means: the caller divides
    once, so that accumulation and split batches give the same gradient.

    Gradients are computed together with the loss, chunk by chunk, while the logits are in cache; where
    `nmt.fused_loss` can, in C with chunks of its own.

    Args:
        z_loss: weight of (log Z)^2 of each position, Z being the sum of the exponentials of its logits
            (Chowdhery et al. 2022, sec. 5, who have 1e-4); it is in the first result alone.
        chunk: positions whose logits are held at once; `chunk_rows` where it is not given.
        factors: what numbers are rounded to before they are multiplied, where it is not the tensors' type:
            bfloat16 for float32 tensors, where `nmt.fused_loss` can, or int8 where a gradient is wanted,
            unless z_loss is above 1e-3.

    Returns:
        The smoothed loss, which carries the gradient, and the loss without smoothing; both nats, summed.
    """
    chunk = chunk or chunk_rows(hidden_ND.device)
    apply: Any = _ChunkedCrossEntropy.apply
    smoothed, plain = apply(hidden_ND, weight_VD, bias_V, target_N, smoothing, z_loss, chunk, factors)
    return smoothed, plain


def log_probabilities(
    hidden_ND: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
    target_N: Tensor,
    *,
    chunk: int | None = None,
) -> Tensor:
    """Log-probability of each target under the output projection, in nats: (N,), without a gradient."""
    chunk = chunk or chunk_rows(hidden_ND.device)
    found_N = hidden_ND.new_empty(target_N.size(0), dtype=torch.promote_types(hidden_ND.dtype, torch.float32))
    with torch.no_grad():
        for start in range(0, target_N.size(0), chunk):
            rows = slice(start, start + chunk)
            logits_NV = F.linear(hidden_ND[rows], weight_VD, bias_V).to(found_N.dtype)
            at_target_N = logits_NV.gather(1, target_N[rows, None]).squeeze(1)
            found_N[rows] = at_target_N - logits_NV.logsumexp(dim=1)
    return found_N


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        target_N: Tensor,
        smoothing: float,
        z_loss: float,
        chunk: int,
        factors: torch.dtype | None,
    ) -> tuple[Tensor, Tensor]:
        gradient = any(ctx.needs_input_grad[:3])
        kind = factors or hidden_ND.dtype
        if kind == torch.int8 and not (gradient and z_loss <= _MOST_Z_LOSS):
            kind = torch.float32
        given = (hidden_ND, weight_VD, bias_V, target_N, smoothing, z_loss)
        if hidden_ND.device.type == "cpu" and fused_loss.available(kind):
            smoothed, plain, *grads = _in_c(*given, kind, gradient)
        else:
            smoothed, plain, *grads = _in_chunks(*given, chunk, gradient)
        if gradient:
            ctx.save_for_backward(*grads)
        ctx.mark_non_differentiable(plain)
        return smoothed, plain

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        hidden_grad, weight_grad, bias_grad = ctx.saved_tensors
        return (
            hidden_grad * grad.to(hidden_grad.dtype),
            weight_grad * grad,
            None if bias_grad is None else bias_grad * grad,
            *[None] * 5,
        )


# Losses with and without smoothing, and gradients of hidden states, matrix and bias, None where not wanted.
_Found = tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None]


def _in_c(
    hidden_ND: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
    target_N: Tensor,
    smoothing: float,
    z_loss: float,
    kind: torch.dtype,
    gradient: bool,
) -> _Found:
    return fused_loss.cross_entropy(
        hidden_ND.float(),
        weight_VD.float(),
        None if bias_V is None else bias_V.float(),
        target_N,
        smoothing=smoothing,
        z_loss=z_loss,
        kind=kind,
        gradient=gradient,
    )


def _in_chunks(
    hidden_ND: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
    target_N: Tensor,
    smoothing: float,
    z_loss: float,
    chunk: int,
    gradient: bool,
) -> _Found:
    accumulate = torch.promote_types(hidden_ND.dtype, torch.float32)
    smoothed = hidden_ND.new_zeros((), dtype=accumulate)
    plain = hidden_ND.new_zeros((), dtype=accumulate)
    mean_weight = weight_VD.mean(dim=0) if smoothing else None  # gives the mean of a row of logits
    mean_bias = bias_V.mean() if smoothing and bias_V is not None else 0.0
    grads = _Gradients.of(hidden_ND, weight_VD, bias_V, accumulate) if gradient else None
    for start in range(0, target_N.size(0), chunk):
        rows = slice(start, start + chunk)
        hidden, target = hidden_ND[rows], target_N[rows, None]
        logits = F.linear(hidden, weight_VD, bias_V)
        log_p = torch.log_softmax(logits, dim=1, dtype=accumulate)
        at_target = log_p.gather(1, target)
        log_total = logits.gather(1, target).to(accumulate) - at_target
        plain -= at_target.sum()
        if mean_weight is not None:
            # -sum_v q_v log p_v with q = (1 - smoothing) at the target + smoothing / V everywhere.
            mean_logit = (hidden @ mean_weight).to(accumulate)[:, None] + mean_bias
            smoothed += (smoothing * (log_total - mean_logit) - (1 - smoothing) * at_target).sum()
        elif z_loss:
            smoothed -= at_target.sum()
        if z_loss:
            smoothed += z_loss * log_total.square().sum()
        if grads is not None:
            error = _error(log_p, at_target, log_total, target, smoothing, z_loss, room=logits)
            grads.add(error, hidden, weight_VD, rows)
    if not (smoothing or z_loss):
        smoothed = plain.clone()
    if grads is None:
        return smoothed, plain, None, None, None
    if mean_weight is not None:
        grads.spread(smoothing, mean_weight, hidden_ND)
    return smoothed, plain, grads.hidden_ND, grads.weight_VD, grads.bias_V


def _error(
    log_p: Tensor,
    at_target: Tensor,
    log_total: Tensor,
    target: Tensor,
    smoothing: float,
    z_loss: float,
    *,
    room: Tensor,
) -> Tensor:
    """d loss / d logits of a chunk: p - q, and 2 w log Z p of w (log Z)^2.

    What q has everywhere, smoothing / V, is left out: `_Gradients.spread` adds it. `log_p` and `room`, the
    logits, are overwritten.
    """
    own = at_target.exp()
    if z_loss:
        grown = 1 + 2 * z_loss * log_total
        error = log_p.exp_().mul_(grown).to(room.dtype)
        own = own * grown
    else:
        error = torch.exp(log_p, out=room)  # in the type of the factors, in one pass
    return error.scatter_(1, target, (own - (1 - smoothing)).to(error.dtype))


@dataclass(frozen=True)
class _Gradients:
    """Of hidden states, matrix and bias, added up chunk by chunk."""

    hidden_ND: Tensor
    weight_VD: Tensor
    bias_V: Tensor | None

    @classmethod
    def of(
        cls, hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, accumulate: torch.dtype
    ) -> _Gradients:
        return cls(
            torch.empty_like(hidden_ND),
            torch.zeros_like(weight_VD, dtype=accumulate),
            None if bias_V is None else torch.zeros_like(bias_V, dtype=accumulate),
        )

    def add(self, error: Tensor, hidden: Tensor, weight_VD: Tensor, rows: slice) -> None:
        torch.mm(error, weight_VD, out=self.hidden_ND[rows])
        if self.weight_VD.dtype == error.dtype:
            self.weight_VD.addmm_(error.t(), hidden)
        else:
            self.weight_VD.add_(error.t() @ hidden)
        if self.bias_V is not None:
            self.bias_V.add_(error.sum(dim=0, dtype=self.bias_V.dtype))

    def spread(self, smoothing: float, mean_weight: Tensor, hidden_ND: Tensor) -> None:
        """What smoothing has everywhere, smoothing / V, comes as the mean of the matrix and the sum of the
        hidden states."""
        share = smoothing / self.weight_VD.size(0)
        self.hidden_ND.sub_(smoothing * mean_weight)
        self.weight_VD.sub_(share * hidden_ND.sum(dim=0, dtype=self.weight_VD.dtype))
        if self.bias_V is not None:
            self.bias_V.sub_(share * hidden_ND.size(0))
