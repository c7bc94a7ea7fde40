"""A linear layer of int8 against the same in NumPy: factors rounded group by group, sums exact.

N rows, I and O widths of input and output.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nmt import fused_loss
from nmt import linear as module
from nmt.linear import available, linear, products_of

Array = npt.NDArray[Any]
pytestmark = pytest.mark.skipif(not available(torch.int8), reason="no AVX-512 here, or C is not compiled")
GROUP = 512  # as bytes.h


@pytest.fixture(autouse=True)
def _few_rows(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(module, "_FEWEST", 1)
    monkeypatch.setattr(module, "_NARROWEST", 1)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def rounded(x: Array, axis: int) -> Array:
    """Each group along the axis on the scale on which its largest is 127, in float64."""
    x = np.moveaxis(x.astype(np.float64), axis, -1)
    depth = x.shape[-1]
    groups = -(-depth // GROUP)
    length = 4 * -(-depth // (4 * groups))
    parts = []
    for start in range(0, depth, length):
        part = x[..., start : start + length]
        scale = np.abs(part).max(axis=-1, keepdims=True, initial=1e-30) / 127
        parts.append(np.rint(part / scale) * scale)
    return np.moveaxis(np.concatenate(parts, axis=-1), -1, axis)


def leaves(rows: int, inputs: int, outputs: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((rows, inputs), (outputs, inputs), (outputs,))
    x, weight, bias = (torch.randn(shape, generator=generator).requires_grad_() for shape in shapes)
    return x, weight, bias


def computed(x: Tensor, weight: Tensor, bias: Tensor, grad: Tensor, *, relu: bool = False) -> list[Tensor]:
    """The result, and gradients by x, weight and bias."""
    with products_of(torch.int8):
        y = linear(x, weight, bias, relu=relu)
    return [y.detach(), *torch.autograd.grad(y, (x, weight, bias), grad)]


@settings(max_examples=40, deadline=None)
@given(
    rows=st.one_of(st.integers(1, 60), st.sampled_from([512, 513, 1100])),
    inputs=st.one_of(st.integers(1, 70), st.sampled_from([512, 515, 1025])),
    outputs=st.one_of(st.integers(1, 70), st.sampled_from([130, 516])),
    relu=st.booleans(),
    threads=st.integers(1, 3),
    seed=st.integers(0, 999),
)
def test_products_of_rounded_factors(
    rows: int, inputs: int, outputs: int, relu: bool, threads: int, seed: int
) -> None:
    """A number halfway between two may go to either side, so a few may be a step away."""
    torch.set_num_threads(threads)
    own = leaves(rows, inputs, outputs, seed)
    grad = torch.randn((rows, outputs), generator=torch.Generator().manual_seed(seed + 1))
    found = computed(*own, grad, relu=relu)
    x, weight, bias = (leaf.detach().numpy() for leaf in own)
    y = rounded(x, 1) @ rounded(weight, 1).T + bias
    passed = grad.numpy() * (found[0].numpy() > 0) if relu else grad.numpy()
    expected = [
        np.maximum(y, 0) if relu else y,
        rounded(passed, 1) @ rounded(weight, 0),
        rounded(passed, 0).T @ rounded(x, 0),
        passed.sum(axis=0, dtype=np.float64),
    ]
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        error = np.linalg.norm(one.numpy() - other)
        assert error <= 1e-3 * np.linalg.norm(other) + 1e-6


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("place", ["x", "weight", "grad"])
def test_what_is_not_finite_is_seen(place: str, value: float) -> None:
    """In what it takes part in; a training skips such an update."""
    x, weight, bias = leaves(60, 40, 50, 3)
    grad = torch.ones(60, 50)
    with torch.no_grad():
        {"x": x, "weight": weight, "grad": grad}[place][7, 11] = value
    y, x_grad, weight_grad, _ = computed(x, weight, bias, grad)
    assert bool(y[7].isfinite().any()) == (place != "x")
    assert bool(y[:, 7].isfinite().any()) == (place != "weight")
    assert bool(x_grad[7].isfinite().any()) == (place != "grad")
    assert bool(weight_grad[:, 11].isfinite().any()) == (place != "x")
    assert bool(weight_grad[11].isfinite().any()) == (place != "grad")
    assert bool(y[8, 8].isfinite())
    assert bool(x_grad[8, 8].isfinite())
    assert bool(weight_grad[8, 8].isfinite())


def test_zeros_are_zeros() -> None:
    x, weight, bias = (leaf.detach().mul(0).requires_grad_() for leaf in leaves(20, 33, 40, 1))
    assert not any(bool(found.any()) for found in computed(x, weight, bias, torch.zeros(20, 40)))


def test_rows_on_their_own_scales() -> None:
    """What is small beside a large row is as exact as without it."""
    x, weight, bias = leaves(64, 48, 32, 4)
    grad = torch.randn(64, 32)
    before = computed(x, weight, bias, grad)
    with torch.no_grad():
        x[0] *= 1e6
    after = computed(x, weight, bias, grad)
    assert torch.equal(before[0][1:], after[0][1:])


def test_the_same_again() -> None:
    """To the last bit, with any number of threads."""
    own, grad = leaves(900, 48, 200, 5), torch.randn(900, 200)
    runs = []
    for threads in (1, 2, 3, 2, 1):
        torch.set_num_threads(threads)
        runs.append(computed(*own, grad, relu=True))
    for run in runs[1:]:
        assert all(torch.equal(one, other) for one, other in zip(runs[0], run, strict=True))


@pytest.mark.parametrize("frozen", [0, 1, 2, 3], ids=["x", "weight", "bias", "no bias"])
def test_frozen_inputs(frozen: int) -> None:
    own, grad = leaves(300, 40, 130, 6), torch.randn(300, 130)
    expected = computed(*own, grad)[1:]
    for place, leaf in enumerate(own):
        leaf.requires_grad_(place != frozen)
    with products_of(torch.int8):
        linear(own[0], own[1], None if frozen == 3 else own[2]).backward(grad)  # type: ignore[no-untyped-call]
    for place, leaf in enumerate(own):
        if place == min(frozen, 2):
            assert leaf.grad is None
        else:
            assert leaf.grad is not None
            assert torch.equal(leaf.grad, expected[place])


def test_narrow_layers_are_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_NARROWEST", 8)
    x, weight, bias = leaves(60, 40, 7, 2)
    exact = torch.nn.functional.linear(x, weight, bias)
    with products_of(torch.int8):
        assert torch.allclose(linear(x, weight, bias), exact, atol=1e-5)
        wide = linear(x, weight.repeat(2, 1), None)
    assert not torch.allclose(wide[:, :7] + bias, exact, atol=1e-3)


def test_a_sum_of_more_groups_than_a_batch_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows beyond 66,000 make more groups than a group has words."""
    own, grad = leaves(70_001, 9, 10, 7), torch.randn(70_001, 10)
    x = own[0].detach().numpy()
    found = computed(*own, grad)[2].numpy()
    expected = rounded(grad.numpy(), 0).T @ rounded(x, 0)
    assert np.linalg.norm(found - expected) <= 1e-3 * np.linalg.norm(expected)


def test_memory_that_calls_leave_behind_is_given_back() -> None:
    computed(*leaves(60, 40, 50, 3), torch.randn(60, 50))
    assert module._scratch.held
    module.give_back_memory()
    assert not module._scratch.held


def test_a_library_of_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation that was not compiled anew does without."""

    class Old:
        nmt_cross_entropy = nmt_linear_forward = None

    for place in (module, fused_loss):
        monkeypatch.setattr(place.kernels, "library", Old)
        place._library.cache_clear()
    try:
        assert not fused_loss.available(torch.float32)
        assert not available(torch.int8)
    finally:
        monkeypatch.undo()
        for place in (module, fused_loss):
            place._library.cache_clear()
    assert available(torch.int8)
