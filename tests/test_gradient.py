"""The gradient of a step is one thing, however its batches are shared out, split or repeated.

Float64, no dropout: the whole corpus of a step as one batch is the reference, computed with torch's own loss.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from several import Several
from small_models import MODELS, SOURCE_VOCABULARY, TARGET_VOCABULARY
from torch.nn import functional as F

from nmt import linear
from nmt.data.batches import Batch, pad
from nmt.data.tokenizer import BOS, EOS, PAD
from nmt.errors import UserError
from nmt.gradient import Gradient, size, split, target_tokens
from nmt.linear import available
from nmt.nonfinite import culprits
from nmt.parameters import Parameters, as_gradients_come
from nmt.peers import Ended
from nmt.place import Place
from nmt.precision import Precision
from nmt.ranks import joined
from nmt.sums import Sums

SMOOTHING = 0.1
NAMES = ["pre-sinusoidal", "bahdanau-tied", "luong-general-global-fed", "recurrent-lstm"]

# Four processes of one of them; of the others they are slow tests.
SIZES = [
    pytest.param(name, size, marks=() if size == 2 or name == NAMES[0] else pytest.mark.slow)
    for name in NAMES
    for size in (2, 4)
]


def model_of(name: str, *, dropout: bool = False) -> Any:
    torch.manual_seed(3)
    rates = {} if dropout else {"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0}
    made = MODELS[name]
    if name.startswith("recurrent"):
        rates = {} if dropout else {"dropout": 0.0}
    elif not name.startswith(("pre", "post")):
        rates.pop("activation_dropout", None)
    return made(**rates).double().train()  # type: ignore[call-arg]


def batch_of(lengths: list[tuple[int, int]], seed: int = 0) -> Batch:
    chance = np.random.default_rng(seed)
    sources = [[*chance.integers(4, SOURCE_VOCABULARY, s), EOS] for s, _ in lengths]
    targets = [chance.integers(4, TARGET_VOCABULARY, t).tolist() for _, t in lengths]
    return Batch(
        pad(sources, PAD),
        pad([[BOS, *ids] for ids in targets], PAD),
        pad([[*ids, EOS] for ids in targets], PAD),
    )


# Four batches of a step, of unlike sizes.
BATCHES = [
    batch_of([(3, 5), (4, 4), (2, 6)], 1),
    batch_of([(9, 7)], 2),
    batch_of([(5, 1), (6, 2), (4, 1), (1, 1), (5, 2)], 3),
    batch_of([(2, 11), (8, 3)], 4),
]
TOKENS = sum(map(target_tokens, BATCHES))


def gradient_of(model: Any, parameters: Parameters | None = None) -> Gradient:
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    settings: dict[str, Any] = dict(precision=Precision(), smoothing=SMOOTHING, scaler=scaler)
    return Gradient(model, torch.device("cpu"), **settings, parameters=parameters)


def grads(model: Any) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def reference(name: str) -> torch.Tensor:
    """By torch's own loss, sentence by sentence."""
    model = model_of(name)
    for batch in BATCHES:
        for row in range(len(batch.source_BS)):
            source = torch.from_numpy(batch.source_BS[row : row + 1])
            source = source[:, source[0] != PAD]
            output = torch.from_numpy(batch.target_output_BT[row])
            output = output[output != PAD]
            tokens = torch.from_numpy(batch.target_input_BT[row : row + 1])[:, : len(output)]
            memory = model.encode(source, source != PAD)
            logits = model.project(model.decode(tokens, memory))[0]
            F.cross_entropy(logits, output, label_smoothing=SMOOTHING, reduction="sum").div(TOKENS).backward()
    return grads(model)


