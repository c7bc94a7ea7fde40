"""What training does about numbers that are not finite, memory that runs out and disks that take nothing."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from several import Several, command
from support import TIMES, Nmt, prepare_folder

import nmt.gradient
from nmt.config import Config
from nmt.config_file import load_config
from nmt.data.batches import Batch
from nmt.errors import UserError
from nmt.gradient import Gradient, size
from nmt.progress import Outcome
from nmt.run import Run
from nmt.training import Trainer

pytestmark = pytest.mark.usefixtures("there")

Event = dict[str, Any]
NO_DROPOUT = ["model.dropout=0.0", "model.attention_dropout=0.0", "model.activation_dropout=0.0"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("training")
    prepare_folder(folder)
    return folder


def settings(*changes: str) -> Config:
    return load_config(Path("tiny.toml"), list(changes))


def train(
    config: Config,
    run: str | Path,
    observe: Callable[[Event], None] = lambda event: None,
    interrupt: Any = None,
) -> tuple[Outcome, Trainer]:
    with Run.open(Path(run), config) as opened:
        trainer = Trainer(config, opened, observe)
        return trainer.train(interrupt or SimpleNamespace(signal=None)), trainer


def weights(run: str | Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(Path(run) / "last/model.safetensors")


def metrics(run: str | Path) -> list[Event]:
    lines = (Path(run) / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in TIMES} for line in lines]


def warnings(run: str | Path) -> list[str]:
    return [row["text"] for row in metrics(run) if row["event"] == "warning"]


def flat(run: str | Path) -> torch.Tensor:
    return torch.cat([tensor.flatten() for tensor in weights(run).values()])


# Not finite


@pytest.fixture
def poison(folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """A target token whose batches have no finite loss: three of the first twelve, not two in a row."""
    trainer = Trainer(settings(), Run(Path("runs/any")), lambda event: None)
    batches = [set(trainer.stream.next().target_output_BT.flatten().tolist()) for _ in range(12)]
    for token in range(4, 400):
        has = [token in batch for batch in batches]
        if sum(has) == 3 and not has[0] and not any(a and b for a, b in pairwise(has)):
            break
    else:
        pytest.fail("no such token")
    original = nmt.gradient.cross_entropy_sum

    def poisoned(hidden: Any, weight: Any, bias: Any, target_N: torch.Tensor, **more: Any) -> Any:
        smoothed, plain = original(hidden, weight, bias, target_N, **more)
        factor = float("inf") if bool((target_N == token).any()) and smoothed.requires_grad else 1.0
        return smoothed * factor, plain

    monkeypatch.setattr("nmt.gradient.cross_entropy_sum", poisoned)
    return token


def test_the_scale_of_float16_finds_itself() -> None:
    """Gradients that overflow it are skipped, halve it, and are no fault; the weights do not know of it."""
    config = settings("training.max_nonfinite=2", *NO_DROPOUT)

    def trained(scale: float | None, steps: int) -> tuple[Trainer, torch.Tensor]:
        with Run.open(Path(f"runs/scale-{scale}-{steps}"), config) as run:
            trainer = Trainer(config, run, lambda event: None)
            first = torch.cat([p.detach().flatten() for p in trainer.model.parameters()])
            if scale is not None:
                trainer.scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=10**6)
                trainer.gradient.scaler = trainer.scaler
                # As float16 does, which ends at 65,504.
                next(trainer.model.parameters()).register_hook(
                    lambda grad: grad * (float("inf") if trainer.scaler.get_scale() > 1000 else 1.0)
                )
            for _ in range(steps):
                trainer._step()
            return trainer, torch.cat([p.detach().flatten() for p in trainer.model.parameters()]) - first

    overflowing, moved = trained(4096.0, 4)
    assert overflowing.scaler.get_scale() == 512.0  # after 4096, 2048 and 1024
    assert (overflowing.progress.skipped, overflowing.progress.skipped_in_row) == (0, 0)
    assert moved.norm() > 0
    fitting, same = trained(512.0, 3)
    assert fitting.scaler.get_scale() == 512.0
    torch.testing.assert_close(same, trained(None, 3)[1], rtol=1e-3, atol=1e-5)


def test_updates_that_are_not_finite_are_skipped(poison: int) -> None:
    before: list[torch.Tensor] = []
    unchanged = []

    def observe(event: Event) -> None:
        now = torch.cat([p.detach().flatten() for p in trainer.model.parameters()])
        unchanged.append(bool(before) and torch.equal(before[0], now))
        before[:] = [now]

    config = settings("training.log_every=1", "training.validate_every=100")
    with Run.open(Path("runs/skipping"), config) as run:
        trainer = Trainer(config, run, lambda event: None)
        for step in range(1, 13):
            trainer._step()
            observe({})
            assert trainer.progress.step == step
    assert unchanged.count(True) == trainer.progress.skipped == 3
    assert trainer.progress.skipped_in_row < 2

    train(config, "runs/skipped")
    said = warnings("runs/skipped")
    skipped = [step for step, same in enumerate(unchanged, start=1) if same]
    assert said == [
        f"step {step}: loss or gradient is not finite; the update is skipped (one)" for step in skipped
    ]
    logged = [row["step"] for row in metrics("runs/skipped") if row["event"] == "train"]
    assert logged == [step for step in range(1, 13) if step not in skipped]


def test_skipped_updates_survive_a_continuation(poison: int) -> None:
    config = settings("training.max_nonfinite=2")
    train(config, "runs/unbroken")
    for stop in (3, 6, 99):
        interrupt = SimpleNamespace(signal=None)

        def observe(event: Event, stop: int = stop, interrupt: Any = interrupt) -> None:
            if event["event"] == "train" and event["step"] == stop:
                interrupt.signal = signal.SIGTERM

        _, trainer = train(config, "runs/broken", observe, interrupt)
    assert metrics("runs/broken") == metrics("runs/unbroken")
    assert torch.equal(flat("runs/broken"), flat("runs/unbroken"))
    assert trainer.progress.skipped == 3


def test_too_many_in_a_row_stop_training_with_the_batch(poison: int) -> None:
    with pytest.raises(UserError) as caught:
        train(settings("training.max_nonfinite=1"), "runs/stopped")
    text = str(caught.value)
    assert "loss or gradient is not finite in step " in text
    assert "lower training.learning_rate" in text
    (file,) = Path("runs/stopped").glob("nonfinite-step-*.npz")
    assert f"its batch is in {file}" in text
    arrays = np.load(file)
    assert sorted(arrays) == ["source_1", "target_1"]
    assert (arrays["target_1"] == poison).any()
    pairs = [line.split("\t") for line in file.with_suffix(".tsv").read_text().split("\n")[:-1]]
    assert len(pairs) == len(arrays["source_1"])
    corpus = set(zip(*(Path(f"corpus/train.{s}").read_text().split("\n") for s in ("en", "de")), strict=True))
    assert {(source, target) for source, target in pairs} <= corpus


def test_two_processes_skip_the_same_updates(poison: int) -> None:
    options = ["--set", "training.accumulation=2", "--set", "training.max_steps=6"]
    arguments = ["train", "tiny.toml", "--run", "runs/skip-two", *options]
    ended = Several(Path(), command(*arguments)).ended()
    assert ended.codes == [0, 0], ended.said
    Nmt(Path())(*arguments[:3], "runs/skip-one", *options)
    assert warnings("runs/skip-two") == warnings("runs/skip-one") != []
    assert (flat("runs/skip-two") - flat("runs/skip-one")).norm() < 1e-3 * flat("runs/skip-one").norm()
    stop = ["--set", "training.max_nonfinite=1"]
    ended = Several(Path(), command(*arguments[:3], "runs/stop-two", *options, *stop)).ended()
    assert ended.codes == [2, 2], ended.said
    assert len(ended.errors) == 1
    (file,) = Path("runs/stop-two").glob("nonfinite-step-*.npz")
    assert file.name in ended.errors[0]
    arrays = np.load(file)
    assert all((arrays[name] == poison).any() for name in arrays if name.startswith("target"))


# Memory


def little_memory(monkeypatch: pytest.MonkeyPatch, tokens: int, rank: int) -> None:
    """Process `rank` cannot hold more tokens than this."""
    original = Gradient.loss

    def loss(self: Gradient, batch: Batch, smoothing: float) -> Any:
        if int(os.environ.get("RANK", 0)) == rank and size(batch) > tokens:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ...")
        return original(self, batch, smoothing)

    monkeypatch.setattr(Gradient, "loss", loss)


def test_a_loss_a_sentence(tmp_path: Path) -> None:
    """Gradients are as many times as large as a sentence has tokens, over all batches of a step."""
    norms: dict[str, float] = {}
    ratio = 0.0
    for kind in ("token", "sentence"):
        config = settings(*NO_DROPOUT, "training.accumulation=2", f"training.loss_per={kind}")
        with Run.open(tmp_path / kind, config) as run:
            trainer = Trainer(config, run, lambda event: None)
            share = trainer._share_of_step

            def seen(share: Callable[[], Any] = share) -> Any:
                nonlocal ratio
                batches, seeds = share()
                tokens = sum(int((batch.target_output_BT != 0).sum()) for batch in batches)
                ratio = tokens / sum(len(batch.source_BS) for batch in batches)
                return batches, seeds

            trainer._share_of_step = seen  # type: ignore[method-assign]
            with contextlib.closing(trainer.stream):
                trainer._step()
            norms[kind] = trainer.gradient_norm
    assert ratio > 3
    assert norms["sentence"] == pytest.approx(ratio * norms["token"], rel=1e-4)


@pytest.mark.parametrize("processes", [1, 2])
def test_batches_are_split_where_memory_runs_out(monkeypatch: pytest.MonkeyPatch, processes: int) -> None:
    options = [o for c in ["training.accumulation=2", *NO_DROPOUT] for o in ("--set", c)]
    nmt_ = Nmt(Path())
    if not Path("runs/roomy").exists():
        nmt_("train", "tiny.toml", "--run", "runs/roomy", *options)
    little_memory(monkeypatch, 300, rank=processes - 1)
    run = f"runs/tight-{processes}"
    several = Several(Path(), command("train", "tiny.toml", "--run", run, *options), processes)
    assert several.ended().codes == [0] * processes
    said = warnings(run)
    assert len(said) == 1  # all batches are of nearly 512 tokens
    assert "memory did not hold a batch; from now on batches of more than 2" in said[0]
    assert (flat(run) - flat("runs/roomy")).norm() < 1e-3 * flat("runs/roomy").norm()
    state = torch.load(f"{run}/last/training_state.pt", weights_only=True)
    assert 200 < state["progress"]["most_tokens"] <= 256


def test_a_sentence_that_memory_does_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    little_memory(monkeypatch, 10, rank=1)
    arguments = ["train", "tiny.toml", "--run", "runs/none", "--set", "training.accumulation=2"]
    ended = Several(Path(), command(*arguments)).ended()
    assert ended.codes == [2, 2], ended.said
    assert len(ended.errors) == 1
    assert "out of memory with a single sentence pair of" in ended.errors[0]


# Disks


def run_with(
    run: Path, at_step: int, spoil: Callable[[], object], mend: Callable[[], object]
) -> tuple[Outcome, list[str]]:
    """Train, spoil the disk at a step and mend it at the first validation after a checkpoint failed."""
    said: list[str] = []
    is_mended = False

    def observe(event: Event) -> None:
        nonlocal is_mended
        if event["event"] == "warning":
            said.append(event["text"])
        if event["event"] == "train" and event["step"] == at_step:
            spoil()
        failed = any("the checkpoint was not written" in text for text in said)
        if event["event"] == "validation" and failed and not is_mended:
            is_mended = True
            mend()

    try:
        outcome, _ = train(settings("training.max_steps=24"), run, observe)
        return outcome, said
    finally:
        if not is_mended:
            mend()


@pytest.fixture(scope="module")
def undisturbed(folder: Path) -> Path:
    run = folder / "runs/undisturbed"
    Nmt(folder)("train", "tiny.toml", "--run", run, "--set", "training.max_steps=24")
    return run


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 50 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=50m", "none", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small file system")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def same_but_for_warnings(run: Path, undisturbed: Path) -> None:
    assert torch.equal(flat(run), flat(undisturbed))
    assert [row for row in metrics(run) if row["event"] != "warning"] == metrics(undisturbed)
    assert [p for p in run.rglob("*") if "partial" in p.name] == []


def test_a_full_disk(small_disk: Path, undisturbed: Path) -> None:
    run = small_disk / "run"

    def fill() -> None:
        with (small_disk / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(4096)):
                pass

    outcome, said = run_with(run, 6, fill, lambda: (small_disk / "filler").unlink())
    assert outcome.reason == "24 steps done"
    texts = [text for text in said if "the checkpoint was not written" in text]
    assert "No space left on device; the checkpoint was not written, the last checkpoint is" in texts[0]
    assert "step-00000004; training goes on and tries again after the next validation" in texts[0]
    same_but_for_warnings(run, undisturbed)


def test_a_disk_that_can_only_be_read(small_disk: Path, undisturbed: Path) -> None:
    run = small_disk / "run"

    def only_read() -> None:
        # A second view of it, since the first has files open for writing.
        subprocess.run(["mount", "--bind", small_disk, small_disk], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", small_disk], check=True)

    def write_again() -> None:
        subprocess.run(["umount", "-l", small_disk], check=True)

    original = Run.log

    def log(self: Run, event: Event) -> int:
        try:
            return original(self, event)
        finally:
            self._metrics.close()

    Run.log = log  # type: ignore[method-assign]
    try:
        outcome, said = run_with(run, 6, only_read, write_again)
    finally:
        Run.log = original  # type: ignore[method-assign]
    assert outcome.reason == "24 steps done"
    assert sum("Read-only file system; metrics wait in memory" in text for text in said) == 1
    assert any("Read-only file system; the checkpoint was not written" in text for text in said)
    same_but_for_warnings(run, undisturbed)


def test_a_folder_that_vanishes(tmp_path: Path, undisturbed: Path) -> None:
    """It is made again with what training still has."""
    run = tmp_path / "runs/run"
    outcome, said = run_with(run, 6, lambda: run.rename(tmp_path / "gone"), lambda: None)
    assert outcome.reason == "24 steps done"
    assert any("has vanished, with what it held; it is made again" in text for text in said)
    assert torch.equal(flat(run), flat(undisturbed))
    assert [row for row in metrics(run) if row["event"] != "warning"] == metrics(undisturbed)[4:]
    assert {p.name for p in run.iterdir()} >= {"config.toml", "environment.json", "best", "last"}
    assert (tmp_path / "gone/checkpoints/step-00000004").is_dir()


def test_a_disk_that_vanishes_and_returns(tmp_path: Path, undisturbed: Path) -> None:
    """The folder that the run was in is not made: it may be a disk that is no longer there."""
    run = tmp_path / "runs/run"
    outcome, said = run_with(
        run,
        6,
        lambda: run.parent.rename(tmp_path / "away"),
        lambda: (tmp_path / "away").rename(run.parent),
    )
    assert outcome.reason == "24 steps done"
    assert any("No such file or directory; the checkpoint was not written" in text for text in said)
    same_but_for_warnings(run, undisturbed)


def file_limit(size: int) -> None:
    """No file may be larger: a disk that is full, without the right to mount one."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))


