"""Intervals of our own numbers come from the lines that sacreBLEU's bootstrap draws."""

from __future__ import annotations

import numpy as np
import pytest
from sacrebleu_command import ORDINARY, disturbed

from nmt.evaluation import scores_of
from nmt.metric_set import MetricSet
from nmt.resampling import interval, resampled, signature


def test_of_the_counts_of_ter_it_is_sacrebleus_interval() -> None:
    metrics = MetricSet([ORDINARY], names=["ter"])
    hypotheses = disturbed(ORDINARY, seed=0)
    (expected,) = scores_of(hypotheses, metrics, confidence=True)
    counts = metrics.statistics("TER", hypotheses)
    scores = resampled(counts, lambda sums: 100 * sums[:, 0] / sums[:, 1])
    assert scores.shape == (1000,)
    # sacreBLEU adds in float32.
    assert interval(scores) == (
        pytest.approx(expected.mean, abs=1e-4),
        pytest.approx(expected.half_width, abs=1e-4),
    )
    assert f"|{signature()}|" in expected.signature


def test_the_seed_is_sacrebleus(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = np.arange(30.0)

    def draw() -> list[float]:
        return [float(value) for value in resampled(counts, lambda sums: sums)]

    fixed = draw()
    assert draw() == fixed
    monkeypatch.setenv("SACREBLEU_SEED", "5")
    other = draw()
    assert other != fixed
    assert signature() == "bs:1000|seed:5"
    monkeypatch.setenv("SACREBLEU_SEED", "None")
    assert draw() not in (fixed, other)
    assert signature() == "bs:1000|seed:none"
    # The mean is about that of the sums, and none is beyond what can be drawn.
    assert np.mean(fixed) == pytest.approx(counts.sum(), rel=0.02)
