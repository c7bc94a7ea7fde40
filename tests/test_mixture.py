"""How often pairs of several corpora are seen."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt.data.mixture import Mixture, least_weight, repetitions

sizes = st.lists(st.integers(0, 40), min_size=1, max_size=4)


@settings(deadline=None)
@given(data=st.data(), sizes=sizes, seed=st.integers(0, 2**40), epoch=st.integers(0, 100))
def test_every_pair_is_seen_as_often_as_asked(
    data: st.DataObject, sizes: list[int], seed: int, epoch: int
) -> None:
    weights = data.draw(st.lists(st.floats(0, 4), min_size=len(sizes), max_size=len(sizes)))
    mixture = Mixture(sizes, weights, seed)
    if not mixture.pairs:
        return
    rows = mixture.rows(epoch)
    assert len(rows) == mixture.pairs
    assert rows.tolist() == mixture.rows(epoch).tolist()
    seen = Counter(rows.tolist())
    first = 0
    for size, weight in zip(sizes, weights, strict=True):
        counts = [seen[row] for row in range(first, first + size)]
        assert set(counts) <= {int(weight), int(weight) + 1}
        assert sum(counts) == int(weight) * size + round((weight - int(weight)) * size)
        first += size


def test_once_each_is_everything_in_order() -> None:
    assert Mixture([3, 4], [1.0, 1.0], 1).rows(5).tolist() == list(range(7))


def test_what_is_drawn_changes_with_the_epoch() -> None:
    mixture = Mixture([10, 1000], [1, 0.1], 1)
    first, second = (mixture.rows(epoch)[10:] for epoch in (0, 1))
    assert len(first) == len(second) == 100
    assert first.tolist() != second.tolist()
    assert min(first) >= 10


def test_temperature() -> None:
    assert repetitions([100, 25]) == repetitions([100, 25], temperature=1) == (1, 1)
    assert repetitions([100, 25], temperature=2) == pytest.approx((1, 2))  # sqrt(25) / sqrt(100) of 100 / 25
    assert repetitions([100, 25], temperature=1e9) == pytest.approx((1, 4))
    assert repetitions([100, 0], temperature=2) == (1, 0)
    for hostile in (1e-300, 1e-3, 1e300):
        assert np.isfinite(repetitions([10**9, 1], temperature=hostile)).all()
    assert repetitions([3, 4], weights=[0, 2.5]) == (0, 2.5)


@given(size=st.integers(1, 2**33))
def test_the_least_weight_is_the_least(size: int) -> None:
    least = least_weight(size)
    assert Mixture([size], [least], 1).seen == (1,)
    assert float(f"{least:g}") == least
    assert Mixture([size], [least * 0.9], 1).seen == (0,) or size == 1
