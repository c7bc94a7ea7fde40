"""R-Drop (Liang et al. 2021): two passes of one batch with different dropout, and what is between them.

N positions, D width, V vocabulary; 1 and 2 are the passes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nmt.loss import chunk_rows


def r_drop_sum(
    hidden1_ND: Tensor,
    hidden2_ND: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
    target_N: Tensor,
    *,
    alpha: float,
    smoothing: float = 0.0,
    chunk: int | None = None,
    factors: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    """Output projection and loss of two passes in one, over chunks of positions.

    The paper's loss (eq. 4) is the sum of both passes' negative log-likelihoods and alpha times the mean of
    the two divergences, KL(P1 || P2) and KL(P2 || P1). Here it is half of that, a mean over the passes, so
    that it is the loss without R-Drop where the passes agree:

        (nll1 + nll2) / 2 + alpha / 4 (KL(P1 || P2) + KL(P2 || P1))

    alpha is the paper's (5 for translation). The gradient goes through both sides of both divergences.
    With label smoothing each negative log-likelihood is the smoothed one of `nmt.loss`.

    Logits of at most `chunk` positions of each pass are held at once; gradients are computed with them.

    Args:
        factors: what numbers are rounded to before they are multiplied, where it is not the tensors' type.

    Returns:
        The loss, which carries the gradient, and the mean of both passes' negative log-likelihoods without
        smoothing; both nats, summed over positions.
    """
    apply: Any = _ChunkedRDrop.apply
    chunk = chunk or chunk_rows(hidden1_ND.device)
    loss, plain = apply(hidden1_ND, hidden2_ND, weight_VD, bias_V, target_N, alpha, smoothing, chunk, factors)
    return loss, plain


class _ChunkedRDrop(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden1_ND: Tensor,
        hidden2_ND: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        target_N: Tensor,
        alpha: float,
        smoothing: float,
        chunk: int,
        factors: torch.dtype | None,
    ) -> tuple[Tensor, Tensor]:
        kind = factors or hidden1_ND.dtype
        accumulate = torch.promote_types(hidden1_ND.dtype, torch.float32)
        matrix_VD = weight_VD.to(kind)
        vocabulary = weight_VD.size(0)
        loss = hidden1_ND.new_zeros((), dtype=accumulate)
        plain = hidden1_ND.new_zeros((), dtype=accumulate)
        grads = [torch.empty_like(hidden1_ND), torch.empty_like(hidden2_ND)]
        weight_grad = torch.zeros_like(weight_VD, dtype=accumulate)
        bias_grad = None if bias_V is None else torch.zeros_like(bias_V, dtype=accumulate)
        for start in range(0, target_N.size(0), chunk):
            rows = slice(start, start + chunk)
            target = target_N[rows, None]
            hiddens = [hidden[rows].to(kind) for hidden in (hidden1_ND, hidden2_ND)]
            logs = [_log_softmax(hidden, matrix_VD, bias_V, accumulate) for hidden in hiddens]
            shares = [log.exp() for log in logs]
            difference = logs[0] - logs[1]
            # KL(P1 || P2) and KL(P2 || P1) of each position.
            apart = [
                (shares[0] * difference).sum(dim=1, keepdim=True),
                -(shares[1] * difference).sum(dim=1, keepdim=True),
            ]
            loss += alpha / 4 * (apart[0].sum() + apart[1].sum())
            between = shares[0] - shares[1]
            for number, (log, share, sign) in enumerate(zip(logs, shares, (1, -1), strict=True)):
                at_target = -log.gather(1, target).sum()
                plain += at_target / 2
                loss += (1 - smoothing) / 2 * at_target
                if smoothing:
                    loss -= smoothing / 2 * log.mean(dim=1).sum()
                # By logits1: of KL(P1 || P2) p1 (log p1 - log p2 - KL), of KL(P2 || P1) p1 - p2.
                error = share * (sign * difference - apart[number])
                error.add_(between, alpha=sign).mul_(alpha / 4)
                error.add_(share, alpha=0.5).sub_(smoothing / 2 / vocabulary)
                error.scatter_add_(1, target, error.new_full(target.shape, (smoothing - 1) / 2))
                if bias_grad is not None:
                    bias_grad += error.sum(dim=0)
                error = error.to(kind)
                grads[number][rows] = error @ matrix_VD
                weight_grad += error.t() @ hiddens[number]
        ctx.save_for_backward(*grads, weight_grad, bias_grad)
        ctx.mark_non_differentiable(plain)
        return loss, plain

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        hidden1_grad, hidden2_grad, weight_grad, bias_grad = ctx.saved_tensors
        return (
            hidden1_grad * grad.to(hidden1_grad.dtype),
            hidden2_grad * grad.to(hidden2_grad.dtype),
            weight_grad * grad,
            None if bias_grad is None else bias_grad * grad,
            *[None] * 5,
        )


def _log_softmax(hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, kind: torch.dtype) -> Tensor:
    logits_NV = (hidden_ND @ weight_VD.t()).to(kind)
    if bias_V is not None:
        logits_NV += bias_V
    return logits_NV.log_softmax(dim=1)
