"""Recurrent layers: the gated unit of Bahdanau's paper, stacks of LSTM or GRU layers, and encoders of both.

N rows of any number of axes (a sentence, or a hypothesis of one), B sentences, S source length,
T target length, E input width, D hidden width, C context width. Masks are True at tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from nmt.linear import Linear
from nmt.models.dropout import dropout as drop
from nmt.models.unrolled import LayerState, input_product, mix, parts_of, replace_data, state_product, step_of

StackState = tuple[LayerState, ...]  # the lowest layer first


# --- the gated unit of Cho et al. 2014 and Bahdanau et al. 2014 -----------------------------------------


class GatedUnit(nn.Module):
    """The gated hidden unit, which may also read a context (Bahdanau et al. 2014, A.1.1, A.2.1, A.2.2).

    r = sigma(W_r e + U_r s + C_r c), z likewise; s~ = tanh(W e + U [r * s] + C c);
    s' = (1 - z) * s + z * s~. The reset gate acts before U, where torch.nn.GRU has it after.
    The part that reads the embedded token is computed by `project_input` for all positions at once.
    """

    def __init__(self, input_width: int, hidden_width: int, context_width: int = 0):
        super().__init__()
        self.input = Linear(input_width, 3 * hidden_width)
        self.context = Linear(context_width, 3 * hidden_width, bias=False) if context_width else None
        self.gates = Linear(hidden_width, 2 * hidden_width, bias=False)
        self.candidate = Linear(hidden_width, hidden_width, bias=False)

    def project_input(self, embedded: Tensor) -> Tensor:
        """(N, E) -> (N, 3D)."""
        projected: Tensor = self.input(embedded)
        return projected

    def forward(self, projected: Tensor, hidden: Tensor, context: Tensor | None = None) -> Tensor:
        """(N, 3D), (N, D), (N, C) -> the next hidden state (N, D)."""
        width = hidden.size(-1)
        if self.context is not None:
            projected = projected + self.context(context)
        reset, update = torch.sigmoid(projected[..., : 2 * width] + self.gates(hidden)).chunk(2, dim=-1)
        candidate = torch.tanh(projected[..., 2 * width :] + self.candidate(reset * hidden))
        return mix(hidden, candidate, update)


class BidirectionalGatedEncoder(nn.Module):
    """A gated unit over the source in each direction (Bahdanau et al. 2014, sec. 3.2 and A.2.1)."""

    def __init__(self, width: int, hidden_width: int):
        super().__init__()
        self.forward_unit = GatedUnit(width, hidden_width)
        self.backward_unit = GatedUnit(width, hidden_width)

    def forward(self, embedded_BSE: Tensor, mask_BS: Tensor) -> tuple[Tensor, Tensor]:
        """Annotations (B, S, 2D), zero at padding, and the backward unit's last state (B, D)."""
        # Reversed, the words of every sentence still come first: no step needs a mask.
        order_BS = reversal(mask_BS)
        backward_BSE = take(embedded_BSE, order_BS)
        forward_BSD = _run(self.forward_unit, embedded_BSE)
        backward_BSD = take(_run(self.backward_unit, backward_BSE), order_BS)
        annotation_BSD = torch.cat((forward_BSD, backward_BSD), dim=-1)
        return annotation_BSD * mask_BS[:, :, None], backward_BSD[:, 0]


def _run(unit: GatedUnit, embedded_BSE: Tensor) -> Tensor:
    """All states of a unit that begins at zero: (B, S, D)."""
    projected_BSG = unit.project_input(embedded_BSE)
    hidden = embedded_BSE.new_zeros(embedded_BSE.size(0), unit.candidate.in_features)
    states = []
    for projected in projected_BSG.unbind(dim=1):
        hidden = unit(projected, hidden)
        states.append(hidden)
    return torch.stack(states, dim=1)


def reversal(mask_BS: Tensor, keep_last: bool = False) -> Tensor:
    """Positions (B, S) that reverse the tokens of each sentence and leave its padding; its own inverse.

    Args:
        keep_last: leave the last token, which ends the sentence, where it is.
    """
    position_S = torch.arange(mask_BS.size(1), device=mask_BS.device)
    reversed_B1 = mask_BS.sum(dim=1, keepdim=True) - int(keep_last)
    return torch.where(position_S < reversed_B1, reversed_B1 - 1 - position_S, position_S)


def take(x_BSD: Tensor, position_BS: Tensor) -> Tensor:
    """x at those positions of each sentence."""
    return x_BSD.gather(1, position_BS[:, :, None].expand(-1, -1, x_BSD.size(-1)))


# --- stacks of LSTM or GRU layers -----------------------------------------------------------------------


