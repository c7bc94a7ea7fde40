"""The Transformer (Vaswani et al. 2017), with post- or pre-norm.

B sentences, S source length, T target length, K hypotheses, D width, H heads, N width of a head,
L slots of the decoding cache, V vocabulary. Masks are True where attention may look.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nmt.models.attention import MultiHeadProjections, additive_mask, causal_mask, scaled_dot_product
from nmt.models.dropout import dropout
from nmt.models.embeddings import Embeddings, PositionalEmbedding


@dataclass(frozen=True)
class TransformerMemory:
    """The encoder's output as each decoder layer reads it: keys and values, projected once."""

    mask_BS: Tensor
    keys_BHSN: Sequence[Tensor]  # one a decoder layer
    values_BHSN: Sequence[Tensor]

    def keep(self, sentences_B: Tensor) -> TransformerMemory:
        return TransformerMemory(
            self.mask_BS[sentences_B],
            [key[sentences_B] for key in self.keys_BHSN],
            [value[sentences_B] for value in self.values_BHSN],
        )


@dataclass(frozen=True)
class TransformerState:
    """Keys and values of all tokens decoded so far, of all hypotheses of a sentence, in slots.

    A hypothesis is the set of slots it may look at, its ancestors. So `select` gathers rows of a small
    boolean table and the cache itself is never copied: the K hypotheses of a sentence are K queries
    to the same keys, with different masks.
    """

    keys_BHLN: Sequence[Tensor]  # one a layer; L is the capacity, `used` of them filled
    values_BHLN: Sequence[Tensor]
    visible_BKL: Tensor  # bool over the used slots
    used: int
    length: int  # tokens of a hypothesis

    def select(self, beam_BK: Tensor) -> TransformerState:
        rows = beam_BK[:, :, None].expand(-1, -1, self.visible_BKL.size(-1))
        return replace(self, visible_BKL=self.visible_BKL.gather(1, rows))

    def keep(self, sentences_B: Tensor) -> TransformerState:
        return replace(
            self,
            keys_BHLN=[key[sentences_B] for key in self.keys_BHLN],
            values_BHLN=[value[sentences_B] for value in self.values_BHLN],
            visible_BKL=self.visible_BKL[sentences_B],
        )


class FeedForward(nn.Module):
    """max(0, x W1 + b1) W2 + b2 (Vaswani et al. 2017, eq. 2)."""

    def __init__(self, width: int, inner_width: int, dropout: float):
        super().__init__()
        self.inner = nn.Linear(width, inner_width)
        self.outer = nn.Linear(inner_width, width)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        inner = dropout(F.relu(self.inner(x)), self.dropout, self.training)
        outer: Tensor = self.outer(inner)
        return outer


class Residual(nn.Module):
    """x + dropout(sublayer(x)): normalised after the sum (post, the paper), or before the sub-layer (pre)."""

    def __init__(self, width: int, *, pre_norm: bool, dropout: float):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.pre_norm = pre_norm
        self.dropout = dropout

    def enter(self, x: Tensor) -> Tensor:
        """The sub-layer's input."""
        return self.norm(x) if self.pre_norm else x

    def leave(self, x: Tensor, output: Tensor) -> Tensor:
        """The layer's result from its input and the sub-layer's output."""
        x = x + dropout(output, self.dropout, self.training)
        return x if self.pre_norm else self.norm(x)


class EncoderLayer(nn.Module):
    """Self-attention, then feed-forward."""

    def __init__(
        self,
        width: int,
        feed_forward_width: int,
        heads: int,
        *,
        pre_norm: bool,
        dropout: float,
        attention_dropout: float,
        activation_dropout: float,
    ):
        super().__init__()
        self.attention = MultiHeadProjections(width, heads)
        self.attention_residual = Residual(width, pre_norm=pre_norm, dropout=dropout)
        self.feed_forward = FeedForward(width, feed_forward_width, activation_dropout)
        self.feed_forward_residual = Residual(width, pre_norm=pre_norm, dropout=dropout)
        self.attention_dropout = attention_dropout

    def forward(self, x_BSD: Tensor, bias_B11S: Tensor | None, record: list[Tensor] | None) -> Tensor:
        query, key, value = self.attention.query_key_value(self.attention_residual.enter(x_BSD))
        context = scaled_dot_product(
            query, key, value, bias=bias_B11S, dropout=self._attention_dropout(), record=record
        )
        x_BSD = self.attention_residual.leave(x_BSD, self.attention.merge(context))
        inner = self.feed_forward(self.feed_forward_residual.enter(x_BSD))
        return self.feed_forward_residual.leave(x_BSD, inner)

    def _attention_dropout(self) -> float:
        return self.attention_dropout if self.training else 0.0


