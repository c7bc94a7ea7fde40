"""The Transformer's decoding cache in buffers that stay where they are, for GPUs.

A step computes the same things at the same addresses as the step before, and nothing that it computes has to
be known to Python, so that it can be recorded once and replayed (`nmt.replay`).

B sentences, K hypotheses, H heads, N width of a head, L slots, used or not. Masks are True where attention
may look.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nmt.models.rows import Live
from nmt.models.transformer_state import TransformerMemory

# Tokens that new buffers have room for, and for how many more they must have room after a compaction.
_CAPACITY, _LEAST = 32, 8


@dataclass(frozen=True)
class FixedState:
    """As `TransformerState`: ancestors are sets of slots, each step fills K slots, of all sentences alike.

    But slots that are not used yet are there, hidden by the mask, and which are next stands in a tensor.
    """

    keys_BHLN: Sequence[Tensor]  # one a layer
    values_BHLN: Sequence[Tensor]
    visible_BKL: Tensor
    length_B: Tensor  # tokens of each sentence's hypotheses
    slot_K: Tensor  # filled by the last step
    clock_Q: Tensor  # steps of the batch, (1,)
    clock_BL: Tensor | None = None  # when each slot was filled; relative positions need it
    free: int = 0  # slots

    @classmethod
    def empty(cls, memory: TransformerMemory, *, relative: bool) -> FixedState:
        """One hypothesis a sentence, nothing decoded, no slots."""
        visible_BKL = memory.mask_BS.new_zeros((memory.mask_BS.size(0), 1, 0))
        clock_BL = visible_BKL[:, 0].long()
        buffers = [key[:, :, :0] for key in memory.keys_BHSN]
        return cls(
            buffers,
            buffers,
            visible_BKL,
            length_B=clock_BL.sum(dim=1),
            slot_K=clock_BL.new_zeros(1),
            clock_Q=clock_BL.new_zeros(1),
            clock_BL=clock_BL if relative else None,
        )

    @property
    def room(self) -> int:
        """Steps until all slots are filled, and Python has to make room."""
        return self.free // self.visible_BKL.size(1)

    @property
    def now_Q(self) -> Tensor:
        """When the last slots were filled, by the clock."""
        return self.clock_Q - 1

    def select(self, beam_BK: Tensor) -> FixedState:
        rows = beam_BK[:, :, None].expand(-1, -1, self.visible_BKL.size(2))
        return replace(self, visible_BKL=self.visible_BKL.gather(1, rows))

    def keep(self, sentences_B: Tensor) -> FixedState:
        return replace(
            self,
            keys_BHLN=[buffer[sentences_B] for buffer in self.keys_BHLN],
            values_BHLN=[buffer[sentences_B] for buffer in self.values_BHLN],
            visible_BKL=self.visible_BKL[sentences_B],
            length_B=self.length_B[sentences_B],
            clock_BL=None if self.clock_BL is None else self.clock_BL[sentences_B],
        )

    def put(self, sentences_R: Tensor, other: FixedState) -> FixedState:
        """`other` has decoded nothing, so what stands in its slots does not matter."""
        self.visible_BKL.index_fill_(0, sentences_R, False)
        self.length_B.index_copy_(0, sentences_R, other.length_B)
        return self

    def aged(self) -> FixedState:
        """After a step that was replayed: what of it is no tensor."""
        return replace(self, free=self.free - self.visible_BKL.size(1))

    def entered(self, live: Live) -> FixedState:
        """With slots for the next token of each hypothesis, which it sees; they are still to be filled."""
        state = self if self.room else self._with_room(live.hypotheses)
        slot_K = state.slot_K[-1:] + 1 + torch.arange(live.hypotheses, device=self.slot_K.device)
        itself_KL = slot_K[:, None] == torch.arange(state.visible_BKL.size(2), device=slot_K.device)
        if state.clock_BL is not None:
            state.clock_BL.index_copy_(1, slot_K, state.clock_Q.expand(live.sentences, live.hypotheses))
        return replace(
            state,
            visible_BKL=state.visible_BKL | itself_KL,
            length_B=state.length_B + 1,
            slot_K=slot_K,
            clock_Q=state.clock_Q + 1,
            free=state.free - live.hypotheses,
        )

    def write(self, layer: int, key_BHKN: Tensor, value_BHKN: Tensor) -> tuple[Tensor, Tensor]:
        """Fill the slots that were entered; keys and values of all slots of this layer."""
        keys, values = self.keys_BHLN[layer], self.values_BHLN[layer]
        keys.index_copy_(2, self.slot_K, key_BHKN)
        values.index_copy_(2, self.slot_K, value_BHKN)
        return keys, values

    def _with_room(self, hypotheses: int) -> FixedState:
        """Each sentence's slots that are seen come first, the others are given up.

        In the same buffers, unless they are nearly full then.
        """
        seen_BL = self.visible_BKL.any(dim=1)
        count = int(seen_BL.sum(dim=1).amax()) if seen_BL.numel() else 0
        order_BL = seen_BL.int().argsort(dim=1, descending=True, stable=True)[:, :count]
        slots = self.visible_BKL.size(2)
        if count + _LEAST * hypotheses > slots:
            slots = max(_CAPACITY * hypotheses, 2 * slots)

        def moved(x: Tensor, dim: int) -> Tensor:
            index = order_BL.view(len(order_BL), *[1] * (dim - 1), count, *[1] * (x.dim() - dim - 1))
            kept = x.gather(dim, index.expand(*x.shape[:dim], count, *x.shape[dim + 1 :]))
            if slots == x.size(dim):
                result = x
            else:  # zeros, because what is hidden is multiplied by 0
                result = x.new_zeros((*x.shape[:dim], slots, *x.shape[dim + 1 :]))
            result.narrow(dim, 0, count).copy_(kept)
            return result

        visible_BKL = moved(self.visible_BKL, 2)
        visible_BKL[:, :, count:] = False
        before_K = torch.arange(count - hypotheses, count, device=self.slot_K.device)
        slot_K = self.slot_K
        if slot_K.shape == before_K.shape:
            slot_K.copy_(before_K)
        else:
            slot_K = before_K
        return replace(
            self,
            keys_BHLN=[moved(buffer, 2) for buffer in self.keys_BHLN],
            values_BHLN=[moved(buffer, 2) for buffer in self.values_BHLN],
            visible_BKL=visible_BKL,
            slot_K=slot_K,
            clock_BL=None if self.clock_BL is None else moved(self.clock_BL, 1),
            free=slots - count,
        )
