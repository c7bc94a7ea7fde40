"""Parts of a test set are scored as test sets of their own; words by how often training had them."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sacrebleu_command import ORDINARY, disturbed

from nmt.breakdown import (
    FREQUENCIES,
    LENGTHS,
    bucket_names,
    bucket_of,
    by_frequency,
    by_length,
    count_words,
    length,
)
from nmt.evaluation import scores_of
from nmt.metric_set import MetricOptions, MetricSet


def test_buckets() -> None:
    assert bucket_names(LENGTHS) == ["0-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60+"]
    assert bucket_names(FREQUENCIES) == ["0", "1", "2", "3", "4", "5-9", "10-99", "100-999", "1000+"]


@given(st.integers(0, 5000))
def test_a_number_is_in_the_bucket_that_names_it(value: int) -> None:
    for starts in (LENGTHS, FREQUENCIES):
        name = bucket_names(starts)[bucket_of(value, starts)]
        low, _, high = name.rstrip("+").partition("-")
        assert int(low) <= value <= (value if name.endswith("+") else int(high or low))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        *(("", 0), ("  \u3000", 0), ("a dog", 2), ("\u2003a\x1cdog\x85 .", 3), ("naïve", 1)),
        *(
            ("一只狗。", 4),
            ("犬がいる", 4),
            ("我有2只dog在家", 7),
            ("キー", 2),
            ("𠀀𠀁", 2),
            ("개가 있다", 2),
        ),
    ],
)
def test_length(line: str, words: int) -> None:
    assert length(line) == words
    assert length(f"{line} one two") == words + 2


@pytest.mark.parametrize("references", [1, 2])
def test_scores_by_length_are_those_of_the_lines_alone(references: int) -> None:
    chance = random.Random(1)
    sources = ["wort " * chance.choice([0, 3, 9, 10, 25, 75]) for _ in ORDINARY]
    right = [ORDINARY, disturbed(ORDINARY, seed=5)][:references]
    hypotheses = disturbed(ORDINARY, seed=3)
    found = by_length(hypotheses, sources, MetricSet(right), confidence=True)
    places = {
        "0-9": [i for i, line in enumerate(sources) if len(line.split()) < 10],
        "10-19": [i for i, line in enumerate(sources) if len(line.split()) == 10],
        "20-29": [i for i, line in enumerate(sources) if len(line.split()) == 25],
        "60+": [i for i, line in enumerate(sources) if len(line.split()) == 75],
    }
    for name, chosen in places.items():
        metrics = MetricSet([[lines[i] for i in chosen] for lines in right])
        for score in scores_of([hypotheses[i] for i in chosen], metrics, confidence=True):
            (bucket,) = (b for b in found[score.metric] if b.name == name)
            assert bucket.size == len(chosen)
            assert bucket.score == score.score
            assert bucket.mean == pytest.approx(score.mean, abs=1e-4)
            assert bucket.half_width == pytest.approx(score.half_width, abs=1e-4)
    assert all([b.name for b in buckets] == list(places) for buckets in found.values())


def test_words_by_frequency_worked_by_hand() -> None:
    """Training has "the" twice, "cat" and "dog" once, "a" never."""
    training = Counter({"the": 2, "cat": 1, "dog": 1})
    metrics = MetricSet([["the cat the", "a dog", "a"]], MetricOptions("none"))
    whole, buckets = by_frequency(["the the the cat", "dog dog", ""], metrics, training)
    # Bucket: right, words of the hypothesis, words of the reference.
    expected = {"0": (0, 0, 2), "1": (2, 3, 2), "2": (2, 3, 2)}
    assert [(b.name, b.size) for b in buckets] == [("0", 2), ("1", 2), ("2", 2)]
    for bucket in buckets:
        right, written, reference = expected[bucket.name]
        assert bucket.score == pytest.approx(200 * right / (written + reference))
    assert (whole.name, whole.size) == ("all", 6)
    assert whole.score == pytest.approx(200 * 4 / (6 + 6))
    assert whole.mean is None


words = st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=6)


@given(
    st.lists(st.tuples(words, words), min_size=1, max_size=5),
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 2000)),
)
def test_words_by_frequency_counted_word_by_word(
    pairs: list[tuple[list[str], list[str]]], counts: dict[str, int]
) -> None:
    """As compare-mt counts: each word of the hypothesis takes one of its kind from the reference."""
    metrics = MetricSet([[" ".join(right) for _, right in pairs]], MetricOptions("none"))
    whole, buckets = by_frequency([" ".join(written) for written, _ in pairs], metrics, Counter(counts))
    table = {name: [0, 0, 0] for name in bucket_names(FREQUENCIES)}
    for written, right in pairs:
        left = list(right)
        for word in right:
            table[bucket_names(FREQUENCIES)[bucket_of(counts.get(word, 0), FREQUENCIES)]][0] += 1
        for word in written:
            row = table[bucket_names(FREQUENCIES)[bucket_of(counts.get(word, 0), FREQUENCIES)]]
            row[1] += 1
            if word in left:
                left.remove(word)
                row[2] += 1
    found = {bucket.name: bucket for bucket in buckets}
    for name, (reference, hypothesis, right_ones) in table.items():
        if not reference and not hypothesis:
            assert name not in found
            continue
        precision = right_ones / hypothesis if hypothesis else 0
        recall = right_ones / reference if reference else 0
        f1 = 2 * precision * recall / (precision + recall) if right_ones else 0
        assert found[name].size == reference
        assert found[name].score == pytest.approx(100 * f1)
    assert whole.size == sum(row[0] for row in table.values())


def test_interval_of_words_is_that_of_resampled_lines() -> None:
    lines = disturbed(ORDINARY, seed=3)
    metrics = MetricSet([ORDINARY])
    training = count_words(ORDINARY[:20], metrics)
    whole, buckets = by_frequency(lines, metrics, training, confidence=True)
    for bucket in (whole, *buckets):
        assert bucket.mean is not None
        assert bucket.half_width is not None
        assert abs(bucket.mean - bucket.score) < max(3 * bucket.half_width, 1e-9)
    assert 0 < (whole.half_width or 0) < 10
    assert by_frequency(lines, metrics, training, confidence=True) == (whole, buckets)


def test_words_of_training_are_counted_as_bleu_has_them() -> None:
    metrics = MetricSet([["x"]], MetricOptions(lowercase=True))
    assert count_words(["Der Hund, der.", "", "Hund"], metrics) == {"der": 2, "hund": 2, ",": 1, ".": 1}
