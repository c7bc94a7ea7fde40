"""Events for TensorBoard: what is written, what a continuation does, what is said where it is missing."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest
from support import Nmt, prepare_folder

from nmt.config import Config
from nmt.config_file import load_config
from nmt.errors import UserError
from nmt.run import Run
from nmt.tensorboard import CURVES, Board
from nmt.training import Trainer, train

pytestmark = pytest.mark.usefixtures("there")

Event = dict[str, Any]


class Writer:
    """In place of torch's."""

    made: ClassVar[list[Writer]] = []
    full = False

    def __init__(self, folder: str, purge_step: int):
        self.folder, self.purge_step = folder, purge_step
        self.scalars: list[tuple[str, float, int]] = []
        self.flushed, self.closed = 0, False
        Writer.made.append(self)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        if Writer.full:
            raise OSError(28, "No space left on device")
        self.scalars.append((name, value, step))

    def flush(self) -> None:
        self.flushed += 1

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def writers(monkeypatch: pytest.MonkeyPatch) -> list[Writer]:
    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    monkeypatch.setattr(Writer, "made", [])
    monkeypatch.setattr(Writer, "full", False)
    return Writer.made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tensorboard")
    prepare_folder(folder)
    return folder


def rows_of(run: str) -> list[tuple[str, float, int]]:
    rows = [json.loads(line) for line in Path(run, "metrics.jsonl").read_text().splitlines()]
    return [
        (f"{row['event']}/{name}", row[name], row["step"])
        for row in rows
        for name in CURVES.get(row["event"], ())
    ]


def test_every_metric_is_a_curve(writers: list[Writer]) -> None:
    Nmt(Path())("train", "tiny.toml", "--run", "runs/curves", "--set", "training.tensorboard=true")
    (writer,) = writers
    assert writer.folder == "runs/curves/tensorboard"
    assert writer.purge_step == 1
    assert writer.scalars == rows_of("runs/curves")
    curves = {name for name, _, _ in writer.scalars}
    assert curves >= {"train/loss", "train/learning_rate", "train/memory_mib", "validation/bleu"}
    assert writer.flushed == 3
    assert writer.closed


def test_a_continuation_takes_back_what_came_after_the_checkpoint(
    writers: list[Writer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ended by an error after step 6: the checkpoint is of step 4."""
    config = load_config(Path("tiny.toml"), ["training.tensorboard=true", "training.log_every=1"])
    original = Trainer._step

    def step(self: Trainer, *arguments: Any) -> Any:
        if self.progress.step == 6:
            raise RuntimeError("killed")
        return original(self, *arguments)

    monkeypatch.setattr(Trainer, "_step", step)
    with Run.open(Path("runs/broken"), config) as run, pytest.raises(RuntimeError, match="killed"):
        train(config, run)
    monkeypatch.setattr(Trainer, "_step", original)
    with Run.open(Path("runs/broken"), config) as run:
        train(config, run)
    first, second = writers
    assert first.closed
    assert second.purge_step == 5
    kept = [row for row in first.scalars if row[2] < second.purge_step]
    assert len(kept) < len(first.scalars)
    assert [*kept, *second.scalars] == rows_of("runs/broken")


def test_a_disk_that_is_full_is_said_once(writers: list[Writer], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Writer, "full", True)
    said: list[Event] = []
    config = load_config(Path("tiny.toml"), ["training.tensorboard=true"])
    with Run.open(Path("runs/full"), config) as run:
        outcome = train(config, run, said.append)
    assert outcome.reason == "12 steps done"
    (text,) = [event["text"] for event in said if event["event"] == "warning"]
    assert (
        text == "runs/full/tensorboard: No space left on device; no more events are written for TensorBoard"
    )


def test_without_the_package_nothing_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    text = Nmt(Path()).error("train", "tiny.toml", "--run", "runs/no", "--set", "training.tensorboard=true")
    assert "pip install -e '.[tensorboard]'" in text
    assert not list(Path("runs/no/checkpoints").iterdir())
    with pytest.raises(UserError, match="not installed"):
        Board(Path("runs/no"), lambda event: None)


def _train_until(step: int, config: Config) -> None:
    interrupt: Any = SimpleNamespace(signal=None)

    def observe(event: Event) -> None:
        if event.get("step") == step:
            interrupt.signal = signal.SIGTERM

    with Run.open(Path("runs/real"), config) as run:
        board = Board(run.folder, observe)
        Trainer(config, run, board).train(interrupt)
        board.close()


def test_with_tensorboard_itself() -> None:
    """Read back by TensorBoard: after an interruption each step once."""
    pytest.importorskip("tensorboard", reason="needs the extra tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = load_config(Path("tiny.toml"), ["training.tensorboard=true", "training.log_every=1"])
    for last in (6, 0):
        _train_until(last, config)
    found = EventAccumulator("runs/real/tensorboard").Reload()
    expected = rows_of("runs/real")
    for name in {name for name, _, _ in expected}:
        rows = [(step, value) for curve, value, step in expected if curve == name]
        assert [event.step for event in found.Scalars(name)] == [step for step, _ in rows]
        assert [event.value for event in found.Scalars(name)] == pytest.approx([v for _, v in rows], rel=1e-6)
