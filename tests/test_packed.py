"""Packed linear layers against `nn.Linear`, and search with and without the loops in C.

N rows, B sentences, S source length, I and O widths of input and output.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_models import make, random_source
from torch import Tensor, nn
from torch.nn import functional as F

from nmt.beam import Beam, beam_search
from nmt.decoding import Decoding, log_total
from nmt.models.fast import for_search
from nmt.models.packed import PackedLinear, can_pack, linear_part, packed
from nmt.search import Hypothesis, Sentence

pytestmark = pytest.mark.skipif(
    not can_pack(), reason="this build of torch has no oneDNN with packed weights"
)

PRECISIONS = ("float32", "bfloat16", "int8")
SHAPES = [(2, 1), (2, 7), (5, 1), (8, 8), (16, 48), (33, 17), (64, 130)]


def layer(inputs: int, outputs: int, *, bias: bool = True) -> nn.Linear:
    torch.manual_seed(1000 * inputs + outputs)
    linear = nn.Linear(inputs, outputs, bias=bias)
    with torch.no_grad():
        linear.weight[0] *= 40.0  # rows of different scales
    return linear


def rows(count: int, width: int) -> Tensor:
    x_NI = torch.randn((count, width), generator=torch.Generator().manual_seed(count + width))
    return x_NI * torch.logspace(-2, 2, count)[:, None]


def allowed(linear: nn.Linear, x: Tensor, precision: str) -> Tensor:
    """How far a result may be from the exact one, from how factors are rounded: (..., O)."""
    x, weight_OI = x.double(), linear.weight.double()
    size = F.linear(x.abs(), weight_OI.abs())
    if linear.bias is not None:
        size = size + linear.bias.double().abs()
    if precision == "float32":
        return 1e-5 * size
    if precision == "bfloat16":  # 2^-8 for each factor, or the bias, and the result
        return 2.0**-6.4 * size
    half_x = x.abs().amax(dim=-1, keepdim=True) / 254
    half_O = weight_OI.abs().amax(dim=1) / 254
    inputs = linear.in_features
    from_x = half_x * weight_OI.abs().sum(dim=1)
    from_weight = x.abs().sum(dim=-1, keepdim=True) * half_O
    return (from_x + from_weight + inputs * half_x * half_O) * (1 + 1e-4) + 1e-5 * size


def assert_near(
    found: Tensor, linear: nn.Linear, x: Tensor, precision: str, part: slice = slice(None)
) -> None:
    expected = F.linear(
        x.double(), linear.weight.double(), None if linear.bias is None else linear.bias.double()
    )
    assert found.dtype == torch.float32
    assert found.shape == expected[..., part].shape
    assert ((found - expected[..., part]).abs() <= allowed(linear, x, precision)[..., part] + 1e-30).all()


@pytest.fixture(params=["products", "loops", "torch"])
def loops(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With products and loops in C where they are compiled, with loops alone, and without."""
    if request.param != "products":
        monkeypatch.setattr("nmt.products.available", lambda: False)
    if request.param == "torch":
        monkeypatch.setattr("nmt.kernels.usable", lambda x: False)


# --- layers ------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
@pytest.mark.usefixtures("loops")
def test_as_a_linear_layer(precision: str, bias: bool) -> None:
    for inputs, outputs in SHAPES:
        linear = layer(inputs, outputs, bias=bias)
        own = PackedLinear(linear, precision)
        assert (own.in_features, own.out_features) == (inputs, outputs)
        for count in (1, 2, 16, 19, 40):
            x_NI = rows(count, inputs)
            before = x_NI.clone()
            assert_near(own(x_NI), linear, x_NI, precision)
            assert torch.equal(x_NI, before)
        x_BSI = rows(12, inputs).view(3, 4, inputs)
        assert_near(own(x_BSI), linear, x_BSI, precision)
        assert_near(own(x_BSI[:, None]), linear, x_BSI[:, None], precision)


