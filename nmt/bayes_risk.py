"""Minimum Bayes risk: of samples, the one that is most like the others (Kumar and Byrne 2004; over samples,
Eikema and Aziz 2020).

D distinct texts, n the order of n-grams.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]
Grams = list[str] | list[tuple[str, ...]]  # all of one order in a text, in their order

_COLUMNS = 8192  # n-grams at once, which bounds memory


def expected_utilities(texts: Sequence[str], utility: str = "chrf") -> list[float]:
    """The mean utility of each sample with each of the others as its reference.

    Every sample has the same weight, and one that was drawn twice counts twice. A sample does not count for
    itself: the estimate of Eikema and Aziz 2020 without the term that is the same for all.

    Args:
        texts: samples; a single one is measured against itself.
        utility: "chrf" or "bleu", of a sentence, 0 to 100, as sacreBLEU's sentence scores by default; of BLEU
            with the effective order.
    """
    counts = Counter(texts)
    distinct = list(counts)
    utility_DD = pairwise(distinct, utility)
    weights_D = np.array([counts[text] for text in distinct], dtype=float)
    own_D = utility_DD.diagonal()
    if len(texts) == 1:
        return [float(own_D[0])]
    expected_D = ((utility_DD * weights_D).sum(axis=1) - own_D) / (len(texts) - 1)
    found = dict(zip(distinct, expected_D.tolist(), strict=True))
    return [found[text] for text in texts]


def pairwise(texts: Sequence[str], utility: str) -> Matrix:
    """The utility of each text (rows) with each as its reference (columns): sacreBLEU's very numbers.

    n-grams are counted once a text, where sacreBLEU counts them once a pair.
    """
    return {"chrf": _chrf, "bleu": _bleu}[utility](texts)


def _chrf(texts: Sequence[str], orders: int = 6, beta: int = 2) -> Matrix:
    """chrF2 (Popović 2015). The operations of sacreBLEU in their order, of all pairs at once."""
    letters = ["".join(text.split()) for text in texts]
    size = len(texts), len(texts)
    precision_DD, recall_DD, orders_DD = np.zeros(size), np.zeros(size), np.zeros(size)
    for n in range(1, orders + 1):
        grams = [[text[i : i + n] for i in range(len(text) - n + 1)] for text in letters]
        match_DD = _matches(grams)
        total_D = np.array([len(own) for own in grams], dtype=float)
        # An order counts where both have n-grams.
        both_DD = (total_D[:, None] > 0) & (total_D > 0)
        total_D = np.maximum(total_D, 1)
        precision_DD += np.where(both_DD, match_DD / total_D[:, None], 0.0)
        recall_DD += np.where(both_DD, match_DD / total_D, 0.0)
        orders_DD += both_DD
    orders_DD = np.maximum(orders_DD, 1)
    precision_DD /= orders_DD
    recall_DD /= orders_DD
    factor = beta**2
    some_DD = precision_DD + recall_DD > 0
    score_DD = (1 + factor) * precision_DD * recall_DD
    score_DD /= np.where(some_DD, factor * precision_DD + recall_DD, 1.0)
    return np.where(some_DD, 100 * score_DD, 0.0)


def _bleu(texts: Sequence[str], orders: int = 4) -> Matrix:
    """BLEU with sacreBLEU's default tokenizer and smoothing, and the effective order."""
    from sacrebleu.metrics.bleu import BLEU

    # Text with blanks around its full stops is no mistake of ours to be warned of.
    metric: Any = BLEU(effective_order=True, force=True)
    words = [metric.tokenizer(text.rstrip()).split() for text in texts]
    lengths = [len(own) for own in words]
    matches, totals = [], []
    for n in range(1, orders + 1):
        grams = [[tuple(own[i : i + n]) for i in range(len(own) - n + 1)] for own in words]
        matches.append(_matches(grams))
        totals.append([len(own) for own in grams])
    correct_DDn = np.stack(matches, axis=-1).astype(int).tolist()
    score: Callable[..., Any] = metric.compute_bleu
    return np.array(
        [
            [
                score(
                    correct_DDn[hypothesis][reference],
                    [total[hypothesis] for total in totals],
                    lengths[hypothesis],
                    lengths[reference],
                    smooth_method=metric.smooth_method,
                    smooth_value=metric.smooth_value,
                    effective_order=True,
                ).score
                for reference in range(len(texts))
            ]
            for hypothesis in range(len(texts))
        ]
    )


def _matches(grams: Sequence[Grams]) -> Matrix:
    """How many n-grams each two texts share, an n-gram as often as both have it.

    The i-th time that an n-gram stands in a text is an event, and texts share events: a product of zeros and
    ones, which float32 counts exactly.
    """
    column: dict[tuple[Any, int], int] = {}
    events = []
    for own in grams:
        seen: dict[Any, int] = {}
        for gram in own:
            times = seen.get(gram, 0)
            seen[gram] = times + 1
            events.append(column.setdefault((gram, times), len(column)))
    columns = np.array(events, dtype=np.int64)
    rows = np.repeat(np.arange(len(grams)), [len(own) for own in grams])
    match_DD = np.zeros((len(grams), len(grams)))
    for first in range(0, len(column), _COLUMNS):
        here = (columns >= first) & (columns < first + _COLUMNS)
        has = np.zeros((len(grams), min(_COLUMNS, len(column) - first)), dtype=np.float32)
        has[rows[here], columns[here] - first] = 1.0
        match_DD += has @ has.T
    return match_DD
