"""The loss and its gradients in C against torch in float64.

N positions, D width, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from nmt import fused_loss
from nmt.loss import cross_entropy_sum

needs_floats = pytest.mark.skipif(
    not fused_loss.available(torch.float32), reason="no AVX-512 here, or C is not compiled"
)
needs_pairs = pytest.mark.skipif(
    not fused_loss.available(torch.bfloat16),
    reason="no products of bfloat16 here, or C is not compiled",
)
SIZES = dict(
    positions=st.integers(1, 120),
    width=st.integers(1, 70),
    vocabulary=st.integers(1, 200),
    seed=st.integers(0, 999),
)


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def make(
    positions: int, width: int, vocabulary: int, seed: int, bias: bool
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden_ND = torch.randn((positions, width), generator=generator)
    weight_VD = torch.randn((vocabulary, width), generator=generator)
    bias_V = torch.randn(vocabulary, generator=generator) if bias else None
    return hidden_ND, weight_VD, bias_V, torch.randint(vocabulary, (positions,), generator=generator)


def expected(
    hidden_ND: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
    target_N: Tensor,
    smoothing: float,
    z_loss: float = 0.0,
) -> list[Any]:
    """In float64: loss with and without smoothing, gradients of hidden states, matrix and bias."""
    leaves = [None if x is None else x.double().requires_grad_() for x in (hidden_ND, weight_VD, bias_V)]
    logits_NV = F.linear(*leaves)  # type: ignore[arg-type]
    loss = F.cross_entropy(logits_NV, target_N, reduction="sum", label_smoothing=smoothing)
    loss = loss + z_loss * logits_NV.logsumexp(dim=1).square().sum()
    loss.backward()  # type: ignore[no-untyped-call]
    plain = F.cross_entropy(logits_NV, target_N, reduction="sum")
    return [loss.detach(), plain.detach(), *(None if leaf is None else leaf.grad for leaf in leaves)]


def assert_near(found: tuple[Tensor | None, ...], wanted: list[Any], relative: float) -> None:
    """Errors against the size of the whole, as products add up what is large and what is small."""
    for one, other in zip(found, wanted, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert one.shape == other.shape
            assert (one.double() - other).norm() <= relative * (other.norm() + 1)


@needs_floats
@settings(max_examples=60, deadline=None)
@given(bias=st.booleans(), smoothing=st.sampled_from([0.0, 0.1, 0.9]), threads=st.integers(1, 3), **SIZES)
def test_float32(
    positions: int, width: int, vocabulary: int, seed: int, bias: bool, smoothing: float, threads: int
) -> None:
    torch.set_num_threads(threads)
    inputs = make(positions, width, vocabulary, seed, bias)
    found = fused_loss.cross_entropy(*inputs, smoothing=smoothing, kind=torch.float32, gradient=True)
    assert_near(found, expected(*inputs, smoothing), 1e-5)


@needs_floats
@settings(max_examples=30, deadline=None)
@given(bias=st.booleans(), smoothing=st.sampled_from([0.0, 0.1]), threads=st.integers(1, 2), **SIZES)
def test_z_loss(
    positions: int, width: int, vocabulary: int, seed: int, bias: bool, smoothing: float, threads: int
) -> None:
    torch.set_num_threads(threads)
    inputs = make(positions, width, vocabulary, seed, bias)
    options: dict[str, Any] = dict(kind=torch.float32, gradient=True)
    found = fused_loss.cross_entropy(*inputs, smoothing=smoothing, z_loss=0.3, **options)
    assert_near(found, expected(*inputs, smoothing, 0.3), 1e-5)


@needs_pairs
@settings(max_examples=60, deadline=None)
@given(bias=st.booleans(), smoothing=st.sampled_from([0.0, 0.1]), threads=st.integers(1, 3), **SIZES)
def test_bfloat16(
    positions: int, width: int, vocabulary: int, seed: int, bias: bool, smoothing: float, threads: int
) -> None:
    """Where the factors are of bfloat16 the loss is exact; gradients have a factor that is rounded."""
    torch.set_num_threads(threads)
    hidden_ND, weight_VD, bias_V, target_N = make(positions, width, vocabulary, seed, bias)
    inputs = (hidden_ND.bfloat16().float(), weight_VD.bfloat16().float(), bias_V, target_N)
    found = fused_loss.cross_entropy(*inputs, smoothing=smoothing, kind=torch.bfloat16, gradient=True)
    wanted = expected(*inputs, smoothing)
    assert_near(found[:2], wanted[:2], 1e-5)
    assert_near(found[2:], wanted[2:], 0.01)


@needs_floats
@settings(max_examples=60, deadline=None)
@given(
    bias=st.booleans(),
    smoothing=st.sampled_from([0.0, 0.1]),
    z_loss=st.sampled_from([0.0, 1e-3]),
    threads=st.integers(1, 3),
    **SIZES,
)
def test_int8(
    positions: int,
    width: int,
    vocabulary: int,
    seed: int,
    bias: bool,
    smoothing: float,
    z_loss: float,
    threads: int,
) -> None:
    """Of rows that are integers up to 127 on a scale the loss is exact; gradients have rounded factors."""
    torch.set_num_threads(threads)
    hidden_ND, weight_VD, bias_V, target_N = make(positions, width, vocabulary, seed, bias)
    inputs = (of_bytes(hidden_ND), of_bytes(weight_VD), bias_V, target_N)
    options: dict[str, Any] = dict(kind=torch.int8, gradient=True)
    found = fused_loss.cross_entropy(*inputs, smoothing=smoothing, z_loss=z_loss, **options)
    wanted = expected(*inputs, smoothing, z_loss)
    assert_near(found[:2], wanted[:2], 1e-5)
    assert_near(found[2:], wanted[2:], 0.03)


@needs_floats
@pytest.mark.parametrize("z_loss", [1e-4, 0.3])
def test_int8_where_the_normaliser_is_small(z_loss: float) -> None:
    """A strong z_loss turns the sign of the softmax's share, which int8 has not."""
    hidden_ND, weight_VD, _, target_N = make(60, 32, 80, 5, False)
    inputs = [x.requires_grad_() for x in (hidden_ND, weight_VD, torch.full((80,), -20.0))]
    loss, _ = cross_entropy_sum(*inputs, target_N, smoothing=0.1, z_loss=z_loss, factors=torch.int8)
    exact, _ = cross_entropy_sum(*inputs, target_N, smoothing=0.1, z_loss=z_loss)
    found, wanted = (torch.autograd.grad(x, inputs) for x in (loss, exact))
    assert all((one - other).norm() < 0.03 * other.norm() for one, other in zip(found, wanted, strict=True))


