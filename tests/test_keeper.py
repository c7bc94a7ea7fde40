"""What training goes on past, and what it must not call done."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support import TINY

from nmt.config_file import parse_config
from nmt.errors import UserError
from nmt.keeper import Keeper
from nmt.progress import Progress
from nmt.run import Run

CONFIG = parse_config(TINY)


def write(folder: Path, *given: Any) -> None:
    """A checkpoint as a run sees one: its manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text(json.dumps({"format": 1, "files": {}, **given[4]}))


def full(folder: Path, *_: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device", str(folder))


@pytest.fixture
def keeper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Keeper]:
    monkeypatch.setattr("nmt.keeper.save_model", write)
    data: Any = SimpleNamespace(source_tokenizer=None, target_tokenizer=None, longest_source=1)
    with Run.open(tmp_path / "run", CONFIG) as run:
        yield Keeper(run, CONFIG, {}, data, lambda event: None, is_first=True, processes=1)


def save(keeper: Keeper, progress: Progress, *, scheduled: bool = True, is_last: bool = False) -> None:
    scores = {"bleu": 30.0} if scheduled else {}
    keeper.save({}, {}, progress, scores, scheduled=scheduled, is_last=is_last)


def steps(keeper: Keeper) -> list[int]:
    return [checkpoint.step for checkpoint in keeper.run.checkpoints()]


def test_the_last_checkpoint_is_not_that_of_an_interruption(
    keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the last validation and gone on with: one of its step is there, but of before."""
    save(keeper, Progress(step=10, validating=True), scheduled=False, is_last=True)
    monkeypatch.setattr("nmt.keeper.save_model", full)
    with pytest.raises(UserError, match=r"the checkpoint was not written, the last .* the same command"):
        save(keeper, Progress(step=10, finished="10 steps done"), is_last=True)


def test_a_checkpoint_that_is_written_is_enough(keeper: Keeper, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tidying up after it failed, which matters less, whatever it failed with."""
    for step, error in ((10, OSError(errno.EIO, "Input/output error")), (20, UserError("has format 99"))):

        def fail(*_: Any, error: Exception = error, **__: Any) -> None:
            raise error

        monkeypatch.setattr(Run, "keep", fail)
        save(keeper, Progress(step=step, finished="done"), is_last=True)
    keeper.run.sync_metrics()
    rows = [json.loads(line) for line in (keeper.run.folder / "metrics.jsonl").read_text().splitlines()]
    said = [row["text"] for row in rows if row["event"] == "warning"]
    assert ["old checkpoints were not tidied up" in text for text in said] == [True, True]
    assert "has format 99" in said[1]
    assert steps(keeper) == [10, 20]


def test_an_old_checkpoint_that_is_damaged_ends_no_training(keeper: Keeper) -> None:
    for step in (10, 20):
        save(keeper, Progress(step=step))
    (keeper.run.checkpoint_folder(10) / "manifest.json").write_text('{"format": 1,')
    save(keeper, Progress(step=30))
    assert steps(keeper) == [20, 30]
    assert (keeper.run.folder / "last").resolve() == keeper.run.checkpoint_folder(30)


def test_an_old_checkpoint_that_cannot_be_read_now_stays(
    keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a disk in a network, for a moment."""
    save(keeper, Progress(step=10))
    real = Path.read_text

    def stale(path: Path, *arguments: Any, **options: Any) -> str:
        if path.parent.name == "step-00000010":
            raise OSError(errno.ESTALE, "Stale file handle", str(path))
        return real(path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", stale)
        save(keeper, Progress(step=20))
        assert steps(keeper) == [20]
    save(keeper, Progress(step=30))
    assert 10 in steps(keeper)  # the best, among equals the earlier


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried ...")]
)
def test_without_memory_for_a_checkpoint_training_goes_on(
    keeper: Keeper, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: Any) -> None:
        raise error

    save(keeper, Progress(step=10))
    monkeypatch.setattr("nmt.keeper.save_model", fail)
    save(keeper, Progress(step=20))
    with pytest.raises(UserError, match=r"no memory left to write with; the checkpoint was not written"):
        save(keeper, Progress(step=30, finished="done"), is_last=True)
    assert steps(keeper) == [10]


def test_a_mistake_of_ours_is_not_taken_for_that(keeper: Keeper, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr("nmt.keeper.save_model", fail)
    with pytest.raises(RuntimeError, match="shapes"):
        save(keeper, Progress(step=20))
