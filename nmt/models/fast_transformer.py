"""The Transformer's decoder as search on a CPU calls it: the same function in fewer and longer loops.

`transformer.py` is to be read; this is to be fast. Hypotheses that live are rows of one matrix; keys and
values lie in slots, a token after the other, and each hypothesis has the list of its own, so that nothing is
computed for others and nothing is moved when the beam is reordered.

B sentences, R >= B rows of a buffer, S source length, K hypotheses, N of them live, T capacity in tokens,
L = T * K slots, D width, F = 2D. Masks are True where attention may look.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nmt import kernels
from nmt.models.buffers import keep_rows, longer
from nmt.models.packed import PackedLinear, linear_part
from nmt.models.rows import Live, put_rows
from nmt.models.seam import SearchModel
from nmt.models.transformer import Transformer
from nmt.products import Stack, Weights

# Tokens that new buffers have room for at least. Room that is not used is never touched and costs nothing but
# addresses: so it is left where it is, until it is so many times what there need be.
_CAPACITY, _WASTE = 32, 4


@dataclass(frozen=True)
class SourceMemory:
    """The encoder's output as each decoder layer reads it, key beside value."""

    mask_BS: Tensor
    count_B: Tensor
    layers_RSF: Sequence[Tensor]  # the first B rows; what lies beyond a sentence's count does not matter

    def keep(self, sentences_B: Tensor) -> SourceMemory:
        count_B = self.count_B[sentences_B]
        most = int(count_B.max()) if len(count_B) else 0
        layers = [keep_rows(layer, sentences_B, count_B, most) for layer in self.layers_RSF]
        return SourceMemory(self.mask_BS[sentences_B, :most], count_B, layers)

    def put(self, sentences_R: Tensor, other: SourceMemory) -> SourceMemory:
        layers = [
            put_rows(mine, sentences_R, new, dim=1)
            for mine, new in zip(self.layers_RSF, other.layers_RSF, strict=True)
        ]
        mask_BS = put_rows(self.mask_BS, sentences_R, other.mask_BS, dim=1)
        return SourceMemory(mask_BS, self.count_B.index_copy(0, sentences_R, other.count_B), layers)


@dataclass(frozen=True)
class PrefixState:
    """Keys and values of what is decoded, and which of them each hypothesis has come by."""

    layers_RLF: Sequence[Tensor]  # slot t * K + k: token t of what was hypothesis k then; the first B rows
    ancestors_BKT: Tensor  # int32: slots of a hypothesis's tokens
    length_B: Tensor  # tokens of a sentence's hypotheses
    longest: int = 0  # of them

    def select(self, beam_BK: Tensor) -> PrefixState:
        index_BKT = beam_BK[:, :, None].expand(-1, -1, self.ancestors_BKT.size(2))
        return replace(self, ancestors_BKT=self.ancestors_BKT.gather(1, index_BKT))

    def keep(self, sentences_B: Tensor) -> PrefixState:
        length_B = self.length_B[sentences_B]
        longest = int(length_B.max()) if len(length_B) else 0
        hypotheses, capacity = self.ancestors_BKT.shape[1:]
        enough = max(_CAPACITY, 2 * longest)
        if self.layers_RLF and len(sentences_B) > len(self.layers_RLF[0]) and capacity > _WASTE * enough:
            capacity = enough
        used_B, slots = length_B * hypotheses, capacity * hypotheses
        layers = [keep_rows(layer, sentences_B, used_B, slots) for layer in self.layers_RLF]
        return PrefixState(layers, self.ancestors_BKT[sentences_B, :, :capacity], length_B, longest)

    def put(self, sentences_R: Tensor, other: PrefixState) -> PrefixState:
        """`other` has decoded nothing, so what stands in its slots does not matter."""
        length_B = self.length_B.index_copy(0, sentences_R, other.length_B)
        return replace(self, length_B=length_B, longest=int(length_B.max()))

    def with_room(self, hypotheses: int, layers: int, width: int, like: Tensor, expected: int) -> PrefixState:
        """With buffers that hold one more token, new ones at least `expected`."""
        capacity = self.ancestors_BKT.size(2)
        if self.layers_RLF and self.longest < capacity:
            return self
        capacity = max(_CAPACITY, 2 * capacity, expected)
        sentences, slots = len(self.length_B), capacity * hypotheses
        if self.layers_RLF:
            fresh = [longer(layer, self.length_B * hypotheses, slots) for layer in self.layers_RLF]
        else:
            fresh = [like.new_empty((sentences, slots, 2 * width)) for _ in range(layers)]
        ancestors_BKT = self.ancestors_BKT.new_zeros((sentences, hypotheses, capacity))
        ancestors_BKT[:, :, : self.ancestors_BKT.size(2)] = self.ancestors_BKT
        return replace(self, layers_RLF=fresh, ancestors_BKT=ancestors_BKT)


