"""Scores by sacreBLEU, each with its signature and, on request, a 95 % bootstrap interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nmt.errors import UserError

METRICS = ("bleu", "chrf", "ter")
BOOTSTRAP_SAMPLES = 1000  # as sacreBLEU's own default for its confidence intervals


@dataclass(frozen=True)
class Score:
    """One number and all that is needed to get it again."""

    metric: str  # BLEU, chrF2, TER
    score: float
    signature: str
    confidence_low: float | None = None  # bounds of the 95 % interval
    confidence_high: float | None = None


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
        metrics: of "bleu", "chrf", "ter".
        tokenize: sacreBLEU's tokenizer for BLEU; None is its default, 13a.
        lowercase: compare without case (BLEU and chrF; TER is caseless by sacreBLEU's default).
        confidence: add 95 % intervals by bootstrap resampling.

    Raises:
        UserError: the numbers of lines differ, or there are none.
    """
    check(len(hypotheses), references, tokenize=tokenize)
    scores = []
    for name in metrics:
        metric = _metric(name, tokenize, lowercase)
        samples = {"n_bootstrap": BOOTSTRAP_SAMPLES} if confidence else {}
        result = metric.corpus_score(list(hypotheses), [list(r) for r in references], **samples)
        low = high = None
        if confidence:
            mean, half = result._mean, result._ci
            low, high = mean - half, mean + half
        scores.append(Score(result.name, float(result.score), str(metric.get_signature()), low, high))
    return scores


def check(lines: int, references: Sequence[Sequence[str]], *, tokenize: str | None = None) -> None:
    """What `evaluate` would refuse of a translation of so many lines, before there is one.

    Raises:
        UserError: as `evaluate` does, or BLEU's tokenizer needs what is not installed.
    """
    if not lines:
        raise UserError("there are no lines to evaluate")
    for number, reference in enumerate(references, start=1):
        if len(reference) != lines:
            raise UserError(
                f"reference {number} has {len(reference):,} lines and the translation "
                f"{lines:,}; give files that are parallel"
            )
    try:
        _metric("bleu", tokenize, False)
    except (ImportError, RuntimeError, OSError) as error:
        raise UserError(f"--tokenize {tokenize} cannot be used here: {error}") from None


def bleu(hypotheses: Sequence[str], reference: Sequence[str]) -> float:
    """BLEU of detokenised text with sacreBLEU's defaults, for validation."""
    return evaluate(hypotheses, [reference], metrics=["bleu"])[0].score


def perplexity(loss: float) -> float:
    """exp of nats a token, at most e^700: JSON knows no infinity."""
    return math.exp(min(loss, 700.0))


def _metric(name: str, tokenize: str | None, lowercase: bool) -> Any:
    """One of sacreBLEU's metrics; UserError for a tokenizer it does not have."""
    metric = _sacrebleu_metric(name, tokenize, lowercase)
    compute = metric._compute_score_from_stats

    def with_plain_number(statistics: Any) -> Any:
        # Some scores of resampled lines are NumPy's, others, such as 0, Python's: they have no mean.
        result = compute(statistics)
        result.score = float(result.score)
        return result

    metric._compute_score_from_stats = with_plain_number
    return metric


def _sacrebleu_metric(name: str, tokenize: str | None, lowercase: bool) -> Any:
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF
    from sacrebleu.metrics.ter import TER

    if name == "bleu":
        if tokenize is not None and tokenize not in BLEU.TOKENIZERS:
            raise UserError(
                f"--tokenize {tokenize} is not one of sacreBLEU's: {', '.join(sorted(BLEU.TOKENIZERS))}"
            )
        # Text for --tokenize none is tokenised on purpose: no warning of that.
        return BLEU(tokenize=tokenize, lowercase=lowercase, force=tokenize == "none")
    if name == "chrf":
        return CHRF(lowercase=lowercase)
    return TER()
