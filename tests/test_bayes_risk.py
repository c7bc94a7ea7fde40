"""Minimum Bayes risk against a double loop over sacreBLEU's sentence scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from nmt import bayes_risk
from nmt.bayes_risk import expected_utilities, pairwise
from nmt.cli.drawing import UTILITIES

METRICS: dict[str, Any] = {"chrf": CHRF(), "bleu": BLEU(effective_order=True, force=True)}
WORDS = ["der", "Hund", "sieht", "das", "alte", "Haus", ".", "Häuser", "1,000", "(a)", "don't"]
# Words in common, so that texts share n-grams, and any text at all.
TEXTS = st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join) | st.text(max_size=20)


def scores(texts: list[str], utility: str) -> list[list[float]]:
    metric = METRICS[utility]
    return [[float(metric.sentence_score(h, [r]).score) for r in texts] for h in texts]


@pytest.mark.parametrize("utility", UTILITIES)
@given(texts=st.lists(TEXTS, min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_utilities_are_sacrebleus_very_numbers(utility: str, texts: list[str]) -> None:
    np.testing.assert_array_equal(pairwise(texts, utility), scores(texts, utility))


@pytest.mark.parametrize("utility", UTILITIES)
def test_many_n_grams(utility: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many that they are counted in several pieces."""
    texts = [" ".join(WORDS[i % n] for i in range(60)) for n in range(2, 11)]
    monkeypatch.setattr(bayes_risk, "_COLUMNS", 7)
    np.testing.assert_array_equal(pairwise(texts, utility), scores(texts, utility))


@pytest.mark.parametrize("utility", UTILITIES)
@given(texts=st.lists(st.sampled_from(["der Hund", "ein Hund", "das alte Haus .", "", "Hund"]), max_size=9))
@settings(max_examples=40, deadline=None)
def test_expected_utility_is_the_mean_over_the_other_samples(utility: str, texts: list[str]) -> None:
    """Duplicates count, as references too."""
    texts = ["der alte Hund", "der Hund", *texts]
    table = scores(texts, utility)
    expected = [
        sum(score for other, score in enumerate(row) if other != own) / (len(texts) - 1)
        for own, row in enumerate(table)
    ]
    assert expected_utilities(texts, utility) == pytest.approx(expected, rel=1e-12, abs=1e-9)


def test_the_most_typical_wins() -> None:
    texts = ["der Hund sieht", "der Hund sieht das Haus", "der Hund sah das Haus", "Katze", "Katze"]
    assert int(np.argmax(expected_utilities(texts))) == 1
    assert int(np.argmax(expected_utilities(["Katze", *texts]))) in (0, 4, 5)


def test_a_single_sample() -> None:
    assert expected_utilities(["der Hund"]) == [100.0]
    assert expected_utilities([""]) == [0.0]
    assert expected_utilities(["der Hund"] * 3) == [100.0] * 3