def of_bytes(x: Tensor) -> Tensor:
    scale = x.abs().amax(dim=1, keepdim=True) / 127
    return (x / scale).round() * scale


@needs_floats
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", range(3))
def test_int8_of_what_is_not_finite(place: int, value: float) -> None:
    """It is seen in the loss and in gradients, so that the update is skipped."""
    inputs = list(make(70, 40, 90, 4, True))
    inputs[place].view(-1)[5] = value
    found = fused_loss.cross_entropy(*inputs, smoothing=0.1, kind=torch.int8, gradient=True)
    if not (place == 2 and value == -math.inf):  # which is a probability of 0
        assert not found[0].isfinite()
        assert all(grad is not None and not bool(grad.isfinite().all()) for grad in found[2:4])


@needs_floats
def test_shares_of_int8_are_right_in_the_mean() -> None:
    """Most of a softmax is far below the largest of its group; rounded to the nearest it would be lost."""
    hidden_ND, weight_VD, _, target_N = make(600, 32, 1500, 3, False)
    bias_V = torch.zeros(1500)
    bias_V[::500] = 9.0  # all others have some e^-9 of its share
    options: dict[str, Any] = dict(smoothing=0.0, gradient=True)
    inputs = (hidden_ND / 10, weight_VD, bias_V, target_N)
    found = fused_loss.cross_entropy(*inputs, kind=torch.int8, **options)
    exact = fused_loss.cross_entropy(*inputs, kind=torch.float32, **options)
    small = torch.ones(1500, dtype=torch.bool).index_fill(0, target_N, False)
    small[::500] = False
    assert found[3] is not None
    assert exact[3] is not None
    error = (found[3] - exact[3])[small]
    assert error.norm() < 0.5 * exact[3][small].norm()  # of each by itself
    along = (found[3] * exact[3])[small].sum() / exact[3][small].square().sum()
    assert abs(along - 1) < 0.02


