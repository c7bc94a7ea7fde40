"""Optimizers and learning-rate schedules."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from nmt.muon import MuonWithAdamW, is_hidden
from nmt.named import Named
from nmt.training_config import TrainingConfig


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


def build_optimizer(model: Named, config: TrainingConfig) -> torch.optim.Optimizer:
    """Over all parameters that are trained: Adam (Kingma and Ba 2015), AdamW (Loshchilov and Hutter 2019),
    Muon with AdamW (`nmt.muon`), Adadelta (Zeiler 2012) or plain stochastic gradient descent.

    Weight decay leaves vectors (biases, norms) alone.
    """
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    hidden: list[nn.Parameter] = []
    if config.optimizer == "muon":
        hidden = [p for name, p in trained.items() if is_hidden(name, p)]
        trained = {name: p for name, p in trained.items() if not is_hidden(name, p)}
    matrices = [p for p in trained.values() if p.dim() > 1]
    vectors = [p for p in trained.values() if p.dim() <= 1]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    rate = config.learning_rate
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=rate, fused=True)
    if config.optimizer == "adadelta":
        return torch.optim.Adadelta(groups, lr=rate, rho=config.rho, eps=config.epsilon)
    adam: dict[str, Any] = dict(lr=rate, betas=config.betas, eps=config.epsilon, fused=True)
    if config.optimizer == "muon":
        return MuonWithAdamW(hidden, groups, weight_decay=config.weight_decay, **adam)
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, **adam)


def training_bytes(model: Named, config: TrainingConfig) -> int:
    """Of all weights, and of those that are trained the gradients, optimizer state and moving average."""
    total = 0
    for name, parameter in model.named_parameters():
        copies = 1
        if parameter.requires_grad:
            muon = config.optimizer == "muon" and is_hidden(name, parameter)
            copies += 1 + (0 if config.optimizer == "sgd" else 1 if muon else 2) + bool(config.ema)
        total += copies * parameter.nbytes
    return total


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
