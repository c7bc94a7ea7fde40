"""Dropout: the function, and where each architecture has it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from papers import randomize
from small_models import bahdanau, luong, prefixes, random_source, recurrent, transformer
from torch import Tensor

from nmt.models.dropout import add_dropped, dropout

# --- the function ----------------------------------------------------------------------------------------


@pytest.fixture(params=["C", "torch"])
def in_c(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one pass where it is compiled, and with torch."""
    if request.param == "torch":
        monkeypatch.setattr("nmt.models.dropout._library", lambda: None)


@pytest.mark.usefixtures("in_c")
@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_dropout_rate_mean_and_variance(rate: float, dtype: torch.dtype) -> None:
    count = 200_003  # no multiple of the four elements of a draw
    torch.manual_seed(21)
    dropped = dropout(torch.ones(count, dtype=dtype), rate, True)
    assert dropped.dtype == dtype
    values = dropped.unique()
    scale = torch.tensor(1 / (1 - rate), dtype=dtype)
    torch.testing.assert_close(values, torch.stack((torch.zeros_like(scale), scale)))
    kept = (dropped != 0).double()
    deviation = (rate * (1 - rate) / count) ** 0.5
    assert abs(kept.mean().item() - (1 - rate)) < 4.5 * deviation
    assert kept.var().item() == pytest.approx(rate * (1 - rate), rel=0.02)


