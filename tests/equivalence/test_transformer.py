"""The Transformer against torch's layers and against a plain NumPy reading of Vaswani et al. 2017."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from nmt.config_file import parse_config
from nmt.models import build_model, parameter_counts
from nmt.models.attention import MultiHeadProjections, additive_mask
from nmt.models.positions import PositionalEmbedding, sinusoidal_positions
from nmt.models.transformer import Transformer
from nmt.models.transformer_layers import DecoderLayer, EncoderLayer, Residual

Array = npt.NDArray[np.float64]

WIDTH, HEADS, INNER = 32, 4, 48


def randomize(module: nn.Module, seed: int) -> None:
    """No parameter keeps a value, such as 0 or 1, that would hide a mistake."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
            if parameter.dim() == 1:
                parameter.add_(0.5)


def padding_mask(lengths: list[int]) -> Tensor:
    return torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


# --- layers against torch ----------------------------------------------------------------------------


def copy_attention(ours: MultiHeadProjections, theirs: nn.MultiheadAttention) -> None:
    ours.input.weight.copy_(theirs.in_proj_weight)
    ours.input.bias.copy_(theirs.in_proj_bias)
    ours.output.load_state_dict(theirs.out_proj.state_dict())


def copy_feed_forward(ours: EncoderLayer | DecoderLayer, theirs: Any) -> None:
    ours.feed_forward.inner.load_state_dict(theirs.linear1.state_dict())
    ours.feed_forward.outer.load_state_dict(theirs.linear2.state_dict())


def layer_options(pre_norm: bool) -> dict[str, Any]:
    return dict(pre_norm=pre_norm, dropout=0.0, attention_dropout=0.0, activation_dropout=0.0)


@pytest.mark.parametrize("pre_norm", [False, True], ids=["post", "pre"])
@pytest.mark.parametrize("longest", [7, 90], ids=["short", "fused"])
def test_encoder_layer(pre_norm: bool, longest: int) -> None:
    theirs = nn.TransformerEncoderLayer(
        WIDTH, HEADS, INNER, dropout=0.0, batch_first=True, norm_first=pre_norm
    )
    randomize(theirs, 1)
    ours = EncoderLayer(WIDTH, INNER, HEADS, **layer_options(pre_norm))
    with torch.no_grad():
        copy_attention(ours.attention, theirs.self_attn)
        copy_feed_forward(ours, theirs)
        ours.attention_residual.norm.load_state_dict(theirs.norm1.state_dict())
        ours.feed_forward_residual.norm.load_state_dict(theirs.norm2.state_dict())
    mask_BS = padding_mask([longest, 3, 1, longest - 1])
    torch.manual_seed(2)
    x_BSD = torch.randn(*mask_BS.shape, WIDTH)
    own_BSD, torch_BSD = x_BSD.clone().requires_grad_(), x_BSD.clone().requires_grad_()
    found_BSD = ours(own_BSD, additive_mask(mask_BS[:, None, None], x_BSD), None)
    expected_BSD = theirs(torch_BSD, src_key_padding_mask=~mask_BS)
    torch.testing.assert_close(found_BSD[mask_BS], expected_BSD[mask_BS], rtol=1e-5, atol=1e-5)
    weight_D = torch.randn(WIDTH)
    (found_BSD[mask_BS] @ weight_D).sum().backward()
    (expected_BSD[mask_BS] @ weight_D).sum().backward()
    torch.testing.assert_close(own_BSD.grad, torch_BSD.grad, rtol=1e-4, atol=1e-5)
    assert torch.equal(own_BSD.grad[~mask_BS], torch.zeros_like(own_BSD.grad[~mask_BS]))


