"""Schedules by their formulas, weight decay by group, optimizers that resume exactly."""

from __future__ import annotations

import io
import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn

from nmt.config import TrainingConfig
from nmt.optimization import build_optimizer, learning_rate, set_learning_rate

SCHEDULES = ["inverse-sqrt", "linear", "cosine", "constant"]


def config(**changes: Any) -> TrainingConfig:
    return TrainingConfig(**{"learning_rate": 0.02, "warmup_steps": 40, "max_steps": 1000} | changes)


def rates(settings: TrainingConfig) -> list[float]:
    """Of steps 1 .. max_steps; item 0 is of step 1."""
    return [learning_rate(step, settings) for step in range(1, settings.max_steps + 1)]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("warmup", [1, 7, 40])
def test_warmup_is_linear_to_the_peak(schedule: str, warmup: int) -> None:
    found = rates(config(schedule=schedule, warmup_steps=warmup))
    assert found[:warmup] == pytest.approx([0.02 * step / warmup for step in range(1, warmup + 1)])
    assert max(found) == pytest.approx(0.02)
    assert found.index(max(found)) == warmup - 1


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_without_warmup(schedule: str) -> None:
    found = rates(config(schedule=schedule, warmup_steps=0))
    assert found[0] == pytest.approx(0.02, rel=1e-2)
    assert all(0 < rate <= 0.02 for rate in found)
    assert found == sorted(found, reverse=True)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_after_warmup_it_never_rises(schedule: str) -> None:
    found = rates(config(schedule=schedule))[39:]
    assert all(after <= before for before, after in pairwise(found))


def test_inverse_sqrt_is_the_formula_of_the_paper() -> None:
    """Vaswani et al. 2017, eq. 3: width^-0.5 min(step^-0.5, step warmup^-1.5), here for base."""
    width, warmup = 512, 4000
    settings = config(learning_rate=(width * warmup) ** -0.5, warmup_steps=warmup, max_steps=100_000)
    for step in (1, 2, 100, 3999, 4000, 4001, 8000, 16_000, 99_999):
        paper = width**-0.5 * min(step**-0.5, step * warmup**-1.5)
        assert learning_rate(step, settings) == pytest.approx(paper, rel=1e-12)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("warmup", [0, 40, 999])
def test_decay_ends_at_zero(schedule: str, warmup: int) -> None:
    """The last step still learns a little; the one after would have rate 0."""
    settings = config(schedule=schedule, warmup_steps=warmup)
    assert 0 < learning_rate(1000, settings) <= 0.02 / 2
    assert learning_rate(1001, settings) == pytest.approx(0, abs=1e-12)
    assert learning_rate(5000, settings) == pytest.approx(0, abs=1e-12)
    if warmup < 999:
        assert learning_rate(1000, settings) < 0.02 / 500
        middle = warmup + (1001 - warmup) / 2
        around = [learning_rate(math.floor(middle), settings), learning_rate(math.ceil(middle), settings)]
        assert sum(around) / 2 == pytest.approx(0.01, rel=1e-6)


def test_cosine_is_above_linear_first_and_below_it_later() -> None:
    linear, cosine = rates(config(schedule="linear")), rates(config(schedule="cosine"))
    assert all(c > line for c, line in zip(cosine[60:480], linear[60:480], strict=True))
    assert all(c < line for c, line in zip(cosine[560:], linear[560:], strict=True))


def test_constant() -> None:
    assert set(rates(config(schedule="constant", warmup_steps=0))) == {0.02}
    assert set(rates(config(schedule="constant"))[39:]) == {0.02}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("max_steps", [1, 39, 40, 41])
def test_run_about_as_short_as_its_warmup(schedule: str, max_steps: int) -> None:
    found = rates(config(schedule=schedule, max_steps=max_steps))
    assert len(found) == max_steps
    assert all(0 < rate <= 0.02 for rate in found)


# --- optimizers ------------------------------------------------------------------------------------------


class Small(nn.Module):
    """An embedding tied to the output, a bias and a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.norm = nn.LayerNorm(4)
        self.inner = nn.Linear(4, 4)
        self.output = nn.Linear(4, 7, bias=False)
        self.output.weight = self.embedding.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.output(self.norm(torch.relu(self.inner(self.embedding(ids)))))
        return logits


def small() -> Small:
    torch.manual_seed(61)
    return Small()


def update(model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    ids = torch.randint(0, 7, (8,), generator=torch.Generator().manual_seed(step))
    set_learning_rate(optimizer, 0.01 / step)
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(ids), ids.roll(1)).backward()
    optimizer.step()


@pytest.mark.parametrize("kind", ["adam", "adamw"])
def test_every_parameter_once(kind: str) -> None:
    model = small()
    optimizer = build_optimizer(model, config(optimizer=kind, weight_decay=0.1))
    held = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(held) == len({id(p) for p in held}) == len(list(model.parameters())) == 5
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        assert decay[id(parameter)] == (0.1 if name in ("embedding.weight", "inner.weight") else 0.0), name


def test_decay_shrinks_matrices_only() -> None:
    """AdamW with gradients of 0: nothing but the decay moves a parameter."""
    model = small()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = build_optimizer(model, config(optimizer="adamw", weight_decay=0.1))
    set_learning_rate(optimizer, 0.5)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        factor = 1 - 0.5 * 0.1 if parameter.dim() > 1 else 1
        torch.testing.assert_close(parameter.detach(), before[name] * factor)


@pytest.mark.parametrize("kind", ["adam", "adamw"])
def test_against_torch(kind: str) -> None:
    """The settings reach the optimizer: rate, betas and epsilon."""
    settings = config(optimizer=kind, betas=(0.5, 0.7), epsilon=1e-3)
    ours, theirs = small(), small()
    own = build_optimizer(ours, settings)
    reference = (torch.optim.Adam if kind == "adam" else torch.optim.AdamW)(
        theirs.parameters(), lr=1.0, betas=(0.5, 0.7), eps=1e-3, weight_decay=0.0
    )
    for step in range(1, 5):
        update(ours, own, step)
        update(theirs, reference, step)
    for (name, a), (_, b) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("kind", ["adam", "adamw"])
def test_a_saved_optimizer_continues_bit_for_bit(kind: str) -> None:
    settings = config(optimizer=kind, weight_decay=0.01)
    model = small()
    optimizer = build_optimizer(model, settings)
    for step in range(1, 6):
        update(model, optimizer, step)
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    resumed = Small()
    resumed.load_state_dict(saved["model"])
    resumed_optimizer = build_optimizer(resumed, settings)
    forgetful = Small()
    forgetful.load_state_dict(saved["model"])
    forgetful_optimizer = build_optimizer(forgetful, settings)
    resumed_optimizer.load_state_dict(saved["optimizer"])
    for step in range(6, 11):
        update(model, optimizer, step)
        update(resumed, resumed_optimizer, step)
        update(forgetful, forgetful_optimizer, step)
    for (name, a), (_, b) in zip(model.named_parameters(), resumed.named_parameters(), strict=True):
        assert torch.equal(a, b), name
    # Without the state the result differs, so the comparison above tells something.
    assert not torch.equal(model.embedding.weight, forgetful.embedding.weight)
