"""Schedules by their formulas and tables, optimizers by their algorithms; both resume exactly."""

from __future__ import annotations

import io
import json
import math
import signal
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from support import end_state, prepare_folder
from torch import nn

from nmt.config import Config
from nmt.config_file import load_config
from nmt.optimization import build_optimizer, learning_rate, set_learning_rate, training_bytes
from nmt.presets import TRAINING_PRESETS
from nmt.run import Run
from nmt.training import Outcome, Trainer
from nmt.training_config import TrainingConfig

SCHEDULES = ["inverse-sqrt", "linear", "cosine", "constant"]
OPTIMIZERS = ["adam", "adamw", "adadelta", "sgd"]


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


# --- noam: Vaswani et al. 2017, eq. 3 -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        # 512^-0.5 = 0.0441942, 4000^-1.5 = 3.95285e-6, 4000^-0.5 = 0.0158114
        (1, 1.746930e-7),
        (2, 3.493856e-7),
        (1000, 1.746928e-4),
        (4000, 6.987712e-4),  # the peak
        (16_000, 3.493856e-4),  # four times the steps, half the rate
        (100_000, 1.397542e-4),
    ],
)
def test_noam_by_hand(step: int, rate: float) -> None:
    settings = config(schedule="noam", learning_rate=1.0, warmup_steps=4000)
    assert learning_rate(step, settings, width=512) == pytest.approx(rate, rel=1e-5)
    # The factor multiplies; the width divides by its root.
    twice = config(schedule="noam", learning_rate=2.0, warmup_steps=4000)
    assert learning_rate(step, twice, width=512) == pytest.approx(2 * rate, rel=1e-5)
    assert learning_rate(step, settings, width=2048) == pytest.approx(rate / 2, rel=1e-5)


def test_noam_is_inverse_sqrt_with_another_peak() -> None:
    for width, warmup in ((128, 10), (1024, 400)):
        noam = config(schedule="noam", learning_rate=0.5, warmup_steps=warmup)
        peak = 0.5 * (width * warmup) ** -0.5
        other = config(schedule="inverse-sqrt", learning_rate=peak, warmup_steps=warmup)
        for step in range(1, 1001, 7):
            expected = learning_rate(step, other)
            assert learning_rate(step, noam, width=width) == pytest.approx(expected, rel=1e-12)


def test_noam_without_warmup_falls_from_the_first_step() -> None:
    settings = config(schedule="noam", learning_rate=1.0, warmup_steps=0)
    found = [learning_rate(step, settings, width=100) for step in (1, 4, 25)]
    assert found == pytest.approx([0.1, 0.05, 0.02])


# --- halving, by tables ----------------------------------------------------------------------------------

# Sutskever et al. 2014, sec. 3.4: 0.7, after 5 epochs halved every half epoch; 7.5 epochs in all.
SUTSKEVER = [
    (0.0, 0.7),
    (2.5, 0.7),
    (4.999, 0.7),
    (5.0, 0.35),
    (5.499, 0.35),
    (5.5, 0.175),
    (6.0, 0.0875),
    (6.5, 0.04375),
    (7.0, 0.021875),
    (7.499, 0.021875),
    (7.5, 0.0109375),
]
# Luong et al. 2015, sec. 4.1: 1.0, after 5 epochs halved every epoch; 10 epochs.
LUONG = [
    (0.0, 1.0),
    (4.999, 1.0),
    (5.0, 0.5),
    (5.999, 0.5),
    (6.0, 0.25),
    (7.0, 0.125),
    (8.0, 0.0625),
    (9.0, 0.03125),
    (9.999, 0.03125),
]
# With dropout: 12 epochs, halved after 8.
LUONG_DROPOUT = [
    (5.0, 1.0),
    (7.999, 1.0),
    (8.0, 0.5),
    (8.999, 0.5),
    (9.0, 0.25),
    (10.0, 0.125),
    (11.0, 0.0625),
    (11.999, 0.0625),
]