def test_checkpoints_that_cannot_be_written(tmp_path: Path, undisturbed: Path) -> None:
    run = tmp_path / "run"
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    outcome, said = run_with(run, 6, lambda: file_limit(20_000), lambda: file_limit(unlimited))
    assert outcome.reason == "24 steps done"
    assert any("File too large; the checkpoint was not written" in text for text in said)
    same_but_for_warnings(run, undisturbed)


def test_the_last_checkpoint_must_be_written(tmp_path: Path, undisturbed: Path) -> None:
    """At the end or at an interruption there is no next time: one line and the way on, which works."""
    run = tmp_path / "run"
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    for stop in (True, False):
        interrupt = SimpleNamespace(signal=None)

        def observe(event: Event, stop: bool = stop, interrupt: Any = interrupt) -> None:
            if event["event"] == "train" and event["step"] == 15:
                file_limit(20_000)
                interrupt.signal = signal.SIGTERM if stop else None

        try:
            with pytest.raises(
                UserError, match=r"the checkpoint was not written, the last checkpoint is .*12; see that"
            ):
                train(settings("training.max_steps=24"), run, observe, interrupt)
        finally:
            file_limit(unlimited)
    train(settings("training.max_steps=24"), run)
    same_but_for_warnings(run, undisturbed)