class DecoderLayer(nn.Module):
    """Causal self-attention, attention over the memory, then feed-forward."""

    def __init__(
        self,
        width: int,
        feed_forward_width: int,
        heads: int,
        *,
        pre_norm: bool,
        dropout: float,
        attention_dropout: float,
        activation_dropout: float,
    ):
        super().__init__()
        self.self_attention = MultiHeadProjections(width, heads)
        self.self_residual = Residual(width, pre_norm=pre_norm, dropout=dropout)
        self.cross_attention = MultiHeadProjections(width, heads)
        self.cross_residual = Residual(width, pre_norm=pre_norm, dropout=dropout)
        self.feed_forward = FeedForward(width, feed_forward_width, activation_dropout)
        self.feed_forward_residual = Residual(width, pre_norm=pre_norm, dropout=dropout)
        self.attention_dropout = attention_dropout

    def forward(
        self,
        x_BTD: Tensor,
        memory_key_BHSN: Tensor,
        memory_value_BHSN: Tensor,
        bias_B11S: Tensor | None,
        causal_bias_TT: Tensor,
        record: list[Tensor] | None,
    ) -> Tensor:
        """All positions at once. The weights recorded are those over the memory, then over the prefix."""
        query, key, value = self.self_attention.query_key_value(self.self_residual.enter(x_BTD))
        own: list[Tensor] | None = None if record is None else []
        context = scaled_dot_product(
            query, key, value, bias=causal_bias_TT, dropout=self._attention_dropout(), record=own
        )
        x_BTD = self.self_residual.leave(x_BTD, self.self_attention.merge(context))
        x_BTD = self._after_self_attention(x_BTD, memory_key_BHSN, memory_value_BHSN, bias_B11S, record)
        if record is not None and own is not None:
            record += own
        return x_BTD

    def step(
        self,
        x_BKD: Tensor,
        memory_key_BHSN: Tensor,
        memory_value_BHSN: Tensor,
        bias_B11S: Tensor | None,
        key_BHLN: Tensor,
        value_BHLN: Tensor,
        used: int,
        bias_B1KL: Tensor,
    ) -> Tensor:
        """One token of each of K hypotheses; its key and value are written to slots used .. used + K - 1."""
        query, key, value = self.self_attention.query_key_value(self.self_residual.enter(x_BKD))
        after = used + x_BKD.size(1)
        key_BHLN[:, :, used:after] = key
        value_BHLN[:, :, used:after] = value
        context = scaled_dot_product(query, key_BHLN[:, :, :after], value_BHLN[:, :, :after], bias=bias_B1KL)
        x_BKD = self.self_residual.leave(x_BKD, self.self_attention.merge(context))
        return self._after_self_attention(x_BKD, memory_key_BHSN, memory_value_BHSN, bias_B11S, None)

    def _after_self_attention(
        self,
        x_BTD: Tensor,
        memory_key_BHSN: Tensor,
        memory_value_BHSN: Tensor,
        bias_B11S: Tensor | None,
        record: list[Tensor] | None,
    ) -> Tensor:
        query = self.cross_attention.query(self.cross_residual.enter(x_BTD))
        context = scaled_dot_product(
            query,
            memory_key_BHSN,
            memory_value_BHSN,
            bias=bias_B11S,
            dropout=self._attention_dropout(),
            record=record,
        )
        x_BTD = self.cross_residual.leave(x_BTD, self.cross_attention.merge(context))
        inner = self.feed_forward(self.feed_forward_residual.enter(x_BTD))
        return self.feed_forward_residual.leave(x_BTD, inner)

    def _attention_dropout(self) -> float:
        return self.attention_dropout if self.training else 0.0


