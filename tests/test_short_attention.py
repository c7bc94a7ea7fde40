"""Attention of short sentences in C against the formula in float64.

B sentences, H heads, Q queries, S keys, N width of a head.
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

from nmt import short_attention
from nmt.models.attention import additive_mask, scaled_dot_product
from nmt.short_attention import attend, usable

ONE = torch.zeros(1, 1, 1, 16)
pytestmark = pytest.mark.skipif(
    not usable(ONE, ONE, ONE, None), reason="no AVX-512 here, or C is not compiled"
)


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def formula(
    query_BHQN: Tensor, key_BHSN: Tensor, value_BHSN: Tensor, bias: Tensor | None, causal: bool
) -> Tensor:
    scores_BHQS = query_BHQN @ key_BHSN.transpose(-1, -2) / query_BHQN.size(-1) ** 0.5
    if bias is not None:
        scores_BHQS = scores_BHQS + bias
    if causal:
        later_QS = torch.ones(scores_BHQS.shape[-2:], dtype=torch.bool).triu(1)
        scores_BHQS = scores_BHQS.masked_fill(later_QS, float("-inf"))
    return scores_BHQS.softmax(dim=-1) @ value_BHSN


def heads_of(x_BQF: Tensor, heads: int, parts: int) -> list[Tensor]:
    """Parts of a projection as views (B, H, Q, N), as the model makes them."""
    return [part.view(*part.shape[:2], heads, -1).transpose(1, 2) for part in x_BQF.chunk(parts, dim=-1)]


CASES: dict[str, Any] = dict(
    sentences=st.integers(1, 3),
    heads=st.integers(1, 3),
    queries=st.integers(1, 37),
    vectors=st.sampled_from([1, 2, 3, 4]),
    threads=st.integers(1, 3),
    seed=st.integers(0, 999),
)


def check(
    query_source: Tensor, key_source: Tensor, bias: Tensor | None, heads: int, parts: int, causal: bool
) -> None:
    """`parts`: 3, self-attention of `query_source`; 2: keys and values of `key_source`."""

    def run(attention: Any, dtype: torch.dtype) -> list[Tensor]:
        sources = [x.to(dtype).requires_grad_() for x in (query_source, key_source)]
        if parts == 3:
            views = heads_of(sources[0], heads, 3)
        else:
            views = heads_of(sources[0], heads, 1) + heads_of(sources[1], heads, 2)
        context = attention(*views, None if bias is None else bias.to(dtype), causal)
        weights = torch.linspace(-1, 1, context.numel(), dtype=dtype).view(context.shape)
        grads = torch.autograd.grad((context * weights).sum(), sources[: 1 if parts == 3 else 2])
        return [context, *grads]

    def ours(query: Tensor, key: Tensor, value: Tensor, own_bias: Tensor | None, own_causal: bool) -> Tensor:
        assert usable(query, key, value, own_bias)
        return attend(query, key, value, own_bias, causal=own_causal)

    for one, other in zip(run(ours, torch.float32), run(formula, torch.float64), strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(causal=st.booleans(), **CASES)
def test_self_attention(
    sentences: int, heads: int, queries: int, vectors: int, threads: int, seed: int, causal: bool
) -> None:
    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(seed)
    projected = torch.randn(sentences, queries, 3 * heads * 16 * vectors, generator=generator)
    check(projected, projected[:0], None, heads, 3, causal)


@settings(max_examples=60, deadline=None)
@given(keys=st.integers(1, 40), padded=st.booleans(), **CASES)
def test_attention_over_a_memory(
    sentences: int, heads: int, queries: int, vectors: int, threads: int, seed: int, keys: int, padded: bool
) -> None:
    """With padding at the end, and with holes, which only the bias tells."""
    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(seed)
    width = heads * 16 * vectors
    query = torch.randn(sentences, queries, width, generator=generator)
    memory = torch.randn(sentences, keys, 2 * width, generator=generator)
    mask_BS = torch.rand(sentences, keys, generator=generator) < 0.7
    if padded:
        length_B = torch.randint(1, keys + 1, (sentences,), generator=generator)
        mask_BS = torch.arange(keys) < length_B[:, None]
    mask_BS[:, 0] |= ~mask_BS.any(dim=1)
    check(query, memory, additive_mask(mask_BS[:, None, None], query), heads, 2, False)


def test_padding_changes_nothing() -> None:
    """To the last bit, neither context nor gradients, however much of it there is."""
    torch.manual_seed(3)
    query, memory = torch.randn(2, 9, 64), torch.randn(2, 11, 128)
    found = []
    for more in (0, 5, 30):
        padded = torch.cat((memory, torch.full((2, more, 128), 7.0)), dim=1).requires_grad_()
        mask_BS = torch.arange(11 + more).expand(2, -1) < 11
        bias = additive_mask(mask_BS[:, None, None], query)
        context = attend(*heads_of(query, 2, 1), *heads_of(padded, 2, 2), bias, causal=False)
        (grad,) = torch.autograd.grad(context.square().sum(), padded)
        assert not grad[:, 11:].any()
        found.append((context, grad[:, :11]))
    for context, grad in found[1:]:
        assert torch.equal(context, found[0][0])
        assert torch.equal(grad, found[0][1])


@pytest.mark.parametrize("records", [False, True])
def test_the_model_takes_it_where_it_can(records: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same context as by torch, which makes the weights where they are recorded."""
    calls = []

    def spy(*arguments: Any, **options: Any) -> Tensor:
        calls.append(1)
        return attend(*arguments, **options)

    monkeypatch.setattr(short_attention, "attend", spy)
    views = heads_of(torch.randn(2, 6, 96), 2, 3)
    record: list[Tensor] | None = [] if records else None
    context = scaled_dot_product(*views, causal=True, record=record)
    assert len(calls) == (0 if records else 1)
    torch.testing.assert_close(context, formula(*views, None, True), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
def test_what_is_not_a_number_stays_none(causal: bool) -> None:
    """Nor do scores beyond the largest number become weights; other queries have theirs."""
    torch.manual_seed(4)
    query, memory = torch.randn(1, 20, 32), torch.randn(1, 20, 64)
    whole = attend(*heads_of(query, 2, 1), *heads_of(memory, 2, 2), None, causal=causal)
    for broken in (float("nan"), 3e38):
        wrong = query.clone()
        wrong[0, 7, :16] = broken  # of the first head
        context_BHQN = attend(*heads_of(wrong, 2, 1), *heads_of(memory, 2, 2), None, causal=causal)
        context, expected = context_BHQN.transpose(1, 2), whole.transpose(1, 2)
        assert bool(context[0, 7, 0].isnan().all())
        assert torch.equal(context[0, 7, 1], expected[0, 7, 1])
        others = torch.arange(20) != 7
        assert torch.equal(context[0, others], expected[0, others])


def test_a_bias_of_any_strides() -> None:
    generator = torch.Generator().manual_seed(3)
    query, key, value = torch.randn(3, 2, 2, 7, 16, generator=generator).unbind(0)
    bias = torch.zeros(2, 1, 1, 7)
    bias[0, ..., 4:] = -math.inf
    turned = bias.permute(3, 1, 2, 0).contiguous().permute(3, 1, 2, 0)
    assert torch.equal(turned, bias)
    assert turned.stride() != bias.stride()
    assert torch.equal(
        attend(query, key, value, turned, causal=False), attend(query, key, value, bias, causal=False)
    )


def test_what_is_not_usable() -> None:
    query, key, value = torch.zeros(3, 2, 2, 7, 16).unbind(0)
    bias = torch.zeros(2, 1, 1, 7)
    assert usable(query, key, value, bias)
    assert not usable(query, key, value.mT.contiguous().mT, bias)
    assert not usable(query, key, value[:, :, :6], bias)
    assert not usable(query, key, value.double(), bias)
    assert not usable(query, key, value, bias.double())
    assert not usable(query, key, value, bias[..., :6])