@torch.no_grad()
@pytest.mark.parametrize("precision", PRECISIONS)
def test_precision_is_what_it_says(precision: str) -> None:
    """The lower ones are coarser: else their bounds would say nothing of them."""
    linear, x_NI = layer(64, 130), rows(19, 64)
    error = (PackedLinear(linear, precision)(x_NI) - linear(x_NI)).abs()
    assert (error > allowed(linear, x_NI, "float32")).any() == (precision != "float32")


@torch.no_grad()
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.usefixtures("loops")
def test_not_contiguous(precision: str) -> None:
    linear = layer(33, 17)
    own = PackedLinear(linear, precision)
    wide_NI = rows(10, 66)
    for x in (
        wide_NI[:, ::2],
        wide_NI[::3, :33],
        wide_NI[:, :33].t().contiguous().t(),
        rows(12, 33).view(3, 4, 33).transpose(0, 1),
        rows(12, 66).view(3, 4, 66)[:, 1:, 33:],
        rows(1, 33).expand(6, -1),
    ):
        assert not x.is_contiguous()
        assert_near(own(x), linear, x, precision)


@torch.no_grad()
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
@pytest.mark.usefixtures("loops")
def test_parts(precision: str, bias: bool) -> None:
    linear = layer(16, 48, bias=bias)
    own = PackedLinear(linear, precision)
    x_BSI = rows(12, 16).view(3, 4, 16)
    for part in (slice(0, 16), slice(16, None), slice(5, 6), slice(-20, -3), slice(None), slice(0, 48)):
        for _ in range(2):  # the second time it is there
            assert_near(linear_part(own, x_BSI, part), linear, x_BSI, precision, part)
        torch.testing.assert_close(linear_part(linear, x_BSI, part), linear(x_BSI)[..., part])


@torch.no_grad()
@pytest.mark.usefixtures("loops")
def test_int8_rows_are_bit_equal_in_any_company() -> None:
    for inputs, outputs in SHAPES:
        own = PackedLinear(layer(inputs, outputs), "int8")
        x_NI = rows(40, inputs)
        together_NO = own(x_NI)
        for n in range(0, 40, 3):
            assert torch.equal(own(x_NI[n : n + 1])[0], together_NO[n])
        assert torch.equal(own(x_NI[7:26]), together_NO[7:26])
        order_N = torch.randperm(40, generator=torch.Generator().manual_seed(2))
        assert torch.equal(own(x_NI[order_N]), together_NO[order_N])
        others_NI = x_NI.clone()
        others_NI[1:] *= 1e4
        assert torch.equal(own(others_NI)[0], together_NO[0])


@torch.no_grad()
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_rows_are_about_equal_in_any_company(precision: str) -> None:
    linear = layer(33, 17)
    own, x_NI = PackedLinear(linear, precision), rows(40, 33)
    together_NO, bound_NO = own(x_NI), allowed(linear, x_NI, precision)
    for n in range(40):
        assert ((own(x_NI[n : n + 1])[0] - together_NO[n]).abs() <= bound_NO[n]).all()


@torch.no_grad()
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.usefixtures("loops")
def test_rows_of_zeros(precision: str) -> None:
    linear = layer(8, 8)
    linear.weight[3] = 0.0
    own = PackedLinear(linear, precision)
    x_NI = rows(3, 8)
    x_NI[1] = 0.0
    assert_near(own(x_NI), linear, x_NI, precision)
    bias_O = linear.bias.bfloat16().float() if precision == "bfloat16" else linear.bias
    assert torch.equal(own(x_NI)[1], bias_O)


