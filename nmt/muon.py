"""Muon (Jordan et al. 2024) for the matrices between layers, AdamW for all other parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

MOMENTUM = 0.95
# Modules whose matrices are tables that rows are taken of, not maps from layer to layer; and the output.
_TABLES = ("embeddings", "source_positions", "target_positions", "relative")


def is_hidden(name: str, parameter: nn.Parameter) -> bool:
    """Whether Muon updates it: a matrix that maps one layer's vectors to another's."""
    matrix = parameter.dim() == 2 and min(parameter.shape) > 1
    return matrix and not any(part in _TABLES for part in name.split("."))


class MuonWithAdamW(torch.optim.Optimizer):
    """torch's Muon and AdamW with one state and one list of groups.

    Muon's update is the momentum of the gradient with all singular values made about 1 by five steps of a
    Newton-Schulz iteration, times 0.2 sqrt(max(rows, columns)) (Liu et al. 2025, sec. 2.2), which is as long
    as an update of AdamW: so one learning rate and one schedule serve both.

    Args:
        hidden, rest: the parameters of each.
        adamw: options of AdamW's, `weight_decay` left out.
    """

    def __init__(
        self,
        hidden: list[nn.Parameter],
        rest: list[dict[str, Any]],
        *,
        lr: float,
        weight_decay: float,
        **adamw: Any,
    ):
        self._parts: list[torch.optim.Optimizer] = []
        if hidden:
            muon = torch.optim.Muon(
                hidden,
                lr=lr,
                weight_decay=weight_decay,
                momentum=MOMENTUM,
                adjust_lr_fn="match_rms_adamw",
            )
            self._parts.append(muon)
        if rest:
            self._parts.append(torch.optim.AdamW(rest, lr=lr, **adamw))
        self._groups_of_parts = [len(part.param_groups) for part in self._parts]
        super().__init__([group for part in self._parts for group in part.param_groups], {})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        assert closure is None
        first = 0
        for part, groups in zip(self._parts, self._groups_of_parts, strict=True):
            # Each time, because load_state_dict puts new ones in their place.
            part.state, part.param_groups = self.state, self.param_groups[first : first + groups]
            first += groups
            part.step()
