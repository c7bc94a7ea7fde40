"""LSTM and GRU step by step, for search, with products of any kind; torch's layers have one kind.

N rows (a sentence, or a hypothesis of one), B sentences, T tokens, E input width, D hidden width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

_GATES = {"lstm": 4, "gru": 3}
LayerState = tuple[Tensor, ...]  # (hidden,) of a GRU; (hidden, cell) of an LSTM; each (N, D)


def step_of(cell: str, projected: Tensor, recurrent: Tensor, state: LayerState) -> LayerState:
    """One step of a layer from its products with input and state: the equations in the documentation of
    torch.nn.LSTM and torch.nn.GRU."""
    if cell == "lstm":
        into, forget, candidate, out = (projected + recurrent).chunk(4, dim=-1)
        memory = torch.sigmoid(forget) * state[1] + torch.sigmoid(into) * torch.tanh(candidate)
        return torch.sigmoid(out) * torch.tanh(memory), memory
    width = state[0].size(-1)
    gates = torch.sigmoid(projected[..., : 2 * width] + recurrent[..., : 2 * width])
    reset, update = gates.chunk(2, dim=-1)
    candidate = torch.tanh(projected[..., 2 * width :] + reset * recurrent[..., 2 * width :])
    return (mix(candidate.to(state[0].dtype), state[0], update),)


def mix(old: Tensor, new: Tensor, share: Tensor) -> Tensor:
    """(1 - share) * old + share * new in the type of `old`: under autocast the others may be narrower."""
    return torch.lerp(old, new.to(old.dtype), share.to(old.dtype))


class UnrolledLayer(nn.Module):
    """What torch.nn.LSTM or torch.nn.GRU computes, step by step with linear layers of any kind.

    Args:
        cell: "lstm" or "gru".
        products: of each direction the linear layer of the input and that of the state, with torch's order of
            gates; the second direction reads backwards.
    """

    def __init__(self, cell: str, products: Sequence[tuple[nn.Module, nn.Module]]):
        super().__init__()
        self.cell = cell
        self.of_input, self.of_state = map(nn.ModuleList, zip(*products, strict=True))

    def forward(self, x: Any, first: Any = None) -> tuple[Any, Any]:
        """As torch's with `batch_first`: from (B, T, E) or a PackedSequence the same, and the last state."""
        packed = x if isinstance(x, PackedSequence) else None
        if packed is not None:
            rows_NE, sizes = packed.data, packed.batch_sizes.tolist()
        else:
            rows_NE, sizes = x.transpose(0, 1).flatten(0, 1), [x.size(0)] * x.size(1)
        outputs, lasts = [], []
        for direction, product in enumerate(self.of_input):
            steps = product(rows_NE).split(sizes)
            if first is None:
                zero_BD = steps[0].new_zeros(sizes[0], steps[0].size(1) // _GATES[self.cell])
                begin = (zero_BD,) * (2 if self.cell == "lstm" else 1)
            else:
                begin = tuple(_sorted(part[direction], packed) for part in parts_of(first))
            hidden, last = self._run(direction, steps, begin)
            outputs.append(torch.cat(hidden))
            lasts.append(last)
        output_ND = torch.cat(outputs, dim=1)
        parts = tuple(torch.stack(part) for part in zip(*lasts, strict=True))
        if packed is None:
            output: Any = output_ND.view(x.size(1), x.size(0), -1).transpose(0, 1)
        else:
            output = replace_data(packed, output_ND)
            if packed.unsorted_indices is not None:
                parts = tuple(part.index_select(1, packed.unsorted_indices) for part in parts)
        return output, parts if self.cell == "lstm" else parts[0]

    def _run(
        self, direction: int, steps: Sequence[Tensor], begin: LayerState
    ) -> tuple[list[Tensor], LayerState]:
        """Hidden states of each step and each row's last state; no step has more rows than the one before."""
        backward, product = direction == 1, self.of_state[direction]
        state, hidden, ended = tuple(part[:0] for part in begin), [], []
        for projected in reversed(steps) if backward else steps:
            rows, before = len(projected), len(state[0])
            if rows > before:  # the first step; or sentences whose end comes here, read backwards
                state = tuple(
                    torch.cat((old, new[before:rows])) for old, new in zip(state, begin, strict=True)
                )
            elif rows < before:
                ended.append(tuple(part[rows:] for part in state))
                state = tuple(part[:rows] for part in state)
            state = step_of(self.cell, projected, product(state[0]), state)
            hidden.append(state[0])
        last = tuple(map(torch.cat, zip(state, *reversed(ended), strict=True)))
        return hidden[::-1] if backward else hidden, last


def input_product(layer: Any, x: Tensor) -> Tensor:
    """Of torch's layer or an unrolled one, in its first direction: (N, E) -> (N, 3D or 4D)."""
    if isinstance(layer, UnrolledLayer):
        return cast(Tensor, layer.of_input[0](x))
    return F.linear(x, layer.weight_ih_l0, layer.bias_ih_l0)


def state_product(layer: Any, hidden: Tensor) -> Tensor:
    """The same of the state: (N, D) -> (N, 3D or 4D)."""
    if isinstance(layer, UnrolledLayer):
        return cast(Tensor, layer.of_state[0](hidden))
    return F.linear(hidden, layer.weight_hh_l0, layer.bias_hh_l0)


def replace_data(packed: PackedSequence, data: Tensor) -> PackedSequence:
    return packed._replace(data=data)


def parts_of(last: Tensor | Sequence[Tensor]) -> LayerState:
    return (last,) if isinstance(last, Tensor) else tuple(last)


def _sorted(x_BD: Tensor, packed: PackedSequence | None) -> Tensor:
    """Rows in the order of a PackedSequence."""
    if packed is None or packed.sorted_indices is None:
        return x_BD
    return x_BD.index_select(0, packed.sorted_indices)
