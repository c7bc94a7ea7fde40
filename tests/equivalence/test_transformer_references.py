"""The Transformer's options against CTranslate2, the Llama of Hugging Face, and NumPy."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from equivalence.variants import CLOSE, randomize, small
from torch import Tensor, nn

from nmt.models.attention import MultiHeadProjections, additive_mask, scaled_dot_product
from nmt.models.positions import RelativePositions, clipped_distances, rotate, rotation
from nmt.models.transformer_layers import FeedForward, Residual

Array = npt.NDArray[np.float64]

# --- against CTranslate2 --------------------------------------------------------------------------------

VARIANTS = list(
    itertools.product(
        ["pre", "post"],
        ["layernorm", "rmsnorm"],
        ["relu", "gelu", "swiglu"],
        ["sinusoidal", "learned", "relative", "rotary"],
    )
)


@torch.no_grad()
@pytest.mark.parametrize("variant", VARIANTS, ids="-".join)
def test_whole_model_against_ctranslate2(variant: tuple[str, ...], tmp_path: Path) -> None:
    """Sentences longer than the clipped distance and shorter; tables of positions for both sides."""
    pytest.importorskip("ctranslate2", reason="needs ctranslate2, which is in the extra `dev`")
    from equivalence.ctranslate2_transformer import Converted

    norm, norm_type, activation, kind = variant
    options = dict(norm=norm, norm_type=norm_type, activation=activation, positions=kind, heads=2)
    model = small(**options, source_vocabulary=19).eval()
    randomize(model, 31)
    theirs = Converted(model, tmp_path, **options)
    pairs = [
        ([4, 5, 6, 7, 8, 9, 10, 11, 4, 5, 3], [8, 9, 4, 5, 6, 7, 10, 11, 12, 8]),
        ([5, 3], [4]),
        ([7, 8, 9, 3], [6, 6, 6, 7, 8]),
    ]
    for source, target in pairs:
        source_1S = torch.tensor([source])
        memory = model.encode(source_1S, source_1S != 0)
        hidden_1TD = model.decode(torch.tensor([[2, *target]]), memory)
        log_probability_TV = model.project(hidden_1TD)[0].log_softmax(dim=-1)
        found_T = log_probability_TV.gather(-1, torch.tensor([*target, 3])[:, None]).squeeze(-1)
        torch.testing.assert_close(found_T, theirs.score(source, target), **CLOSE)


# --- against the Llama of Hugging Face ------------------------------------------------------------------


def llama() -> Any:
    pytest.importorskip("transformers", reason="needs transformers, which is in the extra `dev`")
    from transformers.models.llama import modeling_llama

    return modeling_llama


def llama_config(**sizes: Any) -> Any:
    pytest.importorskip("transformers", reason="needs transformers, which is in the extra `dev`")
    from transformers import LlamaConfig

    return LlamaConfig(**sizes)


@pytest.mark.parametrize("pre_norm", [False, True], ids=["post", "pre"])
@pytest.mark.parametrize("outside", ["torch", "llama"])
def test_rms_norm(outside: str, pre_norm: bool) -> None:
    theirs = nn.RMSNorm(12, eps=1e-5) if outside == "torch" else llama().LlamaRMSNorm(12, eps=1e-5)
    residual = Residual(12, pre_norm=pre_norm, dropout=0.0, norm_type="rmsnorm")
    randomize(residual, 33)
    theirs.load_state_dict(residual.norm.state_dict())
    x = torch.randn(3, 5, 12, generator=torch.Generator().manual_seed(32)) * 3
    x[0, 0] *= 1e-3  # small enough for epsilon to count
    entered = theirs(x) if pre_norm else x
    left = x + entered.cos()
    torch.testing.assert_close(residual.enter(x), entered, **CLOSE)
    torch.testing.assert_close(residual.leave(x, entered.cos()), left if pre_norm else theirs(left), **CLOSE)


@pytest.mark.parametrize("biases", [False, True])
def test_swiglu(biases: bool) -> None:
    theirs = llama().LlamaMLP(
        llama_config(hidden_size=12, intermediate_size=20, num_attention_heads=2, mlp_bias=biases)
    )
    ours = FeedForward(12, 20, 0.0, "swiglu")
    randomize(theirs, 34)
    for own, other in (
        (ours.gate, theirs.gate_proj),
        (ours.inner, theirs.up_proj),
        (ours.outer, theirs.down_proj),
    ):
        own.load_state_dict(other.state_dict() | ({} if biases else {"bias": torch.zeros(own.out_features)}))
    x = torch.randn(2, 7, 12, generator=torch.Generator().manual_seed(35))
    torch.testing.assert_close(ours(x), theirs(x), **CLOSE)


@pytest.mark.parametrize("width", [2, 6, 64])
def test_rotary(width: int) -> None:
    """Llama's element j is our 2j, its j + N/2 our 2j + 1."""
    torch.manual_seed(36)
    query, key = torch.randn(2, 2, 3, 40, width).unbind()
    theirs = llama().LlamaRotaryEmbedding(
        llama_config(hidden_size=3 * width, num_attention_heads=3, max_position_embeddings=64)
    )
    position_T = torch.arange(5, 45)
    cosine, sine = theirs(query, position_T.expand(2, -1))
    halves = [torch.cat((x[..., ::2], x[..., 1::2]), dim=-1) for x in (query, key)]
    expected = llama().apply_rotary_pos_emb(*halves, cosine, sine)
    for x, rotated in zip((query, key), expected, strict=True):
        found = rotate(x, rotation(position_T, width, x))
        torch.testing.assert_close(torch.cat((found[..., ::2], found[..., 1::2]), dim=-1), rotated, **CLOSE)


