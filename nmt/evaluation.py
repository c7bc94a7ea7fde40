"""Scores by sacreBLEU, each with its signature and, on request, a 95 % bootstrap interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nmt.errors import UserError, counted
from nmt.metric_set import (
    METRICS,
    MetricOptions,
    MetricSet,
    check_seed,
    forget_resampling,
    make_metric,
    tokenizer_here,
)

BOOTSTRAP_SAMPLES = 1000  # as sacreBLEU's own default for its confidence intervals


@dataclass(frozen=True)
class Score:
    """One number and all that is needed to get it again."""

    metric: str  # BLEU, chrF2, chrF2++, TER
    score: float
    signature: str
    # The 95 % interval: sacreBLEU gives the mean of the resampled scores and half the interval's width.
    mean: float | None = None
    half_width: float | None = None

    @property
    def confidence_low(self) -> float | None:
        return None if self.mean is None or self.half_width is None else self.mean - self.half_width

    @property
    def confidence_high(self) -> float | None:
        return None if self.mean is None or self.half_width is None else self.mean + self.half_width


def evaluate(
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    metrics: Sequence[str] = METRICS,
    tokenize: str | None = None,
    lowercase: bool = False,
    confidence: bool = False,
) -> list[Score]:
    """Corpus scores of one system.

    Args:
        references: one or more lists, each as long as `hypotheses`.
        metrics: of "bleu", "chrf", "chrf++", "ter".
        tokenize: sacreBLEU's tokenizer for BLEU; None is its default, 13a.
        lowercase: compare without case (BLEU and chrF; TER is caseless by sacreBLEU's default).
        confidence: add 95 % intervals by bootstrap resampling.

    Raises:
        UserError: the numbers of lines differ, or there are none.
    """
    check(len(hypotheses), references, tokenize=tokenize)
    options = MetricOptions(tokenize, lowercase)
    return scores_of(hypotheses, MetricSet(references, options, names=metrics), confidence=confidence)


def scores_of(hypotheses: Sequence[str], metrics: MetricSet, *, confidence: bool = False) -> list[Score]:
    """Corpus scores of one system by each metric. `hypotheses` has as many lines as the references."""
    hypotheses = hypotheses if isinstance(hypotheses, list) else list(hypotheses)
    found = []
    for name, metric in metrics.metrics.items():
        forget_resampling(metric)
        result = _with_interval(metric, hypotheses) if confidence else metric.corpus_score(hypotheses, None)
        mean, half = (float(result._mean), float(result._ci)) if confidence else (None, None)
        found.append(Score(name, float(result.score), metrics.signature(name), mean, half))
    return found


def _with_interval(metric: Any, hypotheses: list[str]) -> Any:
    try:
        return metric.corpus_score(hypotheses, None, n_bootstrap=BOOTSTRAP_SAMPLES)
    except TypeError:
        # Of a small test set, some resampled scores are NumPy's and others, such as 0, Python's. Python's
        # mean refuses the two together, so sacreBLEU's command line fails; here they become one kind.
        compute = metric._compute_score_from_stats

        def with_plain_number(statistics: Any) -> Any:
            result = compute(statistics)
            result.score = float(result.score)
            return result

        metric._compute_score_from_stats = with_plain_number
        try:
            return metric.corpus_score(hypotheses, None, n_bootstrap=BOOTSTRAP_SAMPLES)
        finally:
            del metric._compute_score_from_stats


def check(
    lines: int,
    references: Sequence[Sequence[str]],
    *,
    tokenize: str | None = None,
    names: Sequence[str] | None = None,
) -> None:
    """What `evaluate` would refuse of a translation of so many lines, before there is one.

    Args:
        names: how errors call the references.

    Raises:
        UserError: as `evaluate` does; a reference holds nothing but blank lines; BLEU's tokenizer needs what
            is not installed; SACREBLEU_SEED is no number.
    """
    if not lines:
        raise UserError("there are no lines to evaluate")
    for number, reference in enumerate(references, start=1):
        name = f"reference {number}" if names is None else names[number - 1]
        if len(reference) != lines:
            raise UserError(
                f"{name} has {counted(len(reference), 'line')} and the translation "
                f"{lines:,}; give files that are parallel"
            )
        if not any(line.strip() for line in reference):
            raise UserError(f"{name} is blank in all its {lines:,} lines; give a reference with text")
    check_seed()
    make_metric("bleu", MetricOptions(tokenize))


def unequal_lengths(
    name: str, lines: Sequence[str], other_name: str, other_lines: Sequence[str]
) -> UserError | None:
    """The error for a file that has not the lines of another; None where it has.

    It names the first blank line of each, which is often where a line was lost or added.
    """
    if len(lines) == len(other_lines):
        return None
    blanks = [
        next((number for number, line in enumerate(text, start=1) if not line.strip()), None)
        for text in (lines, other_lines)
    ]
    where = [f"in {file} line {line}" for file, line in zip((name, other_name), blanks, strict=True) if line]
    first = f"the first blank one is {' and '.join(where)}" if where else "none is blank"
    return UserError(
        f"has {counted(len(lines), 'line')} and {other_name} has {len(other_lines):,} ({first}); "
        "give files that are parallel",
        file=name,
    )


def bleu(hypotheses: Sequence[str], reference: Sequence[str], language: str | None = None) -> float:
    """BLEU as sacreBLEU has it, for validation; of tokenised text it says nothing again and again.

    Args:
        language: of the text, by which `tokenizer_here` chooses: training does not end where what that
            needs is not installed.
    """
    if not hypotheses or len(hypotheses) != len(reference):
        check(len(hypotheses), [reference])
    options = MetricOptions(tokenizer_here(language), force=True)
    return scores_of(hypotheses, MetricSet([reference], options, names=["bleu"]))[0].score


def bleu_signature(language: str | None) -> str:
    """Of `bleu`, as sacreBLEU writes it."""
    options = MetricOptions(tokenizer_here(language), force=True)
    return MetricSet([[""]], options, names=["bleu"]).signature("BLEU")


def perplexity(loss: float) -> float:
    """exp of nats a token, at most e^700: JSON knows no infinity."""
    return math.exp(min(loss, 700.0))
