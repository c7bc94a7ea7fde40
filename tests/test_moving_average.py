"""The moving average by its formula, and a run that is validated and saved with it."""

from __future__ import annotations

import json
import os
import signal
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import safetensors.torch
import torch
from several import Several, command
from small_models import make
from support import Nmt, end_state, prepare_folder

from nmt.config_file import load_config
from nmt.gradient import Gradient
from nmt.moving_average import MovingAverage
from nmt.run import Run
from nmt.training import Trainer

pytestmark = pytest.mark.usefixtures("there")

EMA = ["training.ema=0.9", "training.log_every=1"]


def test_it_is_the_formula() -> None:
    """In float64, twenty updates: the decay rises from 2/11 to what was asked for."""
    model = make("pre-sinusoidal").double()
    average = MovingAverage(model, 0.6)
    expected = [p.detach().clone() for p in model.parameters()]
    for step in range(1, 21):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        average.update(step)
        decay = min(0.6, (1 + step) / (10 + step))
        for mean, parameter in zip(expected, model.parameters(), strict=True):
            mean.copy_(decay * mean + (1 - decay) * parameter.detach())
    now = [p.detach().clone() for p in model.parameters()]
    with average.in_place():
        for mean, parameter in zip(expected, model.parameters(), strict=True):
            torch.testing.assert_close(parameter.detach(), mean, rtol=1e-12, atol=1e-12)
    assert all(torch.equal(a, b) for a, b in zip(now, model.parameters(), strict=True))


def test_an_error_leaves_the_weights_of_training() -> None:
    model = make("bahdanau-tied")
    average = MovingAverage(model, 0.9)
    with torch.no_grad():
        model.embeddings.target.weight.fill_(3.0)

    def fail() -> None:
        with average.in_place():
            assert not (model.embeddings.target.weight == 3.0).any()
            assert model.embeddings.output.weight is model.embeddings.target.weight
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    assert (model.embeddings.target.weight == 3.0).all()


def test_frozen_parameters_are_what_they_are() -> None:
    model = make("pre-sinusoidal")
    model.encoder.requires_grad_(False)
    average = MovingAverage(model, 0.9)
    encoder = [p.clone() for p in model.encoder.parameters()]
    with average.in_place():
        assert all(torch.equal(a, b) for a, b in zip(encoder, model.encoder.parameters(), strict=True))


# Runs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("average")
    prepare_folder(folder)
    return folder


def train(run: str, *changes: str, stop: int = 0) -> Trainer:
    interrupt: Any = SimpleNamespace(signal=None)

    def observe(event: dict[str, Any]) -> None:
        if stop and event["event"] == "train" and event["step"] == stop:
            interrupt.signal = signal.SIGTERM

    config = load_config(Path("tiny.toml"), [*EMA, *changes])
    with Run.open(Path(run), config) as opened:
        trainer = Trainer(config, opened, observe)
        trainer.train(interrupt)
    return trainer


def saved(run: str, step: int) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(f"{run}/checkpoints/step-{step:08d}/model.safetensors")


