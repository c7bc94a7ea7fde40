"""Is the difference of two systems more than chance? sacreBLEU's paired tests, systems against the first.

Paired bootstrap: Koehn 2004, "Statistical significance tests for machine translation evaluation".
Approximate randomisation: Riezler and Maxwell 2005, "On some pitfalls in automatic evaluation and
significance testing for MT". The seed is sacreBLEU's: 12345, or what SACREBLEU_SEED says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nmt.evaluation import Score
from nmt.metric_set import MetricSet, forget_resampling

# The tests, as sacreBLEU calls them, and how often it resamples or shuffles.
TESTS = {"bootstrap": ("bs", 1000), "randomization": ("ar", 10_000)}


@dataclass(frozen=True)
class Comparison:
    """What a paired test says of one system and one metric."""

    test: str  # of TESTS
    baseline: str  # name of the system it is compared to
    p_value: float
    signature: str
    # Whether the scores differ at all. Where they do not, sacreBLEU's p-value is the least there is: it asks
    # for differences greater than none.
    differs: bool


@dataclass(frozen=True)
class Tested:
    """The outcome of one test: for each system, by the name of the metric."""

    comparisons: dict[str, dict[str, Comparison]]  # not of the baseline
    scores: dict[str, dict[str, Score]]  # with intervals after the bootstrap test


def paired_test(test: str, systems: Mapping[str, Sequence[str]], metrics: MetricSet) -> Tested:
    """Compare each system with the first.

    Args:
        test: of TESTS.
        systems: two or more, by name; all of as many lines as the references of `metrics`.
    """
    from sacrebleu.significance import PairedTest

    kind, samples = TESTS[test]
    for metric in metrics.metrics.values():
        forget_resampling(metric)
    given: list[tuple[str, Sequence[str]]] = list(systems.items())
    test_all = PairedTest(given, metrics.metrics, references=None, test_type=kind, n_samples=samples)
    signatures, table = test_all()
    results: dict[str, Any] = table
    names = [name for name, _ in given]
    found = Tested({name: {} for name in names[1:]}, {name: {} for name in names})
    for metric_name in metrics.metrics:
        signature = str(signatures[metric_name])
        for name, result in zip(names, results[metric_name], strict=True):
            interval = (None, None) if result.mean is None else (float(result.mean), float(result.ci))
            found.scores[name][metric_name] = Score(metric_name, float(result.score), signature, *interval)
            if result.p_value is not None:
                differs = result.score != results[metric_name][0].score
                found.comparisons[name][metric_name] = Comparison(
                    test, names[0], float(result.p_value), signature, differs
                )
    return found