def test_rotated_products_depend_on_the_distance() -> None:
    torch.manual_seed(37)
    query, key = torch.randn(2, 1, 8, dtype=torch.float64).unbind()

    def product(i: int, j: int) -> Tensor:
        return (
            rotate(query, rotation(torch.tensor([i]), 8, query))
            @ rotate(key, rotation(torch.tensor([j]), 8, key)).t()
        )

    torch.testing.assert_close(product(3, 7), product(1003, 1007))
    assert not torch.isclose(product(3, 7), product(7, 3))


# --- self-attention against NumPy -----------------------------------------------------------------------


def rotation_matrix(position: int, width: int) -> Array:
    """R^d_{Theta, m} (Su et al. 2021, eq. 15)."""
    matrix = np.zeros((width, width))
    for i in range(1, width // 2 + 1):
        angle = position * 10_000 ** (-2 * (i - 1) / width)
        block = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
        matrix[2 * i - 2 : 2 * i, 2 * i - 2 : 2 * i] = block
    return matrix


def attend(
    query: Array, key: Array, value: Array, *, kind: str, limit: int, tables: list[Array], causal: bool
) -> tuple[Array, Array]:
    """One head of one sentence, one pair of positions at a time (Shaw et al. 2018, eq. 2 to 4)."""
    contexts, all_weights = [], []
    for i in range(len(query)):
        seen = range(i + 1 if causal else len(key))
        key_terms, value_terms = [], []
        for j in seen:
            row = max(-limit, min(limit, j - i)) + limit
            key_terms.append(key[j] + tables[0][row] if kind == "relative" else key[j])
            value_terms.append(value[j] + tables[1][row] if kind == "relative" else value[j])
            if kind == "rotary":
                key_terms[-1] = rotation_matrix(j, len(key[j])) @ key[j]
        own = rotation_matrix(i, len(query[i])) @ query[i] if kind == "rotary" else query[i]
        exponentials = np.exp([own @ term / math.sqrt(len(own)) for term in key_terms])
        weights = np.zeros(len(key))
        weights[: len(seen)] = exponentials / exponentials.sum()
        contexts.append(sum(w * v for w, v in zip(weights, value_terms, strict=False)))
        all_weights.append(weights)
    return np.stack(contexts), np.stack(all_weights)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["plain", "relative", "rotary"])
@pytest.mark.parametrize("causal", [False, True], ids=["padded", "causal"])
def test_self_attention_against_numpy(kind: str, causal: bool) -> None:
    draw = np.random.default_rng(38)
    torch.manual_seed(39)
    for _ in range(50):
        sentences, longest, heads, limit = (int(n) for n in draw.integers(1, [4, 9, 4, 6]))
        narrow = 2 * int(draw.integers(1, 5))
        lengths = draw.integers(1, longest + 1, sentences)
        mask_BS = torch.arange(longest) < torch.from_numpy(lengths)[:, None]
        module = MultiHeadProjections(heads * narrow, heads).double()
        relative = RelativePositions(limit, narrow).double() if kind == "relative" else None
        randomize(module, int(draw.integers(1000)))
        x_BSD = torch.randn(sentences, longest, heads * narrow, dtype=torch.float64)
        position_S = torch.arange(longest)
        query, key, value = module.query_key_value(
            x_BSD, rotation(position_S, narrow, x_BSD) if kind == "rotary" else None
        )
        record: list[Tensor] = []
        context = scaled_dot_product(
            query,
            key,
            value,
            bias=None if causal else additive_mask(mask_BS[:, None, None], x_BSD),
            causal=causal,
            relative=relative,
            distance_B1QS=clipped_distances(position_S, position_S[None], limit),
            record=record,
        )
        found_BSD = module.merge(context)
        matrix, bias = module.input.weight.numpy(), module.input.bias.numpy()
        tables = [] if relative is None else [relative.keys.numpy(), relative.values.numpy()]
        for b, length in enumerate(lengths):
            projected = x_BSD[b, :length].numpy() @ matrix.T + bias
            merged = np.zeros((length, heads * narrow))
            for head in range(heads):
                columns = np.arange(head * narrow, (head + 1) * narrow)
                parts = [projected[:, columns + part * heads * narrow] for part in range(3)]
                merged[:, columns], weights = attend(
                    *parts, kind=kind, limit=limit, tables=tables, causal=causal
                )
                own = record[0][b, head, :length, :length]
                np.testing.assert_allclose(own, weights, rtol=1e-10, atol=1e-10)
            expected = merged @ module.output.weight.numpy().T + module.output.bias.numpy()
            np.testing.assert_allclose(found_BSD[b, :length], expected, rtol=1e-10, atol=1e-10)
