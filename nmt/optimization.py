"""Optimizers and learning-rate schedules."""

from __future__ import annotations

import math

import torch
from torch import nn

from nmt.config import TrainingConfig


def learning_rate(step: int, config: TrainingConfig, *, width: int = 512, epoch: float = 0.0) -> float:
    """The rate of update `step` (from 1): linear warm-up to the peak, then the schedule.

    inverse-sqrt: peak * sqrt(warmup / step); linear and cosine: down to 0 after the last step; constant: the
    peak; noam: factor * width^-0.5 * min(step^-0.5, step * warmup^-1.5) (Vaswani et al. 2017, eq. 3), with
    training.learning_rate as factor; halving: the peak for so many epochs, then halved at once and after
    each further so many (Sutskever et al. 2014, sec. 3.4; Luong et al. 2015, sec. 4.1).

    Args:
        width: of the model, which noam scales by.
        epoch: how much of the training corpus was seen before this update.
    """
    peak, warmup = config.learning_rate, config.warmup_steps
    if config.schedule == "noam":
        rising = step * warmup**-1.5 if warmup else math.inf
        return float(peak * width**-0.5 * min(step**-0.5, rising))
    if step <= warmup:
        return peak * step / warmup
    if config.schedule == "inverse-sqrt":
        return peak * math.sqrt(max(warmup, 1) / step)
    if config.schedule == "constant":
        return peak
    if config.schedule == "halving":
        late = epoch - config.halve_after_epochs
        return peak if late < 0 else float(peak * 0.5 ** (1 + math.floor(late / config.halve_every_epochs)))
    # The step after the last would have rate 0.
    done = (step - warmup) / (config.max_steps + 1 - warmup)
    if config.schedule == "linear":
        return peak * max(0.0, 1 - done)
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def build_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """Over all parameters: Adam (Kingma and Ba 2015), AdamW (Loshchilov and Hutter 2019), Adadelta (Zeiler
    2012) or plain stochastic gradient descent.

    Weight decay leaves vectors (biases, norms) alone.
    """
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    rate = config.learning_rate
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=rate, fused=True)
    if config.optimizer == "adadelta":
        return torch.optim.Adadelta(groups, lr=rate, rho=config.rho, eps=config.epsilon)
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=rate, betas=config.betas, eps=config.epsilon, fused=True)


def bytes_a_parameter(config: TrainingConfig) -> int:
    """Of a weight, its gradient and what the optimizer keeps, in float32."""
    return 8 if config.optimizer == "sgd" else 16


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