class RecurrentStack(nn.Module):
    """Layers of torch.nn.LSTM or torch.nn.GRU, all tokens in one call or one token at a time.

    Args:
        cell: "lstm" (Hochreiter and Schmidhuber 1997) or "gru" (Cho et al. 2014).
        dropout: between layers (Zaremba et al. 2014).
        residual: each layer from the second on adds its input to its output (Wu et al. 2016, sec. 3.1).
    """

    def __init__(
        self,
        input_width: int,
        hidden_width: int,
        layers: int,
        *,
        cell: str,
        dropout: float = 0.0,
        residual: bool = False,
    ):
        super().__init__()
        kind = {"lstm": nn.LSTM, "gru": nn.GRU}[cell]
        widths = [input_width] + [hidden_width] * (layers - 1)
        self.layers = nn.ModuleList(kind(width, hidden_width, batch_first=True) for width in widths)
        self.cell = cell
        self.dropout = dropout
        self.residual = residual

    def forward(self, x_BTE: Tensor, state: StackState) -> Tensor:
        """The highest layer's states (B, T, D), from a state whose tensors are (B, D)."""
        for index, (layer, layer_state) in enumerate(zip(self.layers, state, strict=True)):
            x_BTE = self._enter(x_BTE, index)
            first = tuple(part.unsqueeze(0).contiguous() for part in layer_state)
            output, _ = layer(x_BTE, first if self.cell == "lstm" else first[0])
            x_BTE = self._leave(x_BTE, output, index)
        return x_BTE

    def step(self, x: Tensor, state: StackState) -> tuple[Tensor, StackState]:
        """One token further: from (N, E) to the highest layer's state (N, D) and the next state."""
        return self.step_projected(self.project_input(x), state)

    def project_input(self, x: Tensor) -> Tensor:
        """The lowest layer's product with its input: (N, E) -> (N, 3D or 4D)."""
        return input_product(self.layers[0], x)

    def step_projected(self, projected: Tensor, state: StackState) -> tuple[Tensor, StackState]:
        """As `step`, from what `project_input` makes of x."""
        x, next_state = projected, []
        for index, (layer, layer_state) in enumerate(zip(self.layers, state, strict=True)):
            if index:
                x = self._enter(x, index)
                projected = input_product(layer, x)
            next_state.append(
                step_of(self.cell, projected, state_product(layer, layer_state[0]), layer_state)
            )
            x = self._leave(x, next_state[-1][0], index)
        return x, tuple(next_state)

    def _enter(self, x: Tensor, index: int) -> Tensor:
        return drop(x, self.dropout if index else 0.0, self.training)

    def _leave(self, x: Tensor, output: Tensor, index: int) -> Tensor:
        return x + output if index and self.residual else output


class StackedEncoder(nn.Module):
    """Layers of LSTM or GRU over the source, in one direction or both.

    Args:
        bidirectional: each layer has a forward and a backward half of hidden_width / 2.
        reverse: read the words from the last to the first (Sutskever et al. 2014, sec. 3.3); the end of
            sentence stays at the end. States come back in the order of the source.
        dropout: between layers.
        residual: each layer from the second on adds its input to its output.
    """

    def __init__(
        self,
        input_width: int,
        hidden_width: int,
        layers: int,
        *,
        cell: str,
        bidirectional: bool = False,
        reverse: bool = False,
        dropout: float = 0.0,
        residual: bool = False,
    ):
        super().__init__()
        kind = {"lstm": nn.LSTM, "gru": nn.GRU}[cell]
        widths = [input_width] + [hidden_width] * (layers - 1)
        self.layers = nn.ModuleList(
            kind(width, hidden_width // (1 + bidirectional), bidirectional=bidirectional) for width in widths
        )
        self.cell = cell
        self.reverse = reverse
        self.dropout = dropout
        self.residual = residual

    def forward(self, embedded_BSE: Tensor, mask_BS: Tensor) -> tuple[Tensor, StackState]:
        """The highest layer's states (B, S, D), zero at padding, and each layer's last state."""
        order_BS = reversal(mask_BS, keep_last=True) if self.reverse else None
        if order_BS is not None:
            embedded_BSE = take(embedded_BSE, order_BS)
        packed = pack_padded_sequence(
            embedded_BSE, mask_BS.sum(dim=1).cpu(), batch_first=True, enforce_sorted=False
        )
        state = []
        for index, layer in enumerate(self.layers):
            if index:
                packed = replace_data(packed, drop(packed.data, self.dropout, self.training))
            output, last = layer(packed)
            if index and self.residual:
                output = replace_data(output, output.data + packed.data)
            state.append(tuple(_both_directions(part) for part in parts_of(last)))
            packed = output
        states_BSD, _ = pad_packed_sequence(packed, batch_first=True, total_length=mask_BS.size(1))
        return states_BSD if order_BS is None else take(states_BSD, order_BS), tuple(state)


def _both_directions(last: Tensor) -> Tensor:
    """(1 or 2 directions, B, D) -> (B, D), the directions side by side."""
    return last.transpose(0, 1).flatten(1)


# --- first weights --------------------------------------------------------------------------------------


def is_recurrent(name: str) -> bool:
    """Whether a parameter of that name is a product with the previous state."""
    return "weight_hh" in name or name.endswith(("gates.weight", "candidate.weight"))


def orthogonal_blocks(weight: Tensor) -> None:
    """Each gate's square block a random orthogonal matrix (Saxe et al. 2014)."""
    for block in weight.chunk(weight.size(0) // weight.size(1)):
        nn.init.orthogonal_(block)


def initialize_scaled(module: nn.Module) -> None:
    """Weights scaled by their widths, which learn sooner than those of the papers.

    Recurrent matrices orthogonal, embeddings normal with variance 1 / width, other matrices uniform
    (Glorot and Bengio 2010), biases zero but those of an LSTM's forget gate, which sum to one
    (Jozefowicz et al. 2015).
    """
    for name, parameter in module.named_parameters():
        if is_recurrent(name):
            orthogonal_blocks(parameter)
        elif parameter.dim() > 1 and "embeddings" in name:
            nn.init.normal_(parameter, std=parameter.size(1) ** -0.5)
        elif parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)
        else:
            nn.init.zeros_(parameter)
    for layer in module.modules():
        if isinstance(layer, nn.LSTM):
            for name, bias in layer.named_parameters():
                if name.startswith("bias_ih"):
                    with torch.no_grad():
                        bias[layer.hidden_size : 2 * layer.hidden_size] = 1.0


def initialize(model: nn.Module, initialization: str, half_range: float) -> None:
    """The first weights: "paper" is uniform between -half_range and half_range."""
    if initialization == "paper":
        for parameter in model.parameters():
            nn.init.uniform_(parameter, -half_range, half_range)
    else:
        initialize_scaled(model)
