"""The Transformer's options: gradients, dropout, the kernel of torch, and what holds of every model."""

from __future__ import annotations

from typing import Any

import equivalence.test_incremental as incremental
import pytest
import torch
from equivalence.variants import CLOSE, randomize, small
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from nmt.config_file import parse_config
from nmt.errors import UserError
from nmt.models import attention, build_model, positions, transformer_layers
from nmt.models.attention import causal_mask, scaled_dot_product
from nmt.models.positions import RelativePositions, clipped_distances

# --- the kernel of torch --------------------------------------------------------------------------------


@pytest.mark.parametrize(("tokens", "fused"), [(6, False), (90, True)], ids=["short", "fused"])
def test_causal_is_a_causal_bias(tokens: int, fused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fused kernel gets a flag and no mask, which would keep it from its fastest form."""
    seen: list[dict[str, Any]] = []
    kernel = F.scaled_dot_product_attention

    def spy(*arguments: Any, **options: Any) -> Tensor:
        seen.append(options)
        return kernel(*arguments, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    torch.manual_seed(40)
    query, key, value = torch.randn(3, 2, 2, tokens, 8, requires_grad=True).unbind()
    found = scaled_dot_product(query, key, value, causal=True)
    assert [(options["is_causal"], options["attn_mask"]) for options in seen] == [(True, None)] * fused
    expected = scaled_dot_product(query, key, value, bias=causal_mask(tokens, query))
    torch.testing.assert_close(found, expected, **CLOSE)
    for own, other in zip(
        torch.autograd.grad(found.cos().sum(), (query, key, value)),
        torch.autograd.grad(expected.cos().sum(), (query, key, value)),
        strict=True,
    ):
        torch.testing.assert_close(own, other, **CLOSE)


class LargestTensor(TorchDispatchMode):
    """Elements of the largest result of any operation, forward or backward."""

    elements = 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        result = function(*arguments, **(options or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


def test_relative_positions_build_no_tensor_of_pairs_and_width() -> None:
    torch.manual_seed(41)
    tokens, width = 40, 32
    query, key, value = torch.randn(3, 1, 1, tokens, width, requires_grad=True).unbind()
    distance_B1QS = clipped_distances(torch.arange(tokens), torch.arange(tokens)[None], 4)
    relative = RelativePositions(4, width)
    with LargestTensor() as largest:
        scaled_dot_product(
            query, key, value, causal=True, relative=relative, distance_B1QS=distance_B1QS
        ).sum().backward()
    assert 0 < largest.elements <= 3 * tokens * width  # the drawn tensor's gradient; pairs are fewer


# --- gradients ------------------------------------------------------------------------------------------


class Logits(nn.Module):
    """Source and target ids to logits: what training differentiates."""

    def __init__(self, **options: Any):
        super().__init__()
        torch.manual_seed(41)
        self.model = small(
            **(dict(encoder_layers=1, decoder_layers=1, width=8, feed_forward_width=6) | options)
        ).double()
        randomize(self, 42)

    def forward(self, source_BS: Tensor, target_BT: Tensor) -> Tensor:
        memory = self.model.encode(source_BS, source_BS != 0)
        logits: Tensor = self.model.project(self.model.decode(target_BT, memory))
        return logits


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize(
    ("norm_type", "activation", "kind"), [("rmsnorm", "swiglu", "rotary"), ("layernorm", "gelu", "relative")]
)
def test_gradients(norm: str, norm_type: str, activation: str, kind: str) -> None:
    made = Logits(norm=norm, norm_type=norm_type, activation=activation, positions=kind, relative_distance=2)
    source_BS = torch.tensor([[4, 5, 6, 7, 3], [8, 3, 0, 0, 0]])
    target_BT = torch.tensor([[2, 4, 5, 6], [2, 7, 8, 9]])
    names = [name for name, _ in made.named_parameters()]
    parameters = [p.detach().clone().requires_grad_() for p in made.parameters()]

    def logits(*values: Tensor) -> Tensor:
        named = dict(zip(names, values, strict=True))
        return torch.func.functional_call(made, named, (source_BS, target_BT))

    assert torch.autograd.gradcheck(logits, parameters, fast_mode=True)
    F.cross_entropy(made(source_BS, target_BT).flatten(0, 1), target_BT.flatten()).backward()
    without = [name for name, p in made.named_parameters() if p.grad is None or not p.grad.abs().amax() > 0]
    assert without == []


# --- dropout --------------------------------------------------------------------------------------------

B, S, T, D, H = 2, 5, 4, 16, 2
EMBEDDED = [(B, S, D), (B, T, D)]
PLACES_OF_DROPOUT = {
    "embedding_dropout": EMBEDDED,
    "dropout": [*EMBEDDED, *[(B, S, D)] * 4, *[(B, T, D)] * 6],  # the embeddings' is as `dropout` if not set
    "activation_dropout": [*[(B, S, 24)] * 2, *[(B, T, 20)] * 2],
    "attention_dropout": [*[(B, H, S, S)] * 2, *[(B, H, T, T), (B, H, T, S)] * 2],
}
COMBINATIONS = [
    ("post", "layernorm", "relu", "sinusoidal"),
    ("post", "rmsnorm", "swiglu", "rotary"),
    ("pre", "rmsnorm", "swiglu", "rotary"),
    ("pre", "layernorm", "relu", "rotary"),
    ("post", "layernorm", "gelu", "relative"),
    ("pre", "rmsnorm", "swiglu", "relative"),
    ("pre", "rmsnorm", "gelu", "learned"),
]


@pytest.mark.parametrize("variant", COMBINATIONS, ids="-".join)
@pytest.mark.parametrize("kind", PLACES_OF_DROPOUT)
def test_dropout_is_where_it_belongs(
    kind: str, variant: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each rate alone: it drops these tensors and no others, in training only, and changes the result."""
    seen: list[tuple[int, ...]] = []

    def spy(x: Tensor, rate: float, training: bool) -> Tensor:
        if not training or rate == 0.0:
            return x
        assert rate == 0.4
        seen.append(tuple(x.shape))
        return F.dropout(x, rate, training)

    def spy_on_sum(x: Tensor, output: Tensor, rate: float, training: bool) -> Tensor:
        return x + spy(output, rate, training)

    monkeypatch.setattr(positions, "dropout", spy)
    monkeypatch.setattr(transformer_layers, "dropout", spy)
    monkeypatch.setattr(transformer_layers, "add_dropped", spy_on_sum)
    monkeypatch.setattr(attention, "drop", spy)
    norm, norm_type, activation, where = variant
    model = small(norm=norm, norm_type=norm_type, activation=activation, positions=where, **{kind: 0.4})
    randomize(model, 43)
    source_BS = torch.tensor([[4, 5, 6, 7, 3], [8, 9, 3, 0, 0]])
    target_BT = torch.tensor([[2, 4, 5, 6], [2, 7, 8, 9]])

    def run() -> Tensor:
        return model.decode(target_BT, model.encode(source_BS, source_BS != 0))

    model.eval()
    evaluated = run()
    assert seen == []
    model.train()
    torch.manual_seed(44)
    trained = run()
    assert sorted(seen) == sorted(PLACES_OF_DROPOUT[kind])
    assert not torch.allclose(trained, evaluated)


@pytest.mark.parametrize("relative", [False, True])
def test_attention_dropout_of_long_sentences(relative: bool) -> None:
    """No query loses more or fewer weights than the rate says, and what is left is scaled."""
    torch.manual_seed(45)
    query, key = torch.randn(2, 2, 2, 100, 8).unbind()
    value = torch.eye(100).expand(2, 2, 100, 100)  # the context is the weights
    tables = RelativePositions(3, 8) if relative else None
    options: dict[str, Any] = dict(
        relative=tables, distance_B1QS=clipped_distances(torch.arange(100), torch.arange(100)[None], 3)
    )
    if tables is not None:
        tables.values = nn.Parameter(torch.zeros(7, 100))
    kept = scaled_dot_product(query, key, value, **options)
    dropped = scaled_dot_product(query, key, value, dropout=0.25, **options)
    survivors = dropped != 0
    torch.testing.assert_close(dropped[survivors], kept[survivors] / 0.75, **CLOSE)
    assert survivors.double().mean() == pytest.approx(0.75, abs=0.01)


# --- what holds of every model, as in test_incremental.py -----------------------------------------------


@pytest.fixture(scope="module", params=COMBINATIONS[1:], ids="-".join)
def model(request: pytest.FixtureRequest) -> Any:
    """In evaluation mode; its dropout rates are high, so dropout in the wrong place shows."""
    norm, norm_type, activation, kind = request.param
    torch.manual_seed(46)
    made = small(
        norm=norm,
        norm_type=norm_type,
        activation=activation,
        positions=kind,
        dropout=0.5,
        attention_dropout=0.5,
        activation_dropout=0.5,
    )
    randomize(made, 47)
    return made.eval()


def test_step_by_step(model: Any) -> None:
    incremental.test_step_by_step(model)


def test_many_hypotheses(model: Any) -> None:
    incremental.test_many_hypotheses(model)


@pytest.mark.parametrize("tokens", [5, 90], ids=["short", "fused"])
def test_padding_changes_nothing(model: Any, tokens: int) -> None:
    incremental.test_padding_changes_nothing(model, tokens)


def test_what_stands_in_padding_does_not_matter(model: Any) -> None:
    incremental.test_what_stands_in_padding_does_not_matter(model)


@pytest.mark.parametrize("tokens", [6, 90], ids=["short", "fused"])
def test_later_tokens_change_nothing_before(model: Any, tokens: int) -> None:
    incremental.test_later_tokens_change_nothing_before(model, tokens)


@pytest.mark.parametrize("tokens", [6, 90], ids=["short", "fused"])
def test_recorded_weights(model: Any, tokens: int) -> None:
    incremental.test_recorded_weights(model, tokens)


def test_training_mode_drops(model: Any) -> None:
    incremental.test_training_mode_drops(model)


def test_bfloat16(model: Any) -> None:
    incremental.test_bfloat16(model)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["relative", "rotary"])
