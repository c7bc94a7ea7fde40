"""R-Drop against its formula written out, with gradients by autograd, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from small_models import SOURCE_VOCABULARY, TARGET_VOCABULARY, make
from torch import Tensor
from torch.nn import functional as F

from nmt.data.batches import Batch, pad
from nmt.data.tokenizer import BOS, EOS, PAD
from nmt.errors import UserError
from nmt.gradient import Gradient, size, target_tokens
from nmt.loss import cross_entropy_sum
from nmt.precision import Precision
from nmt.r_drop import r_drop_sum

N, D, V = 23, 6, 11


def tensors(*, bias: bool, kind: torch.dtype = torch.float64) -> tuple[list[Tensor], Tensor]:
    """Hidden states of two passes, matrix and bias; targets."""
    chance = torch.Generator().manual_seed(5)
    shapes = [(N, D), (N, D), (V, D), *([(V,)] if bias else [])]
    made = [
        torch.randn(shape, generator=chance, dtype=torch.float64).to(kind).requires_grad_()
        for shape in shapes
    ]
    return made, torch.randint(0, V, (N,), generator=chance)


def written_out(values: list[Tensor], target_N: Tensor, alpha: float, smoothing: float) -> Tensor:
    """Half of Liang et al. 2021, eq. 4, with torch's own functions."""
    hidden1, hidden2, weight, *bias = values
    logits = [F.linear(hidden, weight, *bias) for hidden in (hidden1, hidden2)]
    nll = sum(F.cross_entropy(z, target_N, label_smoothing=smoothing, reduction="sum") for z in logits)
    logs = [z.log_softmax(1) for z in logits]
    apart = F.kl_div(logs[1], logs[0], log_target=True, reduction="sum")
    apart = apart + F.kl_div(logs[0], logs[1], log_target=True, reduction="sum")
    return (nll + alpha * apart / 2) / 2