def test_the_saved_model_is_the_average_of_a_run_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training itself takes no notice of it: its weights are those of a run without one."""
    steps: list[list[torch.Tensor]] = []
    original = Trainer._step

    def step(self: Trainer, *arguments: Any) -> Any:
        if not steps:
            steps.append([p.detach().clone() for p in self.model.parameters()])
        result = original(self, *arguments)
        steps.append([p.detach().clone() for p in self.model.parameters()])
        return result

    monkeypatch.setattr(Trainer, "_step", step)
    plain = train("runs/plain", "training.ema=0.0")
    monkeypatch.setattr(Trainer, "_step", original)
    average = [p.double() for p in steps[0]]
    for number, now in enumerate(steps[1:], start=1):
        decay = min(0.9, (1 + number) / (10 + number))
        average = [decay * a + (1 - decay) * p.double() for a, p in zip(average, now, strict=True)]
    trainer = train("runs/averaged")
    weights = list(saved("runs/averaged", 12).items())
    names = [name for name, _ in plain.model.named_parameters()]
    for name, tensor in weights:
        torch.testing.assert_close(tensor.double(), average[names.index(name)], rtol=1e-5, atol=1e-6)
    state = torch.load("runs/averaged/last/training_state.pt", weights_only=True)
    for name, tensor in saved("runs/plain", 12).items():
        assert torch.equal(state["weights"][name], tensor)
        assert torch.equal(dict(trainer.model.named_parameters())[name], tensor)
        assert not torch.equal(dict(weights)[name], tensor)
    # The validation is of what is saved.
    with trainer.average.in_place(), torch.inference_mode():  # type: ignore[union-attr]
        trainer.model.eval()
        scores = trainer.validation.scores(trainer.model, trainer.gradient.loss_alone)
    assert scores == json.loads(Path("runs/averaged/last/manifest.json").read_text())["scores"]
    assert scores["loss"] != json.loads(Path("runs/plain/last/manifest.json").read_text())["scores"]["loss"]


def test_stopped_and_continued_it_ends_the_same() -> None:
    train("runs/whole", "training.max_steps=16")
    for stop in (2, 7, 0):
        train("runs/stopped", "training.max_steps=16", stop=stop)
    found, expected = end_state(Path("runs/stopped")), end_state(Path("runs/whole"))
    assert found == expected
    states = [
        torch.load(f"{run}/last/training_state.pt", weights_only=True)["weights"]
        for run in ("runs/stopped", "runs/whole")
    ]
    assert all(torch.equal(states[0][name], tensor) for name, tensor in states[1].items())


def test_skipped_updates_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """An update that is not made changes neither weights nor average."""
    original = Gradient.of_step
    calls = 0

    def of_step(self: Gradient, *arguments: Any) -> list[float]:
        nonlocal calls
        calls += 1
        return [float("nan")] if calls == 3 else original(self, *arguments)

    monkeypatch.setattr(Gradient, "of_step", of_step)
    config = load_config(Path("tiny.toml"), EMA)
    trainer = Trainer(config, Run(Path("runs/skipping")), lambda event: None)
    assert trainer.average is not None
    (Path("runs/skipping")).mkdir(parents=True, exist_ok=True)
    states = []
    for _ in range(4):
        trainer._step()
        with trainer.average.in_place():
            states.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters()]).clone())
    same = [torch.equal(a, b) for a, b in pairwise(states)]
    assert same == [False, True, False]


def test_several_processes_have_one_average() -> None:
    options = [o for c in [*EMA, "training.accumulation=2", "training.max_steps=6"] for o in ("--set", c)]
    Nmt(Path())("train", "tiny.toml", "--run", "runs/one", *options)
    ended = Several(Path(), command("train", "tiny.toml", "--run", "runs/two", *options)).ended()
    assert ended.codes == [0, 0], ended.said
    one, two = saved("runs/one", 6), saved("runs/two", 6)
    flat = [torch.cat([t.flatten() for t in weights.values()]) for weights in (one, two)]
    assert (flat[0] - flat[1]).norm() < 1e-3 * flat[0].norm()


@pytest.mark.slow
def test_a_killed_run_with_everything_ends_the_same(folder: Path) -> None:
    """SIGKILL between checkpoints, with every option of this kind at once, in a process of its own."""
    changes = ["training.ema=0.99", "training.r_drop=2.0", "training.optimizer=muon"]
    changes += ["training.activation_checkpointing=true", 'training.freeze=["encoder.0.attention"]']
    changes += ["training.learning_rate=0.005", "training.accumulation=2", "training.log_every=1"]
    options = [o for c in changes for o in ("--set", c)]
    nmt = Nmt(folder)
    nmt("train", "tiny.toml", "--run", "runs/all", *options)
    arguments = ["train", "tiny.toml", "--run", "runs/killed", *options]
    for text in ("step 6 ", "step 11 "):
        with nmt.start(*arguments, stderr=-1) as process:
            assert process.stderr is not None
            for line in process.stderr:
                if text in line.decode():
                    os.kill(process.pid, signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
    nmt(*arguments)
    assert end_state(folder / "runs/killed") == end_state(folder / "runs/all")
    ended = Several(folder, command("train", "tiny.toml", "--run", "runs/shared", *options)).ended()
    assert ended.codes == [0, 0], ended.said
