"""95 % intervals by bootstrap of what sacreBLEU does not measure, from the lines that its bootstrap draws."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nmt.evaluation import BOOTSTRAP_SAMPLES
from nmt.metric_set import seed_of_resampling

Numbers = npt.NDArray[np.float64]


def resampled(counts: Sequence[Any] | Numbers, score: Callable[[Numbers], Numbers]) -> Numbers:
    """Scores of resampled lines.

    Args:
        counts: (lines, ...), what is added up over lines.
        score: makes of sums of shape (samples, ...) the scores, (samples, ...).
    """
    return score(np.tensordot(_draws(len(counts)), np.asarray(counts, dtype=np.float64), axes=1))


def interval(scores: Numbers) -> tuple[float, float]:
    """Mean and half the width of the 95 % interval of resampled scores, as sacreBLEU has them."""
    from sacrebleu.significance import estimate_ci

    mean, half = estimate_ci(scores)
    return float(mean), float(half)


def signature() -> str:
    """What a signature says of resampling."""
    return f"bs:{BOOTSTRAP_SAMPLES}|seed:{seed_of_resampling()}"


def _draws(size: int) -> Numbers:
    """How often each sample has each line: (samples, lines)."""
    seed = seed_of_resampling()
    chance = np.random.default_rng(None if seed == "none" else int(seed))
    drawn = chance.choice(size, size=(BOOTSTRAP_SAMPLES, size), replace=True)
    return np.stack([np.bincount(row, minlength=size) for row in drawn]).astype(np.float64)