@pytest.mark.parametrize(
    ("settings", "table"),
    [
        (dict(learning_rate=0.7, halve_after_epochs=5, halve_every_epochs=0.5), SUTSKEVER),
        (TRAINING_PRESETS["sutskever2014"], SUTSKEVER),
        (dict(learning_rate=1.0, halve_after_epochs=5, halve_every_epochs=1), LUONG),
        (dict(learning_rate=1.0), LUONG),  # the defaults
        (TRAINING_PRESETS["luong2015"], LUONG_DROPOUT),
    ],
    ids=["sutskever", "sutskever2014", "luong", "defaults", "luong2015"],
)
def test_halving(settings: dict[str, Any], table: list[tuple[float, float]]) -> None:
    chosen = TrainingConfig(**{"schedule": "halving", "warmup_steps": 0} | settings)
    for step in (1, 1000):  # which does not matter
        for epoch, rate in table:
            assert learning_rate(step, chosen, epoch=epoch) == pytest.approx(rate, rel=1e-12), epoch


def test_halving_from_the_start() -> None:
    chosen = TrainingConfig(schedule="halving", learning_rate=1.0, warmup_steps=0, halve_after_epochs=0)
    assert [learning_rate(1, chosen, epoch=epoch) for epoch in (0, 0.99, 1, 2)] == [0.5, 0.5, 0.25, 0.125]


def test_halving_after_warmup() -> None:
    chosen = TrainingConfig(schedule="halving", learning_rate=1.0, warmup_steps=10, halve_after_epochs=1)
    assert [learning_rate(step, chosen, epoch=0.5) for step in (1, 5, 10, 11)] == [0.1, 0.5, 1.0, 1.0]
    assert learning_rate(12, chosen, epoch=1.5) == 0.5


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_other_schedules_know_no_epochs(schedule: str) -> None:
    settings = config(schedule=schedule)
    for step in (1, 40, 500):
        assert learning_rate(step, settings, epoch=7.3) == learning_rate(step, settings)


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


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_every_parameter_once(kind: str) -> None:
    model = small()
    optimizer = build_optimizer(model, config(optimizer=kind, weight_decay=0.1))
    held = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(held) == len({id(p) for p in held}) == len(list(model.parameters())) == 5
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        assert decay[id(parameter)] == (0.1 if name in ("embedding.weight", "inner.weight") else 0.0), name


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_decay_shrinks_matrices_only(kind: str) -> None:
    """With gradients of 0 nothing but the decay moves a parameter."""
    model = small()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = build_optimizer(model, config(optimizer=kind, weight_decay=0.1))
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


@pytest.mark.parametrize("kind", ["adam", "adamw", "adadelta"])
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


# --- by their algorithms -----------------------------------------------------------------------------------

Array = npt.NDArray[np.float64]


def adadelta(x: Array, gradients: list[Array], rates: list[float], rho: float, epsilon: float) -> Array:
    """Zeiler 2012, algorithm 1, number by number.

    As in torch, the update is scaled by a rate, 1 in the paper, after it was accumulated.
    """
    result = x.copy()
    for index in np.ndindex(*x.shape):
        mean_square_gradient = mean_square_update = 0.0
        for gradient, rate in zip(gradients, rates, strict=True):
            g = float(gradient[index])
            mean_square_gradient = rho * mean_square_gradient + (1 - rho) * g * g
            rms_update = math.sqrt(mean_square_update + epsilon)
            step = -rms_update / math.sqrt(mean_square_gradient + epsilon) * g
            mean_square_update = rho * mean_square_update + (1 - rho) * step * step
            result[index] += rate * step
    return result