class FastTransformer(SearchModel):
    """A Transformer whose linear layers are packed, for inference."""

    def __init__(self, model: Transformer):
        self.model = model
        self.embeddings = model.embeddings
        self.stack = _stack(model)
        self.most_source_tokens, self.most_target_tokens = model.most_source_tokens, model.most_target_tokens

    @staticmethod
    def can_run(model: nn.Module) -> TypeGuard[Transformer]:
        """Whether there is such a form of the model on this machine."""
        return (
            isinstance(model, Transformer)
            and model.rotary_width is None
            and model.relative_distance is None
            and kernels.usable(model.embeddings.target.weight)
            and all(
                layer.self_attention.heads * kernels.MOST_HEAD_WIDTH >= model.embeddings.target.embedding_dim
                for layer in list[Any](model.decoder)
            )
        )

    def encode(self, source_BS: Tensor, mask_BS: Tensor, record: list[Tensor] | None = None) -> SourceMemory:
        """The memory of a batch."""
        x_BSD = self.model.encode_source(source_BS, mask_BS, record)
        width = x_BSD.size(-1)
        layers: list[Any] = list(self.model.decoder)
        projected = [linear_part(layer.cross_attention.input, x_BSD, slice(width, None)) for layer in layers]
        return SourceMemory(mask_BS, mask_BS.sum(dim=1), projected)

    def start(self, memory: SourceMemory) -> PrefixState:
        """The state before the first token: one empty hypothesis a sentence."""
        sentences = len(memory.count_B)
        ancestors_BKT = torch.zeros((sentences, 1, 0), dtype=torch.int32)
        return PrefixState([], ancestors_BKT, torch.zeros(sentences, dtype=torch.long))

    def step(
        self,
        token_BK: Tensor,
        memory: SourceMemory,
        state: PrefixState,
        live_N: Tensor | None = None,
        record: list[Tensor] | None = None,
    ) -> tuple[Tensor, PrefixState]:
        """One token further: hidden (B, K, D), of those that live (N, D), and the next state.

        Raises:
            ValueError: there are no weights to record; `nmt.models.fast.for_search` gives a form that has.
        """
        if record is not None:
            raise ValueError("this form records no attention; ask for_search for one with recording=True")
        model, live = self.model, Live.among(token_BK, live_N)
        layers: list[Any] = list(model.decoder)
        state = state.with_room(
            *(live.hypotheses, len(layers), self.embeddings.target.embedding_dim),
            *(self.embeddings.target.weight, _expected(memory)),
        )
        place_N = torch.arange(token_BK.numel()) if live_N is None else live_N
        position_N1 = state.length_B[place_N // live.hypotheses, None]
        token_N1 = token_BK.flatten()[place_N, None]
        x_ND = model.target_positions.at(self.embeddings.target(token_N1), position_N1).squeeze(1)
        if self.stack is not None:
            self.stack.step(
                *(x_ND, place_N, live.hypotheses, state.length_B, state.layers_RLF, state.ancestors_BKT),
                *(memory.count_B, memory.layers_RSF),
            )
            hidden_ND = x_ND
        else:
            hidden_ND = self._layers(x_ND, place_N, live.hypotheses, memory, state)
        if live_N is None:
            hidden_ND = hidden_ND.view(live.sentences, live.hypotheses, -1)
        return hidden_ND, replace(state, length_B=state.length_B + 1, longest=state.longest + 1)

    def _layers(
        self, x_ND: Tensor, place_N: Tensor, hypotheses: int, memory: SourceMemory, state: PrefixState
    ) -> Tensor:
        """What `Stack.step` does: (N, D) -> (N, D)."""
        layers: list[Any] = list(self.model.decoder)
        for layer, source_BSF, prefix_BLF in zip(layers, memory.layers_RSF, state.layers_RLF, strict=True):
            projected_NE = layer.self_attention.input(layer.self_residual.enter(x_ND))
            context_ND = kernels.attend_to_prefix(
                projected_NE,
                place_N,
                hypotheses,
                state.length_B,
                prefix_BLF,
                state.ancestors_BKT,
                layer.self_attention.heads,
            )
            x_ND = layer.self_residual.leave(x_ND, layer.self_attention.output(context_ND))
            entered_ND = layer.cross_residual.enter(x_ND)
            query_ND = linear_part(layer.cross_attention.input, entered_ND, slice(0, x_ND.size(1)))
            context_ND = kernels.attend_to_source(
                query_ND, place_N, hypotheses, memory.count_B, source_BSF, layer.cross_attention.heads
            )
            x_ND = layer.cross_residual.leave(x_ND, layer.cross_attention.output(context_ND))
            inner_ND = layer.feed_forward(layer.feed_forward_residual.enter(x_ND))
            x_ND = layer.feed_forward_residual.leave(x_ND, inner_ND)
        hidden_ND: Tensor = self.model.decoder_norm(x_ND)
        return hidden_ND

    def project(self, hidden: Tensor) -> Tensor:
        """Logits: (..., D) -> (..., V)."""
        return self.embeddings.project(hidden)


def _expected(memory: SourceMemory) -> int:
    """Tokens that most translations of these sources do not exceed."""
    longest = memory.mask_BS.size(1)
    return longest + longest // 2 + 8


def _stack(model: Transformer) -> Stack | None:
    """The decoder's layers in one call, where all of them are what it can run."""
    layers = []
    for layer in list[Any](model.decoder):
        own, cross, feed = layer.self_attention, layer.cross_attention, layer.feed_forward
        linears = (own.input, own.output, cross.input, cross.output, feed.inner, feed.outer)
        ours = all(isinstance(linear, PackedLinear) and linear.ours for linear in linears)
        if not ours or feed.activation is not F.relu:
            return None
        parts = [
            slice(0, cross.input.in_features) if part is cross.input else slice(None) for part in linears
        ]
        matrices = [linear.matrix(part) for linear, part in zip(linears, parts, strict=True)]
        residuals = (layer.self_residual, layer.cross_residual, layer.feed_forward_residual)
        layers.append(Weights(matrices, [residual.norm for residual in residuals]))
    first: Any = model.decoder[0]
    return Stack(
        layers, model.decoder_norm, heads=first.self_attention.heads, pre_norm=first.self_residual.pre_norm
    )
