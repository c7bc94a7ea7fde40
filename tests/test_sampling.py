"""Sampling: frequencies against exact distributions of tables, and the same draws in any company."""

from __future__ import annotations

import math
from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from small_models import SOURCE_VOCABULARY, make
from test_search import BEGIN, END, Table
from torch import Tensor

from nmt.config import SearchConfig
from nmt.sampling import PLACES, Draws, Sampling, random_bits, sample, seed_of, truncated_weights
from nmt.search import Hypothesis, Rows, Sentence, length_penalty
from nmt.translator import Translator

FORBIDDEN = (BEGIN,)
DRAWS = [
    Draws(),
    Draws(temperature=0.5),
    Draws(temperature=3.0),
    Draws(top_k=2),
    Draws(top_p=0.6),
    Draws(temperature=1.5, top_k=3, top_p=0.8),
]


def drawn(
    table: Table, sentences: list[Sentence], numbers: list[int] | None = None, **options: Any
) -> list[list[Hypothesis]]:
    """Samples of sentences that are these numbers of the table."""
    numbers = list(range(len(sentences))) if numbers is None else numbers
    draws = options.pop("draws", Draws())
    found: list[list[Hypothesis]] = [[] for _ in sentences]
    options = dict(begin=BEGIN, end=END, forbidden=FORBIDDEN) | options
    for index, samples in sample(
        table.step, lambda indices: table.start([numbers[i] for i in indices]), sentences, draws, **options
    ):
        assert not found[index]
        found[index] = samples
    return found


# --- plain readings ----------------------------------------------------------------------------------------


def truncated(weights: list[float], draws: Draws) -> list[float]:
    """The definitions of temperature, top-k and top-p; without ties."""
    weights = [weight ** (1 / draws.temperature) for weight in weights]
    order = sorted(range(len(weights)), key=lambda token: -weights[token])
    if draws.top_k is not None:
        order = order[: draws.top_k]
    if draws.top_p is not None:
        total, sofar, kept = sum(weights[token] for token in order), 0.0, []
        for token in order:
            if sofar >= draws.top_p * total:
                break
            kept.append(token)
            sofar += weights[token]
        order = kept
    total = sum(weights[token] for token in order)
    return [weight / total if token in order else 0.0 for token, weight in enumerate(weights)]


def distribution(table: Table, draws: Draws, *, most: int, least: int = 1) -> dict[tuple[int, ...], float]:
    """Each translation of the first sentence with the probability of being drawn."""
    found: dict[tuple[int, ...], float] = {}

    def extend(prefix: tuple[int, ...], probability: float) -> None:
        length = len(prefix) + 1
        if length == most:
            found[prefix] = probability
            return
        banned = {*FORBIDDEN, *([END] if length < least else [])}
        weights = [
            0.0 if token in banned else math.exp(table.log_prob(0, prefix, token))
            for token in range(table.vocabulary)
        ]
        for token, share in enumerate(truncated(weights, draws)):
            if share and token == END:
                found[prefix] = probability * share
            elif share:
                extend((*prefix, token), probability * share)

    extend((), 1.0)
    return found


# --- what is drawn -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("draws", DRAWS, ids=repr)
@pytest.mark.parametrize("least", [1, 3])
def test_frequencies_are_those_of_the_model(draws: Draws, least: int) -> None:
    table, count = Table(1, 1, 5, 3, peaked=1.5), 6000
    draws = Draws(count, draws.temperature, draws.top_k, draws.top_p, seed=7)
    expected = distribution(table, draws, most=3, least=least)
    assert sum(expected.values()) == pytest.approx(1)
    (samples,) = drawn(table, [Sentence(3, least, seed=5)], draws=draws)
    assert len(samples) == count
    frequency = Counter(one.tokens for one in samples)
    assert set(frequency) <= set(expected)  # nothing outside what top-k and top-p leave
    often = [tokens for tokens, probability in expected.items() if probability * count >= 5]
    chi_square = sum((frequency[t] - expected[t] * count) ** 2 / (expected[t] * count) for t in often)
    freedom = len(often) - 1
    assert chi_square < freedom + 4 * math.sqrt(2 * freedom)


@pytest.mark.parametrize("draws", DRAWS, ids=repr)
def test_log_probabilities_are_those_of_the_model_itself(draws: Draws) -> None:
    table = Table(2, 4, 5, 5)
    draws = Draws(20, draws.temperature, draws.top_k, draws.top_p)
    sentences = [Sentence(most, least, seed=most) for most, least in ((1, 1), (3, 1), (5, 4), (4, 4))]
    for number, samples in enumerate(
        drawn(table, sentences, draws=draws, alpha=0.7, normalization="average")
    ):
        assert len(samples) == 20
        for hypothesis in samples:
            tokens = hypothesis.tokens
            assert sentences[number].least <= len(tokens) + 1 <= sentences[number].most
            assert not {*FORBIDDEN, END}.intersection(tokens)
            total = sum(
                table.log_prob(number, tokens[:position], token)
                for position, token in enumerate((*tokens, END))
            )
            assert hypothesis.log_probability == pytest.approx(total, rel=1e-12)
            assert hypothesis.score == pytest.approx(
                total / length_penalty(len(tokens) + 1, 0.7, "average"), rel=1e-12
            )


