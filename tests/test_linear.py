"""A linear layer in C against torch in float64.

N rows, I and O widths of input and output.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from nmt import linear as module
from nmt.linear import Linear, available, linear, product_type, products_of

KINDS = (torch.float32, torch.bfloat16)
pytestmark = pytest.mark.skipif(not available(torch.float32), reason="no AVX-512 here, or C is not compiled")


@pytest.fixture(autouse=True)
def _threads_and_few_rows(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A row is enough, so that sizes can be small."""
    monkeypatch.setattr(module, "_FEWEST", 1)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def leaves(rows: int, inputs: int, outputs: int, bias: bool, seed: int) -> list[Tensor | None]:
    generator = torch.Generator().manual_seed(seed)
    made = [
        torch.randn(shape, generator=generator) for shape in ((rows, inputs), (outputs, inputs), (outputs,))
    ]
    return [x.requires_grad_() if bias or x.dim() > 1 else None for x in made]


def gradients_of(y: Tensor, inputs: list[Tensor | None]) -> list[Tensor | None]:
    """Of a weighted sum of the result."""
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y.dtype)
    wanted = [x for x in inputs if x is not None]
    found = iter(torch.autograd.grad((y * weights).sum(), wanted))
    return [None if x is None else next(found) for x in inputs]


def near(one: Tensor, other: Tensor, relative: float, summed: int) -> bool:
    """Sums may be small where what is summed up is not."""
    return bool((one.double() - other).norm() <= relative * (other.norm() + (one.numel() * summed) ** 0.5))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 420),
    inputs=st.integers(1, 70),
    outputs=st.integers(1, 70),
    bias=st.booleans(),
    relu=st.booleans(),
    threads=st.integers(1, 3),
    seed=st.integers(0, 999),
)
def test_values_and_gradients(
    kind: torch.dtype, rows: int, inputs: int, outputs: int, bias: bool, relu: bool, threads: int, seed: int
) -> None:
    if not available(kind):
        pytest.skip("no products of bfloat16 here")
    torch.set_num_threads(threads)
    own = leaves(rows, inputs, outputs, bias, seed)
    exact = [None if x is None else x.detach().double().requires_grad_() for x in own]
    with products_of(kind):
        y = linear(*own, relu=relu)  # type: ignore[arg-type]
    assert type(y.grad_fn).__name__ == "_LinearFunctionBackward"
    expected = F.linear(*exact)  # type: ignore[arg-type]
    if relu:  # what is near 0 may be cut off in one and not in the other
        expected = expected * (y > 0)
    tolerance = 1e-5 if kind == torch.float32 else 0.02
    assert near(y, expected, tolerance, inputs)
    for one, other in zip(gradients_of(y, own), gradients_of(expected, exact), strict=True):
        if one is not None:
            assert other is not None
            assert near(one, other, tolerance, max(rows, inputs, outputs))


@pytest.mark.parametrize("relu", [False, True])
def test_relu_is_that_of_torch(relu: bool) -> None:
    """Exactly 0 below 0, with no gradient; and what is no number is not made one."""
    own = leaves(64, 16, 40, True, 8)
    y = linear(*own, relu=relu)  # type: ignore[arg-type]
    plain = linear(*own)  # type: ignore[arg-type]
    assert torch.equal(y, F.relu(plain) if relu else plain)
    for one, other in zip(
        gradients_of(y, own), gradients_of(F.relu(plain) if relu else plain, own), strict=True
    ):
        assert one is not None
        assert other is not None
        assert torch.equal(one, other)
    x, *rest = own
    assert x is not None
    broken = x.detach().clone().requires_grad_()
    with torch.no_grad():
        broken[3, 5] = float("nan")
    assert bool(linear(broken, *rest, relu=relu)[3].isnan().all())  # type: ignore[arg-type]


def test_the_same_again() -> None:
    """To the last bit, with any number of threads."""
    own = leaves(900, 48, 80, True, 5)
    runs = []
    for threads in (1, 2, 3, 2, 1):
        torch.set_num_threads(threads)
        y = linear(*own, relu=True)  # type: ignore[arg-type]
        runs.append([y, *gradients_of(y, own)])
    for run in runs[1:]:
        assert all(torch.equal(one, other) for one, other in zip(runs[0], run, strict=True))


@pytest.mark.parametrize("frozen", [0, 1, 2], ids=["x", "weight", "bias"])
def test_frozen_inputs(frozen: int) -> None:
    own = leaves(60, 33, 20, True, 6)
    for place, x in enumerate(own):
        assert x is not None
        x.requires_grad_(place != frozen)
    linear(*own).square().sum().backward()  # type: ignore[arg-type, no-untyped-call]
    assert [x is not None and x.grad is None for x in own] == [place == frozen for place in range(3)]


def test_any_shape_and_layout() -> None:
    weight_OI = torch.randn(9, 16, requires_grad=True)
    x = torch.randn(16, 5, 7, 3).permute(3, 2, 1, 0).requires_grad_()
    y = linear(x, weight_OI, None)
    torch.testing.assert_close(y, F.linear(x, weight_OI), rtol=1e-5, atol=1e-5)
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.shape == x.shape


def test_when_torch_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without gradients, for few rows, for other types: bit-equal to torch."""
    layer, x_NI = Linear(8, 6), torch.randn(5, 8)
    with torch.no_grad():
        assert torch.equal(layer(x_NI), F.linear(x_NI, layer.weight, layer.bias))
    double = Linear(8, 6).double()
    assert torch.equal(double(x_NI.double()), F.linear(x_NI.double(), double.weight, double.bias))
    monkeypatch.setattr(module, "_FEWEST", 6)
    assert torch.equal(layer(x_NI), F.linear(x_NI, layer.weight, layer.bias))


def test_the_type_of_products_is_put_back() -> None:
    assert product_type() == torch.float32
    with products_of(torch.bfloat16):
        assert product_type() == torch.bfloat16
    assert product_type() == torch.float32
