"""The Transformer (Vaswani et al. 2017): its two stacks, and the cache that decoding fills.

B sentences, S source length, T target length, K hypotheses, D width, H heads, N width of a head,
L slots of the decoding cache, Q queries, V vocabulary. Masks are True where attention may look.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from nmt.models.attention import additive_mask
from nmt.models.embeddings import Embeddings
from nmt.models.fixed_state import FixedState
from nmt.models.positions import Places, PositionalEmbedding, clipped_distances, rotation
from nmt.models.recompute import recomputed
from nmt.models.rows import Live
from nmt.models.seam import Model
from nmt.models.transformer_layers import DecoderLayer, EncoderLayer, make_norm
from nmt.models.transformer_state import TransformerMemory, TransformerState


class Transformer(Model):
    """Encoder and decoder; the arguments are `nmt.config.TransformerConfig`'s keys."""

    recorded_a_layer = 2

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
        decoder_feed_forward_width: int | None = None,
        embedding_dropout: float | None = None,
        attention_dropout: float = 0.0,
        activation_dropout: float = 0.0,
        norm: str = "post",
        norm_type: str = "layernorm",
        activation: str = "relu",
        positions: str = "sinusoidal",
        max_positions: int = 1024,
        relative_distance: int = 16,
        tie_embeddings: str = "all",
    ):
        super().__init__()
        self.most_source_tokens = self.most_target_tokens = max_positions if positions == "learned" else None
        pre_norm = norm == "pre"
        layer: dict[str, Any] = dict(
            pre_norm=pre_norm,
            dropout=dropout,
            attention_dropout=attention_dropout,
            activation_dropout=activation_dropout,
            norm_type=norm_type,
            activation=activation,
            relative_distance=relative_distance if positions == "relative" else None,
        )
        position: dict[str, Any] = dict(
            positions=positions,
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
            DecoderLayer(width, decoder_feed_forward_width or feed_forward_width, heads, **layer)
            for _ in range(decoder_layers)
        )
        # Pre-norm leaves the last sum unnormalised (Xiong et al. 2020, fig. 1).
        self.encoder_norm = make_norm(norm_type, width) if pre_norm else nn.Identity()
        self.decoder_norm = make_norm(norm_type, width) if pre_norm else nn.Identity()
        self.rotary_width = width // heads if positions == "rotary" else None
        self.relative_distance = relative_distance if positions == "relative" else None
        self.recompute = False  # of each layer only its input is kept for the gradient
        self.fixed_cache = False  # search keeps its buffers: see `FixedState`
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
        x_BSD = self.encode_source(source_BS, mask_BS, record)
        projected = [layer.cross_attention.key_value(x_BSD) for layer in self.decoder]  # type: ignore[operator, union-attr]
        return TransformerMemory(mask_BS, [key for key, _ in projected], [value for _, value in projected])

    def encode_source(self, source_BS: Tensor, mask_BS: Tensor, record: list[Tensor] | None) -> Tensor:
        """The encoder's output (B, S, D); arguments as for `encode`."""
        bias_B11S = additive_mask(mask_BS[:, None, None], self.embeddings.target.weight)
        x_BSD = self.source_positions(self.embeddings.source(source_BS))
        places = self._places(torch.arange(source_BS.size(1), device=source_BS.device))
        for layer in self.encoder:
            x_BSD = self._layer(layer, x_BSD, bias_B11S, record, places)
        output_BSD: Tensor = self.encoder_norm(x_BSD)
        return output_BSD

    def decode(
        self,
        target_BT: Tensor,
        memory: TransformerMemory,
        record: list[Tensor] | None = None,
        recorded_layer: int | None = None,
    ) -> Tensor:
        """Teacher forcing: hidden (B, T, D), position t having seen tokens 0..t.

        `record` collects for each layer, or the one that is asked for, the weights over the memory
        (B, H, T, S), then over the prefix (B, H, T, T). Padding at the end needs no mask: no earlier
        position looks at it.
        """
        bias_B11S = additive_mask(memory.mask_BS[:, None, None], self.embeddings.target.weight)
        x_BTD = self.target_positions(self.embeddings.target(target_BT))
        places = self._places(torch.arange(target_BT.size(1), device=target_BT.device))
        for index, layer in enumerate(self.decoder):
            key, value = memory.keys_BHSN[index], memory.values_BHSN[index]
            own = record if recorded_layer in (None, index) else None
            x_BTD = self._layer(layer, x_BTD, key, value, bias_B11S, own, places)
        hidden: Tensor = self.decoder_norm(x_BTD)
        return hidden

    def _layer(self, layer: nn.Module, *arguments: Any) -> Tensor:
        """A layer's output; with `recompute` computed once more for the gradient, with the same dropout."""
        if self.recompute and self.training and torch.is_grad_enabled():
            return recomputed(layer, *arguments)
        output: Tensor = layer(*arguments)
        return output

    def _places(self, position_Q: Tensor, position_BS: Tensor | None = None) -> Places:
        """Of queries at these positions; keys stand at the same where not given."""
        if self.rotary_width is not None:
            return Places(rotation_QM=rotation(position_Q, self.rotary_width, self.embeddings.target.weight))
        if self.relative_distance is not None:
            position_BS = position_Q[None] if position_BS is None else position_BS
            distance_B1QS = clipped_distances(position_Q, position_BS, self.relative_distance)
            return Places(distance_B1QS=distance_B1QS)
        return Places()

    def start(self, memory: TransformerMemory) -> TransformerState | FixedState:
        """The state before the first token: one empty hypothesis a sentence."""
        kind = FixedState if self.fixed_cache else TransformerState
        return kind.empty(memory, relative=self.relative_distance is not None)

    def step(
        self,
        token_BK: Tensor,
        memory: TransformerMemory,
        state: TransformerState | FixedState,
        live_N: Tensor | None = None,
        record: list[Tensor] | None = None,
    ) -> tuple[Tensor, TransformerState | FixedState]:
        """One token further: hidden (B, K, D), of those that live (N, D), and the next state."""
        live = Live.among(token_BK, live_N)
        x_BKD = self.target_positions.at(self.embeddings.target(token_BK), state.length_B[:, None])
        state = state.entered(live)
        bias_B11S = additive_mask(memory.mask_BS[:, None, None], self.embeddings.target.weight)
        bias_B1KL = additive_mask(state.visible_BKL[:, None], self.embeddings.target.weight)
        # Distances on the clock of the batch are those within the sentence.
        places = self._places(state.now_Q, state.clock_BL)
        x = live.rows(x_BKD)
        for index, layer in enumerate(self.decoder):
            x = layer.step(  # type: ignore[operator]
                x,
                live,
                memory.keys_BHSN[index],
                memory.values_BHSN[index],
                bias_B11S,
                partial(state.write, index),
                bias_B1KL,
                places,
                record,
            )
        return self.decoder_norm(x), state

    def project(self, hidden: Tensor) -> Tensor:
        """Logits: (..., D) -> (..., V)."""
        return self.embeddings.project(hidden)
