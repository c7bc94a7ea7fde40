"""Scores with intervals, those of sacreBLEU's own command line; and what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import sacrebleu
from sacrebleu.metrics.bleu import BLEU
from sacrebleu_command import ORDINARY, disturbed, printed, single

from nmt.errors import UserError
from nmt.evaluation import bleu, check, evaluate, perplexity, scores_of, unequal_lengths
from nmt.metric_set import MetricSet


def test_intervals_are_those_of_the_sacrebleu_command(tmp_path: Path) -> None:
    hypotheses = disturbed(ORDINARY, seed=0)
    expected = single(tmp_path, hypotheses, [ORDINARY], "--confidence")
    found = evaluate(hypotheses, [ORDINARY], confidence=True)
    assert [score.metric for score in found] == list(expected)
    for score, answer in zip(found, expected.values(), strict=True):
        # sacreBLEU gives some in float32, which JSON has no word for.
        assert type(score.mean) is type(score.half_width) is float
        assert printed(score.score) == answer["score"]
        assert printed(score.mean) == answer["confidence_mean"]
        assert printed(score.half_width) == answer["confidence_var"]
        assert score.signature == answer["signature"]
        assert "|bs:1000|seed:12345|" in score.signature
        assert score.confidence_low == score.mean - score.half_width
        assert score.confidence_high == score.mean + score.half_width
        assert score.confidence_low < score.score < score.confidence_high
    # Without intervals nothing is resampled, and the signature says so, whatever was asked before.
    metrics = MetricSet([ORDINARY])
    with_intervals, plain = (scores_of(hypotheses, metrics, confidence=asked) for asked in (True, False))
    assert with_intervals == found
    assert all("bs:" not in score.signature and score.mean is None for score in plain)
    assert plain == evaluate(hypotheses, [ORDINARY])


def test_intervals_of_a_test_set_so_small_that_some_resamples_have_nothing_right() -> None:
    metrics = MetricSet([["Ein Hund.", "Wort " * 200, "Wort"]])
    lines = ["Der Hund", "", "x"]
    for score in scores_of(lines, metrics, confidence=True):
        assert type(score.confidence_low) is float
        assert score.confidence_low <= score.score
    assert scores_of(lines, metrics, confidence=True) == scores_of(lines, metrics, confidence=True)


def test_options_are_sacrebleus() -> None:
    lines = [line.replace("ß", "ss") for line in ORDINARY]
    hypotheses = [line.upper() for line in lines]
    found = evaluate(hypotheses, [lines], lowercase=True, tokenize="char", metrics=["bleu", "chrf"])
    assert [score.score for score in found] == pytest.approx([100, 100])
    assert ["case:lc" in score.signature for score in found] == [True, True]
    assert "tok:char" in found[0].signature


def test_bleu_is_the_default_bleu() -> None:
    hypotheses = disturbed(ORDINARY, seed=0)
    assert bleu(hypotheses, ORDINARY) == evaluate(hypotheses, [ORDINARY])[0].score
    assert bleu(ORDINARY, ORDINARY) == pytest.approx(100)
    assert bleu([""] * len(ORDINARY), ORDINARY) == 0


def test_perplexity() -> None:
    assert perplexity(0.0) == 1
    assert perplexity(1.0) == pytest.approx(2.718281828)
    # JSON knows no infinity.
    assert json.loads(json.dumps(perplexity(1e6), allow_nan=False)) > 1e300


def test_what_is_not_parallel_is_refused() -> None:
    with pytest.raises(UserError, match="there are no lines"):
        evaluate([], [[]])
    with pytest.raises(UserError, match="there are no lines"):
        bleu([], [])
    with pytest.raises(UserError, match="reference 2 has 1 line and the translation 2"):
        evaluate(["a", "b"], [["a", "b"], ["a"]])
    with pytest.raises(UserError, match="reference 1 has 1 line and the translation 2"):
        bleu(["a", "b"], ["a"])
    with pytest.raises(UserError, match=r"--tokenize 13b is not one of sacreBLEU's: 13a, .*none"):
        evaluate(["a"], [["a"]], tokenize="13b")
    with pytest.raises(UserError, match=r"r\.de is blank in all its 2 lines"):
        check(2, [["a", ""], ["", " \u3000"]], names=["q.de", "r.de"])


def test_unequal_lengths_name_the_first_blank_lines() -> None:
    assert unequal_lengths("a", ["x", ""], "b", ["", "y"]) is None
    said = [
        str(unequal_lengths("a", lines, "b", ["x", "y"]))
        for lines in (["x", "", "y", " "], ["x"], ["x", "y", "z"])
    ]
    assert said == [
        "a: has 4 lines and b has 2 (the first blank one is in a line 2); give files that are parallel",
        "a: has 1 line and b has 2 (none is blank); give files that are parallel",
        "a: has 3 lines and b has 2 (none is blank); give files that are parallel",
    ]
    both = unequal_lengths("a", ["\t", "x"], "b", ["y", "z", ""])
    assert "(the first blank one is in a line 1 and in b line 3)" in str(both)


def test_validation_says_nothing_of_tokenised_text(caplog: pytest.LogCaptureFixture) -> None:
    """sacreBLEU would, at every validation."""
    lines = [f"a sentence of some words {number} ." for number in range(200)]
    assert bleu(lines, lines) == pytest.approx(100.0)
    assert not caplog.records
    evaluate(lines, [lines], metrics=["bleu"])
    assert any("tokenized period" in record.getMessage() for record in caplog.records)


CHINESE = (["我喜欢猫和狗。", "今天天气很好。"], ["我喜欢猫与狗。", "今天天气真好。"])


def test_bleu_of_validation_has_the_tokenizer_of_the_language(monkeypatch: pytest.MonkeyPatch) -> None:
    hypotheses, reference = CHINESE
    expected = sacrebleu.corpus_bleu(hypotheses, [reference], tokenize="zh").score
    assert expected > 20
    assert bleu(hypotheses, reference, "zh") == pytest.approx(expected)
    assert bleu(hypotheses, reference, "zh_TW") == pytest.approx(expected)
    assert bleu(hypotheses, reference, "de") < 1
    # Where a tokenizer needs what is not installed, training goes on.
    monkeypatch.setattr(BLEU, "_TOKENIZER_MAP", {"ja": "ja-mecab"})
    monkeypatch.setitem(sys.modules, "MeCab", None)
    by_characters = sacrebleu.corpus_bleu(hypotheses, [reference], tokenize="char").score
    assert bleu(hypotheses, reference, "ja") == pytest.approx(by_characters)
