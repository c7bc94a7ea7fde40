"""Scores of heads whose weights are set by hand, and of any weights against loops that spell them out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nmt import head_scores
from nmt.head_scores import OFFSETS, Sum, Weights


def heads(*of_each: Any) -> Weights:
    """One layer of heads."""
    return np.array([of_each], dtype=np.float32)


def eye(size: int, offset: int = 0, *, causal: bool = False) -> Any:
    """A head that looks at a fixed distance, at the nearest end where that is outside."""
    weights = np.zeros((size, size))
    for row in range(size):
        weights[row, max(0, min(row + offset, row if causal else size - 1))] = 1
    return weights


def even(size: int, *, causal: bool = False) -> Any:
    weights = np.tril(np.ones((size, size))) if causal else np.ones((size, size))
    return weights / weights.sum(axis=1, keepdims=True)


def means(found: Sum) -> list[float]:
    """Of each head of the only layer."""
    return (found.values_LH[0] / found.rows).tolist()


def no_special(size: int) -> Any:
    return np.zeros(size, dtype=bool)


def test_entropy() -> None:
    nats, normalized = head_scores.entropy(heads(eye(4), even(4), [[0.5, 0.5, 0, 0]] * 4))
    assert means(nats) == pytest.approx([0, math.log(4), math.log(2)])
    assert means(normalized) == pytest.approx([0, 1, 0.5])
    # Of a decoder the first row has no choice, and the others as many keys as they have seen tokens.
    nats, normalized = head_scores.entropy(heads(eye(3, causal=True), even(3, causal=True)), causal=True)
    assert means(nats) == pytest.approx([0, (math.log(2) + math.log(3)) / 2])
    assert means(normalized) == pytest.approx([0, 1])
    assert nats.rows == 2


def test_confidence_leaves_special_tokens_out() -> None:
    special = np.array([False, False, True])
    found = head_scores.confidence(heads([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.3, 0.4, 0.3]]), special)
    assert means(found) == pytest.approx([(0.7 + 0.1 + 0.4) / 3])


def test_offsets() -> None:
    found = head_scores.offsets(heads(eye(6, -1), eye(6, 1), eye(6, 3), even(6)))
    shares = found.largest_LHO[0] / found.rows_O
    for head, offset in enumerate((-1, 1, 3)):
        assert shares[head, OFFSETS.index(offset)] == 1
    weights = found.weight_LHO[0] / found.rows_O
    assert weights[0, OFFSETS.index(-1)] == 1
    assert weights[3].tolist() == pytest.approx([1 / 6] * len(OFFSETS))
    assert found.rows_O.tolist() == [3, 4, 5, 6, 5, 4, 3]
    before = head_scores.offsets(heads(eye(6, -1, causal=True)), causal=True)
    assert before.rows_O.tolist() == [3, 4, 5, 5, 0, 0, 0]
    assert before.largest_LHO[0, 0, OFFSETS.index(-1)] == 5


def test_rare() -> None:
    """Tokens a b b c c and the end; a is the rarest."""
    counts, special = [1, 2, 2, 2, 2, 9], np.array([False] * 5 + [True])
    to_rarest, to_end, to_b = (np.tile(np.eye(6)[key], (6, 1)) for key in (0, 5, 1))
    found = head_scores.rare(heads(to_rarest, to_end, to_b), counts, special)
    assert means(found) == [1, 0, 0]
    assert found.chance / found.rows == pytest.approx(1 / 6)
    assert head_scores.rare(heads(to_rarest), [2] * 6, special).rows == 0
    # A decoder's first rows have seen no rarer token than another.
    seen = head_scores.rare(heads(eye(6, causal=True)), [2, 2, 1, 2, 2, 9], special, causal=True)
    assert (seen.values_LH.item(), seen.rows) == (1, 4)  # row 2 looks at itself; the end sees five


def test_copies() -> None:
    same = head_scores.copies(
        ["Paris,", "ist", "schön", ".", "</s>"], ["paris", "Paris", "Par", ".", "(Paris)"]
    )
    assert same[0].tolist() == [False, True, False, False, True]
    assert not same[1:].any()  # a mark is no word


def test_followers() -> None:
    """Of A B c A B A d the second A wants the first B; the third wants none, for d had not followed."""
    a, b, c, d, end = 5, 6, 7, 8, 3
    ids = [a, b, c, a, b, a, d, end]
    wanted = head_scores.followers(ids, np.array([i == end for i in ids]))
    assert {(int(row), int(key)) for row, key in np.argwhere(wanted)} == {(3, 1)}
    # With two earlier ones both count; ends of sentence are no pattern; A A A is.
    twice = head_scores.followers([a, b, a, b, a, b], no_special(6))
    assert np.argwhere(twice).tolist() == [[2, 1], [3, 2], [4, 1], [4, 3]]
    assert not head_scores.followers([end, end, end], np.ones(3, dtype=bool)).any()
    assert not head_scores.followers([a], no_special(1)).any()


def test_the_head_that_does_induction_has_the_most() -> None:
    """A B c d A B: of heads that look back, at themselves, everywhere, and at what followed, the last."""
    ids = [5, 6, 7, 8, 5, 6]
    follows = eye(6, causal=True)
    follows[4] = np.eye(6)[1]
    given = heads(eye(6, -1, causal=True), eye(6, causal=True), even(6, causal=True), follows)
    found = head_scores.weight_on(given, head_scores.followers(ids, no_special(6)), causal=True)
    assert means(found) == pytest.approx([0, 0, 1 / 5, 1])
    assert found.rows == 1
    assert found.chance / found.rows == pytest.approx(1 / 5)


@st.composite
def attention(draw: st.DrawFn) -> tuple[Weights, list[int], bool]:
    """Weights of two layers of two heads, tokens they look at (id 3 is special), and whether causal."""
    causal = draw(st.booleans())
    keys = draw(st.integers(1, 6))
    queries = keys if causal else draw(st.integers(1, 6))
    seed = draw(st.integers(0, 2**31))
    scores = np.random.default_rng(seed).normal(size=(2, 2, queries, keys)) * 3
    if causal:
        scores = np.where(np.tril(np.ones((queries, keys), dtype=bool)), scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    ids = draw(st.lists(st.integers(3, 6), min_size=keys, max_size=keys))
    return weights.astype(np.float32), ids, causal


@given(attention())
def test_as_loops_have_it(given: tuple[Weights, list[int], bool]) -> None:
    weights, ids, causal = given
    special = np.array([i == 3 for i in ids])
    count = [ids.count(i) for i in ids]
    queries, keys = weights.shape[-2:]
    nats, normalized = head_scores.entropy(weights, causal)
    rare = head_scores.rare(weights, count, special, causal)
    offsets = head_scores.offsets(weights, causal)
    confidence = head_scores.confidence(weights, special, causal)
    for layer, head in np.ndindex(2, 2):
        sums = dict.fromkeys(("nats", "normalized", "rare", "rare rows", "confidence"), 0.0)
        at = dict.fromkeys(OFFSETS, (0.0, 0.0, 0))
        for i in range(queries):
            row = weights[layer, head, i].astype(float)
            seen = list(range(i + 1)) if causal else list(range(keys))
            if len(seen) < 2:
                continue
            entropy = -sum(row[j] * math.log(row[j]) for j in seen if row[j])
            sums["nats"] += entropy
            sums["normalized"] += entropy / math.log(len(seen))
            best = max(seen, key=lambda j: row[j])
            content = [j for j in seen if not special[j]]
            sums["confidence"] += max((row[j] for j in content), default=0)
            if len({count[j] for j in content}) > 1:
                least = min(count[j] for j in content)
                sums["rare rows"] += 1
                sums["rare"] += best in content and count[best] == least
            for offset in OFFSETS:
                if i + offset in seen:
                    weight, largest, rows = at[offset]
                    at[offset] = (weight + row[i + offset], largest + (best == i + offset), rows + 1)
        assert nats.values_LH[layer, head] == pytest.approx(sums["nats"], abs=1e-5)
        assert normalized.values_LH[layer, head] == pytest.approx(sums["normalized"], abs=1e-5)
        assert confidence.values_LH[layer, head] == pytest.approx(sums["confidence"], abs=1e-5)
        assert rare.values_LH[layer, head] == sums["rare"]
        assert rare.rows == sums["rare rows"]
        for place, offset in enumerate(OFFSETS):
            found = (offsets.weight_LHO[layer, head, place], offsets.largest_LHO[layer, head, place])
            assert (*found, offsets.rows_O[place]) == pytest.approx(at[offset], abs=1e-5)


@given(st.lists(st.integers(3, 6), max_size=8))
def test_followers_as_loops_have_it(ids: list[int]) -> None:
    special = np.array([i == 3 for i in ids], dtype=bool)
    expected = {
        (i, j + 1)
        for i in range(len(ids) - 1)
        for j in range(i)
        if j + 1 < i and ids[i] != 3 and ids[j] == ids[i] and ids[j + 1] == ids[i + 1]
    }
    assert {(int(i), int(j)) for i, j in np.argwhere(head_scores.followers(ids, special))} == expected
