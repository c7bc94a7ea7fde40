"""nmt translate by several processes: those of --processes and those of torchrun."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import Nmt
from translating import RUN, command, comparable, files, hostile_lines, lines_in, write_lines

from nmt.cli.lines import CHUNK_LINES
from nmt.cli.shards import Shards

LINES = [*hostile_lines(211, seed=5), "many words " * 300]


@pytest.mark.parametrize("name", [pytest.param("out.jsonl", marks=pytest.mark.slow), "out.txt.gz"])
def test_several_processes_write_what_one_writes(tiny_run: Path, tmp_path: Path, name: str) -> None:
    nmt, source = Nmt(tiny_run), write_lines(tmp_path / "in", LINES)
    one = nmt(*command(source, tmp_path / f"one-{name}"))
    with nmt.start(*command(source, tmp_path / name, "--processes", "2"), stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        said = process.stderr.read().decode()
    assert process.returncode == 0, said
    # Each long line is named once, by its number in the whole file.
    warned = [line.split(":")[3] for line in said.split("\n")[:-1] if " processes share " not in line]
    alone = [line.split(":")[3] for line in one.stderr.split("\n")[:-1]]
    assert "212" in alone
    assert sorted(warned, key=int) == alone
    assert files(tmp_path) == {"in", name, f"one-{name}"}
    assert comparable(tmp_path / name) == comparable(tmp_path / f"one-{name}")
    if name.endswith(".gz"):
        assert (tmp_path / name).read_bytes() == (tmp_path / f"one-{name}").read_bytes()


@pytest.mark.parametrize("lines", [0, 1, 2, 5, 1999, 2000, 4001, 10_000, 12_345])
@pytest.mark.parametrize("count", [2, 3, 16])
def test_blocks_share_out_the_lines(tmp_path: Path, lines: int, count: int) -> None:
    shards = Shards(str(write_lines(tmp_path / "in", ["x"] * lines)), tmp_path / "out", count, lines)
    blocks = list(shards.blocks())
    assert [first for first, _ in blocks] == [1 + i * shards.block for i in range(len(blocks))]
    assert sum(len(chunk) for _, chunk in blocks) == lines
    assert shards.block <= CHUNK_LINES
    shares = [sum(len(chunk) for _, chunk in blocks[process::count]) for process in range(count)]
    assert max(shares) <= -(-lines // count) + len(blocks)  # nobody has much more than the mean


@pytest.mark.slow
def test_nothing_to_do(tiny_run: Path, tmp_path: Path) -> None:
    nmt, source = Nmt(tiny_run), write_lines(tmp_path / "in", [])
    with nmt.start(*command(source, tmp_path / "out", "--processes", "2")) as process:
        process.wait()
    assert (tmp_path / "out").read_bytes() == b""
    assert files(tmp_path) == {"in", "out"}


@pytest.mark.slow
def test_an_interrupted_run_says_how_to_go_on_and_does(tiny_run: Path, tmp_path: Path) -> None:
    nmt, source, output = Nmt(tiny_run), write_lines(tmp_path / "in", LINES * 40), tmp_path / "out"
    arguments = command(source, output, "--processes", "2")
    with nmt.start(*arguments, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        while not lines_in(output) and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        said = process.stderr.read().decode().split("\n")[-2]
    assert process.returncode == 143
    done = lines_in(output)
    assert 0 < done < len(LINES) * 40
    assert said.startswith(f"nmt: terminated; {done:,} lines are translated, in {output}.partial")
    # Another number of processes, or one, cannot go on with it.
    for count, other in (("3", "processes 2, not 3"), ("1", "processes 2, not 1")):
        message = nmt.error(*command(source, output, "--processes", count))
        assert other in message
    write_lines(source, [*LINES * 40, "one more"])
    message = nmt.error(*arguments)
    assert f"input lines {len(LINES) * 40}, not {len(LINES) * 40 + 1}" in message
    write_lines(source, LINES * 40)
    with nmt.start(*arguments, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        said = process.stderr.read().decode()
    assert f"continuing after {done:,} lines" in said
    nmt(*command(source, tmp_path / "one"))
    assert output.read_bytes() == (tmp_path / "one").read_bytes()
    assert files(tmp_path) == {"in", "out", "one"}


@pytest.mark.slow
def test_processes_end_with_the_one_that_started_them(tiny_run: Path, tmp_path: Path) -> None:
    source, output = write_lines(tmp_path / "in", LINES * 40), tmp_path / "out"
    arguments = command(source, output, "--processes", "2")
    with Nmt(tiny_run).start(*arguments, stderr=subprocess.DEVNULL) as process:
        while not lines_in(output) and process.poll() is None:
            time.sleep(0.01)
        process.kill()
    time.sleep(0.5)
    done = lines_in(output)
    time.sleep(1)
    assert lines_in(output) == done < len(LINES) * 40


def test_one_line_says_what_is_wrong(tiny_run: Path, tmp_path: Path) -> None:
    nmt, source = Nmt(tiny_run), write_lines(tmp_path / "in", ["a"])
    several = ["--processes", "2"]
    assert "add --output" in nmt.error("translate", RUN, source, *several)
    output = ["--output", tmp_path / "out"]
    assert "<stdin> is none" in nmt.error("translate", RUN, *output, *several, stdin=b"a\n")
    message = nmt.error("translate", RUN, source, "--output", "/dev/null", *several)
    assert "/dev/null: is no ordinary file" in message
    assert "use torchrun" in nmt.error("translate", RUN, source, *output, *several, "--device", "cuda")
    nmt("translate", RUN, source, *output, "--processes", "0", expect=2)
    (tmp_path / "bad").write_bytes(b"a\n\xff\n")
    assert "bad:2: byte 1 is not valid" in nmt.error("translate", RUN, tmp_path / "bad", *output, *several)
    with nmt.fork("translate", "nothing", source, *output, *several, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        said = process.stderr.read().decode()
    assert said == "nmt: nothing: no such model; name a model folder or a run folder\n"
    assert process.returncode == 2
    assert files(tmp_path) == {"in", "bad"}


def test_as_many_processes_as_there_are_lines_at_most(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nmt.cli import processes

    started = []
    monkeypatch.setattr(processes, "run_processes", lambda _, shards: started.append(shards.count))
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1}, raising=False)
    for lines, asked, count in ((3, 50, 3), (0, 2, 1), (1, 2, 1), (5, 2, 2)):
        source = write_lines(tmp_path / "in", ["a"] * lines)
        said = Nmt(tiny_run)(*command(source, tmp_path / "out", "--processes", asked)).stderr
        assert started.pop() == count
        warned = "nmt: warning: 3 processes share 2 cores: that is slower\n"
        assert said == (warned if count > 2 else "")


def test_torchrun_variables(tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nmt, source = Nmt(tiny_run), write_lines(tmp_path / "in", ["a"])
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    assert "add --output" in nmt.error("translate", RUN, source)
    message = nmt.error("translate", RUN, source, "--output", tmp_path / "out", "--processes", "2")
    assert "--processes is for a machine without torchrun" in message
    for rank in ("2", "x"):
        monkeypatch.setenv("RANK", rank)
        assert f"RANK={rank} WORLD_SIZE=2" in nmt.error("translate", RUN, source)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert len(nmt("translate", RUN, source).lines) == 1


@pytest.mark.slow
def test_torchrun(tiny_run: Path, tmp_path: Path) -> None:
    """Also when all shares are complete already, and were put together by nobody."""
    nmt, source, output = Nmt(tiny_run), write_lines(tmp_path / "in", LINES), tmp_path / "out.jsonl"
    nmt(*command(source, tmp_path / "one.jsonl"))
    program = tmp_path / "program.py"
    program.write_text("from nmt.cli.main import main; main()")
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", program]
    for restart in ([], ["--restart"]):
        arguments = command(source, output, *restart)
        done = subprocess.run([*map(str, start), *map(str, arguments)], cwd=tiny_run, capture_output=True)
        assert done.returncode == 0, done.stderr
        assert comparable(output) == comparable(tmp_path / "one.jsonl")
        assert files(tmp_path) == {"in", "one.jsonl", "out.jsonl", "program.py"}


@pytest.mark.slow
def test_a_rank_that_was_complete_before_waits_for_the_others(tiny_run: Path, tmp_path: Path) -> None:
    """Rank 1 runs and dies, rank 0 comes later: it must not take the share until rank 1 is there again."""
    nmt, source, output = Nmt(tiny_run), write_lines(tmp_path / "in", LINES), tmp_path / "out"
    nmt(*command(source, tmp_path / "one"))

    def start(rank: int) -> subprocess.Popen[bytes]:
        variables = {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}
        return nmt.start(*command(source, output), env=os.environ | variables)

    with start(1) as one:
        while lines_in(output) < len(LINES) // 2:
            time.sleep(0.01)
        one.kill()
    with start(0) as zero:
        while lines_in(output) < len(LINES):
            time.sleep(0.01)
        time.sleep(0.5)
        assert zero.poll() is None
        assert not output.exists()
        with start(1) as one:
            one.wait()
    assert (zero.returncode, one.returncode) == (0, 0)
    assert output.read_bytes() == (tmp_path / "one").read_bytes()
    assert files(tmp_path) == {"in", "one", "out"}
