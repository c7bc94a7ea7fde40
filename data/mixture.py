"""Several corpora in one epoch: how often the pairs of each are seen, and which of them this time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from nmt.data.batches import seeded

Rows = npt.NDArray[np.uint32]


def repetitions(
    sizes: Sequence[int], weights: Sequence[float] = (), temperature: float = 0.0
) -> tuple[float, ...]:
    """How often a pair of each corpus is seen in an epoch.

    Args:
        sizes: pairs of each corpus.
        weights: these numbers themselves; or none, and
        temperature: T, after which a corpus of n pairs counts as one of n ** (1 / T), so that small ones are
            seen more often (Arivazhagan et al. 2019, sec. 4.1), and the largest once. 1 leaves all as they
            are; 0 is off.
    """
    if weights:
        return tuple(weights)
    if not temperature:
        return (1.0,) * len(sizes)
    largest = max(sizes)
    return tuple((size / largest) ** (1 / temperature) * largest / size if size else 0.0 for size in sizes)


def least_weight(size: int) -> float:
    """The least weight, of two digits, by which a pair of so many is seen in an epoch."""
    exponent = math.floor(math.log10(0.5 / size)) - 1
    digits = math.floor(0.5 / size / 10.0**exponent)
    while not Mixture([size], [weight := float(f"{digits}e{exponent}")], 0).pairs:
        digits += 1
    return weight


class Mixture:
    """The rows of an epoch: of a pair seen 2.3 times, two copies, and a third in 3 of 10 epochs."""

    def __init__(self, sizes: Sequence[int], repetitions: Sequence[float], seed: int):
        """The rows of corpora of these sizes follow one another."""
        self._sizes = tuple(sizes)
        self._seed = seed
        self._whole = tuple(int(often) for often in repetitions)
        self._drawn = tuple(
            round((often - whole) * size)
            for often, whole, size in zip(repetitions, self._whole, sizes, strict=True)
        )
        # Of each corpus, in any epoch.
        self.seen = tuple(w * n + d for w, n, d in zip(self._whole, sizes, self._drawn, strict=True))
        self.pairs = sum(self.seen)

    def rows(self, epoch: int) -> Rows:
        """The rows seen in an epoch, corpus by corpus."""
        parts = []
        first = 0
        for corpus, (size, whole, drawn) in enumerate(
            zip(self._sizes, self._whole, self._drawn, strict=True)
        ):
            parts += [np.arange(first, first + size, dtype=np.uint32)] * whole
            if drawn:
                random = seeded(self._seed, "mixture", epoch, corpus)
                chosen = random.choice(size, drawn, replace=False, shuffle=False)
                chosen.sort()
                parts.append((first + chosen).astype(np.uint32))
            first += size
        return np.concatenate(parts)