class Transformer(nn.Module):
    """Encoder and decoder; the arguments are `nmt.config.TransformerConfig`'s keys."""

    def __init__(
        self,
        *,
        source_vocabulary: int,
        target_vocabulary: int,
        encoder_layers: int,
        decoder_layers: int,
        width: int,
        feed_forward_width: int,
        heads: int,
        dropout: float,
        embedding_dropout: float | None = None,
        attention_dropout: float = 0.0,
        activation_dropout: float = 0.0,
        norm: str = "post",
        positions: str = "sinusoidal",
        max_positions: int = 1024,
        tie_embeddings: str = "all",
    ):
        super().__init__()
        pre_norm = norm == "pre"
        layer: dict[str, Any] = dict(
            pre_norm=pre_norm,
            dropout=dropout,
            attention_dropout=attention_dropout,
            activation_dropout=activation_dropout,
        )
        position: dict[str, Any] = dict(
            learned=positions == "learned",
            max_positions=max_positions,
            dropout=dropout if embedding_dropout is None else embedding_dropout,
        )
        self.embeddings = Embeddings(source_vocabulary, target_vocabulary, width, tie=tie_embeddings)
        self.source_positions = PositionalEmbedding(width, **position)
        self.target_positions = PositionalEmbedding(width, **position)
        self.encoder = nn.ModuleList(
            EncoderLayer(width, feed_forward_width, heads, **layer) for _ in range(encoder_layers)
        )
        self.decoder = nn.ModuleList(
            DecoderLayer(width, feed_forward_width, heads, **layer) for _ in range(decoder_layers)
        )
        # Pre-norm leaves the last sum unnormalised (Xiong et al. 2020, fig. 1).
        self.encoder_norm = nn.LayerNorm(width) if pre_norm else nn.Identity()
        self.decoder_norm = nn.LayerNorm(width) if pre_norm else nn.Identity()
        self._initialize(width)

    def _initialize(self, width: int) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for module in self.modules():  # after the linear layers: the output may be an embedding
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=width**-0.5)

    def encode(
        self, source_BS: Tensor, mask_BS: Tensor, record: list[Tensor] | None = None
    ) -> TransformerMemory:
        """The memory of a batch. `record` collects each layer's self-attention weights (B, H, S, S)."""
        bias_B11S = additive_mask(mask_BS[:, None, None], self.embeddings.target.weight)
        x_BSD = self.source_positions(self.embeddings.source(source_BS))
        for layer in self.encoder:
            x_BSD = layer(x_BSD, bias_B11S, record)
        x_BSD = self.encoder_norm(x_BSD)
        projected = [layer.cross_attention.key_value(x_BSD) for layer in self.decoder]  # type: ignore[operator, union-attr]
        return TransformerMemory(mask_BS, [key for key, _ in projected], [value for _, value in projected])

    def decode(
        self, target_BT: Tensor, memory: TransformerMemory, record: list[Tensor] | None = None
    ) -> Tensor:
        """Teacher forcing: hidden (B, T, D), position t having seen tokens 0..t.

        `record` collects for each layer the weights over the memory (B, H, T, S), then over the
        prefix (B, H, T, T). Padding at the end needs no mask: no earlier position looks at it.
        """
        bias_B11S = additive_mask(memory.mask_BS[:, None, None], self.embeddings.target.weight)
        x_BTD = self.target_positions(self.embeddings.target(target_BT))
        causal_TT = causal_mask(target_BT.size(1), x_BTD)
        for layer, key, value in zip(self.decoder, memory.keys_BHSN, memory.values_BHSN, strict=True):
            x_BTD = layer(x_BTD, key, value, bias_B11S, causal_TT, record)
        hidden: Tensor = self.decoder_norm(x_BTD)
        return hidden

    def start(self, memory: TransformerMemory) -> TransformerState:
        """The state before the first token: one empty hypothesis a sentence."""
        visible = memory.mask_BS.new_zeros((memory.mask_BS.size(0), 1, 0))
        empty = [key[:, :, :0] for key in memory.keys_BHSN]
        return TransformerState(empty, empty, visible, used=0, length=0)

    def step(
        self, token_BK: Tensor, memory: TransformerMemory, state: TransformerState
    ) -> tuple[Tensor, TransformerState]:
        """One token further: hidden (B, K, D) and the next state."""
        hypotheses = token_BK.size(1)
        after = state.used + hypotheses
        keys = _with_room(state.keys_BHLN, after)
        values = _with_room(state.values_BHLN, after)
        itself = torch.eye(hypotheses, dtype=torch.bool, device=token_BK.device)
        visible_BKL = torch.cat((state.visible_BKL, itself.expand(token_BK.size(0), -1, -1)), dim=-1)
        bias_B11S = additive_mask(memory.mask_BS[:, None, None], self.embeddings.target.weight)
        bias_B1KL = additive_mask(visible_BKL[:, None], self.embeddings.target.weight)
        x_BKD = self.embeddings.target(token_BK)
        # All hypotheses stand at the same position: a T axis of 1 for the embedding of positions.
        x_BKD = self.target_positions(x_BKD.unsqueeze(-2), first=state.length).squeeze(-2)
        for index, layer in enumerate(self.decoder):
            x_BKD = layer.step(  # type: ignore[operator]
                x_BKD,
                memory.keys_BHSN[index],
                memory.values_BHSN[index],
                bias_B11S,
                keys[index],
                values[index],
                state.used,
                bias_B1KL,
            )
        next_state = TransformerState(keys, values, visible_BKL, used=after, length=state.length + 1)
        return self.decoder_norm(x_BKD), next_state

    def project(self, hidden: Tensor) -> Tensor:
        """Logits: (..., D) -> (..., V)."""
        return self.embeddings.project(hidden)


def _with_room(buffers: Sequence[Tensor], needed: int) -> Sequence[Tensor]:
    """The buffers, or copies of double the capacity where `needed` slots do not fit."""
    if not buffers or buffers[0].size(2) >= needed:
        return buffers
    capacity = max(2 * needed, 64)
    grown = []
    for buffer in buffers:
        sentences, heads, filled, width = buffer.shape
        larger = buffer.new_zeros((sentences, heads, capacity, width))
        larger[:, :, :filled] = buffer
        grown.append(larger)
    return grown
