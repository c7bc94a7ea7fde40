"""Recurrent encoder-decoders. Bahdanau, Cho and Bengio 2014: "Jointly learning to align and translate".

B sentences, S source length, T target length, K hypotheses, E embedding width, D hidden width,
A attention width, L maxout width, V vocabulary. Masks are True where attention may look.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nmt.models.attention import AdditiveAttention
from nmt.models.dropout import dropout
from nmt.models.embeddings import Embeddings


@dataclass(frozen=True)
class BahdanauMemory:
    """Annotations of each source word, their attention keys, and the decoder's first state."""

    mask_BS: Tensor
    annotation_BSD: Tensor  # forward and backward states, 2 x hidden width
    keys_BSA: Tensor
    first_BD: Tensor

    def keep(self, sentences_B: Tensor) -> BahdanauMemory:
        return BahdanauMemory(
            self.mask_BS[sentences_B],
            self.annotation_BSD[sentences_B],
            self.keys_BSA[sentences_B],
            self.first_BD[sentences_B],
        )


@dataclass(frozen=True)
class BahdanauState:
    """The decoder's hidden state of each hypothesis."""

    hidden_BKD: Tensor

    def select(self, beam_BK: Tensor) -> BahdanauState:
        rows = beam_BK[:, :, None].expand(-1, -1, self.hidden_BKD.size(-1))
        return BahdanauState(self.hidden_BKD.gather(1, rows))

    def keep(self, sentences_B: Tensor) -> BahdanauState:
        return BahdanauState(self.hidden_BKD[sentences_B])


class BidirectionalEncoder(nn.Module):
    """A forward and a backward GRU over the source (Bahdanau et al. 2014, sec. 3.2)."""

    def __init__(self, width: int, hidden_width: int):
        super().__init__()
        self.recurrence = nn.GRU(width, hidden_width, batch_first=True, bidirectional=True)

    def forward(self, embedded_BSE: Tensor, mask_BS: Tensor) -> tuple[Tensor, Tensor]:
        """Annotations (B, S, 2D), zero at padding, and the backward GRU's last state (B, D)."""
        lengths_B = mask_BS.sum(dim=1).cpu()
        packed = nn.utils.rnn.pack_padded_sequence(
            embedded_BSE, lengths_B, batch_first=True, enforce_sorted=False
        )
        output, last_2BD = self.recurrence(packed)
        annotation_BSD, _ = nn.utils.rnn.pad_packed_sequence(
            output, batch_first=True, total_length=mask_BS.size(1)
        )
        return annotation_BSD, last_2BD[1]


class ConditionalGRUCell(nn.Module):
    """The decoder's gated unit, which also reads the context (Bahdanau et al. 2014, appendix A.2.2).

    r = sigma(W_r e + U_r s + C_r c), z likewise; s~ = tanh(W e + U [r * s] + C c);
    s' = (1 - z) * s + z * s~. The part that reads the embedded token is computed by `project_input`
    for all positions at once.
    """

    def __init__(self, input_width: int, context_width: int, hidden_width: int):
        super().__init__()
        self.input = nn.Linear(input_width, 3 * hidden_width)
        self.context = nn.Linear(context_width, 3 * hidden_width, bias=False)
        self.gates = nn.Linear(hidden_width, 2 * hidden_width, bias=False)
        self.candidate = nn.Linear(hidden_width, hidden_width, bias=False)

    def project_input(self, embedded: Tensor) -> Tensor:
        """(..., E) -> (..., 3D)."""
        projected: Tensor = self.input(embedded)
        return projected

    def forward(self, projected: Tensor, context: Tensor, hidden: Tensor) -> Tensor:
        """(..., 3D), (..., C), (..., D) -> the next hidden state (..., D)."""
        width = hidden.size(-1)
        both = projected + self.context(context)
        reset, update = torch.sigmoid(both[..., : 2 * width] + self.gates(hidden)).chunk(2, dim=-1)
        candidate = torch.tanh(both[..., 2 * width :] + self.candidate(reset * hidden))
        return torch.lerp(hidden, candidate, update)


