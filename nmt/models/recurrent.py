"""Recurrent encoder-decoders, in historical order: without attention (Sutskever, Vinyals and Le 2014),
with attention by the previous state (Bahdanau, Cho and Bengio 2014), by the current one (Luong, Pham
and Manning 2015).

B sentences, S source length, T target length, K hypotheses, E embedding width, D hidden width,
A attention width, L width of what is projected to logits, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nmt.linear import Linear
from nmt.models.attention import AdditiveAttention, LuongAttention
from nmt.models.cells import (
    BidirectionalGatedEncoder,
    GatedUnit,
    RecurrentStack,
    StackedEncoder,
    initialize,
    initialize_scaled,
    is_recurrent,
    orthogonal_blocks,
)
from nmt.models.dropout import dropout as drop
from nmt.models.embeddings import Embeddings
from nmt.models.recurrent_state import RecurrentMemory, RecurrentState
from nmt.models.rows import Live
from nmt.models.seam import Model


class Recurrent(Model):
    """Sutskever et al. 2014: the source squeezed into one vector a layer, from which the decoder starts.

    The arguments are `nmt.config.RecurrentConfig`'s keys.
    """

    most_source_tokens: int | None = None
    most_target_tokens: int | None = None
    recorded_a_layer = 0

    def __init__(
        self,
        *,
        source_vocabulary: int,
        target_vocabulary: int,
        embedding_width: int,
        hidden_width: int,
        layers: int,
        dropout: float,
        cell: str = "lstm",
        bidirectional: bool = False,
        reverse_source: bool = False,
        residual: bool = False,
        embedding_dropout: float | None = None,
        tie_embeddings: str = "none",
        initialization: str = "scaled",
    ):
        super().__init__()
        self.dropout = dropout
        self.embedding_dropout = dropout if embedding_dropout is None else embedding_dropout
        self.embeddings = Embeddings(
            source_vocabulary,
            target_vocabulary,
            embedding_width,
            tie=tie_embeddings,
            output_width=hidden_width,
            output_bias=True,
        )
        self.encoder = StackedEncoder(
            embedding_width,
            hidden_width,
            layers,
            cell=cell,
            bidirectional=bidirectional,
            reverse=reverse_source,
            dropout=dropout,
            residual=residual,
        )
        self.decoder = RecurrentStack(
            embedding_width, hidden_width, layers, cell=cell, dropout=dropout, residual=residual
        )
        initialize(self, initialization, 0.08)  # sec. 3.4

    def encode(
        self, source_BS: Tensor, mask_BS: Tensor, record: list[Tensor] | None = None
    ) -> RecurrentMemory:
        """The memory of a batch. There is no attention to record, here or in `decode`."""
        embedded_BSE = drop(self.embeddings.source(source_BS), self.embedding_dropout, self.training)
        _, last = self.encoder(embedded_BSE, mask_BS)
        return RecurrentMemory(mask_BS, last)

    def decode(
        self,
        target_BT: Tensor,
        memory: RecurrentMemory,
        record: list[Tensor] | None = None,
        recorded_layer: int | None = None,
    ) -> Tensor:
        """Teacher forcing: hidden (B, T, D), in one recurrent call a layer."""
        embedded_BTE = drop(self.embeddings.target(target_BT), self.embedding_dropout, self.training)
        return drop(self.decoder(embedded_BTE, memory.first), self.dropout, self.training)

    def start(self, memory: RecurrentMemory) -> RecurrentState:
        """The state before the first token: one empty hypothesis a sentence."""
        return RecurrentState.first(memory)

    def step(
        self,
        token_BK: Tensor,
        memory: RecurrentMemory,
        state: RecurrentState,
        live_N: Tensor | None = None,
        record: list[Tensor] | None = None,
    ) -> tuple[Tensor, RecurrentState]:
        """One token further: hidden (B, K, D) and the next state."""
        hidden_BKD, layers = self.decoder.step(self.embeddings.target(token_BK), state.layers)
        return Live.among(token_BK, live_N).rows(hidden_BKD), RecurrentState(layers, state.length_B1 + 1)

    def project(self, hidden: Tensor) -> Tensor:
        """Logits: (..., D) -> (..., V)."""
        return self.embeddings.project(hidden)


class Bahdanau(Model):
    """Bahdanau et al. 2014, appendix A: attend with the previous state, update it, deep output by maxout.

    The arguments are `nmt.config.BahdanauConfig`'s keys.
    """

    most_source_tokens: int | None = None
    most_target_tokens: int | None = None
    recorded_a_layer = 1

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
        embedding_dropout: float | None = None,
        attention_dropout: float = 0.0,
        tie_embeddings: str = "target",
        initialization: str = "scaled",
    ):
        super().__init__()
        self.dropout = dropout
        self.embedding_dropout = dropout if embedding_dropout is None else embedding_dropout
        self.embeddings = Embeddings(
            source_vocabulary,
            target_vocabulary,
            embedding_width,
            tie=tie_embeddings,
            output_width=maxout_width,
            output_bias=True,
        )
        context_width = 2 * hidden_width
        self.encoder = BidirectionalGatedEncoder(embedding_width, hidden_width)
        self.first_state = Linear(hidden_width, hidden_width)
        self.attention = AdditiveAttention(hidden_width, context_width, attention_width, attention_dropout)
        self.cell = GatedUnit(embedding_width, hidden_width, context_width)
        # In pairs for the maxout.
        self.maxout_hidden = Linear(hidden_width, 2 * maxout_width)
        self.maxout_input = Linear(embedding_width, 2 * maxout_width, bias=False)
        self.maxout_context = Linear(context_width, 2 * maxout_width, bias=False)
        if initialization == "paper":
            self._initialize_as_paper()
        else:
            initialize_scaled(self)

    def _initialize_as_paper(self) -> None:
        """Appendix B.1: recurrent matrices orthogonal, W_a and U_a N(0, 0.001^2), v_a and biases zero, others
        N(0, 0.01^2)."""
        for name, parameter in self.named_parameters():
            if is_recurrent(name):
                orthogonal_blocks(parameter)
            elif parameter.dim() == 1 or name == "attention.energy.weight":
                nn.init.zeros_(parameter)
            else:
                nn.init.normal_(parameter, std=0.001 if name.startswith("attention.") else 0.01)

    def encode(
        self, source_BS: Tensor, mask_BS: Tensor, record: list[Tensor] | None = None
    ) -> RecurrentMemory:
        """The memory of a batch. The encoder has no attention to record."""
        embedded_BSE = drop(self.embeddings.source(source_BS), self.embedding_dropout, self.training)
        annotation_BSD, backward_BD = self.encoder(embedded_BSE, mask_BS)
        annotation_BSD = drop(annotation_BSD, self.dropout, self.training)
        first_BD = torch.tanh(self.first_state(backward_BD))  # s_0 = tanh(W_s h_1) (A.2.2)
        return RecurrentMemory(
            mask_BS, ((first_BD,),), annotation_BSD, self.attention.project_keys(annotation_BSD)
        )

    def decode(
        self,
        target_BT: Tensor,
        memory: RecurrentMemory,
        record: list[Tensor] | None = None,
        recorded_layer: int | None = None,
    ) -> Tensor:
        """Teacher forcing: deep output (B, T, L). `record` gets the weights (B, 1, T, S)."""
        embedded_BTE = drop(self.embeddings.target(target_BT), self.embedding_dropout, self.training)
        projected_BTG = self.cell.project_input(embedded_BTE)
        hidden_B1D = memory.first[0][0][:, None]
        hidden, context, weights = [], [], []
        for projected_B1G in torch.split(projected_BTG, 1, dim=1):
            hidden_B1D, context_B1D, weights_B1S = self._advance(projected_B1G, hidden_B1D, memory)
            hidden.append(hidden_B1D)
            context.append(context_B1D)
            weights.append(weights_B1S)
        if record is not None:
            record.append(torch.cat(weights, dim=1)[:, None])
        return self._deep_output(torch.cat(hidden, dim=1), embedded_BTE, torch.cat(context, dim=1))

    def start(self, memory: RecurrentMemory) -> RecurrentState:
        """The state before the first token: one empty hypothesis a sentence."""
        return RecurrentState.first(memory)

    def step(
        self,
        token_BK: Tensor,
        memory: RecurrentMemory,
        state: RecurrentState,
        live_N: Tensor | None = None,
        record: list[Tensor] | None = None,
    ) -> tuple[Tensor, RecurrentState]:
        """One token further: deep output (B, K, L) and the next state."""
        embedded_BKE = self.embeddings.target(token_BK)
        projected_BKG = self.cell.project_input(embedded_BKE)
        hidden_BKD, context_BKD, weights_BKS = self._advance(projected_BKG, state.layers[0][0], memory)
        if record is not None:
            record.append(weights_BKS[:, None])
        live = Live.among(token_BK, live_N)
        output = self._deep_output(*map(live.rows, (hidden_BKD, embedded_BKE, context_BKD)))
        return output, RecurrentState(((hidden_BKD,),), state.length_B1 + 1)

    def project(self, hidden: Tensor) -> Tensor:
        """Logits: (..., L) -> (..., V)."""
        return self.embeddings.project(hidden)

    def _advance(
        self, projected_BKG: Tensor, hidden_BKD: Tensor, memory: RecurrentMemory
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Attend with the previous state, then update it: hidden, context, weights."""
        context_BKD, weights_BKS = self.attention(
            hidden_BKD, memory.keys_BSA, memory.values_BSD, memory.mask_BS
        )
        return self.cell(projected_BKG, hidden_BKD, context_BKD), context_BKD, weights_BKS

    def _deep_output(self, hidden: Tensor, embedded: Tensor, context: Tensor) -> Tensor:
        """t = maxout(U s_i + V y_{i-1} + C c_i): A.2.2, with the s_i of eq. 4 where A.2.2 has s_{i-1}."""
        pairs = self.maxout_hidden(hidden) + self.maxout_input(embedded) + self.maxout_context(context)
        return drop(pairs.unflatten(-1, (-1, 2)).amax(dim=-1), self.dropout, self.training)


