"""Optimizers and learning-rate schedules."""

from __future__ import annotations

import math

import torch
from torch import nn

from nmt.config import TrainingConfig


def learning_rate(step: int, config: TrainingConfig) -> float:
    """The rate of update `step` (from 1): linear warm-up to the peak, then the schedule.

    inverse-sqrt: peak * sqrt(warmup / step) (Vaswani et al. 2017, eq. 3, with the peak named);
    linear and cosine: down to 0 after the last step; constant: the peak.
    """
    peak, warmup = config.learning_rate, config.warmup_steps
    if step <= warmup:
        return peak * step / warmup
    if config.schedule == "inverse-sqrt":
        return peak * math.sqrt(max(warmup, 1) / step)
    if config.schedule == "constant":
        return peak
    # The step after the last would have rate 0.
    done = (step - warmup) / (config.max_steps + 1 - warmup)
    if config.schedule == "linear":
        return peak * max(0.0, 1 - done)
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def build_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """Adam (Kingma and Ba 2015), or AdamW (Loshchilov and Hutter 2019), over all parameters.

    Weight decay leaves vectors (biases, norms) alone.
    """
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=config.learning_rate, betas=config.betas, eps=config.epsilon, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
