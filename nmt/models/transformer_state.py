"""What the Transformer's decoder reads of the source, and the cache that decoding fills.

B sentences, S source length, K hypotheses, H heads, N width of a head, L slots of the cache. Masks are True
where attention may look.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nmt.models.rows import Live, put_rows

# Between two compactions of the cache.
_STEPS = 8
# On a GPU the source has a multiple of so many positions.
_POSITIONS = 16


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

    def put(self, sentences_R: Tensor, other: TransformerMemory) -> TransformerMemory:
        mask_BS = put_rows(self.mask_BS, sentences_R, other.mask_BS, dim=1)
        longest = int(mask_BS.any(dim=0).sum())
        if mask_BS.is_cuda:  # sizes that seldom change: see nmt/replay.py
            longest = min(mask_BS.size(1), -(-longest // _POSITIONS) * _POSITIONS)

        def joined(mine: Sequence[Tensor], theirs: Sequence[Tensor]) -> list[Tensor]:
            return [
                put_rows(x, sentences_R, new, dim=2)[:, :, :longest]
                for x, new in zip(mine, theirs, strict=True)
            ]

        return TransformerMemory(
            mask_BS[:, :longest],
            joined(self.keys_BHSN, other.keys_BHSN),
            joined(self.values_BHSN, other.values_BHSN),
        )


@dataclass(frozen=True)
class TransformerState:
    """Keys and values of the tokens decoded so far, of all hypotheses of a sentence, in slots.

    A hypothesis is the set of slots it may look at, its ancestors. So `select` gathers rows of a small
    boolean table and the cache itself is not copied: the K hypotheses of a sentence are K queries
    to the same keys, with different masks. Each step fills the next K slots, of all sentences alike. When
    the buffers are full, what no hypothesis that lives can see makes room: most of it, because
    hypotheses of a sentence soon have the same ancestors.
    """

    keys_BHLN: Sequence[Tensor]  # one a layer; L is the capacity
    values_BHLN: Sequence[Tensor]
    visible_BKL: Tensor  # bool over the slots that are used
    length_B: Tensor  # tokens of each sentence's hypotheses
    clock: int = 0  # steps of the batch
    clock_BL: Tensor | None = None  # when each slot was filled; relative positions need it

    @property
    def used(self) -> int:
        """Slots."""
        return self.visible_BKL.size(2)

    @property
    def now_Q(self) -> Tensor:
        """When the last slots were filled, by `clock`."""
        return torch.full((1,), self.clock - 1, device=self.length_B.device)

    @classmethod
    def empty(cls, memory: TransformerMemory, *, relative: bool) -> TransformerState:
        """One hypothesis a sentence, nothing decoded."""
        visible_BKL = memory.mask_BS.new_zeros((memory.mask_BS.size(0), 1, 0))
        clock_BL = visible_BKL[:, 0].long()
        buffers = [key[:, :, :0] for key in memory.keys_BHSN]
        return cls(
            buffers, buffers, visible_BKL, clock_BL.sum(dim=1), clock_BL=clock_BL if relative else None
        )

    def select(self, beam_BK: Tensor) -> TransformerState:
        rows = beam_BK[:, :, None].expand(-1, -1, self.used)
        return replace(self, visible_BKL=self.visible_BKL.gather(1, rows))

    def keep(self, sentences_B: Tensor) -> TransformerState:
        used = self.used
        return replace(
            self,
            keys_BHLN=[buffer[:, :, :used][sentences_B] for buffer in self.keys_BHLN],
            values_BHLN=[buffer[:, :, :used][sentences_B] for buffer in self.values_BHLN],
            visible_BKL=self.visible_BKL[sentences_B],
            length_B=self.length_B[sentences_B],
            clock_BL=None if self.clock_BL is None else self.clock_BL[sentences_B],
        )

    def put(self, sentences_R: Tensor, other: TransformerState) -> TransformerState:
        """`other` has decoded nothing, so what stands in its slots does not matter."""
        return replace(
            self,
            visible_BKL=self.visible_BKL.index_fill(0, sentences_R, False),
            length_B=self.length_B.index_copy(0, sentences_R, other.length_B),
        )

    def entered(self, live: Live) -> TransformerState:
        """With slots for the next token of each hypothesis, which it sees; they are still to be filled."""
        state = self._of(live)
        if not state.keys_BHLN or state.used + live.hypotheses > state.keys_BHLN[0].size(2):
            state = state._compact(live.hypotheses)
        itself = torch.eye(live.hypotheses, dtype=torch.bool, device=self.visible_BKL.device)
        visible_BKL = torch.cat((state.visible_BKL, itself.expand(live.sentences, -1, -1)), dim=-1)
        clock_BL = state.clock_BL
        if clock_BL is not None:
            now_BK = clock_BL.new_full((live.sentences, live.hypotheses), self.clock)
            clock_BL = torch.cat((clock_BL, now_BK), dim=1)
        return replace(
            state,
            visible_BKL=visible_BKL,
            length_B=self.length_B + 1,
            clock=self.clock + 1,
            clock_BL=clock_BL,
        )

    def write(self, layer: int, key_BHKN: Tensor, value_BHKN: Tensor) -> tuple[Tensor, Tensor]:
        """Fill the slots that were entered; keys and values of all slots of this layer."""
        keys = self.keys_BHLN[layer][:, :, : self.used]
        values = self.values_BHLN[layer][:, :, : self.used]
        keys[:, :, -key_BHKN.size(2) :] = key_BHKN
        values[:, :, -value_BHKN.size(2) :] = value_BHKN
        return keys, values

    def _of(self, live: Live) -> TransformerState:
        """What does not live sees nothing."""
        if live.index_N is None:
            return self
        lives = self.visible_BKL.new_zeros(live.sentences * live.hypotheses)
        lives_BK1 = lives.index_fill(0, live.index_N, True).view(live.sentences, live.hypotheses, 1)
        return replace(self, visible_BKL=self.visible_BKL & lives_BK1)

    def _compact(self, room: int) -> TransformerState:
        """Each sentence's slots that are seen come first, the others are given up; room for more."""
        seen_BL = self.visible_BKL.any(dim=1)
        count = int(seen_BL.sum(dim=1).amax()) if seen_BL.numel() else 0
        order_BL = seen_BL.int().argsort(dim=1, descending=True, stable=True)[:, :count]
        capacity = count + _STEPS * room

        def compacted(buffer_BHLN: Tensor) -> Tensor:
            sentences, heads, slots, width = buffer_BHLN.shape
            result = buffer_BHLN
            if capacity > slots:  # what is not filled is never looked at
                result = buffer_BHLN.new_empty((sentences, heads, capacity, width))
            if count:
                matrix_BH1 = torch.arange(sentences * heads, device=order_BL.device).view(sentences, heads, 1)
                rows = (matrix_BH1 * slots + order_BL[:, None]).flatten()
                kept = buffer_BHLN.reshape(-1, width).index_select(0, rows)
                result[:, :, :count] = kept.view(sentences, heads, count, width)
            return result

        return replace(
            self,
            keys_BHLN=[compacted(buffer) for buffer in self.keys_BHLN],
            values_BHLN=[compacted(buffer) for buffer in self.values_BHLN],
            visible_BKL=self.visible_BKL.gather(
                2, order_BL[:, None].expand(-1, self.visible_BKL.size(1), -1)
            ),
            clock_BL=None if self.clock_BL is None else self.clock_BL.gather(1, order_BL),
        )
