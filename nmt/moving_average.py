"""The exponential moving average of a training's weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from nmt.named import Named


class MovingAverage:
    """The mean of the weights after each update, earlier ones counting less and less.

    After update t: average = d average + (1 - d) weights, with d = min(decay, (1 + t) / (10 + t)), so that
    the first weights are soon forgotten. It begins as the weights that training begins with.

    Args:
        model: its parameters that are trained; others are what they are.
    """

    def __init__(self, model: Named, decay: float):
        self.decay = decay
        self._trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.weights = {name: p.detach().clone() for name, p in self._trained.items()}

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Take over an average that was saved; others than those that are trained are passed over."""
        for name, average in self.weights.items():
            average.copy_(weights[name].detach())

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After update `step`, from 1."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, average in self.weights.items():
            average.lerp_(self._trained[name], 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model has the averaged weights meanwhile; those of training come back to the bit."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        # What they hold, not where: parameters may be views of what others read.
        for name, parameter in self._trained.items():
            average = self.weights[name]
            kept = average.clone()
            average.copy_(parameter)
            parameter.copy_(kept)
