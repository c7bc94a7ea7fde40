"""What the decoders of the recurrent models read of the source, and what they remember.

B sentences, S source length, K hypotheses, D hidden width, A attention width, L attentional width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from nmt.models.cells import StackState


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


@dataclass(frozen=True)
class RecurrentState:
    """The decoder's state of each hypothesis."""

    layers: StackState  # tensors (B, K, D)
    length: int = 0  # tokens read
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
            fed_BKL=None if self.fed_BKL is None else self.fed_BKL[sentences_B],
        )

    @classmethod
    def first(cls, memory: RecurrentMemory, fed_BKL: Tensor | None = None) -> RecurrentState:
        """One hypothesis a sentence, nothing read."""
        layers = tuple(tuple(part[:, None] for part in layer) for layer in memory.first)
        return cls(layers, fed_BKL=fed_BKL)
