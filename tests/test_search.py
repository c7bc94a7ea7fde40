"""Beam search over random tables: against enumeration, against plain readings, and alone against together."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from nmt.beam import Beam, beam_search
from nmt.search import Hypothesis, Sentence, length_penalty
from nmt.top_k import top_k

pytestmark = pytest.mark.usefixtures("one_thread")

BEGIN, END = 0, 1
ALPHAS = (0.0, 0.6, 1.0, 2.0)


# --- a model that is a table -------------------------------------------------------------------------------


class Table:
    """A log-probability for every (sentence, prefix, token), for prefixes shorter than `longest`.

    Prefixes are numbered: the empty one 0, prefix p with token t after it p * vocabulary + t + 1.
    """

    def __init__(self, seed: int, sentences: int, vocabulary: int, longest: int, *, peaked: float = 1.0):
        random = np.random.default_rng(seed)
        rows = sum(vocabulary**length for length in range(longest))
        logits = torch.from_numpy(random.standard_normal((sentences, rows, vocabulary))) * peaked
        self.log_probs_BPV = logits.log_softmax(dim=-1)
        self.vocabulary = vocabulary
        self.calls = 0

    def start(self, sentences: list[int]) -> TableState:
        places = torch.zeros(len(sentences), 1, dtype=torch.long)
        return TableState(torch.tensor(sentences), places, places[:, 0])

    def step(
        self, token_BK: Tensor, state: TableState, live_N: Tensor | None
    ) -> tuple[list[tuple[Tensor, Tensor]], TableState]:
        self.calls += 1
        fresh_B1 = state.length_B[:, None] == 0
        assert torch.equal(token_BK[fresh_B1[:, 0]], torch.full_like(token_BK[fresh_B1[:, 0]], BEGIN))
        prefix_BK = torch.where(fresh_B1, state.prefix_BK, state.prefix_BK * self.vocabulary + token_BK + 1)
        sentence_BK = state.sentence_B[:, None].expand_as(prefix_BK)
        next_state = replace(state, prefix_BK=prefix_BK, length_B=state.length_B + 1)
        assert live_N is not None
        live_sentence_N, live_prefix_N = sentence_BK.flatten()[live_N], prefix_BK.flatten()[live_N]
        # The search may overwrite what it gets; indexing has made a copy.
        log_probs_NV = self.log_probs_BPV[live_sentence_N, live_prefix_N]
        total_N1 = log_probs_NV.new_zeros(len(live_N), 1)
        return [(log_probs_NV[:3], total_N1[:3]), (log_probs_NV[3:], total_N1[3:])], next_state

    def log_prob(self, sentence: int, prefix: tuple[int, ...], token: int) -> float:
        number = 0
        for earlier in prefix:
            number = number * self.vocabulary + earlier + 1
        return float(self.log_probs_BPV[sentence, number, token])


@dataclass(frozen=True)
class TableState:
    sentence_B: Tensor
    prefix_BK: Tensor
    length_B: Tensor

    def select(self, beam_BK: Tensor) -> TableState:
        return replace(self, prefix_BK=self.prefix_BK.gather(1, beam_BK))

    def keep(self, sentences_B: Tensor) -> TableState:
        return TableState(*(x[sentences_B] for x in (self.sentence_B, self.prefix_BK, self.length_B)))

    def put(self, sentences_R: Tensor, other: TableState) -> TableState:
        pairs = (self.sentence_B, other.sentence_B), (self.prefix_BK, other.prefix_BK)
        lengths = (self.length_B, other.length_B)
        return TableState(*(x.index_copy(0, sentences_R, new) for x, new in (*pairs, lengths)))


def search(
    table: Table,
    sentences: list[int],
    max_lengths: list[int],
    *,
    room: int | None = None,
    beam_size: int,
    **options: Any,
) -> list[list[Hypothesis]]:
    """In the order of the sentences."""
    found: list[list[Hypothesis]] = [[] for _ in sentences]
    for index, hypotheses in beam_search(
        table.step,
        lambda indices: table.start([sentences[i] for i in indices]),
        [Sentence(most) for most in max_lengths],
        Beam(beam_size, end=END, **options),
        begin=BEGIN,
        room=room,
    ):
        assert not found[index]
        found[index] = hypotheses
    return found


# --- plain readings ----------------------------------------------------------------------------------------


def enumerate_all(
    table: Table, sentence: int, longest: int, forbidden: set[int]
) -> dict[tuple[int, ...], float]:
    """Every translation of at most `longest` tokens, `END` included, with its log-probability."""
    number_of = {(): 0}
    rows: npt.NDArray[np.float64] = table.log_probs_BPV[sentence].numpy()
    found = {}
    level: dict[tuple[int, ...], float] = {(): 0.0}
    for length in range(1, longest + 1):
        following = {}
        for prefix, total in level.items():
            row = rows[number_of[prefix]].tolist()
            found[prefix] = total + row[END]
            if length == longest:
                continue
            for token, log_prob in enumerate(row):
                if token != END and token not in forbidden:
                    extended = (*prefix, token)
                    number_of[extended] = number_of[prefix] * table.vocabulary + token + 1
                    following[extended] = total + log_prob
        level = following
    return found


def greedy(table: Table, sentence: int, longest: int, forbidden: set[int]) -> tuple[int, ...]:
    prefix: tuple[int, ...] = ()
    while len(prefix) < longest - 1:
        allowed = [token for token in range(table.vocabulary) if token not in forbidden]
        best = max(allowed, key=lambda token: table.log_prob(sentence, prefix, token))
        if best == END:
            break
        prefix = (*prefix, best)
    return prefix


def plain_beam(
    table: Table, sentence: int, longest: int, forbidden: set[int], beam_size: int
) -> dict[tuple[int, ...], float]:
    """The docstring of `beam_search` in lists, without stopping early: all that won a place."""
    alive: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    finished: dict[tuple[int, ...], float] = {}
    for length in range(1, longest + 1):
        candidates = []
        for total, prefix in alive:
            for token in range(table.vocabulary):
                if token == END or (token not in forbidden and length < longest):
                    candidates.append((total + table.log_prob(sentence, prefix, token), prefix, token))
        candidates.sort(reverse=True)
        alive_next = []
        for total, prefix, token in candidates[: beam_size - len(finished)]:
            if token == END:
                finished[prefix] = total
            else:
                alive_next.append((total, (*prefix, token)))
        alive = alive_next
    return finished


def ranked(found: dict[tuple[int, ...], float], alpha: float) -> list[tuple[tuple[int, ...], float, float]]:
    rows = [
        (tokens, total, total / length_penalty(len(tokens) + 1, alpha)) for tokens, total in found.items()
    ]
    return sorted(rows, key=lambda row: -row[2])


def assert_same(found: list[Hypothesis], expected: list[tuple[tuple[int, ...], float, float]]) -> None:
    assert [h.tokens for h in found] == [tokens for tokens, _, _ in expected]
    for hypothesis, (_, total, score) in zip(found, expected, strict=True):
        assert hypothesis.log_probability == pytest.approx(total, rel=1e-12)
        assert hypothesis.score == pytest.approx(score, rel=1e-12)


def random_case(seed: int, *, places: int = 1400) -> tuple[Table, list[int], list[int], set[int]]:
    """A table, its sentences, their maximal lengths and forbidden ids; few enough translations to list."""
    random = np.random.default_rng([seed, 7])
    vocabulary = int(random.integers(3, 7))
    forbidden = [{BEGIN}, {BEGIN}, {BEGIN, vocabulary - 1}, set()][int(random.integers(4))]
    branches = vocabulary - 1 - len(forbidden)
    longest = int(random.integers(1, 7))
    while sum(branches**length for length in range(longest)) > places:
        longest -= 1
    max_lengths = random.integers(1, longest + 1, size=5).tolist()
    table = Table(seed, 5, vocabulary, longest, peaked=float(random.choice([0.3, 1.0, 3.0])))
    return table, list(range(5)), max_lengths, forbidden


# --- the tests ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("part", range(5))
def test_a_large_beam_finds_what_enumeration_finds(alpha: float, part: int) -> None:
    """4 x 5 x 5 batches of 5 sentences: 500 cases."""
    for seed in range(5 * part, 5 * part + 5):
        seed += 1000 * ALPHAS.index(alpha)
        table, sentences, max_lengths, forbidden = random_case(seed)
        every = [enumerate_all(table, s, max_lengths[s], forbidden) for s in sentences]
        beam_size = max(map(len, every))
        n_best = [1, min(3, beam_size), beam_size][seed % 3]
        found = search(
            table,
            sentences,
            max_lengths,
            beam_size=beam_size,
            alpha=alpha,
            n_best=n_best,
            forbidden=sorted(forbidden),
        )
        for own, translations in zip(found, every, strict=True):
            assert_same(own, ranked(translations, alpha)[:n_best])


@pytest.mark.parametrize("alpha", ALPHAS)
def test_a_small_beam_is_the_plain_algorithm(alpha: float) -> None:
    for seed in range(40):
        seed += 1000 * ALPHAS.index(alpha)
        table, sentences, max_lengths, forbidden = random_case(seed, places=10_000)
        beam_size = 1 + seed % 5
        n_best = 1 + seed % beam_size
        found = search(
            table,
            sentences,
            max_lengths,
            beam_size=beam_size,
            alpha=alpha,
            n_best=n_best,
            forbidden=sorted(forbidden),
        )
        for sentence, own in enumerate(found):
            won = plain_beam(table, sentence, max_lengths[sentence], forbidden, beam_size)
            assert_same(own, ranked(won, alpha)[:n_best])


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_beam_of_one_is_greedy(alpha: float) -> None:
    for seed in range(40):
        table, sentences, max_lengths, forbidden = random_case(seed, places=10_000)
        found = search(table, sentences, max_lengths, beam_size=1, alpha=alpha, forbidden=sorted(forbidden))
        for sentence, own in enumerate(found):
            assert [h.tokens for h in own] == [greedy(table, sentence, max_lengths[sentence], forbidden)]


@pytest.mark.parametrize("beam_size", [1, 2, 4, 9])
def test_a_sentence_alone_and_in_any_company(beam_size: int) -> None:
    """Bit for bit, in batches so large that sentences leave one by one and in groups."""
    for seed in range(4):
        random = np.random.default_rng([seed, beam_size])
        count, longest = 21, 6
        table = Table(seed, count, 5, longest, peaked=2.0)
        max_lengths = random.integers(1, longest + 1, size=count).tolist()
        options: dict[str, Any] = dict(
            beam_size=beam_size, n_best=min(beam_size, 3), alpha=ALPHAS[seed % 4], forbidden=[BEGIN]
        )
        alone = [search(table, [s], [max_lengths[s]], **options)[0] for s in range(count)]
        assert search(table, list(range(count)), max_lengths, **options) == alone
        order = random.permutation(count).tolist()
        shuffled = search(table, order, [max_lengths[s] for s in order], **options)
        assert shuffled == [alone[s] for s in order]
        for room in (1, 2, 5, 20):
            assert search(table, order, [max_lengths[s] for s in order], room=room, **options) == shuffled
        some = order[:5]
        assert search(table, some, [max_lengths[s] for s in some], **options) == [alone[s] for s in some]


@pytest.mark.parametrize("beam_size", [1, 3, 8])
def test_what_every_result_keeps(beam_size: int) -> None:
    for seed in range(30):
        table, sentences, max_lengths, forbidden = random_case(seed + 500, places=10_000)
        alpha, n_best = ALPHAS[seed % 4], 1 + seed % beam_size
        found = search(
            table,
            sentences,
            max_lengths,
            beam_size=beam_size,
            alpha=alpha,
            n_best=n_best,
            forbidden=sorted(forbidden),
        )
        for sentence, own in enumerate(found):
            assert 1 <= len(own) <= n_best
            assert len({h.tokens for h in own}) == len(own)
            scores = [h.score for h in own]
            assert scores == sorted(scores, reverse=True)
            for hypothesis in own:
                tokens = hypothesis.tokens
                assert len(tokens) + 1 <= max_lengths[sentence]
                assert not forbidden.intersection(tokens)
                assert END not in tokens
                total = sum(
                    table.log_prob(sentence, tokens[:position], token)
                    for position, token in enumerate((*tokens, END))
                )
                assert hypothesis.log_probability == pytest.approx(total, rel=1e-12)
                penalty = ((5 + len(tokens) + 1) / 6) ** alpha
                assert hypothesis.score == pytest.approx(total / penalty, rel=1e-12)


def test_length_of_one_leaves_only_the_end() -> None:
    table = Table(1, 3, 4, 1)
    for found in search(table, [0, 1, 2], [1, 1, 1], beam_size=3, n_best=3):
        assert [h.tokens for h in found] == [()]
    assert table.calls == 1


def test_search_stops_when_nothing_can_win() -> None:
    """The end has almost all the probability, so one step is enough, however long it might go on."""
    table = Table(2, 2, 4, 6)
    table.log_probs_BPV[:, :, :] = math.log(1e-6)
    table.log_probs_BPV[:, :, END] = math.log(1 - 3e-6)
    assert [h[0].tokens for h in search(table, [0, 1], [6, 6], beam_size=4)] == [(), ()]
    assert table.calls == 1


def test_length_penalty_prefers_the_longer() -> None:
    """Two translations: () at -1, (2,) at -1.1; the penalty of Wu et al. turns their order."""
    table = Table(3, 1, 3, 2)
    table.log_probs_BPV[:] = -math.inf
    table.log_probs_BPV[0, 0] = torch.tensor([-math.inf, -1.0, -1.1])
    table.log_probs_BPV[0, 3, END] = 0.0  # after token 2
    without, with_penalty = (
        search(table, [0], [2], beam_size=2, n_best=2, alpha=alpha)[0] for alpha in (0.0, 1.0)
    )
    assert [h.tokens for h in without] == [(), (2,)]
    assert [h.tokens for h in with_penalty] == [(2,), ()]
    assert with_penalty[0].score == pytest.approx(-1.1 * 6 / 7)


def test_length_penalty_formula() -> None:
    assert length_penalty(1, 0.6) == 1.0
    assert length_penalty(7, 0.0) == 1.0
    assert length_penalty(7, 1.0) == pytest.approx(2.0)
    assert length_penalty(19, 0.5) == pytest.approx(2.0)


def test_no_sentences() -> None:
    assert search(Table(4, 1, 4, 1), [], [], beam_size=2) == []


@pytest.mark.parametrize(("n_best", "beam_size"), [(3, 2), (0, 2), (-1, 2), (1, 0), (0, 0)])
def test_n_best_out_of_range(n_best: int, beam_size: int) -> None:
    table = Table(5, 1, 4, 2)
    with pytest.raises(ValueError, match=f"n_best = {n_best} .* beam_size = {beam_size}"):
        search(table, [0], [2], beam_size=beam_size, n_best=n_best)


# --- top_k -------------------------------------------------------------------------------------------------


def assert_top_k(x: Tensor, k: int) -> None:
    values, indices = top_k(x, k)
    assert torch.equal(values, x.topk(k, dim=-1).values)
    assert torch.equal(x.gather(-1, indices), values)
    ordered = indices.sort(dim=-1).values  # among equals any index will do, but each only once
    assert (ordered[..., 1:] > ordered[..., :-1]).all()


@pytest.mark.parametrize("k", [1, 2, 5, 13, 20])
@pytest.mark.parametrize("size", [20, 63, 64, 65, 640, 1000, 8000, 12_345, 20_480])
def test_top_k(size: int, k: int) -> None:
    generator = torch.Generator().manual_seed(size + k)
    for shape in ((size,), (3, size), (2, 3, size)):
        assert_top_k(torch.randn(shape, generator=generator), k)
        assert_top_k(torch.randint(0, 50, shape, generator=generator).float(), k)
    transposed = torch.randn((size, 3), generator=generator).t()
    assert_top_k(transposed, k)


@pytest.mark.parametrize("k", [1, 4, 20])
@pytest.mark.parametrize("size", [640, 8000, 12_345, 20_481])
@pytest.mark.parametrize("finite", [0, 1, 3, 30])
def test_top_k_with_impossible_entries(size: int, k: int, finite: int) -> None:
    generator = torch.Generator().manual_seed(size + k + finite)
    x = torch.full((4, size), -math.inf)
    for row in x:
        places = torch.randperm(size, generator=generator)[:finite]
        row[places] = torch.randn(finite, generator=generator)
    x[0, -1] = 3.0  # in the part that fills no block
    assert_top_k(x, k)


def test_top_k_takes_all_from_one_block() -> None:
    x = torch.zeros(1, 12_800)
    x[0, 640:660] = torch.arange(20.0) + 1
    assert top_k(x, 20)[1].tolist() == [list(range(659, 639, -1))]