# --- models ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["pre-learned", "recurrent-lstm", "bahdanau-tied", "luong-concat-local-p-fed"]
)
def test_the_model_itself_stays_as_it_is(name: str) -> None:
    model = make(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    kinds = {key: type(module) for key, module in model.named_modules()}
    twin = packed(model)
    assert {key: type(module) for key, module in model.named_modules()} == kinds
    assert any(isinstance(module, PackedLinear) for module in twin.modules())
    assert not any(isinstance(module, PackedLinear) for module in model.modules())
    own = {id(parameter) for parameter in model.parameters()}
    assert twin.embeddings.target.weight is model.embeddings.target.weight
    assert all(id(parameter) in own for parameter in twin.parameters())

    source_BS = random_source([5, 3], torch.Generator().manual_seed(4))
    target_BT = torch.tensor([[2, 4, 5], [2, 6, 7]])
    model.train()
    assert not twin.training
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.project(model.decode(target_BT, model.encode(source_BS, source_BS != 0))).square().mean().backward()
    assert all(parameter.requires_grad for parameter in model.parameters())
    optimizer.step()
    changed = [key for key, value in model.state_dict().items() if not torch.equal(value, before[key])]
    linear = {f"{key}.weight" for key, kind in kinds.items() if kind is nn.Linear}
    assert linear & set(changed)
    again = packed(model.eval())  # what was trained is packed anew
    with torch.no_grad():
        hidden_BTD = again.decode(target_BT, again.encode(source_BS, source_BS != 0))
        expected_BTD = model.decode(target_BT, model.encode(source_BS, source_BS != 0))
    torch.testing.assert_close(hidden_BTD, expected_BTD, rtol=1e-5, atol=1e-5)


def test_a_precision_that_does_not_fit_stays() -> None:
    """Float64 and other devices are for torch."""
    model = nn.Sequential(nn.Linear(16, 24).double(), nn.Linear(16, 24, device="meta"), nn.Linear(16, 24))
    twin = packed(model)
    assert [type(module) for module in twin] == [nn.Linear, nn.Linear, PackedLinear]


@torch.no_grad()
@pytest.mark.parametrize("precision", PRECISIONS)
def test_layers_of_one_input_or_output(precision: str) -> None:
    """`torch._int_mm` of torch 2.13 returns what memory holds where there is one input."""
    for inputs, outputs in ((1, 1), (1, 9), (1, 64), (9, 1), (64, 1)):
        linear = layer(inputs, outputs)
        x_NI = rows(5, inputs)
        assert_near(packed(nn.Sequential(linear), precision)(x_NI), linear, x_NI, precision)


@torch.no_grad()
def search(model: Any, precision: str) -> dict[int, list[Hypothesis]]:
    """Beam search with the sentences of a batch leaving and joining."""
    own = for_search(model, precision)
    lengths = [5, 9, 2, 7, 3, 12, 4]
    source_BS = random_source(lengths, torch.Generator().manual_seed(3))

    def start(indices: list[int]) -> Decoding:
        longest = max(lengths[i] for i in indices)
        source = source_BS[indices, :longest]
        memory = own.encode(source, source != 0)
        return Decoding((memory,), (own.start(memory),))

    def step(token_BK: Tensor, decoding: Decoding, live_N: Tensor | None) -> Any:
        hidden, state = own.step(token_BK, decoding.memories[0], decoding.states[0], live_N)
        logits_NV = own.project(hidden if live_N is not None else hidden.flatten(0, 1)).contiguous()
        return [(logits_NV, log_total(logits_NV))], Decoding(decoding.memories, (state,))

    method = Beam(4, end=3, n_best=4, alpha=0.6, forbidden=[0, 1, 2])
    return dict(
        beam_search(step, start, [Sentence(2 * length) for length in lengths], method, begin=2, room=3)
    )


@pytest.mark.parametrize("name", ["post-sinusoidal", "pre-learned", "recurrent-gru", "luong-dot-local-m-fed"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_search_without_the_loops(name: str, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make(name)
    with_loops = search(model, precision)
    monkeypatch.setattr("nmt.products.available", lambda: False)
    monkeypatch.setattr("nmt.kernels.usable", lambda x: False)
    without = search(model, precision)
    assert set(with_loops) == set(without) == set(range(7))
    for index, hypotheses in with_loops.items():
        if precision == "float32":
            assert [h.tokens for h in hypotheses] == [h.tokens for h in without[index]]
        for own, other in zip(hypotheses, without[index], strict=precision == "float32"):
            close = 1e-5 if precision == "float32" else 0.05
            assert own.log_probability == pytest.approx(other.log_probability, rel=close)
            assert own.score == pytest.approx(other.score, rel=close)