@pytest.mark.parametrize("pre_norm", [False, True], ids=["post", "pre"])
@pytest.mark.parametrize(("source_longest", "target_longest"), [(9, 6), (80, 90)], ids=["short", "fused"])
def test_decoder_layer(pre_norm: bool, source_longest: int, target_longest: int) -> None:
    theirs = nn.TransformerDecoderLayer(
        WIDTH, HEADS, INNER, dropout=0.0, batch_first=True, norm_first=pre_norm
    )
    randomize(theirs, 3)
    ours = DecoderLayer(WIDTH, INNER, HEADS, **layer_options(pre_norm))
    with torch.no_grad():
        copy_attention(ours.self_attention, theirs.self_attn)
        copy_attention(ours.cross_attention, theirs.multihead_attn)
        copy_feed_forward(ours, theirs)
        for residual, norm in (
            (ours.self_residual, theirs.norm1),
            (ours.cross_residual, theirs.norm2),
            (ours.feed_forward_residual, theirs.norm3),
        ):
            residual.norm.load_state_dict(norm.state_dict())
    mask_BS = padding_mask([source_longest, 2, 5])
    torch.manual_seed(4)
    memory_BSD = torch.randn(*mask_BS.shape, WIDTH)
    x_BTD = torch.randn(3, target_longest, WIDTH)
    key, value = ours.cross_attention.key_value(memory_BSD)
    bias_B11S = additive_mask(mask_BS[:, None, None], x_BTD)
    found_BTD = ours(x_BTD, key, value, bias_B11S, None)
    later_TT = torch.ones(target_longest, target_longest, dtype=torch.bool).triu(1)
    expected_BTD = theirs(x_BTD, memory_BSD, tgt_mask=later_TT, memory_key_padding_mask=~mask_BS)
    torch.testing.assert_close(found_BTD, expected_BTD, rtol=1e-5, atol=1e-5)


def test_norm_order() -> None:
    """Post: norm(x + f(x)). Pre: x + f(norm(x)). Without dropout, the norm alone tells them apart."""
    x = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(5))
    for pre_norm in (False, True):
        residual = Residual(WIDTH, pre_norm=pre_norm, dropout=0.0)
        randomize(residual, 6)
        norm = nn.functional.layer_norm
        weight, bias = residual.norm.weight, residual.norm.bias
        entered = norm(x, (WIDTH,), weight, bias) if pre_norm else x
        torch.testing.assert_close(residual.enter(x), entered)
        left = x + entered.sin()
        torch.testing.assert_close(
            residual.leave(x, entered.sin()), left if pre_norm else norm(left, (WIDTH,), weight, bias)
        )