def assert_same(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert (found - expected).norm() < 1e-10 * expected.norm()  # the bar is 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_one_process_with_accumulation(name: str) -> None:
    model = model_of(name)
    losses = gradient_of(model).of_step(BATCHES, [1, 2, 3, 4], TOKENS)
    assert_same(grads(model), reference(name))
    gradient = gradient_of(model)
    assert losses == pytest.approx([gradient.loss_alone(batch) for batch in BATCHES], rel=1e-12)


@pytest.mark.skipif(not available(torch.int8), reason="no AVX-512 here, or C is not compiled")
@pytest.mark.parametrize(("name", "r_drop"), [*((name, 0.0) for name in NAMES), (NAMES[0], 5.0)])
def test_int8_is_near(name: str, r_drop: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every architecture, with every linear layer in int8."""
    monkeypatch.setattr(linear, "_FEWEST", 1)
    found = []
    for precision in (Precision(), Precision(layers=torch.int8, output=torch.int8)):
        model = model_of(name).float()
        scaler = torch.amp.GradScaler("cpu", enabled=False)
        gradient = Gradient(
            *(model, torch.device("cpu")), precision=precision, smoothing=0.1, scaler=scaler, r_drop=r_drop
        )
        losses = gradient.of_step(BATCHES, [1, 2, 3, 4], TOKENS)
        found.append((torch.tensor(losses), grads(model)))
    (exact, exact_grads), (losses, own_grads) = found
    assert not torch.equal(own_grads, exact_grads)
    torch.testing.assert_close(losses, exact, rtol=0.01, atol=0)
    assert (own_grads - exact_grads).norm() < 0.1 * exact_grads.norm()


@pytest.mark.parametrize(("name", "size"), SIZES)
def test_several_processes(name: str, size: int, tmp_path: Path) -> None:
    def work(rank: int) -> int:
        place = Place.of_environment()
        assert place is not None
        with joined(place, lambda ended: os._exit(3)) as ranks:
            mine = BATCHES[rank::size]
            tokens = sum(row[0] for row in ranks.gather([sum(map(target_tokens, mine))]))
            model = model_of(name)
            parameters = Parameters(model, ranks)
            gradient_of(model, parameters).of_step(mine, [0] * len(mine), tokens)
            parameters.sum_gradients()
            torch.save(grads(model), tmp_path / str(rank))
        return 0

    ended = Several(tmp_path, work, size).ended(60)
    assert ended.codes == [0] * size, ended.said
    found = [torch.load(tmp_path / str(rank)) for rank in range(size)]
    assert all(torch.equal(found[0], other) for other in found)  # to the bit
    assert_same(found[0], reference(name))


def summed(name: str, size: int, folder: Path, tokens_of_last: int = 1000) -> list[torch.Tensor]:
    """Of each of several processes, in small buckets; memory of the last may be short."""

    def work(rank: int) -> int:
        place = Place.of_environment()
        assert place is not None
        with joined(place, lambda ended: os._exit(3)) as ranks:
            mine = BATCHES[rank::size]
            model = model_of(name)
            parameters = Parameters(model, ranks)
            parameters._sums = Sums(as_gradients_come(parameters.own), bucket=2000)
            sent = parameters._sums._sent
            small = Small(model, tokens_of_last if rank == size - 1 else 1000, "backward")
            gradient = gradient_of(small, parameters)
            seen = []
            small.failing = lambda: seen.append(len(sent))
            for _ in range(2):  # a second step finds nothing of the first
                gradient.most_tokens = 0
                gradient.of_step(mine, [0] * len(mine), TOKENS)
                assert len(sent) > 0, "nothing was sent while the pass went on"
                parameters.sum_gradients()
                sent = parameters._sums._sent
                torch.save((grads(model), seen), folder / str(rank))
                model.zero_grad()
        return 0

    ended = Several(folder, work, size).ended(60)
    assert ended.codes == [0] * size, ended.said
    found = [torch.load(folder / str(rank)) for rank in range(size)]
    if tokens_of_last < 1000:
        assert any(found[-1][1]), "memory should run out when something was sent"
    return [gradient for gradient, _ in found]


@pytest.mark.parametrize(("name", "size"), SIZES)
def test_sums_begin_before_the_pass_ends(name: str, size: int, tmp_path: Path) -> None:
    found = summed(name, size, tmp_path)
    assert all(torch.equal(found[0], other) for other in found)
    assert_same(found[0], reference(name))


@pytest.mark.parametrize("size", [2, 4])
def test_one_process_repeats_its_share_when_some_sums_are_on_their_way(size: int, tmp_path: Path) -> None:
    """The last batch of the last process is the one that is too large, late in its backward pass."""
    found = summed(NAMES[0], size, tmp_path, tokens_of_last=21)
    assert all(torch.equal(found[0], other) for other in found)
    assert_same(found[0], reference(NAMES[0]))


class Small:
    """A model on a machine whose memory holds so many tokens, in the forward or the backward pass."""

    def __init__(self, model: Any, tokens: int, fails: str):
        self.model, self.tokens, self.fails = model, tokens, fails
        self.failures = 0
        self.failing: Callable[[], object] = lambda: None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def encode(self, source_BS: torch.Tensor, mask_BS: torch.Tensor) -> Any:
        self._rows = len(source_BS)
        self._longest = source_BS.shape[1]
        return self.model.encode(source_BS, mask_BS)

    def decode(self, input_BT: torch.Tensor, memory: Any, *recording: Any) -> torch.Tensor:
        hidden: torch.Tensor = self.model.decode(input_BT, memory, *recording)
        if self._rows * max(self._longest, input_BT.shape[1]) > self.tokens:
            if self.fails == "forward":
                self._fail()
            # Late in the backward pass, when gradients of the decoder have been added.
            parameter = next(p for p in self.model.parameters() if p.requires_grad)
            handle: Any = None

            def fail(_: torch.Tensor) -> None:
                handle.remove()
                self._fail()

            handle = parameter.register_hook(fail)
        return hidden

    def _fail(self) -> None:
        self.failures += 1
        self.failing()
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("fails", ["forward", "backward"])
def test_split_after_out_of_memory(name: str, fails: str) -> None:
    model = model_of(name)
    gradient = gradient_of(Small(model, 15, fails))
    losses = gradient.of_step(BATCHES, [0] * 4, TOKENS)
    failures = gradient.model.failures
    assert failures > 0
    assert_same(grads(model), reference(name))
    assert 0 < gradient.most_tokens <= 15
    # The limit is learnt: the same step again fails nowhere.
    model.zero_grad()
    assert gradient.of_step(BATCHES, [0] * 4, TOKENS) == losses
    assert gradient.model.failures == failures
    assert_same(grads(model), reference(name))


def test_validation_in_parts() -> None:
    model = model_of(NAMES[0])
    whole = [gradient_of(model).loss_alone(batch) for batch in BATCHES]
    small = gradient_of(Small(model, 15, "forward"))
    with torch.inference_mode():
        assert [small.loss_alone(batch) for batch in BATCHES] == pytest.approx(whole, rel=1e-12)


def test_a_single_sentence_that_does_not_fit() -> None:
    gradient = gradient_of(Small(model_of(NAMES[0]), 8, "backward"))
    with pytest.raises(UserError, match=r"a single sentence pair of 10 tokens; lower data.max_tokens"):
        gradient.of_step(BATCHES, [0] * 4, TOKENS)


def test_other_errors_pass() -> None:
    gradient = gradient_of(model_of(NAMES[0]))
    with pytest.raises(IndexError):
        gradient.of_step([replace(BATCHES[0], source_BS=BATCHES[0].source_BS + 1000)], [0], TOKENS)


def test_dropout_is_a_function_of_the_seed() -> None:
    """Repeated, and whatever was drawn before."""
    found = []
    for draws in range(2):
        model = model_of(NAMES[0], dropout=True)
        torch.rand(draws)
        gradient_of(model).of_step(BATCHES, [5, 6, 7, 8], TOKENS)
        found.append(grads(model))
    assert torch.equal(*found)
    model = model_of(NAMES[0], dropout=True)
    gradient_of(model).of_step(BATCHES, [5, 6, 7, 9], TOKENS)
    assert not torch.equal(grads(model), found[0])


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=20), st.integers(1, 300)
)
def test_parts_hold_the_same_sentences(lengths: list[tuple[int, int]], most: int) -> None:
    batch = batch_of(lengths)
    parts = split(batch, most)
    assert all(size(part) <= most or len(part.source_BS) == 1 for part in parts)

    def sentences(batches: list[Batch], of: Callable[[Batch], Any]) -> list[list[int]]:
        return [row[row != PAD].tolist() for b in batches for row in of(b)]

    for of in (lambda b: b.source_BS, lambda b: b.target_input_BT, lambda b: b.target_output_BT):
        assert sentences(parts, of) == sentences([batch], of)
    for part in parts:
        assert part.target_input_BT.shape == part.target_output_BT.shape
        assert (part.source_BS != PAD).any(axis=0).all()


def test_the_batch_that_is_not_finite_is_found() -> None:
    model = model_of(NAMES[0])
    with torch.no_grad():  # a word that only batch 3 has
        words = [set(b.source_BS.flatten().tolist()) for b in BATCHES]
        (only, *_) = words[2] - words[0] - words[1] - words[3]
        model.embeddings.source.weight[only] = float("nan")
    assert culprits(gradient_of(model), BATCHES, [0] * 4) == [BATCHES[2]]
    assert all(p.grad is None for p in model.parameters())


def test_an_error_reaches_every_process(tmp_path: Path) -> None:
    """One fails in its own work while the other waits in a sum: both end with the first one's error."""

    def work(rank: int) -> int:
        def end(ended: Ended) -> None:
            (tmp_path / "heard").write_text(f"{ended.rank} {ended.code} {ended.message}")
            os._exit(ended.code)

        place = Place.of_environment()
        assert place is not None
        with joined(place, end) as ranks:
            if rank:
                raise UserError("the moon is in the way; wait")
            ranks.gather([1])
        return 0

    ended = Several(tmp_path, work).ended(60)
    assert ended.codes == [2, 70]  # 70: an error that nobody caught
    assert (tmp_path / "heard").read_text() == "1 2 the moon is in the way; wait"
    assert "UserError: the moon is in the way" in ended.said[1]


def test_z_loss_is_of_the_step() -> None:
    """Its gradient adds to that of the rest, as the derivative of (log Z)^2 over all target positions."""
    found = []
    for weight in (0.0, 0.2):
        model = model_of(NAMES[0])
        gradient = gradient_of(model)
        gradient.z_loss = weight
        found.append((grads_of_step(gradient), gradient.of_step(BATCHES[:1], [0], 1.0)))
    assert found[0][1] == found[1][1]  # what is reported is without it
    model = model_of(NAMES[0])
    for batch in BATCHES:
        source, output = torch.from_numpy(batch.source_BS), torch.from_numpy(batch.target_output_BT)
        memory = model.encode(source, source != PAD)
        logits = model.project(model.decode(torch.from_numpy(batch.target_input_BT), memory))
        (0.2 / TOKENS * logits[output != PAD].logsumexp(dim=1).square().sum()).backward()
    assert_same(found[1][0] - found[0][0], grads(model))


def grads_of_step(gradient: Gradient) -> torch.Tensor:
    gradient.of_step(BATCHES, [0] * 4, TOKENS)
    found = grads(gradient.model)
    gradient.model.zero_grad()
    return found
