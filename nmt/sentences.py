"""The sentence-level table: of each line of a test set what every system wrote, and its scores."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nmt.breakdown import length
from nmt.metric_set import MetricSet


def sentence_scores(hypotheses: list[str], metrics: MetricSet) -> dict[str, list[float]]:
    """The score of each line alone by each metric, as sacreBLEU's --sentence-level has it."""
    return {
        name: [
            float(metric._aggregate_and_compute([counts]).score)
            for counts in metrics.statistics(name, hypotheses)
        ]
        for name, metric in metrics.of_sentences().items()
    }


def sentence_table(
    systems: Mapping[str, list[str]],
    metrics: MetricSet,
    *,
    test_set: str,
    sources: Sequence[str] | None = None,
    suffixes: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """A JSON object for each line, without its newline.

    Lengths are words between blanks. Each object says what its numbers are: the test set, its size and
    the signatures.

    Args:
        sources: what was translated, if known; else `source` and its length are null.
        suffixes: what a system adds to the signatures of its scores: which model it is.
    """
    table = {name: sentence_scores(lines, metrics) for name, lines in systems.items()}
    signatures = {name: str(metric.get_signature()) for name, metric in metrics.of_sentences().items()}
    suffixes = suffixes or {}
    for index in range(metrics.size):
        references = [lines[index] for lines in metrics.references]
        source = None if sources is None else sources[index]
        record: dict[str, Any] = {
            "test_set": test_set,
            "lines": metrics.size,
            "line": index + 1,
            "source": source,
            "source_length": None if source is None else length(source),
            "references": references,
            "reference_lengths": [len(line.split()) for line in references],
            "systems": {
                name: {
                    "hypothesis": lines[index],
                    "length": len(lines[index].split()),
                    **{metric: round(values[index], 4) for metric, values in table[name].items()},
                    **({"about": suffixes[name].strip(" |")} if suffixes.get(name) else {}),
                }
                for name, lines in systems.items()
            },
            "signatures": signatures,
        }
        yield json.dumps(record, ensure_ascii=False)
