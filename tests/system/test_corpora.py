"""Several corpora and sampling processes, from the command line."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest
from support import TINY, Nmt, end_state, prepare_folder

from nmt.data.tokenizer import Tokenizer

TWO = TINY.replace(
    'train = "corpus/train"', 'train = ["corpus/train", "corpus/validation"]\ntags = ["", "<back>"]'
)
SAMPLING = ["--set", "tokenizer.sampling=0.2", "--set", "data.workers=2", "--set", "data.weights=[0.5, 2]"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpora")
    prepare_folder(folder)
    (folder / "two.toml").write_text(TWO)
    Nmt(folder)("train", "two.toml", "--run", "runs/whole", *SAMPLING)
    return folder


def children_of(process: int) -> set[int]:
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[1] == str(process) and fields[0] != "Z":
            found.add(int(entry.name))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_stopped_while_others_sample(folder: Path, number: int) -> None:
    nmt = Nmt(folder)
    run = f"runs/stopped-{number}"
    arguments = ["train", "two.toml", "--run", run, *SAMPLING]
    with nmt.start(*arguments, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        workers: set[int] = set()
        for line in process.stderr:
            if b"step 6 " in line:
                workers = children_of(process.pid)
                process.send_signal(number)
                break
        process.stderr.read()  # which ends when nobody holds it open any more
        assert process.wait() == (-9 if number == signal.SIGKILL else 143)
    assert len(workers) == 2
    end = time.monotonic() + 10
    while any(map(is_running, workers)):
        assert time.monotonic() < end
        time.sleep(0.05)
    nmt(*arguments)
    assert end_state(folder / run) == end_state(folder / "runs/whole")


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
def test_a_changed_corpus_is_refused_before_it_is_prepared(folder: Path) -> None:
    nmt = Nmt(folder)
    file = folder / "corpus/train.en"
    before = file.read_bytes()
    prepared = sorted((folder / "runs/.prepared").iterdir())
    with nmt.start(*["train", "two.toml", "--run", "runs/cut"], stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if b"step 6 " in line:
                process.terminate()
                break
        rest = process.stderr.read()
        assert process.wait() == 143, rest.decode()
    try:
        file.write_bytes(before.replace(b"a", b"o"))
        text = nmt.error("train", "two.toml", "--run", "runs/cut")
    finally:
        file.write_bytes(before)
    assert "files changed (corpus/train.en); put them back" in text
    assert sorted((folder / "runs/.prepared").iterdir()) == prepared


def test_tags_are_in_the_model_and_not_in_its_input(folder: Path) -> None:
    (model,) = (folder / "runs/whole/best").glob("tokenizer.model")
    tokenizer = Tokenizer.load(model)
    assert tokenizer.id_of("<back>") == 4
    done = Nmt(folder)("translate", "runs/whole", "--format", "jsonl", stdin=b"a <back> b\n")
    assert json.loads(done.lines[0])["source"] == "a <back> b"
    assert 4 not in tokenizer.encode("a <back> b")


def test_bad_weights_are_one_line(folder: Path) -> None:
    nmt = Nmt(folder)
    text = nmt.error("train", "two.toml", "--run", "runs/none", "--set", "data.weights=[0, 0]")
    assert "data.weights sum to zero" in text
    text = nmt.error("train", "two.toml", "--run", "runs/none", "--set", "data.weights=[0.0001, 0]")
    assert "data.weights leave no pair of" in text


def test_a_damaged_prepared_folder_is_one_line(folder: Path) -> None:
    nmt = Nmt(folder)
    nmt("train", "two.toml", "--run", "other/damaged", "--set", "training.max_steps=1")
    (prepared,) = [entry for entry in (folder / "other/.prepared").iterdir() if entry.is_dir()]
    tokens = prepared / "train.source.tokens"
    tokens.write_bytes(tokens.read_bytes()[:-2])
    text = nmt.error("train", "two.toml", "--run", "other/again")
    assert text.startswith(
        f"nmt: other/.prepared/{prepared.name}: the prepared corpus is damaged: train.source.tokens has"
    )
    assert text.endswith("delete this folder, it is made again")
