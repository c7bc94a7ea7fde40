"""What the decoders of the recurrent models read of the source, and what they remember.

B sentences, S source length, K hypotheses, D hidden width, A attention width, L attentional width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nmt.models.cells import StackState
from nmt.models.rows import put_rows


@dataclass(frozen=True)
class RecurrentMemory:
    """The decoder's first state and, with attention, the source states and their keys."""

    mask_BS: Tensor
    first: StackState  # tensors (B, D)
    values_BSD: Tensor | None = None
    keys_BSA: Tensor | None = None

    def keep(self, sentences_B: Tensor) -> RecurrentMemory:
        return RecurrentMemory(
            self.mask_BS[sentences_B],
            tuple(tuple(part[sentences_B] for part in layer) for layer in self.first),
            None if self.values_BSD is None else self.values_BSD[sentences_B],
            None if self.keys_BSA is None else self.keys_BSA[sentences_B],
        )

    def put(self, sentences_R: Tensor, other: RecurrentMemory) -> RecurrentMemory:
        return RecurrentMemory(
            put_rows(self.mask_BS, sentences_R, other.mask_BS, dim=1),
            _put_layers(self.first, sentences_R, other.first),
            _put_padded(self.values_BSD, sentences_R, other.values_BSD),
            _put_padded(self.keys_BSA, sentences_R, other.keys_BSA),
        )


@dataclass(frozen=True)
class RecurrentState:
    """The decoder's state of each hypothesis."""

    layers: StackState  # tensors (B, K, D)
    length_B1: Tensor  # tokens read
    fed_BKL: Tensor | None = None  # the attentional vector, for input feeding

    def select(self, beam_BK: Tensor) -> RecurrentState:
        def gather(x_BKD: Tensor) -> Tensor:
            return x_BKD.gather(1, beam_BK[:, :, None].expand(-1, -1, x_BKD.size(-1)))

        return replace(
            self,
            layers=tuple(tuple(map(gather, layer)) for layer in self.layers),
            fed_BKL=None if self.fed_BKL is None else gather(self.fed_BKL),
        )

    def keep(self, sentences_B: Tensor) -> RecurrentState:
        return replace(
            self,
            layers=tuple(tuple(part[sentences_B] for part in layer) for layer in self.layers),
            length_B1=self.length_B1[sentences_B],
            fed_BKL=None if self.fed_BKL is None else self.fed_BKL[sentences_B],
        )

    def put(self, sentences_R: Tensor, other: RecurrentState) -> RecurrentState:
        return RecurrentState(
            _put_layers(self.layers, sentences_R, other.layers),
            self.length_B1.index_copy(0, sentences_R, other.length_B1),
            _put_padded(self.fed_BKL, sentences_R, other.fed_BKL),
        )

    @classmethod
    def first(cls, memory: RecurrentMemory, fed_BKL: Tensor | None = None) -> RecurrentState:
        """One hypothesis a sentence, nothing read."""
        layers = tuple(tuple(part[:, None] for part in layer) for layer in memory.first)
        length_B1 = torch.zeros((len(memory.mask_BS), 1), dtype=torch.long, device=memory.mask_BS.device)
        return cls(layers, length_B1, fed_BKL)


def _put_layers(layers: StackState, sentences_R: Tensor, other: StackState) -> StackState:
    return tuple(
        tuple(part.index_copy(0, sentences_R, new) for part, new in zip(mine, theirs, strict=True))
        for mine, theirs in zip(layers, other, strict=True)
    )


def _put_padded(x: Tensor | None, sentences_R: Tensor, other: Tensor | None) -> Tensor | None:
    return None if x is None or other is None else put_rows(x, sentences_R, other, dim=1)