class Bahdanau(nn.Module):
    """Encoder, decoder and deep output; the arguments are `nmt.config.BahdanauConfig`'s keys."""

    def __init__(
        self,
        *,
        source_vocabulary: int,
        target_vocabulary: int,
        embedding_width: int,
        hidden_width: int,
        attention_width: int,
        maxout_width: int,
        dropout: float,
        tie_embeddings: str = "target",
    ):
        super().__init__()
        self.dropout = dropout
        self.embeddings = Embeddings(
            source_vocabulary,
            target_vocabulary,
            embedding_width,
            tie=tie_embeddings,
            output_width=maxout_width,
            output_bias=True,
        )
        context_width = 2 * hidden_width
        self.encoder = BidirectionalEncoder(embedding_width, hidden_width)
        self.first_state = nn.Linear(hidden_width, hidden_width)
        self.attention = AdditiveAttention(hidden_width, context_width, attention_width)
        self.cell = ConditionalGRUCell(embedding_width, context_width, hidden_width)
        # In pairs for the maxout.
        self.maxout_hidden = nn.Linear(hidden_width, 2 * maxout_width)
        self.maxout_input = nn.Linear(embedding_width, 2 * maxout_width, bias=False)
        self.maxout_context = nn.Linear(context_width, 2 * maxout_width, bias=False)
        self._initialize()

    def _initialize(self) -> None:
        """Recurrent matrices orthogonal, as in A.2.3; the others scaled by their width."""
        for name, parameter in self.named_parameters():
            if "weight_hh" in name or name in ("cell.gates.weight", "cell.candidate.weight"):
                # One square block a gate.
                for block in parameter.chunk(parameter.size(0) // parameter.size(1)):
                    nn.init.orthogonal_(block)
            elif parameter.dim() > 1 and "embeddings" not in name:
                nn.init.xavier_uniform_(parameter)
            elif parameter.dim() > 1:
                nn.init.normal_(parameter, std=parameter.size(1) ** -0.5)
            else:
                nn.init.zeros_(parameter)

    def encode(
        self, source_BS: Tensor, mask_BS: Tensor, record: list[Tensor] | None = None
    ) -> BahdanauMemory:
        """The memory of a batch. The encoder has no attention to record."""
        embedded_BSE = self._drop(self.embeddings.source(source_BS))
        annotation_BSD, backward_BD = self.encoder(embedded_BSE, mask_BS)
        return BahdanauMemory(
            mask_BS,
            annotation_BSD,
            self.attention.project_keys(annotation_BSD),
            torch.tanh(self.first_state(backward_BD)),  # s_0 = tanh(W_s h_1) (A.2.2)
        )

    def decode(self, target_BT: Tensor, memory: BahdanauMemory, record: list[Tensor] | None = None) -> Tensor:
        """Teacher forcing: deep output (B, T, L). `record` gets the weights (B, 1, T, S)."""
        embedded_BTE = self._drop(self.embeddings.target(target_BT))
        projected_BTD = self.cell.project_input(embedded_BTE)
        hidden_B1D = memory.first_BD[:, None]
        hidden, context, weights = [], [], []
        for projected_B1D in torch.split(projected_BTD, 1, dim=1):
            hidden_B1D, context_B1D, weights_B1S = self._advance(projected_B1D, hidden_B1D, memory)
            hidden.append(hidden_B1D)
            context.append(context_B1D)
            weights.append(weights_B1S)
        if record is not None:
            record.append(torch.cat(weights, dim=1)[:, None])
        return self._deep_output(torch.cat(hidden, dim=1), embedded_BTE, torch.cat(context, dim=1))

    def start(self, memory: BahdanauMemory) -> BahdanauState:
        """The state before the first token: one empty hypothesis a sentence."""
        return BahdanauState(memory.first_BD[:, None])

    def step(
        self, token_BK: Tensor, memory: BahdanauMemory, state: BahdanauState
    ) -> tuple[Tensor, BahdanauState]:
        """One token further: deep output (B, K, L) and the next state."""
        embedded_BKE = self._drop(self.embeddings.target(token_BK))
        projected_BKD = self.cell.project_input(embedded_BKE)
        hidden_BKD, context_BKD, _ = self._advance(projected_BKD, state.hidden_BKD, memory)
        return self._deep_output(hidden_BKD, embedded_BKE, context_BKD), BahdanauState(hidden_BKD)

    def project(self, hidden: Tensor) -> Tensor:
        """Logits: (..., L) -> (..., V)."""
        return self.embeddings.project(hidden)

    def _advance(
        self, projected_BKD: Tensor, hidden_BKD: Tensor, memory: BahdanauMemory
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Attend with the previous state, then update it: hidden, context, weights."""
        context_BKD, weights_BKS = self.attention(
            hidden_BKD, memory.keys_BSA, memory.annotation_BSD, memory.mask_BS
        )
        return self.cell(projected_BKD, context_BKD, hidden_BKD), context_BKD, weights_BKS

    def _deep_output(self, hidden: Tensor, embedded: Tensor, context: Tensor) -> Tensor:
        """t = maxout(U s_i + V y_{i-1} + C c_i): A.2.2, with the s_i of eq. 4 where A.2.2 has s_{i-1}."""
        pairs = self.maxout_hidden(hidden) + self.maxout_input(embedded) + self.maxout_context(context)
        return self._drop(pairs.unflatten(-1, (-1, 2)).amax(dim=-1))

    def _drop(self, x: Tensor) -> Tensor:
        return dropout(x, self.dropout, self.training)
