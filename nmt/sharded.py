"""Parameters in parts (`training.shard`): for models that do not fit where they are trained.

Of every parameter, its gradient, its optimizer's state and its moving average each process keeps the
rows that are its turn, by torch's `fully_shard` (FSDP; Zhao et al. 2023). A layer's parameters are gathered
before it is computed and dropped after it, in both passes, and gradients are summed where they are kept.

Every process takes part in every pass, so none can repeat one.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, Shard

from nmt.checkpoint import Weights
from nmt.models.seam import Model
from nmt.models.transformer import Transformer
from nmt.parameters import Parameters
from nmt.ranks import Ranks

T = TypeVar("T")


class ShardedParameters(Parameters):
    """A part of each in every process.

    Args:
        model: whole, on the CPU, with the same weights in all processes. Its parameters become parts on the
            device.
        again: makes such a model once more, with any weights.
    """

    in_parts = True
    _has_sums = False

    def __init__(self, model: Model, ranks: Ranks, device: torch.device, again: Callable[[], Model]):
        self.device, self._again = device, again
        self._pass = _Pass(model)
        group: Any = ranks.group or torch.distributed.group.WORLD
        self._mesh = DeviceMesh.from_group(group, device.type)
        _shard(self._pass, model, self._mesh)
        super().__init__(model, ranks)
        self._everyones: dict[str, DTensor] = dict(self.own)  # type: ignore[arg-type]
        self.own = {
            name: nn.Parameter(_local(parameter), requires_grad=parameter.requires_grad)
            for name, parameter in self._everyones.items()
        }

    def one_pass(self, loss: Callable[..., T], *arguments: Any) -> T:
        found: T = self._pass(loss, *arguments)
        return found

    def sum_gradients(self) -> None:
        """They are summed already; give the parts to those who update them."""
        for name, parameter in self._everyones.items():
            own = self.own[name]
            if own.requires_grad:
                own.data = _local(parameter)
                own.grad = torch.zeros_like(own) if parameter.grad is None else _local(parameter.grad)
                parameter.grad = None

    def clip_gradients(self, most: float) -> float:
        squares = [p.grad.double().square().sum() for p in self.trained if p.grad is not None]
        mine = torch.stack(squares).sum().item()
        norm = math.sqrt(sum(row[0] for row in self.ranks.gather([mine])))
        scale = most / (norm + 1e-6) if most else 1.0  # as torch has it
        if scale < 1.0:
            for parameter in self.trained:
                if parameter.grad is not None:
                    parameter.grad.mul_(scale)
        return norm

    def require_same(self) -> None:
        """Nothing is on two processes that could differ."""

    def part(self, whole: Tensor) -> Tensor:
        if not whole.dim():
            return whole
        parts = whole.chunk(self.ranks.size)
        # A copy, so that the whole one can go.
        return parts[self.ranks.rank].clone() if self.ranks.rank < len(parts) else whole[:0].clone()

    def whole(self, parts: Mapping[str, Tensor]) -> Weights:
        """On the CPU; empty but in the first process. No more than one tensor is whole on the device."""
        found = {}
        for name, part in parts.items():
            tensor = self._gathered(name, part)
            if self.ranks.is_first:
                found[name] = tensor.cpu()
        return found

    def whole_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        state = optimizer.state_dict()
        names = {id(parameter): name for name, parameter in self.own.items()}
        # Numbered as the optimizer was given them.
        updated = [names[id(p)] for group in optimizer.param_groups for p in group["params"]]
        found = {}
        for number, entries in state["state"].items():
            name = updated[number]
            parts = {key: value for key, value in entries.items() if getattr(value, "ndim", 0)}
            wholes = {key: self.whole({name: part}).get(name) for key, part in parts.items()}
            found[number] = {**entries, **wholes}
        return {**state, "state": found}

    @contextmanager
    def whole_model(self) -> Iterator[Model]:
        """On every process, for as long as it is wanted: room for it is needed beside the parts."""
        with torch.random.fork_rng(devices=[]):
            model = self._again().to(self.device)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(self._gathered(name, self.own[name]))
        yield model.eval()

    def _gathered(self, name: str, part: Tensor) -> Tensor:
        like = self._everyones[name]
        everyones = DTensor.from_local(
            part.detach(), self._mesh, [Shard(0)], run_check=False, shape=like.shape, stride=like.stride()
        )
        return everyones.full_tensor()


class _Pass(nn.Module):
    """A pass through a model as one module, so that what is not in a layer stays gathered throughout."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, loss: Callable[..., Any], *arguments: Any) -> Any:
        return loss(*arguments)


def _shard(whole: nn.Module, model: nn.Module, mesh: DeviceMesh) -> None:
    """A Transformer's layers are gathered one by one; what is in none, and a recurrent model, as a whole."""
    # Nothing of ours writes into what these return.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    if isinstance(model, Transformer):
        for layer in model.decoder:
            # By itself, because `encode` has it make the memory's keys and values before the layer's turn.
            attention: Any = layer.cross_attention
            fully_shard(attention, mesh=mesh)
            for method in ("key_value", "query", "merge"):
                register_fsdp_forward_method(attention, method)
        for layer in [*model.encoder, *model.decoder]:
            fully_shard(layer, mesh=mesh)
    fully_shard(whole, mesh=mesh)
    for module in whole.modules():
        if isinstance(module, FSDPModule):
            # Sums, not means: the loss was divided by all target tokens.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)


def _local(parameter: Tensor) -> Tensor:
    part: Any = parameter.detach()
    own: Tensor = part.to_local()
    return own
