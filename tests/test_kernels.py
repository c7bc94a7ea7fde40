"""The loops in C against torch: sums, the k largest, attention, int8.

N rows, B sentences, K hypotheses, S source length, T capacity in tokens, D width, F = 2D, V vocabulary.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nmt import kernels

pytestmark = pytest.mark.skipif(
    not kernels.available(), reason="C is not compiled here: pip install -e . with a compiler"
)

SEEDS = st.integers(0, 2**32 - 1)
HEAD_WIDTHS = [1, 3, 7, 16, 32, 40, 64]


def scores(seed: int, rows: int, vocabulary: int, *, spread: float, impossible: float) -> Tensor:
    """(N, V) with some entries -inf, but never all of a row."""
    generator = torch.Generator().manual_seed(seed)
    x_NV = torch.randn((rows, vocabulary), generator=generator) * spread
    x_NV[torch.rand((rows, vocabulary), generator=generator) < impossible] = -math.inf
    x_NV[torch.arange(rows), torch.randint(0, vocabulary, (rows,), generator=generator)] = spread
    return x_NV


# --- sums and the k largest --------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(
    seed=SEEDS,
    rows=st.integers(1, 5),
    vocabulary=st.one_of(st.integers(1, 200), st.sampled_from([1, 63, 64, 65, 8000])),
    spread=st.sampled_from([0.0, 1e-3, 1.0, 10.0, 1e3, 1e30]),
    impossible=st.sampled_from([0.0, 0.3, 0.99]),
)
def test_log_total(seed: int, rows: int, vocabulary: int, spread: float, impossible: float) -> None:
    x_NV = scores(seed, rows, vocabulary, spread=spread, impossible=impossible)
    before = x_NV.clone()
    found_N1 = kernels.log_total(x_NV)
    expected_N1 = x_NV.double().logsumexp(dim=-1, keepdim=True)
    assert found_N1.shape == (rows, 1)
    # Of the larger of the two terms, the largest score and the log of a sum.
    scale_N1 = x_NV.double().amax(dim=-1, keepdim=True).abs().clamp_min(1.0)
    close = 1e-6 if vocabulary <= 200 else 1e-5  # a sum of many in float32
    assert ((found_N1 - expected_N1).abs() <= close * scale_N1).all()
    assert torch.equal(x_NV, before)


@pytest.mark.parametrize("value", [-3e38, -1e4, -1.5, 0.0, 7.25, 3e38])
def test_log_total_of_one_column_is_the_score(value: float) -> None:
    x_N1 = torch.full((3, 1), value)
    assert torch.equal(kernels.log_total(x_N1), x_N1)


def test_log_total_at_the_ends_of_the_exponential() -> None:
    """Differences at which exp is rounded, clipped or 0."""
    for difference in np.linspace(0, 110, 221).tolist():
        x_NV = torch.tensor([[0.0] + [-difference] * 40])
        expected = math.log1p(40 * math.exp(-difference))
        assert kernels.log_total(x_NV).item() == pytest.approx(expected, rel=1e-6, abs=1e-6)


def plain_top_k(row: list[float], k: int) -> list[int]:
    """The k largest, largest first, of equals the first."""
    return sorted(range(len(row)), key=lambda v: (-row[v], v))[:k]


@settings(max_examples=150, deadline=None)
@given(seed=SEEDS, rows=st.integers(1, 4), vocabulary=st.integers(1, 300), data=st.data())
def test_top_k(seed: int, rows: int, vocabulary: int, data: st.DataObject) -> None:
    """Few different values, so that there are ties; k up to all, so that -inf is among the best."""
    k = data.draw(st.one_of(st.integers(1, vocabulary), st.just(vocabulary)))
    x_NV = scores(seed, rows, vocabulary, spread=3.0, impossible=data.draw(st.sampled_from([0.0, 0.2, 0.97])))
    if data.draw(st.booleans()):
        x_NV = x_NV.round()
    before = x_NV.clone()
    best_NK, token_NK = kernels.top_k(x_NV, k)
    assert torch.equal(best_NK, x_NV.topk(k, dim=-1).values)
    assert token_NK.tolist() == [plain_top_k(row, k) for row in x_NV.tolist()]
    assert torch.equal(x_NV, before)


@pytest.mark.parametrize("k", [1, 2, 5, 16])
@pytest.mark.parametrize("size", [640, 8000, 12_345])
def test_top_k_of_a_vocabulary(size: int, k: int) -> None:
    generator = torch.Generator().manual_seed(size + k)
    for x_NV in (
        torch.randn((3, size), generator=generator),
        torch.arange(size).float().expand(2, -1).contiguous(),  # every one is the best so far
        -torch.arange(size).float().expand(2, -1).contiguous(),
        torch.full((2, size), -math.inf),
        torch.zeros(2, size),
    ):
        best_NK, token_NK = kernels.top_k(x_NV, k)
        assert torch.equal(best_NK, x_NV.topk(k, dim=-1).values)
        assert token_NK.tolist() == x_NV.sort(dim=-1, descending=True, stable=True).indices[:, :k].tolist()


def test_log_total_of_what_is_not_a_number() -> None:
    """It is seen, wherever it stands; -inf is a score like others."""
    x_NV = torch.randn(4, 70)
    x_NV[1, 0] = x_NV[2, 69] = math.nan
    x_NV[3, :60] = -math.inf
    assert kernels.log_total(x_NV).isnan().flatten().tolist() == [False, True, True, False]


# --- attention ---------------------------------------------------------------------------------------------


def attention(query_D: Tensor, keys_LD: Tensor, values_LD: Tensor, heads: int) -> Tensor:
    """softmax(q k' / sqrt(n)) v of each head, in float64."""
    query_H1N = query_D.double().view(heads, 1, -1)
    keys_HLN, values_HLN = (x.double().view(len(x), heads, -1).transpose(0, 1) for x in (keys_LD, values_LD))
    weights_H1L = (query_H1N @ keys_HLN.transpose(1, 2) / math.sqrt(query_H1N.size(-1))).softmax(dim=-1)
    return (weights_H1L @ values_HLN).flatten().float()


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("head_width", [*HEAD_WIDTHS, 256])
@pytest.mark.parametrize("sharp", [1.0, 30.0])
def test_attend_to_source(head_width: int, heads: int, sharp: float) -> None:
    generator = torch.Generator().manual_seed(head_width)
    width, hypotheses, longest = heads * head_width, 3, 21
    count_B = torch.tensor([21, 1, 7, 16])
    memory_BSF = torch.randn((4, longest, 2 * width), generator=generator)
    for row, count in zip(memory_BSF, count_B.tolist(), strict=True):
        row[count:] = math.nan  # what lies behind a sentence is not to be read
    place_N = torch.tensor([11, 0, 3, 4, 5, 8, 1])  # in any order
    query_ND = torch.randn((len(place_N), width), generator=generator) * sharp
    found_ND = kernels.attend_to_source(query_ND, place_N, hypotheses, count_B, memory_BSF, heads)
    expected = []
    for query_D, sentence in zip(query_ND, (place_N // hypotheses).tolist(), strict=True):
        own_SF = memory_BSF[sentence, : int(count_B[sentence])]
        expected.append(attention(query_D, own_SF[:, :width], own_SF[:, width:], heads))
    torch.testing.assert_close(found_ND, torch.stack(expected), rtol=1e-5, atol=2e-6 * max(1.0, sharp))


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("head_width", HEAD_WIDTHS)
def test_attend_to_prefix(head_width: int, heads: int) -> None:
    """Hypotheses are reordered, some do not live, and one sentence begins anew in the place of another."""
    generator = torch.Generator().manual_seed(100 + head_width)
    width, sentences, hypotheses, most = heads * head_width, 3, 4, 9
    cache_BLF = torch.full((sentences, most * hypotheses, 2 * width), math.nan)
    ancestors_BKT = torch.zeros((sentences, hypotheses, most), dtype=torch.int32)
    length_B = torch.zeros(sentences, dtype=torch.long)
    # By hand: the keys and values of each hypothesis.
    of: dict[tuple[int, int], list[Tensor]] = {
        (b, k): [] for b in range(sentences) for k in range(hypotheses)
    }
    lives = set(of)
    for step in range(most):
        place_N = torch.tensor(sorted(b * hypotheses + k for b, k in lives))
        place_N = place_N[torch.randperm(len(place_N), generator=generator)]
        projected_NE = torch.randn((len(place_N), 3 * width), generator=generator)
        found_ND = kernels.attend_to_prefix(
            projected_NE, place_N, hypotheses, length_B, cache_BLF, ancestors_BKT, heads
        )
        expected = []
        for place, projected_E in zip(place_N.tolist(), projected_NE, strict=True):
            own = of[divmod(place, hypotheses)]
            own.append(projected_E[width:])
            own_LF = torch.stack(own)
            expected.append(attention(projected_E[:width], own_LF[:, :width], own_LF[:, width:], heads))
        torch.testing.assert_close(found_ND, torch.stack(expected), rtol=1e-5, atol=2e-6)

        length_B += 1
        beam_BK = torch.zeros((sentences, hypotheses), dtype=torch.long)
        for b in range(sentences):
            alive = [k for k in range(hypotheses) if (b, k) in lives]
            draws = torch.randint(0, len(alive), (hypotheses,), generator=generator)
            beam_BK[b] = torch.tensor(alive)[draws]
        ancestors_BKT = ancestors_BKT.gather(1, beam_BK[:, :, None].expand_as(ancestors_BKT))
        of = {(b, k): list(of[b, int(beam_BK[b, k])]) for b, k in of}
        dies = torch.rand(sentences * hypotheses, generator=generator) < 0.3
        lives = {(b, k) for b, k in of if k == step % hypotheses or not dies[b * hypotheses + k]}
        if step == 4:
            length_B[1] = 0
            of |= {(1, k): [] for k in range(hypotheses)}
            lives = {(b, k) for b, k in lives if b != 1} | {(1, 0)}
    assert length_B.tolist() == [9, 4, 9]


# --- int8 --------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(seed=SEEDS, rows=st.integers(1, 5), width=st.integers(1, 130), power=st.integers(-25, 30))
def test_quantize(seed: int, rows: int, width: int, power: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x_NI = torch.randn((rows, width), generator=generator) * 10.0**power
    x_NI[0] = 0.0
    quantized_NI, scale_N1 = kernels.quantize(x_NI)
    assert quantized_NI.dtype == torch.int8
    assert (scale_N1 > 0).all()
    error_NI = (x_NI.double() - quantized_NI.double() * scale_N1.double()).abs()
    assert (error_NI <= scale_N1.double() / 2 * (1 + 1e-5)).all()
    assert not quantized_NI[0].any()
    largest_N = quantized_NI[1:].int().abs().amax(dim=1)
    assert torch.equal(largest_N, torch.full_like(largest_N, 127))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_has_no_scale(value: float) -> None:
    for place in range(20):
        x_NI = torch.randn((2, 20), generator=torch.Generator().manual_seed(2))
        expected_N1 = kernels.quantize(x_NI)[1]
        x_NI[1, place] = value
        scale_N1 = kernels.quantize(x_NI)[1]
        assert torch.equal(scale_N1[0], expected_N1[0])
        assert not scale_N1[1].isfinite()


def test_a_row_is_quantized_as_if_alone() -> None:
    x_NI = torch.randn((7, 33), generator=torch.Generator().manual_seed(1))
    x_NI[3] *= 1e6
    quantized_NI, scale_N1 = kernels.quantize(x_NI)
    for n in range(7):
        alone_1I, scale_11 = kernels.quantize(x_NI[n : n + 1].clone())
        assert torch.equal(alone_1I[0], quantized_NI[n])
        assert torch.equal(scale_11[0], scale_N1[n])


@pytest.mark.parametrize("width", [1, 5, 16, 77])
@pytest.mark.parametrize("has_bias", [True, False])
def test_rescale(width: int, has_bias: bool) -> None:
    generator = torch.Generator().manual_seed(width)
    product_NO = torch.randint(-(2**23), 2**23, (4, width), generator=generator, dtype=torch.int32)
    scale_N1, scale_O = torch.rand((4, 1), generator=generator), torch.rand(width, generator=generator)
    bias_O = torch.randn(width, generator=generator) * 1e3 if has_bias else None
    expected_NO = product_NO.double() * scale_N1.double() * scale_O.double()
    size_NO = expected_NO.abs()
    if bias_O is not None:
        expected_NO, size_NO = expected_NO + bias_O.double(), size_NO + bias_O.double().abs()
    found_NO = kernels.rescale(product_NO, scale_N1, scale_O, bias_O)
    assert found_NO.dtype == torch.float32
    assert ((found_NO - expected_NO).abs() <= 1e-6 * size_NO).all()


# --- what a kernel may read, and what loading them leaves alone --------------------------------------------


def test_usable() -> None:
    x = torch.zeros(4, 6)
    assert kernels.usable(x)
    assert not kernels.usable(x.double())
    assert not kernels.usable(x.bfloat16())
    assert not kernels.usable(x.t())
    assert not kernels.usable(x[:, :3])
    assert not kernels.usable(x.to("meta"))


def test_small_numbers_stay() -> None:
    """A library linked with -ffast-math switches denormal numbers off for the whole process."""
    assert kernels.available()
    kernels.log_total(torch.zeros(2, 3))
    assert np.float32(1e-30) * np.float32(1e-10) == np.float32(1e-40) > 0
    product_V = torch.full((100,), 1e-30) * torch.full((100,), 1e-10)
    assert (product_V > 0).all()
    assert (product_V.double() - 1e-40).abs().amax() < 1e-44
