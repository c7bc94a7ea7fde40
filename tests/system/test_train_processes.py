"""nmt train in several processes: what it computes, how it stops, what it says."""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from several import Several, command, wait
from support import Nmt, end_state, prepare_folder

OPTIONS: list[object] = [
    *("--set", "training.accumulation=4", "--set", "training.batch_tokens=256"),
    *("--set", "training.max_steps=24", "--set", "training.validate_every=8"),
]


def train(run: str, *more: object) -> list[object]:
    return ["train", "tiny.toml", "--run", f"runs/{run}", *OPTIONS, *more]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs that nothing stopped: `runs/one` in one process, `runs/two` in two."""
    folder = tmp_path_factory.mktemp("several")
    prepare_folder(folder)
    Nmt(folder)(*train("one"))
    assert Several(folder, command(*train("two"))).ended().codes == [0, 0]
    return folder


def metrics(run: Path, event: str) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["event"] == event]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(run / "last" / "model.safetensors")


def assert_close(found: Path, expected: Path) -> None:
    """Two runs in which sums were made in another order: float32, 24 steps of Adam."""
    losses = [[row["loss"] for row in metrics(run, "train")] for run in (found, expected)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    scores = [[row["loss"] for row in metrics(run, "validation")] for run in (found, expected)]
    assert scores[0] == pytest.approx(scores[1], rel=1e-4)
    # All weights together: biases of keys have a gradient of nothing but rounding, which Adam makes steps of.
    mine, theirs = (torch.cat([w.flatten() for w in weights(run).values()]) for run in (found, expected))
    assert (mine - theirs).norm() < 1e-3 * theirs.norm()


def test_two_processes_train_what_one_does(folder: Path) -> None:
    one, two = folder / "runs/one", folder / "runs/two"
    assert len(metrics(one, "train")) == 8
    assert_close(two, one)
    manifests = [json.loads((run / "last/manifest.json").read_text()) for run in (one, two)]
    assert [manifest["processes"] for manifest in manifests] == [1, 2]


def test_two_processes_end_as_two_processes_ended(folder: Path) -> None:
    assert Several(folder, command(*train("again"))).ended().codes == [0, 0]
    assert end_state(folder / "runs/again") == end_state(folder / "runs/two")
    ended = Several(folder, command(*train("again"))).ended()
    assert ended.codes == [0, 0]
    assert "finished: 24 steps done (nothing to do" in ended.said[0]
    assert ended.said[1] == ""


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)]
)
def test_a_signal_to_one_stops_all_after_the_same_step(folder: Path, number: int, code: int) -> None:
    run = f"signal-{number}"
    several = Several(folder, command(*train(run)))
    several.wait_for("step 3 ")
    several.send(1, number)
    ended = several.ended()
    assert ended.codes == [code, code]
    assert len(ended.errors) == 1, ended.said
    assert "interrupted; run the same command to continue" in ended.errors[0]
    assert (folder / "runs" / run / "last/manifest.json").exists()
    assert Several(folder, command(*train(run))).ended().codes == [0, 0]
    assert end_state(folder / "runs" / run) == end_state(folder / "runs/two")


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_killed_process_ends_the_others_and_loses_nothing(folder: Path, rank: int) -> None:
    run = f"killed-{rank}"
    several = Several(folder, command(*train(run)))
    several.wait_for("step 12 ")
    several.send(rank, signal.SIGKILL)
    began = time.monotonic()
    ended = several.ended(seconds=60)
    assert time.monotonic() - began < 20
    expected = [1, 1]
    expected[rank] = -signal.SIGKILL
    assert ended.codes == expected
    assert ended.errors == [
        f"nmt: rank {rank} of 2 died without a word (killed, or its machine is gone); the same command "
        "goes on from the last checkpoint"
    ]
    assert Several(folder, command(*train(run))).ended().codes == [0, 0]
    assert end_state(folder / "runs" / run) == end_state(folder / "runs/two")


def test_a_run_goes_on_with_another_number_of_processes(folder: Path) -> None:
    """One process, then four, then two."""
    nmt, run = Nmt(folder), "changing"
    for size, stop in ((1, "step 3 "), (4, "step 12 ")):
        several = Several(folder, command(*train(run)), size=size)
        several.wait_for(stop)
        several.send(0, signal.SIGTERM)
        assert several.ended().codes == [143] * size
    assert Several(folder, command(*train(run))).ended().codes == [0, 0]
    assert_close(folder / "runs" / run, folder / "runs/one")
    assert nmt("info", f"runs/{run}").code == 0


def one_line(folder: Path, *arguments: object, size: int = 2, **more: Any) -> str:
    """What is said by one of the processes, all of which end with 2."""
    ended = Several(folder, command(*arguments, **more), size=size).ended(seconds=60)
    assert ended.codes == [2] * size, ended.said
    assert len(ended.errors) == 1, ended.said
    assert not any("Traceback" in text for text in ended.said)
    return ended.errors[0]


def test_one_line_says_what_is_wrong(folder: Path) -> None:
    assert one_line(folder, *train("wrong"), size=3) == (
        "nmt: training.accumulation = 4 does not give each of 3 processes as many batches of a step; set it "
        "to 3 or a multiple"
    )
    assert "unknown key training.sed; did you mean seed?" in one_line(
        folder, *train("wrong", "--set", "training.sed=1")
    )
    assert "training.precision" in one_line(folder, *train("wrong", "--set", "training.precision=float16"))
    other = {1: train("wrong", "--set", "training.seed=7", "--set", "training.learning_rate=0.1")}
    assert one_line(folder, *train("wrong"), of_rank=other).endswith(
        "sees other configuration than rank 0: training.seed, training.learning_rate; give all processes the "
        "same command and the same files"
    )
    assert "training.accumulation = 4000 is more than the" in one_line(
        folder, *train("wrong", "--set", "training.accumulation=4000")
    )


def test_a_process_that_sees_other_files(folder: Path, tmp_path: Path) -> None:
    """The same command in another folder, with one more sentence pair, or with one word changed."""
    for name in ("here", "longer", "other"):
        (tmp_path / name).mkdir()
        prepare_folder(tmp_path / name)
    for side, line in (("en", "One more.\n"), ("de", "Noch einer.\n")):
        with (tmp_path / f"longer/corpus/train.{side}").open("a") as file:
            file.write(line)
    file = tmp_path / "other/corpus/train.de"
    text = file.read_text()
    file.write_text(text.replace("der", "rde", 1))

    def elsewhere(name: str) -> Any:
        def work(rank: int) -> int:
            import os

            os.chdir(tmp_path / (name if rank else "here"))
            return command(*train("elsewhere"))(rank)

        return work

    for name, files in (("longer", "corpus/train.en, corpus/train.de"), ("other", "corpus/train.de")):
        ended = Several(tmp_path, elsewhere(name)).ended(seconds=60)
        assert ended.codes == [2, 2], ended.said
        assert len(ended.errors) == 1, ended.said
        assert "rank 1 of 2" in ended.errors[0]
        assert f"than rank 0: {files}" in ended.errors[0]


SHARDED = ["--set", "training.shard=true", "--set", "training.ema=0.9"]


@pytest.fixture(scope="module")
def parts(folder: Path) -> Path:
    """A run of two processes with a part of the model each, that nothing stopped."""
    import torch._dynamo  # noqa: F401  each process would by itself, which takes seconds

    assert Several(folder, command(*train("parts", *SHARDED))).ended().codes == [0, 0]
    return folder / "runs/parts"


@pytest.mark.slow
def test_a_model_in_parts_is_not_lost(folder: Path, parts: Path) -> None:
    several = Several(folder, command(*train("killed-parts", *SHARDED)))
    several.wait_for("step 12 ")
    several.send(1, signal.SIGKILL)
    ended = several.ended(60)
    assert ended.codes == [1, -signal.SIGKILL], ended.said
    assert len(ended.errors) == 1
    assert "rank 1 of 2 died without a word" in ended.errors[0]
    assert Several(folder, command(*train("killed-parts", *SHARDED))).ended().codes == [0, 0]
    assert end_state(folder / "runs/killed-parts") == end_state(parts)


@pytest.mark.slow
def test_a_model_in_parts_is_trained_as_a_whole_one(folder: Path, parts: Path) -> None:
    """Also by two processes, then by one, by four, and by two that have all of it each."""
    whole = ["--set", "training.ema=0.9"]
    nmt, run = Nmt(folder), "changing-parts"
    nmt(*train("one-average", *whole))
    assert_close(parts, folder / "runs/one-average")
    for size, stop in ((2, "step 3 "), (1, "step 9 "), (4, "step 15 ")):
        several = Several(folder, command(*train(run, *SHARDED)), size=size)
        several.wait_for(stop)
        several.send(0, signal.SIGTERM)
        assert several.ended().codes == [143] * size
    assert Several(folder, command(*train(run, *whole))).ended().codes == [0, 0]
    assert_close(folder / "runs" / run, folder / "runs/one-average")
    assert nmt("info", f"runs/{run}").code == 0


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["tokenizer.sampling=0.0", "tokenizer.sampling=0.1"])
def test_fifty_random_kills_of_two_processes(tmp_path: Path, setting: str) -> None:
    prepare_folder(tmp_path)
    more = ["--set", setting, "--set", "training.max_steps=1500", "--set", "training.validate_every=7"]
    assert Several(tmp_path, command(*train("whole", *more))).ended(1000).codes == [0, 0]
    chance = random.Random(1)
    for _ in range(50):
        several = Several(tmp_path, command(*train("killed", *more)))
        end = time.monotonic() + chance.uniform(0.5, 6)
        wait(lambda: time.monotonic() > end, 100)  # noqa: B023
        killed = chance.randrange(2)
        several.send(killed, signal.SIGKILL)
        # The other ends by itself, but a minute later if it waits for the first to come: torchrun ends it.
        until = time.monotonic() + 3
        while several.is_running(1 - killed) and time.monotonic() < until:
            time.sleep(0.01)
        if several.is_running(1 - killed):
            several.send(1 - killed, signal.SIGTERM)
        assert several.ended(60).codes != [0, 0], "the run ended: make it longer"
    assert Several(tmp_path, command(*train("killed", *more))).ended(1000).codes == [0, 0]
    assert end_state(tmp_path / "runs/killed") == end_state(tmp_path / "runs/whole")