# --- positions -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [2, 6, 512])
@pytest.mark.parametrize("first", [0, 37, 5000])
def test_sinusoidal_positions(width: int, first: int) -> None:
    expected = [
        [
            (math.sin if column % 2 == 0 else math.cos)(position / 10_000 ** (column // 2 * 2 / width))
            for column in range(width)
        ]
        for position in range(first, first + 5)
    ]
    double = sinusoidal_positions(first, 5, width, torch.empty(0, dtype=torch.float64))
    torch.testing.assert_close(double, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-9)
    single = sinusoidal_positions(first, 5, width, torch.empty(0))
    assert single.dtype == torch.float32
    torch.testing.assert_close(single, torch.tensor(expected), rtol=0, atol=1e-6)


def test_sentence_longer_than_the_learned_table() -> None:
    positions = PositionalEmbedding(4, positions="learned", max_positions=6, dropout=0.0)
    assert positions(torch.zeros(1, 6, 4)).shape == (1, 6, 4)
    assert positions(torch.zeros(1, 1, 4), first=5).shape == (1, 1, 4)
    for count, first in ((7, 0), (1, 6), (3, 4)):
        with pytest.raises(ValueError, match=r"7 tokens.*max_positions = 6"):
            positions(torch.zeros(1, count, 4), first=first)


# --- the whole model against NumPy ---------------------------------------------------------------------


class Reference:
    """One sentence at a time, one head at a time, in float64; shares only the weights with the module."""

    def __init__(self, model: Transformer, *, pre_norm: bool, heads: int):
        self.weights = {name: p.detach().numpy() for name, p in model.state_dict().items()}
        self.pre_norm = pre_norm
        self.heads = heads

    def norm(self, x: Array, name: str) -> Array:
        centred = x - x.mean(axis=-1, keepdims=True)
        deviation = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
        return centred / deviation * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def attention(self, x_TD: Array, memory_SD: Array, name: str, *, causal: bool) -> tuple[Array, Array]:
        width = x_TD.shape[1]
        narrow = width // self.heads
        matrix, bias = self.weights[f"{name}.input.weight"], self.weights[f"{name}.input.bias"]
        query_weight, key_weight, value_weight = (
            matrix[:width],
            matrix[width : 2 * width],
            matrix[2 * width :],
        )
        query_bias, key_bias, value_bias = bias[:width], bias[width : 2 * width], bias[2 * width :]
        contexts, all_weights = [], []
        for head in range(self.heads):
            part = slice(head * narrow, (head + 1) * narrow)
            query = x_TD @ query_weight[part].T + query_bias[part]
            key = memory_SD @ key_weight[part].T + key_bias[part]
            value = memory_SD @ value_weight[part].T + value_bias[part]
            weights = np.zeros((len(x_TD), len(memory_SD)))
            for t in range(len(x_TD)):
                seen = t + 1 if causal else len(memory_SD)
                scores = np.array([query[t] @ key[s] / math.sqrt(narrow) for s in range(seen)])
                weights[t, :seen] = np.exp(scores) / np.exp(scores).sum()
            all_weights.append(weights)
            contexts.append(weights @ value)
        output = np.concatenate(contexts, axis=1) @ self.weights[f"{name}.output.weight"].T
        return output + self.weights[f"{name}.output.bias"], np.stack(all_weights)

    def feed_forward(self, x: Array, name: str) -> Array:
        inner = x @ self.weights[f"{name}.inner.weight"].T + self.weights[f"{name}.inner.bias"]
        return (
            np.maximum(inner, 0) @ self.weights[f"{name}.outer.weight"].T + self.weights[f"{name}.outer.bias"]
        )

    def residual(self, x: Array, name: str, sublayer: Any) -> Array:
        if self.pre_norm:
            return x + sublayer(self.norm(x, f"{name}.norm"))
        return self.norm(x + sublayer(x), f"{name}.norm")

    def embed(self, ids: list[int], side: str) -> Array:
        table = self.weights[f"embeddings.{side}.weight"]
        width = table.shape[1]
        learned = self.weights.get(f"{side}_positions.table.weight")
        rows = []
        for position, i in enumerate(ids):
            added = (
                learned[position]
                if learned is not None
                else np.array(
                    [
                        (math.cos if d % 2 else math.sin)(position / 10_000 ** ((d - d % 2) / width))
                        for d in range(width)
                    ]
                )
            )
            rows.append(table[i] * math.sqrt(width) + added)
        return np.stack(rows)

    def encode(self, source: list[int], layers: int) -> tuple[Array, list[Array]]:
        recorded = []
        x = self.embed(source, "source")
        for layer in range(layers):
            name = f"encoder.{layer}"

            def attend(x: Array, name: str = name) -> Array:
                output, weights = self.attention(x, x, f"{name}.attention", causal=False)
                recorded.append(weights)
                return output

            x = self.residual(x, f"{name}.attention_residual", attend)
            x = self.residual(
                x,
                f"{name}.feed_forward_residual",
                lambda x, name=name: self.feed_forward(x, f"{name}.feed_forward"),
            )
        return (self.norm(x, "encoder_norm") if self.pre_norm else x), recorded

    def decode(self, target: list[int], memory: Array, layers: int) -> tuple[Array, list[Array]]:
        recorded: list[Array] = []
        x = self.embed(target, "target")
        for layer in range(layers):
            name = f"decoder.{layer}"
            own, cross = [], []

            def attend_self(x: Array, name: str = name, kept: list[Array] = own) -> Array:
                output, weights = self.attention(x, x, f"{name}.self_attention", causal=True)
                kept.append(weights)
                return output

            def attend_memory(x: Array, name: str = name, kept: list[Array] = cross) -> Array:
                output, weights = self.attention(x, memory, f"{name}.cross_attention", causal=False)
                kept.append(weights)
                return output

            x = self.residual(x, f"{name}.self_residual", attend_self)
            x = self.residual(x, f"{name}.cross_residual", attend_memory)
            x = self.residual(
                x,
                f"{name}.feed_forward_residual",
                lambda x, name=name: self.feed_forward(x, f"{name}.feed_forward"),
            )
            recorded += [*cross, *own]
        return (self.norm(x, "decoder_norm") if self.pre_norm else x), recorded


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize(
    ("positions", "tie"), [("sinusoidal", "all"), ("learned", "target"), ("learned", "none")]
)
def test_whole_model_against_numpy(norm: str, positions: str, tie: str) -> None:
    heads = 3
    model = Transformer(
        source_vocabulary=11,
        target_vocabulary=11 if tie == "all" else 9,
        encoder_layers=2,
        decoder_layers=2,
        width=12,
        feed_forward_width=20,
        heads=heads,
        dropout=0.4,
        attention_dropout=0.4,
        activation_dropout=0.4,
        norm=norm,
        positions=positions,
        max_positions=8,
        tie_embeddings=tie,
    ).double()
    model.eval()
    randomize(model, 7)
    reference = Reference(model, pre_norm=norm == "pre", heads=heads)
    sources = [[4, 5, 6, 3], [7, 3], [3], [10, 4, 4, 9, 8, 8, 3]]
    targets = [[2, 4, 8], [2], [2, 3, 3, 7, 8, 8, 4], [2, 5, 6, 7]]
    source_BS = torch.tensor([source + [0] * (7 - len(source)) for source in sources])
    target_BT = torch.tensor([target + [0] * (7 - len(target)) for target in targets])
    encoder_record: list[Tensor] = []
    decoder_record: list[Tensor] = []
    with torch.no_grad():
        memory = model.encode(source_BS, source_BS != 0, encoder_record)
        hidden_BTD = model.decode(target_BT, memory, decoder_record)
        logits_BTV = model.project(hidden_BTD)
    for b, (source, target) in enumerate(zip(sources, targets, strict=True)):
        encoded, encoder_weights = reference.encode(source, 2)
        decoded, decoder_weights = reference.decode(target, encoded, 2)
        logits = decoded @ reference.weights["embeddings.output.weight"].T
        np.testing.assert_allclose(hidden_BTD[b, : len(target)], decoded, rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(logits_BTV[b, : len(target)], logits, rtol=1e-10, atol=1e-10)
        for recorded, queries, expected in [
            *((r, len(source), w) for r, w in zip(encoder_record, encoder_weights, strict=True)),
            *((r, len(target), w) for r, w in zip(decoder_record, decoder_weights, strict=True)),
        ]:
            own = recorded[b, :, :queries, : expected.shape[-1]]
            np.testing.assert_allclose(own, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("tie", ["all", "target", "none"])
def test_tied_weights_are_one(tie: str) -> None:
    model = Transformer(
        source_vocabulary=9,
        target_vocabulary=9,
        encoder_layers=1,
        decoder_layers=1,
        width=4,
        feed_forward_width=4,
        heads=1,
        dropout=0.0,
        tie_embeddings=tie,
    )
    shared = model.embeddings
    assert (shared.output.weight is shared.target.weight) == (tie != "none")
    assert (shared.source.weight is shared.target.weight) == (tie == "all")
    counts = parameter_counts(model)
    assert counts["embeddings"] == {"all": 1, "target": 2, "none": 3}[tie] * 9 * 4
    assert sum(counts.values()) == 2 * counts["total"]


def test_tying_all_needs_one_vocabulary() -> None:
    with pytest.raises(ValueError, match="one vocabulary"):
        Transformer(
            source_vocabulary=9,
            target_vocabulary=8,
            encoder_layers=1,
            decoder_layers=1,
            width=4,
            feed_forward_width=4,
            heads=1,
            dropout=0.0,
        )


@pytest.mark.parametrize(("preset", "millions", "tolerance"), [("base", 63.1, 0.005), ("big", 214, 0.005)])
def test_parameters_of_the_paper(preset: str, millions: float, tolerance: float) -> None:
    """Vaswani et al. 2017, table 3, with 37,000 shared subwords (sec. 5.1)."""
    config = parse_config(
        f'[data]\ntrain = "t"\nvalidation = "v"\nsource_language = "en"\ntarget_language = "de"\n'
        f'[model]\npreset = "{preset}"\n'
    )
    with torch.device("meta"):
        model = build_model(config.model, 37_000, 37_000)
    total = parameter_counts(model)["total"]
    assert total == pytest.approx(millions * 1e6, rel=tolerance)
    width, inner = (512, 2048) if preset == "base" else (1024, 4096)
    attention, norm = 4 * width * (width + 1), 2 * width
    feed_forward = width * inner + inner + inner * width + width
    encoder = 6 * (attention + feed_forward + 2 * norm)
    decoder = 6 * (2 * attention + feed_forward + 3 * norm)
    assert total == 37_000 * width + encoder + decoder
