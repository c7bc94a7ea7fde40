"""How `nmt evaluate` prints what it measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nmt.cli import output as out

if TYPE_CHECKING:
    from nmt.assessment import Measured
    from nmt.breakdown import Bucket
    from nmt.significance import Comparison

SIGNIFICANT = 0.05


def print_scores(measured: Sequence[Measured], title: str, *, confidence: bool) -> None:
    """The table of all scores, then what each of them was measured with."""
    tests = list(dict.fromkeys(c.test for one in measured for c in one.comparisons))
    header = ["system", "metric", "score"]
    header += ["mean ± 95 %"] if confidence else []
    header += [f"p {test}" for test in tests]
    body = []
    for one in measured:
        score = one.score
        row = [one.system, score.metric, _number(score.score, score.metric)]
        row += [_interval(score.mean, score.half_width, score.metric)] if confidence else []
        compared = {comparison.test: comparison for comparison in one.comparisons}
        row += [_p_value(compared[test]) if test in compared else "" for test in tests]
        body.append(row)
    out.result(title)
    out.result(out.table(header, body, left=2))
    if tests:
        baseline = measured[0].system
        out.result(f"p: of so large a difference from {baseline} by chance; * below {SIGNIFICANT}")
    for line in dict.fromkeys(f"{one.score.metric} {one.score.signature}" for one in measured):
        out.result(line)
    of_p_values = [
        f"p {c.test} {one.score.metric} {c.signature}"
        for one in measured
        for c in one.comparisons
        if c.signature != one.score.signature
    ]
    for line in dict.fromkeys(of_p_values):
        out.result(line)


def print_parts(measured: Sequence[Measured], title: str) -> None:
    """The tables of parts of the test set, if any were asked for."""
    by_length = [one for one in measured if one.by_length]
    if by_length:
        buckets = by_length[0].by_length
        out.result(f"\n{title}, by words of the source (lines)")
        header = ["system", "metric", *(f"{bucket.name} ({bucket.size:,})" for bucket in buckets)]
        body = [
            [one.system, one.score.metric, *(_cell(b, one.score.metric) for b in one.by_length)]
            for one in by_length
        ]
        out.result(out.table(header, body, left=2))
    by_frequency = [one for one in measured if one.by_frequency]
    if by_frequency:
        names = list(dict.fromkeys(b.name for one in by_frequency for b in one.by_frequency))
        names.sort(key=lambda name: int(name.rstrip("+").split("-")[0]))
        tables = [{b.name: b for b in one.by_frequency} for one in by_frequency]
        out.result(f"\n{title}, F1 of words by their count in training (words of the reference)")
        sizes = {name: bucket.size for table in tables for name, bucket in table.items()}
        header = ["system", *(f"{name} ({sizes[name]:,})" for name in names)]
        body = [
            [one.system, *(_cell(table[name], "") if name in table else "" for name in names)]
            for one, table in zip(by_frequency, tables, strict=True)
        ]
        out.result(out.table(header, body))


def _cell(bucket: Bucket, metric: str) -> str:
    text = _number(bucket.score, metric)
    return text if bucket.half_width is None else f"{text} ± {_number(bucket.half_width, metric)}"


def _interval(mean: float | None, half_width: float | None, metric: str) -> str:
    if mean is None or half_width is None:
        return ""
    return f"{_number(mean, metric)} ± {_number(half_width, metric)}"


def _number(value: float, metric: str) -> str:
    from nmt.results import digits

    return f"{value:.{digits(metric)}f}"


def _p_value(found: Comparison) -> str:
    """The p-value of no difference at all says nothing."""
    if not found.differs:
        return "equal "
    return f"{found.p_value:.4f}{'*' if found.p_value < SIGNIFICANT else ' '}"
