"""The sentence-level table has sacreBLEU's own sentence scores, a line for a line whatever they hold."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.metrics.ter import TER
from sacrebleu_command import HOSTILE, ORDINARY, disturbed

from nmt.breakdown import length
from nmt.metric_set import MetricOptions, MetricSet
from nmt.sentences import sentence_scores, sentence_table

line = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"), max_size=20)


def test_scores_are_sacrebleus() -> None:
    lines = [*HOSTILE, *ORDINARY[:20]]
    references = [lines, disturbed(lines, seed=1)]
    options = MetricOptions("intl", lowercase=True)
    hypotheses = disturbed(lines, seed=2)
    metrics = MetricSet(references, options)
    before = metrics.metrics["BLEU"].corpus_score(hypotheses, None).score
    found = sentence_scores(hypotheses, metrics)
    outside = {
        "BLEU": BLEU(lowercase=True, tokenize="intl", effective_order=True),
        "chrF2": CHRF(lowercase=True),
        "chrF2++": CHRF(lowercase=True, word_order=2),
        "TER": TER(),
    }
    assert list(found) == list(outside)
    for name, metric in outside.items():
        expected = [
            metric.sentence_score(hypothesis, list(right)).score
            for hypothesis, right in zip(hypotheses, zip(*references, strict=True), strict=True)
        ]
        assert found[name] == expected
    # Of the corpus BLEU is still BLEU of all orders.
    assert metrics.metrics["BLEU"].corpus_score(hypotheses, None).score == before
    assert "eff:no" in metrics.signature("BLEU")


@settings(deadline=None, max_examples=30)
@given(drawn=st.lists(st.tuples(line, line, line, line), min_size=1, max_size=4))
def test_an_object_a_line(drawn: list[tuple[str, str, str, str]]) -> None:
    sources, a, b, right = ([*column] for column in zip(*drawn, strict=True))
    table = list(
        sentence_table(
            {"a": a, "b": b}, MetricSet([right]), test_set="t", sources=sources, suffixes={"b": " model:0a"}
        )
    )
    assert len(table) == len(drawn)
    for number, (text, pair) in enumerate(zip(table, drawn, strict=True), start=1):
        assert "\n" not in text
        record = json.loads(text)
        assert (record["test_set"], record["lines"], record["line"]) == ("t", len(drawn), number)
        assert (record["source"], record["references"]) == (pair[0], [pair[3]])
        assert record["source_length"] == length(pair[0])
        assert record["reference_lengths"] == [len(pair[3].split())]
        for name, hypothesis in (("a", pair[1]), ("b", pair[2])):
            system = record["systems"][name]
            assert (system["hypothesis"], system["length"]) == (hypothesis, len(hypothesis.split()))
            assert {"BLEU", "chrF2", "chrF2++", "TER"} < system.keys()
            assert system.get("about") == (None if name == "a" else "model:0a")
        assert "|eff:yes|" in record["signatures"]["BLEU"]
        assert "nw:2" in record["signatures"]["chrF2++"]


def test_without_sources() -> None:
    (text,) = sentence_table({"a": ["x"]}, MetricSet([["x"]]), test_set="t")
    record = json.loads(text)
    assert (record["source"], record["source_length"]) == (None, None)
    assert record["systems"]["a"]["BLEU"] == pytest.approx(100)
