"""Options of beam search over random tables: against enumeration, and alone against together."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from tables import Attention, best_of_all, find
from test_search import ALPHAS, BEGIN, END, Table, assert_same, plain_beam, ranked

from nmt.beam import Beam
from nmt.coverage import coverage_penalty, mean_attention
from nmt.search import length_penalty


def case(seed: int) -> tuple[Table, list[int], list[tuple[int, int]]]:
    """A table, its sentences, and the least and the most tokens of each."""
    random = np.random.default_rng([seed, 8])
    vocabulary = int(random.integers(4, 7))
    longest = {4: 6, 5: 5, 6: 4}[vocabulary]
    most = random.integers(1, longest + 1, size=4)
    least = [int(random.integers(1, limit + 1)) if seed % 2 else 1 for limit in most]
    table = Table(seed, 4, vocabulary, longest, peaked=float(random.choice([0.3, 1.0, 3.0])))
    return table, list(range(4)), list(zip(least, most.tolist(), strict=True))


def repeats(tokens: tuple[int, ...], size: int) -> bool:
    grams = [tokens[place : place + size] for place in range(len(tokens) - size + 1)]
    return len(grams) > len(set(grams))


@pytest.mark.parametrize("normalization", ["gnmt", "average"])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_least_lengths_and_normalization(alpha: float, normalization: str) -> None:
    for seed in range(6):
        table, sentences, limits = case(seed)
        options: dict[str, Any] = dict(alpha=alpha, normalization=normalization)
        every = [best_of_all(table, s, limits[s], lambda tokens: True, **options) for s in sentences]
        found = find(table, sentences, limits, beam_size=400, n_best=3, **options)
        for own, translations in zip(found, every, strict=True):
            assert_same(own, translations[:3])


def test_average_normalization_is_the_mean_log_probability() -> None:
    assert length_penalty(7, 1.0, "average") == 7
    assert length_penalty(7, 0.0, "average") == 1


@pytest.mark.parametrize("beta", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_coverage_penalty(alpha: float, beta: float) -> None:
    for seed in range(4):
        table, sentences, limits = case(seed)
        attention = Attention(table, seed, beta)
        found = find(table, sentences, limits, attention=attention, beam_size=400, n_best=3, alpha=alpha)
        for s, own in enumerate(found):
            bonus = partial(attention.of, s)
            every = best_of_all(table, s, limits[s], lambda tokens: True, bonus, alpha=alpha)
            assert_same(own, every[:3])


def test_coverage_penalty_of_a_small_beam_stops_where_the_whole_search_would() -> None:
    """The n best of what a beam without stopping early finishes, the penalty counted."""
    for seed in range(60):
        table, sentences, limits = case(2 * seed)
        attention = Attention(table, seed, beta=1.0)
        for beam_size in (1, 2, 3):
            n_best = 1 + seed % beam_size
            found = find(
                table, sentences, limits, attention=attention, beam_size=beam_size, alpha=0.6, n_best=n_best
            )
            for s, own in enumerate(found):
                won = ranked(plain_beam(table, s, limits[s][1], {BEGIN}, beam_size), 0.6)
                scored = [(tokens, total, score + attention.of(s, tokens)) for tokens, total, score in won]
                assert_same(own, sorted(scored, key=lambda row: -row[2])[:n_best])


def test_coverage_penalty_by_hand() -> None:
    """Wu et al. 2016, eq. 14: three source tokens, attended to 0.5, 1.2 and not at all; one is padding."""
    attended_BKS = torch.tensor([[[0.5, 1.2, 0.0, 0.25]]])
    mask_BS = torch.tensor([[True, True, False, True]])
    expected = np.log(0.5) + np.log(0.25)
    assert coverage_penalty(attended_BKS, mask_BS).item() == pytest.approx(expected)
    assert coverage_penalty(attended_BKS, torch.ones(1, 4, dtype=torch.bool)).isfinite().all()


def test_mean_attention() -> None:
    first = [torch.rand(2, 3, 4, 5), torch.rand(2, 3, 4, 5)]
    second = [torch.rand(2, 1, 4, 5)]
    of_first = (first[0].mean(dim=1) + first[1].mean(dim=1)) / 2
    assert torch.allclose(mean_attention([first]), of_first)
    assert torch.allclose(mean_attention([first, second]), (of_first + second[0][:, 0]) / 2)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_no_repeat_ngram(size: int) -> None:
    for seed in range(0, 24, 2):
        table, sentences, limits = case(seed)
        options: dict[str, Any] = dict(n_best=3, alpha=ALPHAS[seed // 2 % 4])
        found = find(table, sentences, limits, beam_size=400, no_repeat_ngram=size, **options)
        for s, own in enumerate(found):
            every = best_of_all(
                table, s, limits[s], lambda t: not repeats(t, size), alpha=ALPHAS[seed // 2 % 4]
            )
            assert_same(own, every[:3])
        for own in find(table, sentences, limits, beam_size=3, no_repeat_ngram=size, **options):
            assert own
            assert not any(repeats(hypothesis.tokens, size) for hypothesis in own)


# --- groups ------------------------------------------------------------------------------------------------


def plain_groups(
    table: Table, sentence: int, longest: int, beam_size: int, groups: int, diversity: float
) -> list[dict[tuple[int, ...], float]]:
    """Diverse beam search in lists, without stopping early: what won a place in each group."""
    size = beam_size // groups
    alive: list[list[tuple[float, tuple[int, ...]]]] = [[(0.0, ())] for _ in range(groups)]
    finished: list[dict[tuple[int, ...], float]] = [{} for _ in range(groups)]
    for length in range(1, longest + 1):
        taken: list[int] = []
        for group in range(groups):
            candidates = []
            for total, prefix in alive[group]:
                for token in range(table.vocabulary):
                    if token == END or (token != BEGIN and length < longest):
                        after = total + table.log_prob(sentence, prefix, token)
                        candidates.append((after - diversity * taken.count(token), after, prefix, token))
            candidates.sort(reverse=True)
            best = candidates[: size - len(finished[group])]
            alive[group] = [(total, (*prefix, token)) for _, total, prefix, token in best if token != END]
            finished[group] |= {prefix: total for _, total, prefix, token in best if token == END}
            taken += [token for _, _, _, token in best]
    return finished


@pytest.mark.parametrize(("beam_size", "groups"), [(2, 2), (4, 2), (6, 2), (6, 3), (4, 4)])
@pytest.mark.parametrize("diversity", [0.0, 0.5, 10.0])
def test_diverse_groups_are_the_plain_algorithm(beam_size: int, groups: int, diversity: float) -> None:
    for seed in range(10):
        table, sentences, limits = case(2 * seed)
        options: dict[str, Any] = dict(beam_size=beam_size, groups=groups, diversity=diversity)
        found = find(table, sentences, limits, n_best=beam_size, **options)
        for s, own in enumerate(found):
            expected: dict[tuple[int, ...], float] = {}
            for won in plain_groups(table, s, limits[s][1], **options):
                expected |= won
            assert_same(own, ranked(expected, 0.0))


def test_groups_without_diversity_find_the_same_and_give_it_once() -> None:
    for seed in range(5):
        table, sentences, limits = case(2 * seed)
        alone = find(table, sentences, limits, beam_size=2, n_best=2)
        assert find(table, sentences, limits, beam_size=6, groups=3, n_best=6) == alone


def test_a_first_group_is_a_beam_of_its_size() -> None:
    for seed in range(5):
        table, sentences, limits = case(2 * seed)
        alone = find(table, sentences, limits, beam_size=2, n_best=2)
        found = find(table, sentences, limits, beam_size=4, groups=2, diversity=1.0, n_best=4)
        for own, first in zip(found, alone, strict=True):
            assert set(first) <= set(own)


@pytest.mark.parametrize("options", [dict(groups=3), dict(groups=0), dict(groups=5)])
def test_groups_that_do_not_divide_the_beam(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="does not divide beam_size = 4"):
        Beam(4, end=END, **options)


# --- together ----------------------------------------------------------------------------------------------

OPTIONS: list[dict[str, Any]] = [
    dict(beam_size=3, n_best=2, no_repeat_ngram=2),
    dict(beam_size=1, no_repeat_ngram=1),
    dict(beam_size=4, n_best=4, groups=2, diversity=0.7, alpha=1.0),
    dict(beam_size=6, n_best=3, groups=3, diversity=2.0, no_repeat_ngram=2, normalization="average"),
]


@pytest.mark.parametrize("covered", [False, True])
@pytest.mark.parametrize("options", OPTIONS)
def test_a_sentence_alone_and_in_any_company(options: dict[str, Any], covered: bool) -> None:
    """Bit for bit."""
    for seed in range(2):
        random = np.random.default_rng([seed, 5])
        count, longest = 13, 6
        table = Table(seed, count, 5, longest, peaked=2.0)
        most = random.integers(1, longest + 1, size=count).tolist()
        limits = [(1 + seed % 2 * (limit // 2), limit) for limit in most]
        if covered:
            options = options | dict(attention=Attention(table, seed, 0.8))
        alone = [find(table, [s], [limits[s]], **options)[0] for s in range(count)]
        assert all(alone)
        order = random.permutation(count).tolist()
        for room in (None, 1, 2, 5):
            found = find(table, order, [limits[s] for s in order], room=room, **options)
            assert found == [alone[s] for s in order]
