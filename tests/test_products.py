"""Products, and the ranking of tokens, of `nmt/products.py` against torch.

N rows, I and O widths of input and output, V vocabulary, C candidates.
"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from nmt import products
from nmt.products import Matrix

pytestmark = pytest.mark.skipif(
    not products.available(), reason="this processor has no AVX-512, or C is not compiled here"
)
SEEDS = st.integers(0, 1 << 30)
PRECISIONS = ("float32", "int8")


def make(seed: int, rows: int, inputs: int, outputs: int, bias: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    """x (N, I), a matrix (O, I) whose rows differ in size, a bias (O)."""
    generator = torch.Generator().manual_seed(seed)
    x_NI = torch.randn((rows, inputs), generator=generator)
    weight_OI = torch.randn((outputs, inputs), generator=generator)
    weight_OI *= 10 ** torch.empty(outputs, 1).uniform_(-2, 1, generator=generator)
    return x_NI, weight_OI, torch.randn(outputs, generator=generator) if bias else None


def rounded(x: Tensor) -> tuple[Tensor, Tensor]:
    """Rows as whole numbers in float64, 127 the largest, halves away from 0 as in C; their scales (N, 1)."""
    scale_N1 = x.abs().amax(dim=1, keepdim=True).clamp_min(1e-30) / 127
    y = x * (127 / x.abs().amax(dim=1, keepdim=True).clamp_min(1e-30))
    return (y.abs() + 0.5).floor().mul(y.sign()).double(), scale_N1.double()


SIZES = dict(rows=st.integers(1, 40), inputs=st.integers(1, 70), outputs=st.integers(1, 100))


@settings(max_examples=100, deadline=None)
@given(seed=SEEDS, bias=st.booleans(), **SIZES)
def test_float32_is_linear(seed: int, rows: int, inputs: int, outputs: int, bias: bool) -> None:
    x_NI, weight_OI, bias_O = make(seed, rows, inputs, outputs, bias)
    expected = F.linear(x_NI.double(), weight_OI.double(), None if bias_O is None else bias_O.double())
    size_NO = x_NI.double().abs() @ weight_OI.double().abs().T + (0 if bias_O is None else bias_O.abs())
    error_NO = (Matrix(weight_OI, bias_O).multiply(x_NI) - expected).abs()
    assert (error_NO <= (inputs + 1) * 6e-8 * size_NO).all()


@settings(max_examples=100, deadline=None)
@given(seed=SEEDS, bias=st.booleans(), **SIZES)
def test_int8_sums_are_exact(seed: int, rows: int, inputs: int, outputs: int, bias: bool) -> None:
    x_NI, weight_OI, bias_O = make(seed, rows, inputs, outputs, bias)
    whole_NI, scale_N1 = rounded(x_NI)
    weight_scale_O1 = weight_OI.abs().amax(dim=1, keepdim=True).clamp_min(1e-30) / 127
    whole_OI = (weight_OI / weight_scale_O1).round().double()
    expected = (whole_NI @ whole_OI.T) * scale_N1 * weight_scale_O1.double().T
    if bias_O is not None:
        expected += bias_O
    found_NO = Matrix(weight_OI, bias_O, "int8").multiply(x_NI)
    # An entry that is very near a half may be rounded to either side.
    half_N1 = ((whole_NI - x_NI.double() / scale_N1).abs() > 0.4999).sum(dim=1, keepdim=True)
    allowed_NO = half_N1 * scale_N1 * weight_OI.double().abs().amax(dim=1) + 1e-5 * expected.abs() + 1e-6
    assert ((found_NO.double() - expected).abs() <= allowed_NO).all()


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("size", [(24, 9), (128, 130), (512, 33), (640, 64)])
def test_a_row_is_the_same_in_any_company(precision: str, size: tuple[int, int]) -> None:
    """To the last bit, in tiles of any number of rows and blocks of many."""
    inputs, outputs = size
    x_NI, weight_OI, bias_O = make(7, 400, inputs, outputs, True)
    matrix = Matrix(weight_OI, bias_O, precision)
    all_NO = matrix.multiply(x_NI)
    for count in (*range(1, 14), 191, 193, 400):
        for start in (0, 5, 200):
            part = slice(start, start + count)
            assert torch.equal(matrix.multiply(x_NI[part].contiguous()), all_NO[part])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_rows_of_zeros_and_no_rows(precision: str) -> None:
    _, weight_OI, bias_O = make(3, 1, 30, 40, True)
    assert bias_O is not None
    matrix = Matrix(weight_OI, bias_O, precision)
    assert torch.equal(matrix.multiply(torch.zeros(5, 30)), bias_O.expand(5, -1))
    assert matrix.multiply(torch.zeros(0, 30)).shape == (0, 40)


# --- ranking -----------------------------------------------------------------------------------------------


def plain_rank(
    logits_NV: Tensor, count: int, end: int, banned: list[int]
) -> tuple[Tensor, list[list[int]], Tensor]:
    """What `Matrix.rank` finds in these logits; of equals the first."""
    log_prob_NV = logits_NV.double().log_softmax(dim=-1)
    allowed_NV = logits_NV.clone()
    allowed_NV[:, banned] = -math.inf
    order_NV = allowed_NV.sort(dim=-1, descending=True, stable=True).indices[:, :count]
    best_NC = log_prob_NV.gather(1, order_NV).masked_fill(
        allowed_NV.gather(1, order_NV) == -math.inf, -math.inf
    )
    return best_NC, order_NV.tolist(), log_prob_NV[:, end, None]


@settings(max_examples=100, deadline=None)
@given(seed=SEEDS, rows=st.integers(1, 60), vocabulary=st.integers(1, 1300), data=st.data())
def test_rank(seed: int, rows: int, vocabulary: int, data: st.DataObject) -> None:
    """With a matrix that copies, so that logits are known; whole numbers, so that there are ties."""
    generator = torch.Generator().manual_seed(seed)
    weight_VI = torch.randn((vocabulary, 8), generator=generator)
    hidden_NI = torch.zeros(rows, 8)
    hidden_NI[torch.arange(rows), torch.randint(8, (rows,), generator=generator)] = 1
    if data.draw(st.booleans()):
        weight_VI = weight_VI.round()
    logits_NV = hidden_NI @ weight_VI.T
    tokens = st.integers(0, vocabulary - 1)
    end, banned = data.draw(tokens), data.draw(st.lists(tokens, max_size=6, unique=True))
    count = data.draw(st.integers(1, min(vocabulary, 9)))
    best_NC, token_NC, ending_N1 = Matrix(weight_VI, None).rank(hidden_NI, count, end, banned)
    expected_NC, expected_tokens, expected_N1 = plain_rank(logits_NV, count, end, banned)
    torch.testing.assert_close(best_NC.double(), expected_NC, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ending_N1.double(), expected_N1, rtol=1e-5, atol=1e-5)
    for found, expected, best_C in zip(token_NC.tolist(), expected_tokens, expected_NC.tolist(), strict=True):
        real = [place for place, value in enumerate(best_C) if value > -math.inf]
        assert [found[place] for place in real] == [expected[place] for place in real]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_rank_of_a_large_vocabulary(precision: str) -> None:
    """Against the product itself: more rows than a block, far logits, the best at the seams of chunks."""
    hidden_NI, weight_VI, bias_V = make(11, 200, 64, 8000, True)
    assert bias_V is not None
    for place in (0, 511, 512, 1023, 7999):
        bias_V[place] += 40
    matrix = Matrix(weight_VI, bias_V, precision)
    logits_NV = matrix.multiply(hidden_NI)
    best_NC, token_NC, ending_N1 = matrix.rank(hidden_NI, 5, 3, [0, 512, 3])
    expected_NC, expected_tokens, expected_N1 = plain_rank(logits_NV, 5, 3, [0, 512, 3])
    assert token_NC.tolist() == expected_tokens
    torch.testing.assert_close(best_NC.double(), expected_NC, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(ending_N1.double(), expected_N1, rtol=1e-5, atol=1e-4)


def test_rank_of_what_is_not_a_number() -> None:
    """Such a row has no best tokens; the others have theirs."""
    hidden_NI, weight_VI, _ = make(5, 3, 16, 700, False)
    matrix = Matrix(weight_VI, None)
    expected = matrix.rank(hidden_NI, 4, 3)
    hidden_NI[1] = math.nan
    best_NC, token_NC, ending_N1 = matrix.rank(hidden_NI, 4, 3)
    assert best_NC[1].tolist() == [-math.inf] * 4
    assert ending_N1[1].item() == -math.inf
    assert 0 <= int(token_NC.min()) <= int(token_NC.max()) < 700
    for found, whole in zip((best_NC, token_NC, ending_N1), expected, strict=True):
        assert torch.equal(found[[0, 2]], whole[[0, 2]])


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_one_entry_that_is_not_finite_is_seen_wherever_it_is(precision: str, value: float) -> None:
    hidden_NI, weight_VI, _ = make(7, 3, 37, 100, False)
    matrix = Matrix(weight_VI, None, precision)
    expected_NV = matrix.multiply(hidden_NI)
    for place in range(37):
        spoiled_NI = hidden_NI.clone()
        spoiled_NI[1, place] = value
        scores_NV = matrix.multiply(spoiled_NI)
        assert not scores_NV[1].isfinite().any()
        assert torch.equal(scores_NV[[0, 2]], expected_NV[[0, 2]])
        assert matrix.rank(spoiled_NI, 4, 3)[0][1].tolist() == [-math.inf] * 4


@pytest.mark.parametrize("place", [0, 31, 500, 699])
def test_rank_where_one_score_is_not_a_number(place: int) -> None:
    hidden_NI, weight_VI, _ = make(6, 2, 16, 700, False)
    weight_VI[place] = math.nan
    best_NC, _, ending_N1 = Matrix(weight_VI, None).rank(hidden_NI, 4, 3)
    assert best_NC.tolist() == [[-math.inf] * 4] * 2
    assert ending_N1.tolist() == [[-math.inf]] * 2


def test_rows_of_another_width_are_refused() -> None:
    matrix = Matrix(torch.randn(40, 24), None)
    for width in (23, 25):
        with pytest.raises(ValueError, match=f"24 inputs cannot multiply rows of {width}"):
            matrix.multiply(torch.zeros(3, width))
        with pytest.raises(ValueError, match=f"24 inputs cannot multiply rows of {width}"):
            matrix.rank(torch.zeros(3, width), 2, 3)
