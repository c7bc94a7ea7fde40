"""The chunked loss against torch's, value and gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nmt.loss import CHUNK, cross_entropy_sum, log_probabilities

pytestmark = pytest.mark.usefixtures("one_thread")

N, D, V = 23, 5, 11
CLOSE = dict(rtol=1e-10, atol=1e-10)


def case(
    seed: int, *, bias: bool, positions: int = N, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def leaf(*shape: int) -> Tensor:
        values = torch.randn(shape, generator=generator, dtype=torch.float64)
        return values.to(dtype).requires_grad_()

    target_N = torch.randint(0, V, (positions,), generator=generator)
    return leaf(positions, D), leaf(V, D), leaf(V) if bias else None, target_N


def expected(
    hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, target_N: Tensor, smoothing: float
) -> Tensor:
    return F.cross_entropy(
        F.linear(hidden_ND, weight_VD, bias_V), target_N, reduction="sum", label_smoothing=smoothing
    )


def copies(*tensors: Tensor | None) -> list[Any]:
    return [None if t is None else t.detach().clone().requires_grad_() for t in tensors]


@pytest.mark.parametrize("bias", [False, True], ids=["no-bias", "bias"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("chunk", [1, 4, 22, 23, 24, CHUNK])
def test_value_and_gradients(bias: bool, smoothing: float, chunk: int) -> None:
    hidden_ND, weight_VD, bias_V, target_N = case(41, bias=bias)
    theirs = copies(hidden_ND, weight_VD, bias_V)
    reference = expected(*theirs, target_N, smoothing)
    smoothed, plain = cross_entropy_sum(
        hidden_ND, weight_VD, bias_V, target_N, smoothing=smoothing, chunk=chunk
    )
    torch.testing.assert_close(smoothed, reference, **CLOSE)
    torch.testing.assert_close(plain, expected(*copies(*theirs), target_N, 0.0).detach(), **CLOSE)
    assert smoothed.requires_grad
    assert not plain.requires_grad
    # An upstream gradient other than 1, such as from the division by the number of tokens.
    (smoothed * -2.5).backward()
    (reference * -2.5).backward()
    for own, other in zip((hidden_ND, weight_VD, bias_V), theirs, strict=True):
        if own is not None:
            torch.testing.assert_close(own.grad, other.grad, **CLOSE)


@pytest.mark.parametrize("bias", [False, True], ids=["no-bias", "bias"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("chunk", [4, CHUNK])
def test_z_loss(bias: bool, smoothing: float, chunk: int) -> None:
    """Against autograd; the loss without smoothing is without it as well."""
    hidden_ND, weight_VD, bias_V, target_N = case(51, bias=bias)
    theirs = copies(hidden_ND, weight_VD, bias_V)
    log_z_N = F.linear(*theirs).logsumexp(dim=1)
    reference = expected(*theirs, target_N, smoothing) + 0.3 * log_z_N.square().sum()
    found, plain = cross_entropy_sum(
        hidden_ND, weight_VD, bias_V, target_N, smoothing=smoothing, z_loss=0.3, chunk=chunk
    )
    torch.testing.assert_close(found, reference, **CLOSE)
    torch.testing.assert_close(plain, expected(*copies(*theirs), target_N, 0.0).detach(), **CLOSE)
    (found * -2.5).backward()
    (reference * -2.5).backward()
    for own, other in zip((hidden_ND, weight_VD, bias_V), theirs, strict=True):
        if own is not None:
            torch.testing.assert_close(own.grad, other.grad, **CLOSE)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_tied_weight(smoothing: float) -> None:
    """The weight is also the embedding, so its gradient is a sum of two."""
    _, weight_VD, bias_V, target_N = case(42, bias=True)
    theirs = copies(weight_VD, bias_V)
    previous_N = target_N.roll(1)
    smoothed, _ = cross_entropy_sum(
        torch.tanh(weight_VD[previous_N]), weight_VD, bias_V, target_N, smoothing=smoothing, chunk=7
    )
    smoothed.backward()
    expected(torch.tanh(theirs[0][previous_N]), *theirs, target_N, smoothing).backward()
    torch.testing.assert_close(weight_VD.grad, theirs[0].grad, **CLOSE)
    torch.testing.assert_close(bias_V.grad, theirs[1].grad, **CLOSE)  # type: ignore[union-attr]


def test_split_batches_sum_to_the_whole() -> None:
    hidden_ND, weight_VD, bias_V, target_N = case(43, bias=True)
    whole = copies(hidden_ND, weight_VD, bias_V)
    cross_entropy_sum(*whole, target_N, smoothing=0.1)[0].backward()
    for rows in (slice(0, 9), slice(9, N)):
        cross_entropy_sum(hidden_ND[rows], weight_VD, bias_V, target_N[rows], smoothing=0.1)[0].backward()
    for own, other in zip((hidden_ND, weight_VD, bias_V), whole, strict=True):
        torch.testing.assert_close(own.grad, other.grad, **CLOSE)  # type: ignore[union-attr]


@pytest.mark.parametrize("frozen", [0, 1, 2], ids=["hidden", "weight", "bias"])
def test_frozen_input(frozen: int) -> None:
    inputs = list(case(44, bias=True)[:3])
    target_N = case(44, bias=True)[3]
    inputs[frozen] = inputs[frozen].detach()  # type: ignore[union-attr]
    theirs = [t.detach().clone().requires_grad_(t.requires_grad) for t in inputs]  # type: ignore[union-attr]
    cross_entropy_sum(*inputs, target_N, smoothing=0.1)[0].backward()  # type: ignore[arg-type]
    expected(*theirs, target_N, 0.1).backward()
    for index, (own, other) in enumerate(zip(inputs, theirs, strict=True)):
        if index == frozen:
            assert own.grad is None  # type: ignore[union-attr]
        else:
            torch.testing.assert_close(own.grad, other.grad, **CLOSE)  # type: ignore[union-attr]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_without_gradient(smoothing: float) -> None:
    inputs = case(45, bias=True)
    with torch.no_grad():
        smoothed, plain = cross_entropy_sum(*inputs, smoothing=smoothing, chunk=4)
        torch.testing.assert_close(smoothed, expected(*inputs, smoothing), **CLOSE)
        torch.testing.assert_close(plain, expected(*inputs, 0.0), **CLOSE)


def test_inputs_are_left_as_they_are() -> None:
    inputs = case(46, bias=True)
    before = [t.detach().clone() for t in inputs if t is not None]
    cross_entropy_sum(*inputs, smoothing=0.1, chunk=4)[0].backward()
    for tensor, copy in zip(inputs, before, strict=True):
        assert torch.equal(tensor, copy)  # type: ignore[arg-type]


def test_no_positions() -> None:
    hidden_ND, weight_VD, bias_V, target_N = case(47, bias=True, positions=0)
    smoothed, plain = cross_entropy_sum(hidden_ND, weight_VD, bias_V, target_N, smoothing=0.1)
    assert (smoothed.item(), plain.item()) == (0.0, 0.0)
    smoothed.backward()
    assert weight_VD.grad is not None
    assert not weight_VD.grad.any()


def test_extreme_logits() -> None:
    """The largest logit is taken off first: nothing overflows."""
    hidden_ND, weight_VD, bias_V, target_N = case(48, bias=True)
    inputs = [(hidden_ND * 1000).detach().requires_grad_(), weight_VD, bias_V]
    theirs = copies(*inputs)
    smoothed, _ = cross_entropy_sum(*inputs, target_N, smoothing=0.1, chunk=4)  # type: ignore[arg-type]
    reference = expected(*theirs, target_N, 0.1)
    assert reference.isfinite()
    torch.testing.assert_close(smoothed, reference, rtol=1e-10, atol=0)
    smoothed.backward()
    reference.backward()
    torch.testing.assert_close(weight_VD.grad, theirs[1].grad, **CLOSE)


def test_transposed_hidden() -> None:
    hidden_ND, weight_VD, bias_V, target_N = case(49, bias=True)
    transposed_ND = hidden_ND.detach().t().contiguous().t().requires_grad_()
    cross_entropy_sum(transposed_ND, weight_VD, bias_V, target_N, chunk=4)[0].backward()
    theirs = copies(hidden_ND, weight_VD, bias_V)
    expected(*theirs, target_N, 0.0).backward()
    torch.testing.assert_close(transposed_ND.grad, theirs[0].grad, **CLOSE)


@pytest.mark.parametrize("bias", [False, True], ids=["no-bias", "bias"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_bfloat16(bias: bool, smoothing: float) -> None:
    """As training calls it: parameters in float32, cast to bfloat16 on the way in; sums stay in float32."""
    positions = 600
    hidden_ND, weight_VD, bias_V, target_N = case(50, bias=bias, positions=positions, dtype=torch.float32)
    theirs = copies(hidden_ND, weight_VD, bias_V)
    smoothed, plain = cross_entropy_sum(
        hidden_ND.bfloat16(),
        weight_VD.bfloat16(),
        None if bias_V is None else bias_V.bfloat16(),
        target_N,
        smoothing=smoothing,
    )
    assert smoothed.dtype == plain.dtype == torch.float32
    reference = expected(*theirs, target_N, smoothing)
    torch.testing.assert_close(smoothed, reference, rtol=5e-3, atol=0)
    (smoothed / positions).backward()
    (reference / positions).backward()
    for own, other in zip((hidden_ND, weight_VD, bias_V), theirs, strict=True):
        if own is not None:
            assert own.grad is not None
            assert own.grad.dtype == torch.float32
            assert (own.grad - other.grad).norm() < 0.02 * other.grad.norm()


@pytest.mark.parametrize("bias", [False, True], ids=["no-bias", "bias"])
@pytest.mark.parametrize("chunk", [1, 4, 22, 23, 24, CHUNK])
def test_log_probabilities(bias: bool, chunk: int) -> None:
    hidden_ND, weight_VD, bias_V, target_N = case(42, bias=bias)
    found_N = log_probabilities(hidden_ND, weight_VD, bias_V, target_N, chunk=chunk)
    logits_NV = F.linear(hidden_ND, weight_VD, bias_V)
    expected_N = -F.cross_entropy(logits_NV, target_N, reduction="none")
    torch.testing.assert_close(found_N, expected_N.detach(), **CLOSE)
    assert not found_N.requires_grad
    assert log_probabilities(hidden_ND[:0], weight_VD, bias_V, target_N[:0]).shape == (0,)