def sgd(x: Array, gradients: list[Array], rates: list[float]) -> Array:
    """x <- x - rate * g: no momentum."""
    for gradient, rate in zip(gradients, rates, strict=True):
        x = x - rate * gradient
    return x


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("kind", ["adadelta", "sgd"])
def test_against_the_algorithm(kind: str, seed: int) -> None:
    """A matrix and a vector, gradients of very different sizes, rates that change."""
    random = np.random.default_rng([seed, 62])
    rho, epsilon = float(random.uniform(0.5, 0.99)), float(10 ** random.uniform(-8, -3))
    model = nn.Linear(3, 4).double()
    optimizer = build_optimizer(model, config(optimizer=kind, rho=rho, epsilon=epsilon))
    rates_of_steps = random.uniform(0.1, 1.5, size=12).tolist()
    for parameter in model.parameters():
        scale = 10 ** random.uniform(-4, 2)
        gradients = [scale * random.standard_normal(parameter.shape) for _ in rates_of_steps]
        start = parameter.detach().numpy().copy()
        for gradient, rate in zip(gradients, rates_of_steps, strict=True):
            for other in model.parameters():
                other.grad = None
            parameter.grad = torch.from_numpy(gradient)
            set_learning_rate(optimizer, rate)
            optimizer.step()
        if kind == "sgd":
            expected = sgd(start, gradients, rates_of_steps)
        else:
            expected = adadelta(start, gradients, rates_of_steps, rho, epsilon)
        np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=1e-12, atol=1e-14)
        assert np.abs(expected - start).min() > 0


def test_the_first_update_of_adadelta() -> None:
    """By hand: rho 0.95, epsilon 1e-6, gradient 2: -sqrt(1e-6) / sqrt(0.05 * 4 + 1e-6) * 2 = -0.00447213."""
    model = nn.Linear(1, 1, bias=False).double()
    optimizer = build_optimizer(model, TrainingConfig(**TRAINING_PRESETS["bahdanau2014"]))
    before = model.weight.item()
    model.weight.grad = torch.full((1, 1), 2.0, dtype=torch.float64)
    optimizer.step()
    assert model.weight.item() - before == pytest.approx(-0.00447213, rel=1e-5)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_training_bytes(kind: str) -> None:
    """A weight and its gradient, four bytes each, and every tensor of its size that the optimizer keeps."""
    model = small()
    settings = config(optimizer=kind)
    optimizer = build_optimizer(model, settings)
    update(model, optimizer, 1)
    kept = sum(
        value.numel()
        for state in optimizer.state.values()
        for value in state.values()
        if torch.is_tensor(value) and value.dim() > 0
    )
    parameters = list(model.parameters())
    each = parameters[0].element_size()
    count = sum(p.numel() for p in parameters)
    assert training_bytes(model, settings) == each * (2 * count + kept)
    assert training_bytes(model, config(optimizer=kind, ema=0.9)) == each * (3 * count + kept)
    parameters[0].requires_grad_(False)
    frozen, kept_a_number = parameters[0].numel(), kept / count
    assert training_bytes(model, settings) == each * (count + (count - frozen) * (1 + kept_a_number))


# --- whole runs --------------------------------------------------------------------------------------------