@needs_floats
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.int8])
def test_the_same_again(kind: torch.dtype) -> None:
    """To the last bit, with as many threads: which thread does what is not left to chance."""
    if not fused_loss.available(kind):
        pytest.skip("no products of bfloat16 here")
    inputs = make(700, 64, 300, 1, True)
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        runs = [fused_loss.cross_entropy(*inputs, smoothing=0.1, kind=kind, gradient=True) for _ in range(5)]
        for run in runs[1:]:
            for one, other in zip(runs[0], run, strict=True):
                assert one is not None
                assert other is not None
                assert torch.equal(one, other)


@needs_floats
def test_without_gradients_and_without_positions() -> None:
    hidden_ND, weight_VD, bias_V, target_N = make(50, 32, 90, 2, True)
    inputs = (weight_VD, bias_V)
    both = [
        fused_loss.cross_entropy(
            hidden_ND, *inputs, target_N, smoothing=0.1, kind=torch.float32, gradient=wanted
        )
        for wanted in (True, False)
    ]
    assert torch.equal(both[0][0], both[1][0])
    assert both[1][2:] == (None, None, None)
    nothing = fused_loss.cross_entropy(
        hidden_ND[:0], *inputs, target_N[:0], smoothing=0.1, kind=torch.float32, gradient=True
    )
    assert [float(x.abs().sum()) for x in nothing if x is not None] == [0.0] * 5


@needs_floats
@pytest.mark.parametrize("place", ["hidden", "weight"])
def test_what_is_not_a_number_is_seen(place: str) -> None:
    hidden_ND, weight_VD, bias_V, target_N = make(60, 16, 100, 3, False)
    target_N[:] = 5
    (hidden_ND if place == "hidden" else weight_VD)[7] = math.nan
    smoothed, plain, hidden_grad, weight_grad, _ = fused_loss.cross_entropy(
        hidden_ND, weight_VD, bias_V, target_N, smoothing=0.1, kind=torch.float32, gradient=True
    )
    assert hidden_grad is not None
    assert weight_grad is not None
    assert not any(x.isfinite().all() for x in (smoothed, plain, hidden_grad, weight_grad))


@needs_floats
@pytest.mark.parametrize("wrong", [-1, 100])
def test_a_target_that_is_not_there(wrong: int) -> None:
    inputs = make(10, 16, 100, 4, False)
    inputs[3][4] = wrong
    with pytest.raises(IndexError, match="100 outputs"):
        fused_loss.cross_entropy(*inputs, smoothing=0.1, kind=torch.float32, gradient=True)


@needs_floats
def test_extreme_scores() -> None:
    """One output far above all others, and far below."""
    hidden_ND, weight_VD, bias_V, target_N = make(30, 8, 60, 5, True)
    assert bias_V is not None
    bias_V[3], bias_V[4] = 1e4, -1e4
    inputs = (hidden_ND, weight_VD, bias_V, target_N)
    found = fused_loss.cross_entropy(*inputs, smoothing=0.1, kind=torch.float32, gradient=True)
    assert_near(found, expected(*inputs, 0.1), 1e-5)
