"""Sentence pairs as token ids, and the batches they form."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from nmt.data.batches import Batch, Lengths, cut, pad_flat
from nmt.data.corpus import Pairs
from nmt.data.prepared import TrainingData
from nmt.data.tokenizer import BOS, EOS, PAD
from nmt.data.tokens import Tokens


@dataclass
class Examples:
    """Sentence pairs as ids, and which of them form each batch."""

    source: Tokens
    target: Tokens
    plan: list[Lengths] = field(default_factory=list)
    links: Tokens | None = None  # of `TrainingData`

    @classmethod
    def of_pairs(
        cls,
        pairs: Pairs,
        data: TrainingData,
        read: Callable[[Sequence[int]], Sequence[int]] = list,
        batch_tokens: int = 4096,
    ) -> Examples:
        """Text in batches of similar length, in no random order: for validation.

        `read`: from the ids of a source to those that the model reads.
        """
        source = Tokens.of([read(ids) for ids in data.source_tokenizer.encode_all([s for s, _ in pairs])])
        target = Tokens.of(data.target_tokenizer.encode_all([t for _, t in pairs]))
        longest = np.maximum(source.lengths(), target.lengths()) + 1
        order = np.argsort(longest, kind="stable")
        return cls(source, target, [order[a:b] for a, b in cut(longest[order], batch_tokens)])

    def batches(self) -> Iterator[Batch]:
        for indices in self.plan:
            yield self.batch(indices)

    def batch(self, indices: Lengths) -> Batch:
        rows = np.arange(len(indices))
        ids, lengths = self.source.take(indices)
        source_BS = pad_flat(ids, lengths, PAD, room=1)
        source_BS[rows, lengths] = EOS
        ids, lengths = self.target.take(indices)
        output_BT = pad_flat(ids, lengths, PAD, room=1)
        input_BT = np.full_like(output_BT, BOS)
        input_BT[:, 1:] = output_BT[:, :-1]
        output_BT[rows, lengths] = EOS
        return Batch(source_BS, input_BT, output_BT, self._links(indices))

    def _links(self, indices: Lengths) -> npt.NDArray[np.int64] | None:
        if self.links is None:
            return None
        numbers, lengths = self.links.take(indices)
        sentences = np.repeat(np.arange(len(indices)), lengths // 2)
        return np.column_stack([sentences, numbers.reshape(-1, 2).astype(np.int64)])

    def padding(self) -> tuple[int, int]:
        """Positions of an epoch's batches, both sides, and how many of them hold a token."""
        sizes = np.array([len(indices) for indices in self.plan])
        rows, starts = np.concatenate(self.plan), np.cumsum(sizes) - sizes
        padded = used = 0
        for side in (self.source, self.target):
            lengths = side.lengths(rows) + 1
            padded += int((sizes * np.maximum.reduceat(lengths, starts)).sum())
            used += int(lengths.sum())
        return padded, used
