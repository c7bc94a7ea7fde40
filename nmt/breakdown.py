"""Scores by the length of the source, and words got right by how often training had them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nmt.data.scripts import WITHOUT_BLANKS
from nmt.evaluation import BOOTSTRAP_SAMPLES
from nmt.metric_set import MetricSet
from nmt.resampling import interval, resampled

# Where buckets begin: those of compare-mt (Neubig et al. 2019).
LENGTHS = (0, 10, 20, 30, 40, 50, 60)  # source words, `length`
FREQUENCIES = (0, 1, 2, 3, 4, 5, 10, 100, 1000)  # times a word was in the training text
_WORD = re.compile(rf"[{WITHOUT_BLANKS}]|[^\s{WITHOUT_BLANKS}]+")


@dataclass(frozen=True)
class Bucket:
    """The score of a part of a test set, with its 95 % interval if asked for."""

    name: str  # "10-19"
    size: int  # lines; of words, how many are in the reference
    score: float
    mean: float | None = None  # of the resampled scores
    half_width: float | None = None


def bucket_names(starts: Sequence[int]) -> list[str]:
    """(0, 1, 2, 5) -> "0", "1", "2-4", "5+"."""
    names = []
    for start, following in zip(starts, [*starts[1:], None], strict=True):
        last = None if following is None else following - 1
        names.append(f"{start}+" if last is None else str(start) if last == start else f"{start}-{last}")
    return names


def bucket_of(value: int, starts: Sequence[int]) -> int:
    return sum(value >= start for start in starts) - 1


def length(line: str) -> int:
    """Words between blanks; in scripts that set none, Han and kana, each character is one."""
    return len(_WORD.findall(line))


def by_length(
    hypotheses: list[str], sources: Sequence[str], metrics: MetricSet, *, confidence: bool = False
) -> dict[str, list[Bucket]]:
    """Of each metric the score of the lines in each bucket that has some, as if they were a test set."""
    names = bucket_names(LENGTHS)
    places: dict[int, list[int]] = {}
    for index, source in enumerate(sources):
        places.setdefault(bucket_of(length(source), LENGTHS), []).append(index)
    found: dict[str, list[Bucket]] = {}
    for metric_name, metric in metrics.metrics.items():
        counts = metrics.statistics(metric_name, hypotheses)
        found[metric_name] = []
        for bucket in sorted(places):
            chosen = [counts[index] for index in places[bucket]]
            score = float(metric._aggregate_and_compute(chosen).score)
            about = _interval(chosen, metric) if confidence else (None, None)
            found[metric_name].append(Bucket(names[bucket], len(chosen), score, *about))
    return found


def _interval(counts: list[list[float]], metric: Any) -> tuple[float, float]:
    from sacrebleu.significance import _bootstrap_resample

    _, found = _bootstrap_resample(counts, metric, BOOTSTRAP_SAMPLES)
    return interval(np.array([float(score.score) for score in found]))


def count_words(lines: Iterable[str], metrics: MetricSet) -> Counter[str]:
    """How often each word is in a text; words as BLEU counts them."""
    counts: Counter[str] = Counter()
    for line in lines:
        counts.update(metrics.words(line))
    return counts


def by_frequency(
    hypotheses: Sequence[str], metrics: MetricSet, training: Counter[str], *, confidence: bool = False
) -> tuple[Bucket, list[Bucket]]:
    """F1 of words, times 100, and F1 of the words that training had so often, as compare-mt has it.

    A word of the hypothesis is right if the first reference has it, and as often as that has it, anywhere
    in the line. F1 is 2 right / (words of the hypothesis + words of the reference). Words are those of
    BLEU: in its case, by its tokenizer.

    Returns:
        Of all words, and of each bucket that the reference or the hypothesis has words of.
    """
    # Lines, buckets (the last holds all words); words of the reference, of the hypothesis, right.
    counts = np.zeros((metrics.size, len(FREQUENCIES) + 1, 3))
    for row, hypothesis, reference in zip(counts, hypotheses, metrics.references[0], strict=True):
        right, written = Counter(metrics.words(reference)), Counter(metrics.words(hypothesis))
        for column, words in enumerate((right, written, right & written)):
            for word, count in words.items():
                row[bucket_of(training[word], FREQUENCIES), column] += count
    counts[:, -1] = counts.sum(axis=1)
    totals = counts.sum(axis=0)
    scores = _f1(totals)
    samples = resampled(counts, _f1) if confidence else None
    buckets = []
    for place, name in enumerate([*bucket_names(FREQUENCIES), "all"]):
        about = (None, None) if samples is None else interval(samples[:, place])
        if totals[place, :2].any() or name == "all":
            buckets.append(Bucket(name, int(totals[place, 0]), float(scores[place]), *about))
    return buckets[-1], buckets[:-1]


def _f1(counts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    both = counts[..., 0] + counts[..., 1]
    f1: npt.NDArray[np.float64] = 100 * 2 * counts[..., 2] / np.maximum(both, 1)
    return f1
