"""Parameters in parts compute what whole ones do, in float64, and are written and read as whole ones are."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from several import Several
from test_gradient import BATCHES, NAMES, TOKENS, assert_same, gradient_of, model_of, reference

from nmt.config_file import parse_config
from nmt.errors import UserError
from nmt.guided import Guided
from nmt.models.recompute import recompute_layers
from nmt.moving_average import MovingAverage
from nmt.optimization import build_optimizer
from nmt.parameters import Parameters
from nmt.place import Place
from nmt.ranks import ALONE, Ranks, joined
from nmt.sharded import ShardedParameters
from nmt.training_config import TrainingConfig

CLIP = 0.05


@pytest.fixture(autouse=True, scope="module")
def _loaded() -> None:
    """FSDP does, and each process would by itself: it takes seconds."""
    importlib.import_module("torch._dynamo")


def sharded(name: str, ranks: Ranks, model: Any = None) -> ShardedParameters:
    model = model_of(name) if model is None else model
    return ShardedParameters(model, ranks, torch.device("cpu"), lambda: model_of(name))


def everyone(folder: Path, size: int, work: Callable[[Ranks], Any]) -> list[Any]:
    """What `work` returns in each of several processes."""

    def one(rank: int) -> int:
        place = Place.of_environment()
        assert place is not None
        with joined(place, lambda ended: os._exit(3)) as ranks:
            torch.save(work(ranks), folder / str(rank))
        return 0

    ended = Several(folder, one, size).ended(60)
    assert ended.codes == [0] * size, ended.said
    return [torch.load(folder / str(rank)) for rank in range(size)]


def flat(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors.values()])


def gradients(parameters: Parameters) -> dict[str, torch.Tensor]:
    return {name: p.grad for name, p in parameters.own.items() if p.grad is not None}


@pytest.mark.parametrize(("name", "size"), [*((name, 2) for name in NAMES), (NAMES[0], 4)])
def test_the_gradient(name: str, size: int, tmp_path: Path) -> None:
    def work(ranks: Ranks) -> Any:
        model = model_of(name)
        parameters = sharded(name, ranks, model)
        mine = BATCHES[ranks.rank :: size]
        gradient_of(model, parameters).of_step(mine, [0] * len(mine), TOKENS)
        parameters.sum_gradients()
        assert all(p.grad is None for p in model.parameters())
        most = max(p.numel() for p in parameters.own.values())
        return flat(parameters.whole(gradients(parameters)) or {"": torch.zeros(0)}), most

    found = everyone(tmp_path, size, work)
    assert_same(found[0][0], reference(name))
    assert not any(len(gradient) for gradient, _ in found[1:])
    largest = max(p.numel() for p in model_of(name).parameters())
    assert max(most for _, most in found) <= -(-largest // size) + largest // 4


def test_the_gradient_with_layers_computed_again(tmp_path: Path) -> None:
    def work(ranks: Ranks) -> Any:
        model = model_of(NAMES[0])
        recompute_layers(model)
        parameters = sharded(NAMES[0], ranks, model)
        gradient_of(model, parameters).of_step(BATCHES[ranks.rank :: 2], [0, 0], TOKENS)
        parameters.sum_gradients()
        return parameters.whole(gradients(parameters))

    assert_same(flat(everyone(tmp_path, 2, work)[0]), reference(NAMES[0]))


def test_the_gradient_of_two_passes(tmp_path: Path) -> None:
    """R-Drop goes through each layer twice before it comes back; with a layer that is frozen."""

    def of_step(ranks: Ranks, mine: list[Any], make: Callable[[Any], Parameters]) -> dict[str, torch.Tensor]:
        model = model_of(NAMES[0])
        model.decoder[0].requires_grad_(False)
        parameters = make(model)
        gradient = gradient_of(model, parameters)
        gradient.r_drop = 5.0
        gradient.of_step(mine, [0] * len(mine), TOKENS)
        parameters.sum_gradients()
        return parameters.whole(gradients(parameters))

    found = everyone(
        tmp_path,
        2,
        lambda ranks: of_step(ranks, BATCHES[ranks.rank :: 2], lambda model: sharded(NAMES[0], ranks, model)),
    )
    assert_same(flat(found[0]), flat(of_step(ALONE, BATCHES, lambda model: Parameters(model, ALONE))))


def test_the_gradient_with_a_head_that_learns_links(tmp_path: Path) -> None:
    links_N3 = np.array([[0, 0, 0], [0, 1, 2], [0, 0, 1]])
    batches = [replace(batch, links_N3=links_N3) for batch in BATCHES[:2]]

    def of_step(parameters: Parameters, mine: list[Any]) -> dict[str, torch.Tensor]:
        gradient = gradient_of(parameters.model, parameters)
        gradient.guided = Guided(0.5, 1, 0)
        gradient.of_step(mine, [0] * len(mine), TOKENS)
        parameters.sum_gradients()
        return parameters.whole(gradients(parameters))

    found = everyone(
        tmp_path, 2, lambda ranks: of_step(sharded(NAMES[0], ranks), batches[ranks.rank : ranks.rank + 1])
    )
    expected = flat(of_step(Parameters(model_of(NAMES[0]), ALONE), batches))
    without = flat(of_step(Parameters(model_of(NAMES[0]), ALONE), BATCHES[:2]))
    assert_same(flat(found[0]), expected)
    assert (expected - without).norm() > 1e-3 * without.norm()


def steps(
    parameters: Parameters, settings: TrainingConfig, mine: list[Any], count: int = 5, state: Any = None
) -> dict[str, Any]:
    """Some updates, and all that a checkpoint has of them."""
    gradient = gradient_of(parameters.model, parameters)
    optimizer = build_optimizer(parameters, settings)
    average = MovingAverage(parameters, 0.9)
    if state is not None:
        parameters.load(state["weights"], Path())
        average.load(state["average"])
        optimizer.load_state_dict(state["optimizer"])
    norms = []
    for step in range(count):
        gradient.of_step(mine, [0] * len(mine), TOKENS)
        parameters.sum_gradients()
        norms.append(parameters.clip_gradients(CLIP))
        optimizer.step()
        average.update(step + 1)
        optimizer.zero_grad()
    with average.in_place(), parameters.whole_model() as model:
        judged = {name: p.detach().clone() for name, p in model.named_parameters()}
        with gradient.judging(model):
            loss = gradient.loss_alone(BATCHES[0])
    return {
        "norms": norms,
        "loss": loss,
        "judged": judged,
        "weights": parameters.whole({name: p.detach() for name, p in parameters.own.items()}),
        "average": parameters.whole(average.weights),
        "optimizer": parameters.whole_state(optimizer),
    }


def settings_of(**given: Any) -> TrainingConfig:
    data = '[data]\ntrain = "a"\nvalidation = "b"\nsource_language = "en"\ntarget_language = "de"\n'
    lines = "".join(f"{key} = {value}\n" for key, value in given.items())
    return parse_config(f"{data}[training]\n{lines}").training


@pytest.mark.parametrize(
    ("optimizer", "size"),
    [
        pytest.param(*case, marks=pytest.mark.slow)
        for case in [("adam", 2), ("adam", 4), ("adamw", 2), ("adadelta", 2), ("sgd", 2)]
    ],
)
def test_five_updates_and_five_more_in_another_number_of_processes(
    size: int, optimizer: str, tmp_path: Path
) -> None:
    """Sharded, then alone, then sharded among others; beside five, five and five in one process."""
    settings = settings_of(optimizer=f'"{optimizer}"', weight_decay=0.01, learning_rate=0.01)

    def alone(state: Any) -> dict[str, Any]:
        return steps(Parameters(model_of(NAMES[0]), ALONE), settings, BATCHES, state=state)

    def several(size: int, state: Any) -> dict[str, Any]:
        def work(ranks: Ranks) -> Any:
            parameters = sharded(NAMES[0], ranks)
            part = parameters.part
            mine = ranks.from_first(lambda: state, part) if state else None
            return steps(parameters, settings, BATCHES[ranks.rank :: size], state=mine)

        found = everyone(tmp_path, size, work)
        assert all(f["norms"] == found[0]["norms"] for f in found)
        assert all(torch.equal(flat(f["judged"]), flat(found[0]["judged"])) for f in found)
        assert not any(f["weights"] or f["average"] for f in found[1:])
        found[0]["whole"] = True
        return found[0]

    first, expected = several(size, None), alone(None)
    assert_alike(first, expected)
    second, expected = alone(first), alone(expected)
    assert_alike(second, expected)
    assert_alike(several(6 - size, second), alone(expected))


def assert_alike(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found["norms"] == pytest.approx(expected["norms"], rel=1e-6)
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-6)
    for key in ("weights", "average", "judged"):
        assert list(found[key]) == list(expected[key])
        mine, theirs = flat(found[key]), flat(expected[key])
        assert (mine - theirs).norm() < 1e-6 * theirs.norm()
    mine, theirs = found["optimizer"], expected["optimizer"]
    assert mine["param_groups"] == theirs["param_groups"]
    assert mine["state"].keys() == theirs["state"].keys()
    for number, entries in theirs["state"].items():
        for key, value in entries.items():
            other = mine["state"][number][key]
            if torch.is_tensor(value):
                assert other.shape == value.shape
                torch.testing.assert_close(other, value, rtol=1e-5, atol=1e-12)


def test_what_is_frozen_stays(tmp_path: Path) -> None:
    def frozen() -> Any:
        model = model_of(NAMES[0])
        model.encoder.requires_grad_(False)
        model.embeddings.target.requires_grad_(False)
        return model

    settings = settings_of(learning_rate=0.01)

    def work(ranks: Ranks) -> Any:
        return steps(sharded(NAMES[0], ranks, frozen()), settings, BATCHES[ranks.rank :: 2])

    found = everyone(tmp_path, 2, work)[0]
    expected = steps(Parameters(frozen(), ALONE), settings, BATCHES)
    assert_alike(found, expected)
    begun = dict(frozen().named_parameters())
    assert all(torch.equal(found["weights"][name], begun[name]) for name in begun if "encoder." in name)


def test_memory_that_runs_out_ends_it(tmp_path: Path) -> None:
    def work(ranks: Ranks) -> Any:
        model = model_of(NAMES[0])
        gradient = gradient_of(model, sharded(NAMES[0], ranks, model))

        def fail(*_: Any) -> Any:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

        model.decode = fail
        with pytest.raises(UserError, match=r"out of memory; with training\.shard no step can be repeated"):
            gradient.of_step(BATCHES[:1], [0], TOKENS)

    everyone(tmp_path, 2, work)


@pytest.mark.parametrize(("key", "value"), [("optimizer", '"muon"'), ("precision", '"float16"')])
def test_what_does_not_go_with_it(key: str, value: str) -> None:
    with pytest.raises(UserError, match=f"training.shard: training.{key} = "):
        settings_of(shard="true", **{key: value})
    assert settings_of(shard="true").shard
