"""torchrun itself, on one machine and on two, which are network namespaces joined by a cable."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from several import free_port
from support import Nmt, prepare_folder

ROOT = Path(__file__).resolve().parents[2]
NMT = [sys.executable, "-c", "from nmt.cli.main import main; main()"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
HOSTS = {"nmt-a": "10.213.77.1", "nmt-b": "10.213.77.2"}

pytestmark = pytest.mark.slow


def ip(*arguments: str) -> bool:
    return not subprocess.run(["ip", *arguments], capture_output=True).returncode


@pytest.fixture(scope="module")
def hosts() -> Iterator[list[str]]:
    """The names of two network namespaces that reach each other and nothing else."""
    if os.geteuid() or not shutil.which("ip"):
        pytest.skip("needs root and the program `ip`, to make network namespaces")
    names = list(HOSTS)
    for name in names:
        ip("netns", "delete", name)
    if not all(ip("netns", "add", name) for name in names):
        pytest.skip("network namespaces cannot be made here")
    try:
        assert ip(
            "link", "add", "veth-a", "netns", names[0], "type", "veth", "peer", "veth-b", "netns", names[1]
        )
        for name, link in zip(names, ("veth-a", "veth-b"), strict=True):
            assert ip("-n", name, "address", "add", f"{HOSTS[name]}/24", "dev", link)
            assert ip("-n", name, "link", "set", link, "up")
            assert ip("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in names:
            ip("netns", "delete", name)


def start(folder: Path, host: str, *arguments: object) -> subprocess.Popen[bytes]:
    """torchrun on one of two hosts, two processes each."""
    where = ["--nnodes", "2", "--node-rank", str(list(HOSTS).index(host)), "--nproc-per-node", "2"]
    meet = ["--master-addr", HOSTS["nmt-a"], "--master-port", "29533", "--no-python", "--"]
    command = ["ip", "netns", "exec", host, *TORCHRUN, *where, *meet, *NMT, *map(str, arguments)]
    with (folder / f"said-{host}").open("wb") as said:
        return subprocess.Popen(command, cwd=folder, stdout=said, stderr=said)


def two_processes() -> list[str]:
    """The command to which what `nmt` is to do is added."""
    port = str(free_port())
    return [*TORCHRUN, "--nproc-per-node", "2", "--master-port", port, "--no-python", "--", *NMT]


def test_torchrun_on_one_machine(tmp_path: Path) -> None:
    """Trained, and where it cannot be, the one line of the process that knows why."""
    prepare_folder(tmp_path)
    command = two_processes()
    arguments = ["train", "tiny.toml", "--set", "training.accumulation=2"]
    done = subprocess.run([*command, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "finished: 12 steps done" in done.stderr
    done = subprocess.run(
        [*command, *arguments[:2], "--run", "other"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode != 0
    said = [line for line in done.stderr.split("\n") if line.startswith("nmt: ")]
    assert len(said) == 1
    assert "training.accumulation = 1 does not give each of 2 processes" in said[0]
    assert "exitcode  : 2" in done.stderr  # what torchrun says of a process of ours


def test_torchrun_is_told_to_end(tmp_path: Path) -> None:
    """As a cluster does it: SIGTERM to torchrun, which passes it on."""
    prepare_folder(tmp_path)
    command = two_processes()
    arguments = [
        "train",
        "tiny.toml",
        "--set",
        "training.accumulation=2",
        "--set",
        "training.max_steps=100000",
    ]
    with (tmp_path / "said").open("wb") as said:
        process = subprocess.Popen([*command, *arguments], cwd=tmp_path, stderr=said)
    while "step 12 " not in (tmp_path / "said").read_text():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    process.wait(60)
    assert "interrupted; run the same command to continue" in (tmp_path / "said").read_text()
    (newest,) = {(tmp_path / "runs/tiny/last").resolve()}
    assert not json.loads((newest / "manifest.json").read_text())["scheduled"]


def test_two_hosts_train_what_one_does(hosts: list[str], tmp_path: Path) -> None:
    """The quickstart's Transformer: BLEU of its test within 0.5. Sums in another order change the last bits
    of gradients and so, in the end, some of the 500 translations."""
    nmt = Nmt(tmp_path)
    nmt("data", "synthesize", "--output", "runs/quickstart/corpus", "--train", "20000")
    config = ROOT / "recipes/quickstart/transformer.toml"
    share = ["--set", "training.accumulation=4", "--set", "training.batch_tokens=256"]
    scores = {}
    for name in ("one", "two"):
        arguments = ["train", config, "--run", f"runs/{name}", *share]
        if name == "one":
            process = nmt.start(*arguments)
            assert process.wait() == 0
        else:
            started = [start(tmp_path, host, *arguments) for host in hosts]
            codes = [process.wait() for process in started]
            assert codes == [0, 0], [(tmp_path / f"said-{host}").read_text() for host in hosts]
        manifest = json.loads((tmp_path / f"runs/{name}/last/manifest.json").read_text())
        assert manifest["processes"] == (1 if name == "one" else 4)
        test = "runs/quickstart/corpus/test"
        found = nmt(
            "evaluate", f"runs/{name}", "--source", f"{test}.en", "--reference", f"{test}.de", "--json"
        )
        rows = json.loads(found.stdout)
        scores[name] = next(row["score"] for row in rows if row["metric"] == "BLEU")
    assert scores["one"] > 90, scores  # it has learnt
    assert abs(scores["one"] - scores["two"]) < 0.5, scores


@pytest.mark.parametrize("how", ["killed", "cable"])
def test_a_host_that_is_lost_ends_the_other(hosts: list[str], tmp_path: Path, how: str) -> None:
    prepare_folder(tmp_path)
    arguments = ["train", "tiny.toml", "--set", "training.accumulation=4"]
    started = [start(tmp_path, h, *arguments, "--set", "training.max_steps=100000") for h in hosts]
    said = tmp_path / f"said-{hosts[0]}"
    try:
        while "step 12 " not in said.read_text():
            assert started[0].poll() is None, said.read_text()
            time.sleep(0.05)
        if how == "cable":
            assert ip("-n", hosts[1], "link", "set", "veth-b", "down")
        else:
            pids = subprocess.run(["ip", "netns", "pids", hosts[1]], capture_output=True, text=True).stdout
            for pid in pids.split():
                os.kill(int(pid), signal.SIGKILL)
        began = time.monotonic()
        assert started[0].wait(120) != 0
        assert time.monotonic() - began < 70
        lines = [line for line in said.read_text().split("\n") if line.startswith("nmt: rank ")]
        assert len(lines) == 1, said.read_text()
        assert "died without a word" in lines[0]
    finally:
        for host, process in zip(hosts, started, strict=True):
            pids = subprocess.run(["ip", "netns", "pids", host], capture_output=True, text=True).stdout
            for pid in pids.split():
                os.kill(int(pid), signal.SIGKILL)
            process.wait()
        ip("-n", hosts[1], "link", "set", "veth-b", "up")