RUN = [
    "model.architecture=recurrent",
    "model.embedding_width=8",
    "model.hidden_width=8",
    "model.layers=1",
    "model.tie_embeddings=target",
    "training.batch_tokens=1024",
    "training.max_steps=1000",
    "training.max_epochs=2",
    "training.validate_every=1000",
    "training.log_every=1",
]
MODEL_OF_TINY = ("architecture", "encoder_layers", "decoder_layers", "width", "feed_forward_width", "heads")
KINDS = {
    "halving": [
        "training.optimizer=sgd",
        "training.halve_after_epochs=0.75",
        "training.halve_every_epochs=0.5",
    ],
    "adadelta": ["training.optimizer=adadelta"],
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus and `small.toml`, `tiny.toml` with a smaller model, which RUN has."""
    folder = tmp_path_factory.mktemp("corpus")
    prepare_folder(folder)
    lines = (folder / "tiny.toml").read_text().split("\n")
    kept = [line for line in lines if not line.startswith(MODEL_OF_TINY) and "warmup_steps" not in line]
    (folder / "small.toml").write_text("\n".join(kept))
    return folder


class Recorder:
    """Listens to a run, and can ask it to stop after a step as a signal does."""

    def __init__(self, stop_after: int = 0):
        self.interrupt: Any = SimpleNamespace(signal=None)
        self.stop_after = stop_after
        self.rates: list[float] = []
        self.batches_an_epoch = 0

    def __call__(self, event: dict[str, Any]) -> None:
        if event["event"] == "preflight":
            self.batches_an_epoch = event["batches_an_epoch"]
        if event["event"] == "train":
            self.rates.append(event["learning_rate"])
            if event["step"] == self.stop_after:
                self.interrupt.signal = signal.SIGTERM


def train(config: Config, folder: Path, recorder: Recorder) -> Outcome:
    with Run.open(folder, config) as run:
        return Trainer(config, run, recorder).train(recorder.interrupt)


@pytest.mark.parametrize("kind", KINDS)
def test_a_stopped_run_continues_exactly(corpus: Path, kind: str) -> None:
    """Stopped twice, in the first epoch and in the second: the same rates, losses and weights."""
    settings = load_config(corpus / "small.toml", [*RUN, *KINDS[kind]])
    whole, parts = Recorder(), [Recorder(stop_after=step) for step in (3, 20)] + [Recorder()]
    outcome = train(settings, corpus / f"runs/{kind}", whole)
    assert outcome.interrupted_by is None
    for recorder in parts:
        outcome = train(settings, corpus / f"runs/{kind}-stopped", recorder)
        assert outcome.interrupted_by == recorder.interrupt.signal
    assert [len(recorder.rates) for recorder in parts[:2]] == [3, 17]
    assert [rate for recorder in parts for rate in recorder.rates] == whole.rates
    found, expected = end_state(corpus / f"runs/{kind}-stopped"), end_state(corpus / f"runs/{kind}")
    last = max(expected[0])  # the stopped run has checkpoints of its stops as well
    assert found[0][last] == expected[0][last]
    assert found[1] == expected[1]
    batches = whole.batches_an_epoch
    assert 12 < batches < 20, "or the stops are not where this test says"
    if kind == "halving":
        # Update i begins after i - 1 batches: 1.0 for three quarters of an epoch, then 0.5, 0.25 and 0.125.
        epochs = [index / batches for index in range(2 * batches)]
        assert whole.rates == [
            1.0 if e < 0.75 else 0.5 if e < 1.25 else 0.25 if e < 1.75 else 0.125 for e in epochs
        ]
    else:
        assert set(whole.rates) == {1.0}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([], lambda batches: 2 * batches),
        (["training.max_epochs=1"], lambda batches: batches),
        (["training.max_epochs=3"], lambda batches: 3 * batches),
        # The last update of 4 batches takes some of the third epoch along.
        (["training.accumulation=4"], lambda batches: math.ceil(2 * batches / 4)),
        (["training.max_steps=5"], lambda batches: 5),
        (["training.max_epochs=0", "training.max_steps=40"], lambda batches: 40),
    ],
    ids=["two", "one", "three", "accumulated", "steps first", "off"],
)
def test_max_epochs(corpus: Path, changes: list[str], expected: Any, request: pytest.FixtureRequest) -> None:
    settings = load_config(corpus / "small.toml", [*RUN, "training.optimizer=sgd", *changes])
    folder = corpus / "runs" / request.node.name
    recorder = Recorder()
    outcome = train(settings, folder, recorder)
    assert outcome.step == expected(recorder.batches_an_epoch) == len(recorder.rates)
    by_steps = outcome.step == settings.training.max_steps
    done = outcome.step if by_steps else settings.training.max_epochs
    assert outcome.reason == f"{done} {'steps' if by_steps else 'epochs'} done"
    # It ended with a validation and a checkpoint.
    manifest = json.loads((folder / "last" / "manifest.json").read_text())
    assert manifest["step"] == outcome.step
    assert "bleu" in manifest["scores"]