class Luong(Model):
    """Luong et al. 2015: update the stack, attend with its highest state, combine both.

    The arguments are `nmt.config.LuongConfig`'s keys.
    """

    most_target_tokens: int | None = None
    recorded_a_layer = 1

    def __init__(
        self,
        *,
        source_vocabulary: int,
        target_vocabulary: int,
        embedding_width: int,
        hidden_width: int,
        attentional_width: int,
        layers: int,
        dropout: float,
        cell: str = "lstm",
        score: str = "general",
        window: str = "global",
        window_size: int = 10,
        max_positions: int = 1024,
        input_feeding: bool = True,
        bidirectional: bool = False,
        reverse_source: bool = False,
        residual: bool = False,
        embedding_dropout: float | None = None,
        attention_dropout: float = 0.0,
        tie_embeddings: str = "target",
        initialization: str = "scaled",
    ):
        super().__init__()
        self.most_source_tokens = max_positions if score == "location" else None
        self.dropout = dropout
        self.embedding_dropout = dropout if embedding_dropout is None else embedding_dropout
        self.embeddings = Embeddings(
            source_vocabulary,
            target_vocabulary,
            embedding_width,
            tie=tie_embeddings,
            output_width=attentional_width,
            output_bias=True,
        )
        self.encoder = StackedEncoder(
            embedding_width,
            hidden_width,
            layers,
            cell=cell,
            bidirectional=bidirectional,
            reverse=reverse_source,
            dropout=dropout,
            residual=residual,
        )
        self.decoder = RecurrentStack(
            embedding_width, hidden_width, layers, cell=cell, dropout=dropout, residual=residual
        )
        # [y; h~] as input (sec. 3.3): a product for each half, so that those of all y are one.
        gates = {"lstm": 4, "gru": 3}[cell] * hidden_width
        self.feed = Linear(attentional_width, gates, bias=False) if input_feeding else None
        self.attention = LuongAttention(
            hidden_width,
            score=score,
            window=window,
            window_size=window_size,
            max_positions=max_positions,
            dropout=attention_dropout,
        )
        self.combine = Linear(2 * hidden_width, attentional_width, bias=False)  # W_c
        initialize(self, initialization, 0.1)  # sec. 4.1
        # Entries of the attentional vector grow to +-1, those of an embedding stay near width^-0.5: fed as it
        # is, it drowns the word it comes with, and the model takes several times as long to learn.
        self.feed_scale = 1.0 if initialization == "paper" else attentional_width**-0.5

    def encode(
        self, source_BS: Tensor, mask_BS: Tensor, record: list[Tensor] | None = None
    ) -> RecurrentMemory:
        """The memory of a batch. The encoder has no attention to record."""
        embedded_BSE = drop(self.embeddings.source(source_BS), self.embedding_dropout, self.training)
        values_BSD, last = self.encoder(embedded_BSE, mask_BS)
        values_BSD = drop(values_BSD, self.dropout, self.training)
        return RecurrentMemory(mask_BS, last, values_BSD, self.attention.project_keys(values_BSD))

    def decode(
        self,
        target_BT: Tensor,
        memory: RecurrentMemory,
        record: list[Tensor] | None = None,
        recorded_layer: int | None = None,
    ) -> Tensor:
        """Teacher forcing: attentional vectors (B, T, L). `record` gets the weights (B, 1, T, S).

        Without input feeding no step waits for another's attention: one recurrent call a layer.
        """
        embedded_BTE = drop(self.embeddings.target(target_BT), self.embedding_dropout, self.training)
        if self.feed is None:
            hidden_BTD = self.decoder(embedded_BTE, memory.first)
            position_T = torch.arange(1, target_BT.size(1) + 1, device=target_BT.device)
            attentional_BTL, weights_BTS = self._attend(hidden_BTD, memory, position_T)
        else:
            projected_BTG = self.decoder.project_input(embedded_BTE)
            state = self.start(memory)
            attentional, weights = [], []
            for projected_B1G in torch.split(projected_BTG, 1, dim=1):
                attentional_B1L, weights_B1S, state = self._advance(projected_B1G, memory, state)
                attentional.append(attentional_B1L)
                weights.append(weights_B1S)
            attentional_BTL, weights_BTS = torch.cat(attentional, dim=1), torch.cat(weights, dim=1)
        if record is not None:
            record.append(weights_BTS[:, None])
        return attentional_BTL

    def start(self, memory: RecurrentMemory) -> RecurrentState:
        """The state before the first token: one empty hypothesis a sentence; nothing is fed yet."""
        fed_B1L = None
        if self.feed is not None:
            fed_B1L = memory.first[0][0].new_zeros(memory.mask_BS.size(0), 1, self.feed.in_features)
        return RecurrentState.first(memory, fed_B1L)

    def step(
        self,
        token_BK: Tensor,
        memory: RecurrentMemory,
        state: RecurrentState,
        live_N: Tensor | None = None,
        record: list[Tensor] | None = None,
    ) -> tuple[Tensor, RecurrentState]:
        """One token further: attentional vector (B, K, L) and the next state."""
        projected_BKG = self.decoder.project_input(self.embeddings.target(token_BK))
        attentional_BKL, weights_BKS, state = self._advance(projected_BKG, memory, state)
        if record is not None:
            record.append(weights_BKS[:, None])
        return Live.among(token_BK, live_N).rows(attentional_BKL), state

    def project(self, hidden: Tensor) -> Tensor:
        """Logits: (..., L) -> (..., V)."""
        return self.embeddings.project(hidden)

    def _advance(
        self, projected_BKG: Tensor, memory: RecurrentMemory, state: RecurrentState
    ) -> tuple[Tensor, Tensor, RecurrentState]:
        """Update the stack, then attend: attentional vector, weights and the next state."""
        if self.feed is not None and state.fed_BKL is not None:
            projected_BKG = projected_BKG + self.feed(state.fed_BKL * self.feed_scale)
        hidden_BKD, layers = self.decoder.step_projected(projected_BKG, state.layers)
        length_B1 = state.length_B1 + 1
        attentional_BKL, weights_BKS = self._attend(hidden_BKD, memory, length_B1)
        fed_BKL = None if self.feed is None else attentional_BKL
        return attentional_BKL, weights_BKS, RecurrentState(layers, length_B1, fed_BKL)

    def _attend(self, hidden_BQD: Tensor, memory: RecurrentMemory, position: Tensor) -> tuple[Tensor, Tensor]:
        """h~ = tanh(W_c [c; h]) (eq. 5), and the weights; `position` (Q,), or (B, 1) for all queries."""
        context_BQD, weights_BQS = self.attention(
            hidden_BQD, memory.keys_BSA, memory.values_BSD, memory.mask_BS, position
        )
        attentional_BQL = torch.tanh(self.combine(torch.cat((context_BQD, hidden_BQD), dim=-1)))
        return drop(attentional_BQL, self.dropout, self.training), weights_BQS
