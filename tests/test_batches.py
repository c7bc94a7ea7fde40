"""Batches: nothing lost, nothing twice, within the budget, the same again for the same seed."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt.data.batches import Lengths, cut, pad, plan_epoch, seeded
from nmt.data.tokenizer import train_tokenizer

MULTI30K = Path(__file__).parents[2] / "shared" / "data" / "multi30k" / "raw"

length_pairs = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), max_size=80)
budgets = st.integers(1, 300)
seeds = st.integers(0, 2**64)


def split(pairs: list[tuple[int, int]]) -> tuple[Lengths, Lengths]:
    array = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return array[:, 0], array[:, 1]


def lists(batches: list[Lengths]) -> list[list[int]]:
    return [batch.tolist() for batch in batches]


def corpus(count: int, seed: int = 0) -> tuple[Lengths, Lengths]:
    random = np.random.default_rng(seed)
    source = random.integers(1, 40, size=count)
    return source, np.maximum(1, source + random.integers(-5, 6, size=count))


# --- plan_epoch --------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(pairs=length_pairs, budget=budgets, seed=seeds, epoch=st.integers(0, 1000))
def test_plan_is_a_permutation_within_the_budget(
    pairs: list[tuple[int, int]], budget: int, seed: int, epoch: int
) -> None:
    source, target = split(pairs)
    batches = lists(plan_epoch(source, target, batch_tokens=budget, seed=seed, epoch=epoch))
    assert sorted(i for batch in batches for i in batch) == list(range(len(pairs)))
    for batch in batches:
        assert batch
        longest = max(max(pairs[i]) for i in batch)
        assert len(batch) * longest <= budget or len(batch) == 1


def test_plan_is_a_function_of_its_arguments() -> None:
    source, target = corpus(500)
    first = lists(plan_epoch(source, target, batch_tokens=200, seed=1, epoch=0))
    np.random.default_rng(5).random(100)
    again = plan_epoch(source.copy(), target.copy(), batch_tokens=200, seed=1, epoch=0)
    assert lists(again) == first
    others = [
        lists(plan_epoch(source, target, batch_tokens=200, seed=seed, epoch=epoch))
        for seed, epoch in ((1, 1), (1, 2), (2, 0), (0, 1), (2**32 + 1, 0))
    ]
    for index, other in enumerate(others):
        assert other not in [first, *others[:index]]


def test_epochs_differ_in_order_and_in_company() -> None:
    """Not only the order of the batches changes, but who is with whom."""
    source, target = corpus(2000)
    plans = [
        {
            frozenset(batch)
            for batch in lists(plan_epoch(source, target, batch_tokens=300, seed=1, epoch=epoch))
        }
        for epoch in (0, 1)
    ]
    assert len(plans[0] & plans[1]) < 0.1 * len(plans[0])


def test_batches_are_not_in_order_of_length() -> None:
    source, target = corpus(2000)
    batches = plan_epoch(source, target, batch_tokens=300, seed=1, epoch=0)
    means = np.array([target[batch].mean() for batch in batches])
    correlation = np.corrcoef(means, np.arange(len(means)))[0, 1]
    assert abs(correlation) < 4.5 / len(means) ** 0.5


def test_sentences_longer_than_the_budget_are_alone() -> None:
    source, target = np.array([3, 100, 3, 3]), np.array([3, 3, 200, 3])
    batches = lists(plan_epoch(source, target, batch_tokens=50, seed=1, epoch=0))
    assert sorted(sorted(batch) for batch in batches) == [[0, 3], [1], [2]]


def test_purposes_draw_differently() -> None:
    draws = {
        seeded(*arguments).integers(2**62)
        for arguments in ((1, "batches", 0), (1, "batches", 1), (1, "sampling", 0), (2, "batches", 0), (1,))
    }
    assert len(draws) == 5
    assert seeded(1, "batches", 0).integers(2**62) == seeded(1, "batches", 0).integers(2**62)


# --- cut ---------------------------------------------------------------------------------------------------


@given(lengths=st.lists(st.integers(0, 50)), budget=budgets)
def test_cut_covers_and_fills(lengths: list[int], budget: int) -> None:
    runs = cut(np.array(lengths, dtype=np.int64), budget)
    assert [i for start, end in runs for i in range(start, end)] == list(range(len(lengths)))
    for start, end in runs:
        run = lengths[start:end]
        assert len(run) == 1 or len(run) * max(run) <= budget
        if end < len(lengths):  # the next one would not have fitted
            with_next = lengths[start : end + 1]
            assert len(with_next) * max(with_next) > budget


@pytest.mark.parametrize(
    ("lengths", "budget", "runs"),
    [
        ([], 10, []),
        ([50], 10, [(0, 1)]),
        ([5, 5], 10, [(0, 2)]),
        ([5, 5, 1], 10, [(0, 2), (2, 3)]),
        ([50, 1, 1, 50], 10, [(0, 1), (1, 3), (3, 4)]),
        ([1, 1, 9, 1], 10, [(0, 2), (2, 3), (3, 4)]),
        ([4, 1, 1, 1], 12, [(0, 3), (3, 4)]),
    ],
)
def test_cut_examples(lengths: list[int], budget: int, runs: list[tuple[int, int]]) -> None:
    assert cut(np.array(lengths, dtype=np.int64), budget) == runs


# --- pad ---------------------------------------------------------------------------------------------------


@given(
    sequences=st.lists(st.lists(st.integers(0, 2**40), max_size=12), min_size=1, max_size=8),
    padding=st.integers(-5, 5),
)
def test_pad(sequences: list[list[int]], padding: int) -> None:
    padded = pad(sequences, padding)
    assert padded.dtype == np.int64
    assert padded.shape == (len(sequences), max(map(len, sequences)))
    for row, sequence in zip(padded.tolist(), sequences, strict=True):
        assert row == sequence + [padding] * (len(row) - len(sequence))


def test_pad_takes_arrays_of_small_types() -> None:
    """As token files hold them."""
    sequences: list[npt.NDArray[np.uint16]] = [np.array([65_535, 7], np.uint16), np.array([], np.uint16)]
    assert pad(sequences, 0).tolist() == [[65_535, 7], [0, 0]]


# --- a real corpus -----------------------------------------------------------------------------------------


@pytest.mark.skipif(not MULTI30K.is_dir(), reason=f"no Multi30k under {MULTI30K}")
@pytest.mark.slow
def test_padding_on_multi30k() -> None:
    """29,000 pairs, 8,000 shared BPE units, 4,096 tokens a batch: less than a tenth is padding."""
    sides = [
        gzip.decompress((MULTI30K / f"train.{language}.gz").read_bytes()).decode().split("\n")[:-1]
        for language in ("en", "de")
    ]
    assert len(sides[0]) == len(sides[1]) == 29_000
    tokenizer = train_tokenizer(sides[0] + sides[1], type="bpe", vocabulary_size=8000)
    # Each side is read with an end of sentence.
    source, target = (np.array([len(ids) + 1 for ids in tokenizer.encode_all(side)]) for side in sides)
    batches = plan_epoch(source, target, batch_tokens=4096, seed=1, epoch=0)
    padded = sum(len(batch) * int(side[batch].max()) for batch in batches for side in (source, target))
    tokens = int(source.sum() + target.sum())
    assert 1 - tokens / padded < 0.10
    fullest = [len(batch) * int(np.maximum(source, target)[batch].max()) for batch in batches]
    assert np.mean(fullest) > 0.9 * 4096
