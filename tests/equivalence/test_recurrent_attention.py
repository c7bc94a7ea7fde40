"""Additive attention and Luong's scores and windows against a plain NumPy reading of the papers.

B sentences, Q queries, S source positions, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from papers import (
    CLOSE,
    Array,
    additive_weights,
    luong_weights,
    padding_mask,
    randomize,
    weighted_sum,
    weights_of,
    words_in_window,
)
from torch import Tensor

from nmt.models.attention import AdditiveAttention, LuongAttention

SEEDS = range(50)
SCORES = ["dot", "general", "concat", "location"]
WINDOWS = ["global", "local-m", "local-p"]


@pytest.mark.parametrize("seed", SEEDS)
def test_additive_attention(seed: int) -> None:
    random = np.random.default_rng([seed, 1])
    sentences, queries, longest, query_width, key_width, width = random.integers(1, 7, size=6).tolist()
    longest += 2
    lengths = random.integers(1, longest, size=sentences).tolist()  # padding even of the longest
    attention = AdditiveAttention(query_width, key_width, width).double()
    randomize(attention, seed)
    query_BQD = random.standard_normal((sentences, queries, query_width))
    value_BSD = random.standard_normal((sentences, longest, key_width))
    with torch.no_grad():
        keys_BSA = attention.project_keys(torch.from_numpy(value_BSD))
        context_BQD, weights_BQS = attention(
            torch.from_numpy(query_BQD), keys_BSA, torch.from_numpy(value_BSD), padding_mask(lengths, longest)
        )
    assert context_BQD.shape == (sentences, queries, key_width)
    for b, length in enumerate(lengths):
        annotations = list(value_BSD[b, :length])
        for q in range(queries):
            alpha = additive_weights(weights_of(attention), query_BQD[b, q], annotations)
            np.testing.assert_allclose(weights_BQS[b, q, :length], alpha, **CLOSE)
            np.testing.assert_allclose(context_BQD[b, q], weighted_sum(alpha, annotations), **CLOSE)
        assert not weights_BQS[b, :, length:].any()


# --- Luong -----------------------------------------------------------------------------------------------


@dataclass
class Case:
    """An attention of random shape, what it reads, and the target position of each query, from 1."""

    attention: LuongAttention
    size: int  # of the window: D
    query_BQD: Tensor
    value_BSD: Tensor
    lengths: list[int]
    position_Q: Tensor

    @property
    def mask_BS(self) -> Tensor:
        return padding_mask(self.lengths, self.value_BSD.size(1))

    @property
    def positions(self) -> list[int]:
        """One a query."""
        return self.position_Q.expand(self.query_BQD.size(1)).tolist()

    def attend(self) -> tuple[Tensor, Tensor]:
        keys_BSD = self.attention.project_keys(self.value_BSD)
        context_BQD, weights_BQS = self.attention(
            self.query_BQD, keys_BSD, self.value_BSD, self.mask_BS, self.position_Q
        )
        return context_BQD, weights_BQS

    def outside(self, b: int, q: int) -> list[int]:
        """Positions from 0, padding among them, that the window of a query leaves out."""
        inside, _ = words_in_window(
            weights_of(self.attention),
            self.attention.window,
            self.size,
            self.query_BQD[b, q].detach().numpy(),
            self.lengths[b],
            self.positions[q],
        )
        return [s for s in range(self.value_BSD.size(1)) if s + 1 not in inside]


def make_case(score: str, window: str, seed: int, *, size: int = 0) -> Case:
    """Targets may be longer than their source, and windows wider than it."""
    random = np.random.default_rng([seed, 2])
    sentences, queries, width = random.integers(1, 6, size=3).tolist()
    longest = int(random.integers(2, 13))
    size = size or int(random.integers(1, 5))
    attention = LuongAttention(
        width, score=score, window=window, window_size=size, max_positions=longest + int(random.integers(3))
    ).double()
    randomize(attention, seed, scale=1.0)
    first = int(random.integers(1, longest + 1))
    together = seed % 3 == 0  # the hypotheses of a step stand at one position
    return Case(
        attention,
        size,
        torch.from_numpy(random.standard_normal((sentences, queries, width))),
        torch.from_numpy(random.standard_normal((sentences, longest, width))),
        random.integers(1, longest, size=sentences).tolist(),
        torch.tensor([first]) if together else torch.arange(first, first + queries),
    )


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("seed", SEEDS)
def test_luong_attention(score: str, window: str, seed: int) -> None:
    case = make_case(score, window, seed)
    with torch.no_grad():
        context_BQD, weights_BQS = case.attend()
    for b, length in enumerate(case.lengths):
        source: list[Array] = list(case.value_BSD[b, :length].numpy())
        for q, t in enumerate(case.positions):
            target_state = case.query_BQD[b, q].numpy()
            a = luong_weights(
                weights_of(case.attention), score, window, case.size, target_state, source, int(t)
            )
            np.testing.assert_allclose(weights_BQS[b, q, :length], a, **CLOSE)
            np.testing.assert_allclose(context_BQD[b, q], weighted_sum(a, source), **CLOSE)
        assert not weights_BQS[b, :, length:].any()


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("score", SCORES)
def test_rows_sum_to_one_or_with_the_gaussian_to_less(score: str, window: str) -> None:
    for seed in range(10):
        _, weights_BQS = make_case(score, window, seed).attend()
        sums_BQ = weights_BQS.sum(dim=-1)
        assert (weights_BQS >= 0).all()
        if window == "local-p":
            assert (sums_BQ <= 1).all()
            assert (sums_BQ > 0).all()
            assert (sums_BQ < 0.99).any()  # the paper does not scale them back to 1
        else:
            torch.testing.assert_close(sums_BQ, torch.ones_like(sums_BQ), **CLOSE)


@pytest.mark.parametrize("window", ["local-m", "local-p"])
@pytest.mark.parametrize("score", SCORES)
def test_nothing_outside_of_the_window_matters(score: str, window: str) -> None:
    """Weights and derivatives by the source states are exactly 0 there, inside they are not."""
    left_out = 0
    for seed in range(12):
        case = make_case(score, window, seed, size=1 + seed % 2)
        case.value_BSD.requires_grad_()
        context_BQD, weights_BQS = case.attend()
        for b, q in np.ndindex(*weights_BQS.shape[:2]):
            outside = case.outside(b, q)
            inside = [s for s in range(weights_BQS.size(2)) if s not in outside]
            assert 1 <= len(inside) <= 2 * case.size + 1
            assert not weights_BQS[b, q, outside].any()
            assert weights_BQS[b, q, inside].all()
            (derivative_BSD,) = torch.autograd.grad(
                context_BQD[b, q].square().sum(), case.value_BSD, retain_graph=True
            )
            assert not derivative_BSD[b, outside].any()
            assert derivative_BSD[b, inside].any(dim=-1).all()
            assert not derivative_BSD[[other for other in range(len(case.lengths)) if other != b]].any()
            left_out += len(set(outside) & set(range(case.lengths[b])))
    assert left_out > 100  # words, not padding: or the above would say nothing


@pytest.mark.parametrize("score", SCORES)
def test_the_predicted_position_is_learned(score: str) -> None:
    """W_p and v_p get the derivatives of finite differences, also where the score has no weights."""
    case = make_case(score, "local-p", 5, size=2)
    weight = torch.randn(
        case.query_BQD.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )

    def loss() -> Tensor:
        return (case.attend()[0] * weight).sum()

    for layer in (case.attention.predictor, case.attention.predictor_energy):
        (derivative,) = torch.autograd.grad(loss(), layer.weight)
        assert derivative.abs().amin() > 0
        with torch.no_grad():
            for index in np.ndindex(*layer.weight.shape):
                value = layer.weight[index].item()
                around = []
                for shift in (1e-6, -1e-6):
                    layer.weight[index] = value + shift
                    around.append(loss().item())
                layer.weight[index] = value
                assert derivative[index].item() == pytest.approx((around[0] - around[1]) / 2e-6, abs=1e-7)


@pytest.mark.parametrize("window", WINDOWS)
def test_scores_of_hundreds_do_not_overflow(window: str) -> None:
    case = make_case("general", window, 3)
    case.query_BQD = case.query_BQD * 1e3
    context_BQD, weights_BQS = case.attend()
    assert context_BQD.isfinite().all()
    assert weights_BQS.isfinite().all()
    assert (weights_BQS.sum(dim=-1) > 0).all()


@pytest.mark.parametrize("window", WINDOWS)
def test_one_word(window: str) -> None:
    """A source of one word gets the whole weight, less what the Gaussian takes."""
    attention = LuongAttention(4, score="general", window=window, window_size=1).double()
    randomize(attention, 7)
    value_BSD = torch.randn(2, 3, 4, dtype=torch.float64)
    mask_BS = padding_mask([1, 1], 3)
    query_BQD = torch.randn(2, 5, 4, dtype=torch.float64)
    _, weights_BQS = attention(
        query_BQD, attention.project_keys(value_BSD), value_BSD, mask_BS, torch.arange(1, 6)
    )
    assert not weights_BQS[..., 1:].any()
    if window == "local-p":
        energy_BQ = attention.predictor_energy(torch.tanh(attention.predictor(query_BQD))).squeeze(-1)
        gaussian_BQ = torch.exp(-2 * (1 - energy_BQ.sigmoid()) ** 2)
        torch.testing.assert_close(weights_BQS[..., 0], gaussian_BQ)
    else:
        torch.testing.assert_close(weights_BQS[..., 0], torch.ones_like(weights_BQS[..., 0]))


@pytest.mark.parametrize("window", WINDOWS)
def test_a_source_beyond_the_location_table(window: str) -> None:
    attention = LuongAttention(4, score="location", window=window, max_positions=6)
    query_BQD = torch.randn(1, 1, 4)
    for length in (6, 7):
        value_BSD = torch.randn(1, length, 4)
        mask_BS = torch.ones(1, length, dtype=torch.bool)
        arguments = query_BQD, attention.project_keys(value_BSD), value_BSD, mask_BS, torch.tensor([1])
        if length == 6:
            assert attention(*arguments)[1].shape == (1, 1, 6)
        else:
            with pytest.raises(ValueError, match=r"source of 7 tokens .*model\.max_positions = 6"):
                attention(*arguments)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("score", SCORES)
def test_dropout_is_on_the_weights(score: str, window: str) -> None:
    """Each weight is dropped or doubled in the context; the weights that come back are whole."""
    case = make_case(score, window, 8)
    _, evaluated_BQS = case.attend()
    case.attention.dropout = 0.5
    length = case.value_BSD.size(1)
    # With unit vectors as values the context is the row of dropped weights.
    unit_BSD = torch.eye(length, dtype=torch.float64).expand(len(case.lengths), -1, -1)
    keys_BSD = case.attention.project_keys(case.value_BSD)
    case.attention.train()
    torch.manual_seed(1)
    context_BQS, weights_BQS = case.attention(
        case.query_BQD, keys_BSD, unit_BSD, case.mask_BS, case.position_Q
    )
    torch.testing.assert_close(weights_BQS, evaluated_BQS)
    is_kept = context_BQS != 0
    torch.testing.assert_close(context_BQS[is_kept], 2 * evaluated_BQS[is_kept])
    assert 0 < is_kept.sum() < (evaluated_BQS != 0).sum()
