"""A signal in the middle of a validation: a checkpoint at once, and a continuation that validates anew."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from several import Several, command
from support import Nmt, end_state, prepare_folder

from nmt.config import Config
from nmt.config_file import load_config
from nmt.gradient import Gradient
from nmt.progress import Outcome
from nmt.run import Run, list_checkpoints
from nmt.training import Trainer
from nmt.translator import Translator

pytestmark = pytest.mark.usefixtures("there")

OPTIONS = ["training.ema=0.9", "search.batch_tokens=16", "training.patience=9"]
LOSSES, SENTENCES = 5, 20  # of the validation set: batches, once cut, and what is translated
TWO = ["training.accumulation=2", "training.batch_tokens=256"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With `runs/whole`, which nothing stopped: validations at steps 4, 8 and 12, the end."""
    folder = tmp_path_factory.mktemp("interrupt")
    prepare_folder(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train("runs/whole", SimpleNamespace(signal=None))
    return folder


def options(settings: list[str]) -> list[str]:
    return [part for setting in settings for part in ("--set", setting)]


def settings() -> Config:
    return load_config(Path("tiny.toml"), OPTIONS)


def train(run: str, interrupt: Any) -> Outcome:
    with Run.open(Path(run), settings()) as opened:
        trainer = Trainer(settings(), opened, lambda event: None)
        (plan,) = trainer.validation.examples.plan
        trainer.validation.examples.plan = np.array_split(plan, LOSSES)
        return trainer.train(interrupt)


def in_losses(patch: pytest.MonkeyPatch, at: int, stop: Callable[[], None]) -> list[int]:
    """Have a signal come with the `at`-th loss of a validation batch; the numbers of those computed."""
    real, calls = Gradient.loss_alone, [0]

    def loss_alone(self: Gradient, batch: Any) -> float:
        calls[0] += 1
        if calls[0] == at:
            stop()
        return real(self, batch)

    patch.setattr(Gradient, "loss_alone", loss_alone)
    return calls


def in_search(patch: pytest.MonkeyPatch, at: int, stop: Callable[[], None]) -> list[int]:
    """As `in_losses`, with the `at`-th sentence that is translated."""
    real, calls = Translator._search, [0]

    def search(self: Translator, *arguments: Any) -> Iterator[Any]:
        for found in real(self, *arguments):
            calls[0] += 1
            if calls[0] == at:
                stop()
            yield found

    patch.setattr(Translator, "_search", search)
    return calls


@pytest.fixture(params=[pytest.param(in_losses, marks=pytest.mark.slow), in_search])
def place(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_a_validation_is_left_at_once_and_made_again(folder: Path, place: Any) -> None:
    run = f"runs/{place.__name__}"
    whole = LOSSES if place is in_losses else SENTENCES
    # In the first validation, and in that at the end: those of steps 4 and 8 come before it.
    for step, at in ((4, 2), (12, 2 * whole + 2)):
        interrupt = SimpleNamespace(signal=None)
        with pytest.MonkeyPatch.context() as patch:
            calls = place(patch, at, lambda i=interrupt: setattr(i, "signal", signal.SIGTERM))
            outcome = train(run, interrupt)
        assert outcome.interrupted_by == signal.SIGTERM
        assert outcome.step == step
        assert calls[0] == at, "it was not left at once"
        newest = list_checkpoints(Path(run))[-1]
        assert (newest.step, newest.scores, newest.scheduled) == (step, {}, False)
    assert train(run, SimpleNamespace(signal=None)).reason == "12 steps done"
    assert end_state(Path(run)) == end_state(folder / "runs/whole")


def test_stopped_again_in_the_same_validation(folder: Path) -> None:
    for _ in range(3):
        interrupt = SimpleNamespace(signal=None)
        with pytest.MonkeyPatch.context() as patch:
            in_losses(patch, 1, lambda i=interrupt: setattr(i, "signal", signal.SIGINT))  # type: ignore[misc]
            assert train("runs/thrice", interrupt).step == 4
    train("runs/thrice", SimpleNamespace(signal=None))
    assert end_state(Path("runs/thrice")) == end_state(folder / "runs/whole")


@pytest.mark.parametrize("place", [pytest.param(in_losses, marks=pytest.mark.slow), in_search])
@pytest.mark.parametrize("sharded", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_signal_to_one_of_two_stops_the_validation_of_both(folder: Path, place: Any, sharded: bool) -> None:
    shard = ["training.shard=true"] if sharded else []
    more = options([*OPTIONS, *TWO, *shard])
    whole = f"runs/whole-two-{sharded}"
    if not Path(whole).exists():
        assert Several(folder, command("train", "tiny.toml", "--run", whole, *more)).ended().codes == [0, 0]
    arguments = ["train", "tiny.toml", "--run", f"runs/two-{place.__name__}-{sharded}", *more]

    def work(rank: int) -> int:
        if rank == (0 if place is in_losses else 1):  # there is one batch of losses
            with pytest.MonkeyPatch.context() as patch:
                place(patch, 1, lambda: os.kill(os.getpid(), signal.SIGTERM))
                return command(*arguments)(rank)
        return command(*arguments)(rank)

    ended = Several(folder, work).ended()
    assert ended.codes == [143, 143], ended.said
    assert len(ended.errors) == 1
    (newest,) = list_checkpoints(Path(arguments[3]))
    assert (newest.step, newest.scheduled) == (4, False)
    assert Several(folder, command(*arguments)).ended().codes == [0, 0]
    assert end_state(Path(arguments[3])) == end_state(Path(whole))


@pytest.mark.slow
def test_a_validation_that_waits_is_made_where_it_was_left(folder: Path) -> None:
    """Though no key asks for one there any more."""
    interrupt = SimpleNamespace(signal=None)
    with pytest.MonkeyPatch.context() as patch:
        in_losses(patch, 1, lambda: setattr(interrupt, "signal", signal.SIGTERM))
        train("runs/moving", interrupt)
    more = options([*OPTIONS, "training.validate_every=5"])
    Nmt(folder)("train", "tiny.toml", "--run", "runs/moving", *more)
    rows = [json.loads(line) for line in Path("runs/moving/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["event"] == "validation"] == [4, 5, 10, 12]