def test_order_matters(kind: str) -> None:
    """Without positions, the encoder would not see that two words changed places."""
    model = small(positions=kind).eval()
    randomize(model, 48)
    source_1S = torch.tensor([[4, 5, 6, 7, 3]])
    swapped_1S = torch.tensor([[5, 4, 6, 7, 3]])
    target_1T = torch.tensor([[2, 4]])
    first, second = (model.decode(target_1T, model.encode(x, x != 0)) for x in (source_1S, swapped_1S))
    assert (first - second).abs().amax() > 1e-3


# --- configuration --------------------------------------------------------------------------------------


def parsed(model: str) -> Any:
    data = '[data]\ntrain = "t"\nvalidation = "v"\nsource_language = "en"\ntarget_language = "de"\n'
    return parse_config(f"{data}[model]\n{model}\n").model


def test_options_reach_the_model() -> None:
    config = parsed(
        'norm_type = "rmsnorm"\nactivation = "swiglu"\npositions = "relative"\nrelative_distance = 5\n'
        'norm = "pre"\ndecoder_feed_forward_width = 96'
    )
    model: Any = build_model(config, 50, 50)
    assert isinstance(model.encoder_norm, nn.RMSNorm)
    assert model.encoder[0].relative.keys.shape == model.decoder[3].relative.values.shape == (11, 32)
    assert model.encoder[0].feed_forward.gate.weight.shape == (256, 128)
    assert model.decoder[0].feed_forward.gate.weight.shape == (96, 128)
    assert not any(name.startswith("target_positions") for name, _ in model.named_parameters())
    tables = model.encoder[0].relative.keys.flatten()
    assert 0.05 < tables.std() < 0.5
    plain: Any = build_model(parsed(""), 50, 50)
    assert plain.decoder[0].feed_forward.inner.weight.shape == (256, 128)
    assert plain.decoder[0].relative is None
    assert plain.decoder[0].feed_forward.gate is None
    assert isinstance(plain.decoder[0].self_residual.norm, nn.LayerNorm)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            'positions = "rotary"\nwidth = 12\nheads = 4',
            r'model\.positions = "rotary".*12 / 4 = 3 is odd.*2, 3, 6',
        ),
        ('positions = "rotary"\nwidth = 15\nheads = 5', r"15 / 5 = 3 is odd; use an even model\.width, 10 "),
        (
            'positions = "relative"\nrelative_distance = 0',
            r"model\.relative_distance = 0.*greater than or equal to 1",
        ),
        (
            'positions = "rope"',
            r"model\.positions = \"rope\".*'sinusoidal', 'learned', 'rotary' or 'relative'",
        ),
        ('norm_type = "rms"', r"model\.norm_type = \"rms\".*'layernorm' or 'rmsnorm'"),
        ('activation = "silu"', r"model\.activation = \"silu\".*'relu', 'gelu' or 'swiglu'"),
        (
            "decoder_feed_forward_width = 0",
            r"model\.decoder_feed_forward_width = 0.*greater than or equal to 1",
        ),
    ],
)
def test_mistakes_in_the_configuration(model: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parsed(model)


@pytest.mark.parametrize(("width", "heads"), [(12, 4), (12, 6), (2, 1), (20, 10), (512, 8)])
def test_advice_on_rotary_heads_can_be_followed(width: int, heads: int) -> None:
    sizes = f'positions = "rotary"\nwidth = {width}\n'
    try:
        parsed(f"{sizes}heads = {heads}")
    except UserError as error:
        for advised in str(error).rpartition("= ")[2].split(", "):
            assert parsed(f"{sizes}heads = {advised}").heads == int(advised)
    else:
        assert width // heads % 2 == 0