@pytest.mark.parametrize("size", [5, 64, 65, 200, 1000])
@pytest.mark.parametrize("scale", [0.1, 3.0, 30.0])
@pytest.mark.parametrize(
    "draws",
    [
        *(Draws(top_k=k) for k in (1, 4, 100)),
        *(Draws(top_p=p) for p in (1e-9, 0.3, 0.9, 0.999)),
        Draws(temperature=0.3, top_p=0.9),
        Draws(temperature=0.001),
        Draws(temperature=1000.0),
        Draws(top_k=70, top_p=0.95),
        Draws(top_k=3, top_p=0.5),
    ],
    ids=repr,
)
def test_truncation(size: int, scale: float, draws: Draws) -> None:
    """Narrow and wide nuclei, from one sort or several."""
    scores = torch.randn(6, size, generator=torch.Generator().manual_seed(size)).double() * scale
    scores[:, 1] = -math.inf
    found = truncated_weights(scores.clone(), draws)
    assert (found.amax(dim=1) == 1).all()
    for row, weights in zip(scores, found, strict=True):
        expected = truncated((row - row.max()).exp().tolist(), draws)
        total = float(weights.sum())
        np.testing.assert_allclose(weights / total, expected, rtol=1e-9)
        np.testing.assert_array_equal(weights > 0, np.array(expected) > 0)
    single = truncated_weights(scores.float(), draws)  # other code sorts it
    np.testing.assert_allclose(single, found, rtol=2e-4, atol=1e-30)


def test_random_bits_are_those_of_split_mix() -> None:
    """Published outputs of SplitMix64 with seed 1234567."""
    found = random_bits(torch.tensor(1234567), torch.arange(5))
    assert [number % 2**64 for number in found.tolist()] == [
        *(6457827717110365317, 3203168211198807973, 9817491932198370423),
        *(4593380528125082431, 16408922859458223821),
    ]


# --- the same again ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "draws", [Draws(), Draws(1), Draws(PLACES + 3, top_p=0.9, temperature=1.3)], ids=repr
)
def test_a_sentence_alone_and_in_any_company(draws: Draws) -> None:
    """Bit for bit."""
    random = np.random.default_rng(3)
    count, longest = 21, 6
    table = Table(3, count, 5, longest, peaked=2.0)
    draws = Draws(draws.samples if draws.samples > 1 else 5, draws.temperature, top_p=draws.top_p)
    sentences = [
        Sentence(int(most), seed=seed_of(draws.seed, [number]))
        for number, most in enumerate(random.integers(1, longest + 1, size=count))
    ]
    alone = [drawn(table, [sentences[n]], [n], draws=draws)[0] for n in range(count)]
    assert len({samples[0].tokens for samples in alone}) > 5
    assert drawn(table, sentences, draws=draws) == alone
    order = random.permutation(count).tolist()
    for room in (None, 1, 2, 5, 20, [1 + number % 7 for number in range(count)]):
        shuffled = drawn(table, [sentences[n] for n in order], order, draws=draws, room=room)
        assert shuffled == [alone[n] for n in order]


def test_first_samples_are_the_same_however_many_are_drawn() -> None:
    """Of numbers that fill a group of places, or several, or do not come out even."""
    table = Table(4, 1, 6, 4)
    (most,) = drawn(table, [Sentence(4, seed=2**64 - 3)], draws=Draws(3 * PLACES + 2))
    assert len({one.tokens for one in most}) > PLACES
    for count in (1, 2, PLACES - 1, PLACES, PLACES + 1, 2 * PLACES, 3 * PLACES - 1):
        assert drawn(table, [Sentence(4, seed=2**64 - 3)], draws=Draws(count)) == [most[:count]]


def test_another_seed_draws_others() -> None:
    table, found = Table(5, 1, 6, 5), set()
    for seed in range(20):
        (samples,) = drawn(table, [Sentence(5, seed=seed_of(seed, [3, 4]))], draws=Draws(8))
        found.add(tuple(one.tokens for one in samples))
    assert len(found) == 20


def test_seeds_of_sentences() -> None:
    assert seed_of(1, [2, 3]) == seed_of(1, [2, 3])
    others = [seed_of(1, [2, 3]), seed_of(2, [2, 3]), seed_of(1, [3, 2]), seed_of(1, [23]), seed_of(12, [3])]
    assert len(set(others)) == 5
    assert all(0 <= seed < 2**64 for seed in others)


