"""A run that is killed and continued ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import pkgutil
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from support import TINY, Nmt, end_state, prepare_folder

LONGER = ["--set", "training.max_steps=40", "--set", "training.validate_every=10"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that nothing stopped, `runs/whole`."""
    folder = tmp_path_factory.mktemp("whole")
    prepare_folder(folder)
    Nmt(folder)("train", "tiny.toml", "--run", "runs/whole", *LONGER)
    return folder


def stop_at(nmt: Nmt, arguments: list[str], text: str, number: int) -> int:
    """Start training, send a signal when a line of its output has `text`, and return the exit code."""
    with nmt.fork(*arguments, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if text in line.decode():
                process.send_signal(number)
                break
        process.stderr.read()
        return process.wait()


@pytest.mark.parametrize(
    ("number", "code"),
    [
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
        (signal.SIGKILL, -signal.SIGKILL),
    ],
)
def test_a_signal_loses_nothing(whole: Path, number: int, code: int) -> None:
    nmt = Nmt(whole)
    run = f"runs/signal-{number}"
    arguments = ["train", "tiny.toml", "--run", run, *LONGER]
    assert stop_at(nmt, arguments, "step 3 ", number) == code
    assert stop_at(nmt, arguments, "step 24 ", number) == code
    nmt(*arguments)
    assert end_state(whole / run) == end_state(whole / "runs/whole")


# Moments in the life of a checkpoint: a function, its call about one, and whether to die before or after.
MOMENTS = [
    ("pathlib.Path.write_bytes", 2, "after"),
    ("pathlib.Path.write_bytes", 6, "before"),
    ("pathlib.Path.rename", 2, "before"),
    ("pathlib.Path.rename", 2, "after"),
    ("nmt.run.point", 3, "before"),
    ("shutil.rmtree", 1, "before"),
]


@pytest.mark.parametrize(
    ("function", "call", "when"),
    # Between two renames; the others are of minutes.
    [pytest.param(*m, marks=() if m == MOMENTS[2] else pytest.mark.slow) for m in MOMENTS],
)
def test_killed_while_a_checkpoint_is_written(whole: Path, function: str, call: int, when: str) -> None:
    name = function.rpartition(".")[2]
    nmt = Nmt(whole)
    run = f"runs/{name}-{when}"
    original, calls = pkgutil.resolve_name(function), 0

    def dying(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += any("step-" in str(argument) for argument in arguments)
        if calls == call and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*arguments, **options)
        if calls == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    arguments = ["train", "tiny.toml", "--run", run, *LONGER, "--set", "training.keep_last=1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(function, dying)
        process = nmt.fork(*arguments, stderr=subprocess.PIPE)
    said = process.communicate()[1]
    assert process.returncode == -signal.SIGKILL, said.decode()
    for folder in (whole / run / "checkpoints").glob("step-*"):
        nmt("info", folder)  # whole, or not there
    nmt(*arguments)
    nmt("train", "tiny.toml", "--run", "runs/whole-1", *LONGER, "--set", "training.keep_last=1")
    assert end_state(whole / run) == end_state(whole / "runs/whole-1")


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["tokenizer.sampling=0.0", "tokenizer.sampling=0.1"])
def test_fifty_random_kills(tmp_path: Path, setting: str) -> None:
    prepare_folder(tmp_path)
    nmt = Nmt(tmp_path)
    options = ["--set", setting, "--set", "training.max_steps=3000", "--set", "training.validate_every=7"]
    nmt("train", "tiny.toml", "--run", "runs/whole", *options)
    chance = random.Random(1)
    kills = 0
    while kills < 50:
        with nmt.start(
            "train", "tiny.toml", "--run", "runs/killed", *options, stderr=subprocess.DEVNULL
        ) as p:
            time.sleep(chance.uniform(0.5, 5))
            p.kill()
            if p.wait() == 0:
                break
        kills += 1
    assert kills == 50, f"the run ended after {kills} kills: make it longer"
    nmt("train", "tiny.toml", "--run", "runs/killed", *options)
    assert end_state(tmp_path / "runs/killed") == end_state(tmp_path / "runs/whole")


def test_a_finished_run_says_so(tiny_run: Path) -> None:
    before = end_state(tiny_run / "runs/tiny")
    done = Nmt(tiny_run)("train", "tiny.toml")
    assert "finished" in done.stderr
    assert end_state(tiny_run / "runs/tiny") == before


def test_a_changed_configuration_is_refused(tiny_run: Path) -> None:
    text = Nmt(tiny_run).error("train", "tiny.toml", "--set", "training.seed=2")
    assert "training.seed: 1 -> 2" in text
    assert "--restart" in text


def test_restart_moves_the_old_run_aside(nmt: Nmt, tmp_path: Path) -> None:
    prepare_folder(tmp_path)
    nmt("train", "tiny.toml", "--set", "training.max_steps=2")
    nmt("train", "tiny.toml", "--restart", "--set", "training.max_steps=3")
    assert (tmp_path / "runs/tiny.old-1/best/model.safetensors").exists()
    assert (tmp_path / "runs/tiny/checkpoints/step-00000003").is_dir()
    done = nmt.error("train", "tiny.toml", "--restart", "--set", "data.validation=nowhere")
    assert "nowhere" in done
    assert (tmp_path / "runs/tiny/checkpoints/step-00000003").is_dir()
    assert not (tmp_path / "runs/tiny.old-2").exists()


def test_files_of_another_name_with_the_same_text(nmt: Nmt, tmp_path: Path) -> None:
    """One prepared folder serves both runs, and each names its own files."""
    prepare_folder(tmp_path)
    shutil.copytree(tmp_path / "corpus", tmp_path / "copy")
    (tmp_path / "copy.toml").write_text(TINY.replace("corpus/", "copy/"))
    options = ["--set", "training.max_steps=1"]
    nmt("train", "tiny.toml", *options)
    nmt("train", "copy.toml", *options)
    assert len([path for path in (tmp_path / "runs/.prepared").iterdir() if path.is_dir()]) == 1
    manifest = json.loads((tmp_path / "runs/copy/last/manifest.json").read_text())
    assert [row["file"] for row in manifest["training_data"]] == ["copy/train.en", "copy/train.de"]
    with (tmp_path / "copy/train.de").open("a") as file:
        file.write("ein Hund\n")
    with (tmp_path / "copy/train.en").open("a") as file:
        file.write("a dog\n")
    text = nmt.error("train", "copy.toml", "--set", "training.max_steps=2")
    assert "its files changed (copy/train.en, copy/train.de)" in text


def test_the_same_from_nothing_gives_the_same_numbers(nmt: Nmt, tmp_path: Path) -> None:
    """Of all that is written in a results table the time alone is another."""
    prepare_folder(tmp_path)
    tables = []
    for name in ("one", "two"):
        nmt("train", "tiny.toml", "--run", f"{name}/tiny")
        test = ["--source", "corpus/test.en", "--reference", "corpus/test.de"]
        nmt("evaluate", f"{name}/tiny", *test, "--results", f"{name}/results.json")
        rows = json.loads((tmp_path / name / "results.json").read_text())
        assert all(row.pop("train_seconds") > 0 for row in rows)
        tables.append(rows)
    assert tables[0] == tables[1]
    assert len(tables[0]) == 5


def test_two_processes_do_not_train_in_one_folder(nmt: Nmt, tmp_path: Path) -> None:
    prepare_folder(tmp_path)
    arguments = ["train", "tiny.toml", "--set", "training.max_steps=100000"]
    with nmt.fork(*arguments, stderr=subprocess.PIPE) as first:
        assert first.stderr is not None
        assert any(b"step 3 " in line for line in first.stderr)
        assert "another process" in nmt.error(*arguments)
        first.kill()


def test_a_finished_run_needs_no_corpus(nmt: Nmt, tmp_path: Path) -> None:
    prepare_folder(tmp_path)
    nmt("train", "tiny.toml", "--set", "training.max_steps=2")
    (tmp_path / "corpus").rename(tmp_path / "gone")
    assert "finished" in nmt("train", "tiny.toml", "--set", "training.max_steps=2").stderr


def test_a_changed_corpus_is_refused(nmt: Nmt, tmp_path: Path) -> None:
    prepare_folder(tmp_path)
    arguments = ["train", "tiny.toml", *LONGER]
    assert stop_at(nmt, arguments, "step 12 ", signal.SIGTERM) == 143
    with (
        (tmp_path / "corpus/train.en").open("a") as source,
        (tmp_path / "corpus/train.de").open("a") as target,
    ):
        source.write("One more.\n")
        target.write("Noch einer.\n")
    assert "its files changed" in nmt.error(*arguments)
