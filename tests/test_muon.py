"""Muon: which parameters it has, its update against a singular value decomposition, its state."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from small_models import MODELS, make
from torch import nn

from nmt.muon import MOMENTUM, MuonWithAdamW, is_hidden
from nmt.optimization import build_optimizer, set_learning_rate, training_bytes
from nmt.training_config import TrainingConfig

CONFIG = TrainingConfig(optimizer="muon", learning_rate=0.01, weight_decay=0.1)


def hidden_of(model: nn.Module) -> list[str]:
    return [name for name, p in model.named_parameters() if is_hidden(name, p)]


@pytest.mark.parametrize("name", [*MODELS])
def test_tables_vectors_and_outputs_are_not_hidden(name: str) -> None:
    model = make(name)
    hidden = hidden_of(model)
    tables = [n for n, m in model.named_modules() if isinstance(m, nn.Embedding)]
    assert hidden
    assert not [n for n in hidden if n.startswith(("embeddings", *tables)) or n.endswith("bias")]
    parameters = dict(model.named_parameters())
    rest = [n for n, p in parameters.items() if p.dim() == 2 and min(p.shape) > 1 and n not in hidden]
    assert all(n.startswith("embeddings") or "position" in n or "relative" in n for n in rest)


def test_the_update_is_nearly_orthogonal() -> None:
    """The first update of a matrix: U V' of the gradient's decomposition, every singular value about 1, as
    long as one of AdamW."""
    torch.manual_seed(2)
    matrix = nn.Parameter(torch.randn(24, 16))
    optimizer = MuonWithAdamW([matrix], [], lr=0.01, weight_decay=0.0)
    matrix.grad = torch.randn(24, 16)
    before = matrix.detach().clone()
    optimizer.step()
    change = (before - matrix.detach()) / (0.01 * 0.2 * 24**0.5)
    u, _, vh = torch.linalg.svd(matrix.grad, full_matrices=False)
    values = torch.linalg.svdvals(change)
    assert values.min() > 0.5
    assert values.max() < 1.3
    assert torch.nn.functional.cosine_similarity(change.flatten(), (u @ vh).flatten(), dim=0) > 0.97


def test_it_is_torch_muon_beside_torch_adamw() -> None:
    """Ten updates, with another rate each: to the bit those of the two by themselves."""
    first, second = make("pre-learned").train(), make("pre-learned").train()
    ours = build_optimizer(first, CONFIG)
    names = set(hidden_of(second))
    parameters = dict(second.named_parameters())
    theirs = [
        torch.optim.Muon(
            [p for n, p in parameters.items() if n in names],
            weight_decay=0.1,
            momentum=MOMENTUM,
            adjust_lr_fn="match_rms_adamw",
        ),
        *(
            torch.optim.AdamW(
                [p for n, p in parameters.items() if n not in names and (p.dim() > 1) == matrices],
                betas=CONFIG.betas,
                eps=CONFIG.epsilon,
                weight_decay=0.1 if matrices else 0.0,
                fused=True,
            )
            for matrices in (True, False)
        ),
    ]
    for step in range(1, 11):
        for model in (first, second):
            chance = torch.Generator().manual_seed(step)
            for parameter in model.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=chance)
        set_learning_rate(ours, 0.01 / step)
        ours.step()
        for optimizer in theirs:
            set_learning_rate(optimizer, 0.01 / step)
            optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_its_state_goes_through_a_file() -> None:
    models = [make("post-sinusoidal"), make("post-sinusoidal")]
    optimizers: list[Any] = [build_optimizer(model, CONFIG) for model in models]

    def update(number: int, step: int) -> None:
        chance = torch.Generator().manual_seed(step)
        for parameter in models[number].parameters():
            parameter.grad = torch.randn(parameter.shape, generator=chance)
        optimizers[number].step()

    for step in range(3):
        update(0, step)
    buffer = io.BytesIO()
    torch.save(optimizers[0].state_dict(), buffer)
    buffer.seek(0)
    models[1].load_state_dict(models[0].state_dict())
    optimizers[1].load_state_dict(torch.load(buffer, weights_only=True))
    for step in range(3, 6):
        update(0, step)
        update(1, step)
    assert all(torch.equal(a, b) for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True))
    kept = sum(
        value.nbytes for state in optimizers[0].state.values() for value in state.values() if value.dim() > 0
    )
    weights = sum(p.nbytes for p in models[0].parameters())
    assert training_bytes(models[0], CONFIG) == 2 * weights + kept


def test_frozen_matrices_have_no_state() -> None:
    model = make("pre-sinusoidal")
    model.decoder.requires_grad_(False)
    optimizer = build_optimizer(model, CONFIG)
    known = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert known == {id(p) for p in model.parameters() if p.requires_grad}