def test_with_what_is_dead_among_the_scores() -> None:
    """As on a GPU, where the scores of all places come: those that live draw the same."""
    generator = torch.Generator().manual_seed(6)
    scores = torch.randn(3 * 4, 150, generator=generator)
    total = scores.logsumexp(dim=1, keepdim=True)
    live_N = torch.tensor([0, 2, 3, 4, 9, 11])
    found = []
    for live in (live_N, None):
        method = Sampling(4, Draws(top_p=0.9), seeds=[7, 8, 9], end=END)
        rows = Rows.empty(3, 4, BEGIN, "cpu")
        rows.put([0, 1, 2], [2, 0, 1], [Sentence(9), Sentence(1), Sentence(9, 5)], torch.ones(4) > 0)
        dead_BK = torch.ones(12, dtype=torch.bool)
        dead_BK[live_N] = False
        rows.score_BK = rows.score_BK.masked_fill(dead_BK.view(3, 4), -math.inf)
        chosen = slice(None) if live is None else live
        method.advance(rows, [(scores[chosen].clone(), total[chosen])], live)
        token = rows.token_BK.flatten()[live_N]
        found.append((token, rows.score_BK, rows.finished_BK, rows.log_prob_BK, rows.tokens_BK))
    for sparse, dense in zip(*found, strict=True):
        assert torch.equal(sparse, dense)
    assert found[0][0].tolist()[3] == END  # of the sentence of at most one token
    assert len(set(found[0][0].tolist())) > 3


def test_scores_that_are_no_numbers_end_the_search() -> None:
    table = Table(7, 3, 5, 4)
    table.log_probs_BPV[1] = math.nan
    table.log_probs_BPV[2] = -math.inf
    sound, damaged, impossible = drawn(table, [Sentence(4, seed=n) for n in range(3)], draws=Draws(4))
    assert len(sound) == 4
    assert damaged == []
    assert impossible == []


@pytest.mark.parametrize(
    "options",
    [
        *({"samples": n} for n in (0, -1)),
        *({"temperature": t} for t in (0.0, -1.0, 1e-40, 1e40, math.nan, math.inf)),
        *({"top_k": k} for k in (0, -2)),
        *({"top_p": p} for p in (0.0, -0.1, 1.1, math.nan)),
    ],
    ids=repr,
)
def test_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        Draws(**options)


# --- models ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["post-sinusoidal", "pre-learned", "recurrent-gru", "bahdanau-tied", "luong-dot-global-fed"]
)
def test_models_in_any_batch(name: str) -> None:
    model = make(name)
    sources = sources_of(24, torch.Generator().manual_seed(8))
    tokenizer: Any = SimpleNamespace(word_level=False)

    def samples_of(sources: list[list[int]], batch_tokens: int, **options: Any) -> list[list[Hypothesis]]:
        search = SearchConfig(batch_tokens=batch_tokens, max_length_offset=4, length_penalty=0.0)
        draws = Draws(5, **options)
        return Translator(model, tokenizer, tokenizer, search, draws=draws).translate_ids(sources)

    reference = samples_of(sources, 4096)
    assert len({one.tokens for samples in reference for one in samples}) > 60
    for batch_tokens in (1, 40, 200):
        assert_same(samples_of(sources, batch_tokens), reference)
    assert_same(samples_of(sources[::-1], 4096), reference[::-1])
    assert_same(samples_of(sources[3:4], 4096), reference[3:4])
    assert tokens_of(samples_of(sources, 4096, seed=2)) != tokens_of(reference)


def test_ensembles_draw_by_the_mean_of_probabilities() -> None:
    """With itself a model draws as it does alone."""
    model, tokenizer = make("pre-sinusoidal"), SimpleNamespace(word_level=False)
    sources = sources_of(5, torch.Generator().manual_seed(9))
    alone, together = (
        Translator(
            model, *([tokenizer] * 2), SearchConfig(length_penalty=0.0), draws=Draws(4), ensemble=others
        ).translate_ids(sources)
        for others in ([], [model])
    )
    assert_same(together, alone)


def sources_of(count: int, generator: torch.Generator) -> list[list[int]]:
    lengths = torch.randint(1, 9, (count,), generator=generator).tolist()
    return [integers(4, SOURCE_VOCABULARY, length, generator).tolist() for length in lengths]


def integers(low: int, high: int, count: int, generator: torch.Generator) -> Tensor:
    return torch.randint(low, high, (count,), generator=generator)


def tokens_of(found: list[list[Hypothesis]]) -> list[list[tuple[int, ...]]]:
    return [[one.tokens for one in samples] for samples in found]


def assert_same(found: list[list[Hypothesis]], reference: list[list[Hypothesis]]) -> None:
    """The same tokens; log-probabilities but for rounding."""
    assert tokens_of(found) == tokens_of(reference)
    for own, others in zip(found, reference, strict=True):
        for one, other in zip(own, others, strict=True):
            assert one.log_probability == pytest.approx(other.log_probability, abs=1e-4)
            assert one.score == one.log_probability
