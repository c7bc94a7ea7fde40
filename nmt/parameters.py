"""The parameters of a training: how their gradients are summed, and how they are read and written.

Here every process has all of them; in `nmt.sharded` each has a part.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from nmt.checkpoint import Weights, set_weights
from nmt.models.seam import Model
from nmt.ranks import Ranks
from nmt.sums import Sums

T = TypeVar("T")


class Parameters:
    """All of a model's, in every process."""

    in_parts = False

    def __init__(self, model: Model, ranks: Ranks):
        self.model, self.ranks = model, ranks
        # What this process keeps of each and updates.
        self.own: dict[str, nn.Parameter] = dict(model.named_parameters())
        trained = {name: p for name, p in self.own.items() if p.requires_grad}
        self._sums = Sums(as_gradients_come(trained), ranks.group) if self._has_sums else None

    @property
    def _has_sums(self) -> bool:
        return self.ranks.size > 1

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        yield from self.own.items()

    @property
    def trained(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.own.values() if parameter.requires_grad]

    # A step

    def one_pass(self, loss: Callable[..., T], *arguments: Any) -> T:
        """The loss of a pass through the model, whose gradients will be wanted."""
        return loss(*arguments)

    def before_last_pass(self) -> None:
        """To be called before the last backward pass of a process's share of a step."""
        if self._sums is not None:
            self._sums.watch()

    def pass_failed(self) -> None:
        """To be called where a share is repeated, after its gradients are given up."""
        if self._sums is not None:
            self._sums.look_away()

    def sum_gradients(self) -> None:
        """Put the sum over all processes in place of each gradient."""
        if self._sums is not None:
            self._sums.finish()

    def clip_gradients(self, most: float) -> float:
        """Scale the gradient to a norm of at most this, 0 being no bound; returns the norm before."""
        return nn.utils.clip_grad_norm_(self.trained, most or math.inf).item()

    def require_same(self) -> None:
        """UserError if what should be equal on all processes is not."""
        self.ranks.require_same_weights(self.model)

    # Reading and writing

    def part(self, whole: Tensor) -> Tensor:
        """What this process keeps of a parameter, or of anything of its shape."""
        return whole

    def load(self, parts: Weights, folder: Path) -> None:
        """Take over the parts of all parameters; UserError if they are not the model's."""
        set_weights(self, parts, folder)

    def whole(self, parts: Mapping[str, Tensor]) -> Weights:
        """What the first process writes of the parts of some parameters, by name. All processes call it."""
        return dict(parts)

    def whole_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """As `whole`, of an optimizer's state."""
        return optimizer.state_dict()

    @contextmanager
    def whole_model(self) -> Iterator[Model]:
        """A model in evaluation mode with all the weights, meanwhile."""
        yield self.model.eval()


def as_gradients_come(parameters: Mapping[str, nn.Parameter]) -> list[nn.Parameter]:
    """In about the order in which a backward pass comes to their gradients; the same whatever is in a batch.

    The decoder's from the last to the first, but for what `encode` computes of it; the encoder's; tables.
    """

    def turn(name: str) -> int:
        part = name.partition(".")[0]
        if part.startswith(("encoder", "source")) or name.startswith("embeddings.source"):
            return 2
        if part == "embeddings":  # source sentences are looked up in the target's table if it is the only one
            return 1 if "embeddings.source.weight" in parameters else 3
        return 1 if ".cross_attention.input." in name else 0

    names = list(parameters)
    names.reverse()
    return [parameters[name] for name in sorted(names, key=turn)]
