"""Activation checkpointing changes memory and time, not a bit of the gradient."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
import torch
from small_models import make, prefixes, random_source, transformer
from torch import Tensor

from nmt import linear
from nmt.config_file import parse_config
from nmt.errors import UserError
from nmt.models.recompute import recompute_layers

VARIANTS: dict[str, Any] = {
    "post": {},
    "pre, learned": dict(norm="pre", positions="learned"),
    "relative": dict(positions="relative"),
    "rotary, swiglu": dict(positions="rotary", activation="swiglu", norm_type="rmsnorm"),
}


def gradient(model: Any, product: Any) -> tuple[Tensor, Tensor, list[int]]:
    """Hidden states, all gradients, and the sizes of what was kept for the backward pass."""
    chance = torch.Generator().manual_seed(2)
    # Positions enough for products in C.
    source_BS = random_source([9, 4, 7, 12, 5] * 16, chance)
    target_BT = prefixes(80, 8, chance)
    torch.manual_seed(4)
    kept: list[int] = []
    count = torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t.numel()), t)[1], lambda t: t)
    with count, product():
        hidden = model.decode(target_BT, model.encode(source_BS, source_BS != 0))
    (hidden * torch.randn(hidden.shape, generator=chance)).sum().backward()
    grads = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    return hidden.detach(), grads, kept


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("reduced", [False, True])
def test_the_gradient_is_the_same_to_the_bit(variant: str, reduced: bool) -> None:
    """With dropout everywhere, and with products in bfloat16 where they can be had."""
    if reduced and not linear.available(torch.bfloat16):
        pytest.skip("this processor has no products in bfloat16")
    product = partial(linear.products_of, torch.bfloat16) if reduced else nullcontext
    found = []
    for again in (False, True):
        torch.manual_seed(1)
        model = transformer(width=64, feed_forward_width=128, **VARIANTS[variant]).train()
        if again:
            recompute_layers(model)
        found.append(gradient(model, product))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    assert sum(found[1][2]) < sum(found[0][2]) / 2


def test_evaluation_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make("pre-sinusoidal")
    recompute_layers(model)
    monkeypatch.setattr("nmt.models.transformer.recomputed", lambda *_: pytest.fail("computed twice"))
    source_BS = random_source([3, 5], torch.Generator())
    model.encode(source_BS, source_BS != 0)
    with torch.no_grad():
        model.train().encode(source_BS, source_BS != 0)


def test_only_a_transformer_has_it() -> None:
    text = """[data]
train = "a"
validation = "b"
source_language = "en"
target_language = "de"
[model]
architecture = "luong"
[training]
activation_checkpointing = true
"""
    with pytest.raises(UserError, match=r'layers of a transformer again, and model.architecture = "luong"'):
        parse_config(text)
