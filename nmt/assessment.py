"""All that `nmt evaluate` finds out about translations of one test set: scores, significance, parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from nmt import __version__, resampling
from nmt.breakdown import Bucket, by_frequency, by_length
from nmt.evaluation import Score, scores_of
from nmt.metric_set import MetricSet
from nmt.results import Row
from nmt.significance import Comparison, paired_test

WORD_F1 = "word F1"


@dataclass(frozen=True)
class Measured:
    """One number, how it compares with the first system's, and the same of parts of the test set."""

    system: str
    score: Score
    comparisons: tuple[Comparison, ...] = ()
    by_length: tuple[Bucket, ...] = ()
    by_frequency: tuple[Bucket, ...] = ()

    def row(self, test_set: str, metrics: MetricSet, about: Mapping[str, Any]) -> Row:
        """As results tables have it."""
        score = self.score
        return Row(
            system=self.system,
            test_set=test_set,
            metric=score.metric,
            score=round(score.score, 4),
            confidence_low=_rounded(score.confidence_low),
            confidence_high=_rounded(score.confidence_high),
            signature=score.signature,
            lines=metrics.size,
            references=metrics.fingerprint,
            **about,
        )

    def details(self) -> dict[str, Any]:
        """What a JSON object has beside the row."""
        found: dict[str, Any] = {
            "mean": _rounded(self.score.mean),
            "half_width": _rounded(self.score.half_width),
            "comparisons": [asdict(comparison) for comparison in self.comparisons],
        }
        for name, buckets in (
            ("by_source_length", self.by_length),
            ("by_training_frequency", self.by_frequency),
        ):
            if buckets:
                found[name] = [
                    {key: round(v, 4) if isinstance(v, float) else v for key, v in asdict(bucket).items()}
                    for bucket in buckets
                ]
        return found


def assess(
    systems: Mapping[str, list[str]],
    metrics: MetricSet,
    *,
    confidence: bool,
    tests: Sequence[str] = (),
    sources: Sequence[str] | None = None,
    training: Counter[str] | None = None,
    suffixes: Mapping[str, str] | None = None,
) -> list[Measured]:
    """Every number of every system, system by system.

    Args:
        tests: of `nmt.significance.TESTS`, by which systems are compared with the first.
        sources: what was translated, for scores by its length.
        training: `count_words`, for F1 of words by how often training had them.
        suffixes: what a system adds to the signatures of its numbers.
    """
    tested = [paired_test(test, systems, metrics) for test in tests]
    found = []
    for name, lines in systems.items():
        suffix = (suffixes or {}).get(name, "")
        if confidence and "bootstrap" in tests:  # the intervals are of the same resamples
            scores = list(tested[list(tests).index("bootstrap")].scores[name].values())
        else:
            scores = scores_of(lines, metrics, confidence=confidence)
        lengths = {} if sources is None else by_length(lines, sources, metrics, confidence=confidence)
        for score in scores:
            comparisons = [t.comparisons[name][score.metric] for t in tested if name in t.comparisons]
            found.append(
                Measured(
                    name,
                    replace(score, signature=score.signature + suffix),
                    tuple(replace(one, signature=one.signature + suffix) for one in comparisons),
                    tuple(lengths.get(score.metric, ())),
                )
            )
        if training is not None:
            whole, buckets = by_frequency(lines, metrics, training, confidence=confidence)
            signature = _word_signature(metrics, training, confidence) + suffix
            score = Score(WORD_F1, whole.score, signature, whole.mean, whole.half_width)
            found.append(Measured(name, score, by_frequency=tuple(buckets)))
    return found


def _word_signature(metrics: MetricSet, training: Counter[str], confidence: bool) -> str:
    """How words were counted: as BLEU did, and in how much training text."""
    like_bleu = dict(part.split(":", 1) for part in metrics.signature("BLEU").split("|"))
    resampled = f"|{resampling.signature()}" if confidence else ""
    return (
        f"reference:1{resampled}|case:{like_bleu['case']}|tok:{like_bleu['tok']}"
        f"|training-words:{training.total()}|nmt:{__version__}"
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