@pytest.mark.usefixtures("in_c")
@pytest.mark.parametrize("rate", [0.2, 0.5])
def test_dropout_is_independent_between_neighbours(rate: float) -> None:
    """One draw serves four elements: no two of them may agree more often than by chance."""
    count = 400_000
    torch.manual_seed(22)
    kept = (dropout(torch.ones(count), rate, True) != 0).double() - (1 - rate)
    for lane in range(4):
        assert abs(kept[lane::4].mean().item()) < 4.5 * (rate * (1 - rate) / (count // 4)) ** 0.5
    for lag in range(1, 9):
        correlation = (kept[lag:] * kept[:-lag]).mean().item() / (rate * (1 - rate))
        assert abs(correlation) < 4.5 / (count - lag) ** 0.5


@pytest.mark.usefixtures("in_c")
@pytest.mark.parametrize("shape", [(), (1,), (3,), (0,), (2, 0, 3), (5, 7), (2, 3, 4, 5)])
def test_dropout_shapes(shape: tuple[int, ...]) -> None:
    x = torch.full(shape, 3.0)
    torch.manual_seed(23)
    dropped = dropout(x, 0.5, True)
    assert dropped.shape == x.shape
    assert all(value in (0.0, 6.0) for value in dropped.flatten().tolist())


@pytest.mark.usefixtures("in_c")
def test_dropout_of_a_transposed_tensor() -> None:
    x = torch.arange(1.0, 1001.0).view(20, 50).t()
    torch.manual_seed(24)
    dropped = dropout(x, 0.5, True)
    kept = dropped != 0
    assert 0.4 < kept.double().mean() < 0.6
    assert torch.equal(dropped[kept], 2 * x[kept])


@pytest.mark.usefixtures("in_c")
def test_dropout_backward_mask_is_forward_mask() -> None:
    x = torch.randn(501, dtype=torch.float64, generator=torch.Generator().manual_seed(25))
    x.requires_grad_()
    weight = torch.randn_like(x.detach())
    dropped = dropout(x, 0.3, True)
    (dropped * weight).sum().backward()
    factor = (dropped / x).detach()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, factor * weight)
    assert 0 < (x.grad == 0).sum() < 501


@pytest.mark.usefixtures("in_c")
def test_dropout_without_effect() -> None:
    x = torch.randn(100)
    assert torch.equal(dropout(x, 0.0, True), x)
    assert torch.equal(dropout(x, 0.7, False), x)


@pytest.mark.usefixtures("in_c")
def test_dropout_follows_the_seed() -> None:
    x = torch.ones(1000)
    torch.manual_seed(26)
    first = dropout(x, 0.5, True)
    second = dropout(x, 0.5, True)
    torch.manual_seed(26)
    assert torch.equal(dropout(x, 0.5, True), first)
    assert not torch.equal(first, second)


@pytest.mark.usefixtures("in_c")
@pytest.mark.parametrize("rate", [0.9999, 0.99999, 0.999999])
def test_dropout_close_to_one(rate: float) -> None:
    """Any rate below 1 is allowed; one close to it keeps next to nothing."""
    torch.manual_seed(27)
    assert (dropout(torch.ones(10_000), rate, True) != 0).double().mean() < 0.001


@pytest.mark.usefixtures("in_c")
@pytest.mark.parametrize("shape", [(7,), (4, 33), (3, 5, 128)])
def test_sum_with_what_is_dropped(shape: tuple[int, ...]) -> None:
    """The same as the two one after the other, gradients too, of any layout."""
    generator = torch.Generator().manual_seed(28)
    x, output = (torch.randn(shape, generator=generator).requires_grad_() for _ in range(2))
    weight = torch.randn(shape, generator=generator)
    found = []
    for total in (
        lambda: add_dropped(x, output, 0.4, True),
        lambda: x + dropout(output, 0.4, True),
        lambda: add_dropped(x.flip(0).flip(0), output.t().t() if output.dim() == 2 else output, 0.4, True),
    ):
        torch.manual_seed(29)
        y = total()
        found.append([y, *torch.autograd.grad((y * weight).sum(), [x, output])])
    for other in found[1:]:
        for one, same in zip(found[0], other, strict=True):
            torch.testing.assert_close(one, same)
    assert torch.equal(add_dropped(x, output, 0.4, False), x + output)


# --- where it is -----------------------------------------------------------------------------------------

BUILD: dict[str, Any] = {
    "transformer": transformer,
    "recurrent": recurrent,
    "bahdanau": bahdanau,
    "luong": luong,
    "luong-unfed": lambda **rates: luong(input_feeding=False, **rates),
    "luong-local-p": lambda **rates: luong(window="local-p", cell="gru", **rates),
}
RATES = {
    name: ["dropout", "embedding_dropout", "attention_dropout", "activation_dropout"]
    if name == "transformer"
    else ["dropout", "embedding_dropout"] + (["attention_dropout"] if name != "recurrent" else [])
    for name in BUILD
}


def build(name: str, **rates: float | None) -> Any:
    """With the rates given and no other."""
    model = BUILD[name](**dict.fromkeys(RATES[name], 0.0) | rates)
    randomize(model, 31, scale=0.5)
    return model


def results(model: Any, *, encoder: bool, decoder: bool) -> tuple[Any, Tensor]:
    """The memory and the hidden states, each in training mode or in evaluation."""
    generator = torch.Generator().manual_seed(32)
    source_BS = random_source([4, 9, 2], generator)
    torch.manual_seed(33)
    with torch.no_grad():
        memory = model.train(encoder).encode(source_BS, source_BS != 0)
        return memory, model.train(decoder).decode(prefixes(3, 6, generator), memory)


@pytest.mark.parametrize("name", BUILD)
def test_without_rates_training_is_evaluation(name: str) -> None:
    model = build(name)
    (_, trained), (_, evaluated) = (results(model, encoder=mode, decoder=mode) for mode in (True, False))
    assert torch.equal(trained, evaluated)


@pytest.mark.parametrize(("name", "rate"), [(name, rate) for name, rates in RATES.items() for rate in rates])
def test_each_rate_on_its_own(name: str, rate: str) -> None:
    """In training it changes the result, in evaluation it does not."""
    model = build(name, **{rate: 0.5})
    (_, trained), (_, evaluated) = (results(model, encoder=mode, decoder=mode) for mode in (True, False))
    assert torch.equal(evaluated, results(build(name), encoder=False, decoder=False)[1])
    assert (trained - evaluated).abs().amax() > 1e-3


@pytest.mark.parametrize("name", ["recurrent", "bahdanau", "luong"])
def test_embedding_dropout_defaults_to_dropout(name: str) -> None:
    chosen = [build(name, dropout=0.3, embedding_dropout=rate) for rate in (None, 0.3, 0.0)]
    found = [results(model, encoder=True, decoder=True)[1] for model in chosen]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


# Architecture, the module that holds the rate, and whether it acts in `encode` and in `decode`.
PLACES = [
    ("recurrent", "encoder", (True, False)),
    ("recurrent", "decoder", (False, True)),
    ("recurrent", "", (False, True)),
    ("bahdanau", "attention", (False, True)),
    ("bahdanau", "", (True, True)),
    *(
        (name, *place)
        for name in ("luong", "luong-unfed", "luong-local-p")
        for place in (
            ("encoder", (True, False)),
            ("decoder", (False, True)),
            ("attention", (False, True)),
            ("", (True, True)),
        )
    ),
]


@pytest.mark.parametrize(("name", "part", "acts"), PLACES)
def test_places(name: str, part: str, acts: tuple[bool, bool]) -> None:
    model = build(name)
    (model.get_submodule(part) if part else model).dropout = 0.5
    _, evaluated = results(model, encoder=False, decoder=False)
    for (encoder, decoder), changes in zip(((True, False), (False, True)), acts, strict=True):
        _, trained = results(model, encoder=encoder, decoder=decoder)
        assert torch.equal(trained, evaluated) != changes


@pytest.mark.parametrize("name", ["recurrent", "bahdanau", "luong", "luong-unfed", "luong-local-p"])
def test_half_of_what_is_dropped_is_zero(name: str) -> None:
    """Of what is projected to logits and, with attention, of the source states; the rest is doubled."""
    model = build(name)
    memory, whole = results(model, encoder=False, decoder=False)
    model.dropout = 0.5
    _, dropped = results(model, encoder=False, decoder=True)
    assert 0.35 < (dropped == 0).double().mean() < 0.65
    if name in ("recurrent", "bahdanau", "luong-unfed"):  # nothing dropped is read again
        torch.testing.assert_close(dropped[dropped != 0], 2 * whole[dropped != 0])
    if name != "recurrent":
        dropped_memory, _ = results(model, encoder=True, decoder=False)
        values, whole_values = dropped_memory.values_BSD, memory.values_BSD
        real = whole_values != 0
        assert 0.35 < (values[real] == 0).double().mean() < 0.65
        torch.testing.assert_close(values[values != 0], 2 * whole_values[values != 0])