def test_a_damaged_checkpoint_is_set_aside(tmp_path: Path, undisturbed: Path) -> None:
    """A bit that a disk has turned: training goes on from the checkpoint before, to the same end."""
    run = tmp_path / "run"
    interrupt = SimpleNamespace(signal=None)

    def observe(event: Event) -> None:
        if event["event"] == "checkpoint" and event["step"] == 16:
            interrupt.signal = signal.SIGTERM

    def spoil(step: int, name: str) -> None:
        file = run / f"checkpoints/step-{step:08d}" / name
        content = bytearray(file.read_bytes())
        content[-7] ^= 1
        file.write_bytes(content)

    config = settings("training.max_steps=24")
    train(config, run, observe, interrupt)
    spoil(16, "training_state.pt")
    said: list[str] = []
    train(config, run, lambda event: said.append(event["text"]) if event["event"] == "warning" else None)
    assert len(said) == 1
    assert "training_state.pt: is not the file that was saved" in said[0]
    assert "it was set aside, training goes on from the one before" in said[0]
    same_but_for_warnings(run, undisturbed)
    assert (run / "checkpoints/damaged-step-00000016").is_dir()
    for folder in sorted((run / "checkpoints").glob("step-*")):
        spoil(int(folder.name.removeprefix("step-")), "model.safetensors")
    with pytest.raises(UserError, match=r"step-00000024/model.safetensors: is not the file that was saved"):
        train(config, run)


