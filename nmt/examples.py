"""Sentence pairs as token ids, and the batches they form."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from nmt.data.batches import Batch, Lengths, cut, pad
from nmt.data.prepare import Pairs, TokenFile, TrainingData
from nmt.data.tokenizer import BOS, EOS, PAD

Sentences = TokenFile | Sequence[Sequence[int]]


@dataclass
class Examples:
    """Sentence pairs as ids, and which of them form each batch."""

    source: Sentences
    target: Sentences
    plan: list[Lengths] = field(default_factory=list)

    @classmethod
    def of_pairs(cls, pairs: Pairs, data: TrainingData, batch_tokens: int = 4096) -> Examples:
        """Text in batches of similar length, in no random order: for validation."""
        source = data.source_tokenizer.encode_all([s for s, _ in pairs])
        target = data.target_tokenizer.encode_all([t for _, t in pairs])
        longest = np.array([max(len(s), len(t)) + 1 for s, t in zip(source, target, strict=True)])
        order = np.argsort(longest, kind="stable")
        return cls(source, target, [order[a:b] for a, b in cut(longest[order], batch_tokens)])

    def batches(self) -> Iterator[Batch]:
        for indices in self.plan:
            yield self.batch(indices)

    def batch(self, indices: Lengths) -> Batch:
        target = [self.target[i] for i in indices]
        return Batch(
            source_BS=pad([np.append(self.source[i], EOS) for i in indices], PAD),
            target_input_BT=pad([np.insert(ids, 0, BOS) for ids in target], PAD),
            target_output_BT=pad([np.append(ids, EOS) for ids in target], PAD),
        )

    def padding(self) -> tuple[int, int]:
        """Positions of an epoch's batches, both sides, and how many of them hold a token."""
        padded = used = 0
        for indices in self.plan:
            for side in (self.source, self.target):
                lengths = [len(side[i]) + 1 for i in indices]
                padded += len(lengths) * max(lengths)
                used += sum(lengths)
        return padded, used