@pytest.mark.parametrize("alpha", [0.0, 0.7, 5.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("chunk", [1, 7, N, 100])
def test_it_is_the_formula(alpha: float, smoothing: float, bias: bool, chunk: int) -> None:
    values, target_N = tensors(bias=bias)
    expected = written_out(values, target_N, alpha, smoothing)
    expected_grads = torch.autograd.grad(expected * 3, values)
    three = values if bias else [*values, None]
    found, plain = r_drop_sum(*three, target_N, alpha=alpha, smoothing=smoothing, chunk=chunk)  # type: ignore[arg-type]
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(plain, written_out(values, target_N, 0, 0), rtol=1e-12, atol=1e-12)
    for grad, right in zip(torch.autograd.grad(found * 3, values), expected_grads, strict=True):
        torch.testing.assert_close(grad, right, rtol=1e-11, atol=1e-12)


def test_passes_that_agree_have_the_ordinary_loss_and_gradient() -> None:
    (hidden, _, weight, bias), target_N = tensors(bias=True)
    ordinary, plain = cross_entropy_sum(hidden, weight, bias, target_N, smoothing=0.1)
    expected = torch.autograd.grad(ordinary, [hidden, weight, bias])
    found, found_plain = r_drop_sum(hidden, hidden, weight, bias, target_N, alpha=5.0, smoothing=0.1)
    torch.testing.assert_close(found, ordinary, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found_plain, plain, rtol=1e-12, atol=1e-12)
    for grad, right in zip(torch.autograd.grad(found, [hidden, weight, bias]), expected, strict=True):
        torch.testing.assert_close(grad, right, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("factors", [None, torch.bfloat16])
def test_reduced_precision_is_near(factors: torch.dtype | None) -> None:
    values, target_N = tensors(bias=True, kind=torch.float32)
    expected = written_out([v.double() for v in values], target_N, 5.0, 0.1)
    found, _ = r_drop_sum(*values, target_N, alpha=5.0, smoothing=0.1, factors=factors)
    assert found.dtype == torch.float32
    tolerance = 1e-5 if factors is None else 2e-2
    torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance)
    exact = torch.autograd.grad(expected, values)
    for grad, right in zip(torch.autograd.grad(found, values), exact, strict=True):
        assert (grad - right).norm() < tolerance * 2 * right.norm()


def test_no_matrix_of_all_logits_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    values, target_N = tensors(bias=False)
    rows: list[int] = []
    original = torch.Tensor.log_softmax

    def log_softmax(self: Tensor, *arguments: Any, **options: Any) -> Tensor:
        rows.append(self.size(0))
        return original(self, *arguments, **options)

    monkeypatch.setattr(torch.Tensor, "log_softmax", log_softmax)
    r_drop_sum(*values, None, target_N, alpha=5.0, chunk=4)[0].backward()  # type: ignore[arg-type]
    assert max(rows) == 4
    assert sum(rows) == 2 * N


# In a model


def batch_of(lengths: list[tuple[int, int]], seed: int) -> Batch:
    chance = np.random.default_rng(seed)
    sources = [[*chance.integers(4, SOURCE_VOCABULARY, s), EOS] for s, _ in lengths]
    targets = [chance.integers(4, TARGET_VOCABULARY, t).tolist() for _, t in lengths]
    return Batch(
        pad(sources, PAD), pad([[BOS, *t] for t in targets], PAD), pad([[*t, EOS] for t in targets], PAD)
    )


BATCHES = [batch_of([(3, 5), (4, 4), (2, 6)], 1), batch_of([(9, 7), (2, 2)], 2)]
TOKENS = sum(map(target_tokens, BATCHES))


def gradient_of(model: Any, r_drop: float = 5.0) -> Gradient:
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    return Gradient(
        model, torch.device("cpu"), precision=Precision(), smoothing=0.1, scaler=scaler, r_drop=r_drop
    )


def grads(model: Any) -> Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("name", ["pre-sinusoidal", "bahdanau-tied", "luong-general-global-fed"])
def test_a_step_is_the_sum_over_its_batches(name: str) -> None:
    """Two batches of a step, with high dropout, against autograd through the formula with the same draws."""
    model = make(name).double().train()
    losses = gradient_of(model).of_step(BATCHES, [1, 2], TOKENS)
    found = grads(model)
    model.zero_grad()
    for batch, seed, loss in zip(BATCHES, [1, 2], losses, strict=True):
        torch.manual_seed(seed)
        source, tokens = torch.from_numpy(batch.source_BS), torch.from_numpy(batch.target_input_BT)
        output = torch.from_numpy(batch.target_output_BT)
        hiddens = [model.decode(tokens, model.encode(source, source != PAD))[output != PAD] for _ in "12"]
        assert not torch.equal(*hiddens)
        last = model.embeddings.output
        values = [*hiddens, last.weight, *([] if last.bias is None else [last.bias])]
        (written_out(values, output[output != PAD], 5.0, 0.1) / TOKENS).backward()
        assert loss == pytest.approx(written_out(values, output[output != PAD], 0.0, 0.0).item(), rel=1e-10)
    assert (found - grads(model)).norm() < 1e-10 * found.norm()


def test_memory_that_runs_out_splits_both_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make("pre-sinusoidal").double().train()
    original = Gradient._hidden

    def hidden(self: Gradient, batch: Batch) -> Any:
        if size(batch) > 10:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ...")
        return original(self, batch)

    monkeypatch.setattr(Gradient, "_hidden", hidden)
    gradient = gradient_of(model)
    gradient.of_step(BATCHES, [1, 2], TOKENS)
    assert gradient.most_tokens == 10
    found = grads(model)
    model.zero_grad()
    monkeypatch.setattr(Gradient, "_hidden", original)
    again = gradient_of(model)
    again.most_tokens = 10
    again.of_step(BATCHES, [1, 2], TOKENS)
    assert torch.equal(found, grads(model))
    monkeypatch.setattr(Gradient, "_hidden", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError()))
    with pytest.raises(UserError, match="out of memory with a single sentence pair"):
        gradient_of(model).of_step(BATCHES, [1, 2], TOKENS)


def test_validation_makes_one_pass() -> None:
    model = make("pre-sinusoidal")
    with torch.no_grad():
        assert gradient_of(model).loss_alone(BATCHES[0]) == gradient_of(model, 0.0).loss_alone(BATCHES[0])