def test_changed_corpora_are_named(tmp_path: Path, folder: Path) -> None:
    project = tmp_path / "project"
    shutil.copytree(folder / "corpus", project / "corpus")
    shutil.copy(folder / "tiny.toml", project)
    nmt_ = Nmt(project)
    nmt_("train", "tiny.toml", "--set", "training.max_steps=2")
    for part, side in (("train", "de"), ("validation", "en")):
        file = project / f"corpus/{part}.{side}"
        text = file.read_text()
        file.write_text(text.replace("\n", " anders\n", 1))
        said = nmt_.error("train", "tiny.toml", "--set", "training.max_steps=3")
        kind = "training" if part == "train" else part
        assert f"the {kind} corpus is not the one this run was begun with: its files changed (corpus/" in said
        assert f"{part}.{side}); put them back" in said
        file.write_text(text)


@pytest.mark.parametrize("name", ["translator.Translator._search", "gradient.Gradient.loss_alone"])
def test_memory_that_runs_out_in_a_validation_loses_nothing(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise MemoryError

    config = settings("training.max_steps=20", "training.validate_every=10")
    expected = f"runs/validated-{name}"
    train(config, expected)
    run = f"runs/no-memory-{name}"
    with monkeypatch.context() as patch:
        patch.setattr(f"nmt.{name}", fail)
        for _ in range(2):  # the second begins with what the first could not do
            with pytest.raises(
                UserError, match=r"^validation after step 10 \(which is saved\): out of memory; it"
            ):
                train(config, run)
            assert [path.name for path in Path(run, "checkpoints").iterdir()] == ["step-00000010"]
    outcome, _ = train(config, run)
    assert outcome.step == 20
    assert weights(run).keys() == weights(expected).keys()
    assert all(torch.equal(tensor, weights(expected)[key]) for key, tensor in weights(run).items())
    assert [row for row in metrics(run) if row["event"] == "validation"] == [
        row for row in metrics(expected) if row["event"] == "validation"
    ]


def test_a_mistake_of_ours_in_a_validation_is_not_taken_for_that(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr("nmt.translator.Translator._search", fail)
    with pytest.raises(RuntimeError, match="shapes"):
        train(settings("training.max_steps=5", "training.validate_every=5"), "runs/mistaken")
