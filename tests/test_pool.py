"""Worker processes: results in order, errors passed on, nobody left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pool_tasks import Square, Unreadable

from nmt.data.pool import Pool
from nmt.errors import UserError

ROOT = Path(__file__).resolve().parents[1]


def is_alive(process: int) -> bool:
    try:
        with Path(f"/proc/{process}/stat").open() as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(processes: list[int], seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while any(map(is_alive, processes)):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_results_come_in_order(workers: int) -> None:
    with Pool(Square(), workers) as pool:
        processes = [process.pid for process in pool._processes]
        assert len(processes) == workers
        assert list(pool.map(iter(range(40)))) == [n * n for n in range(40)]
        assert list(pool.map([])) == []
    assert gone(processes)


@pytest.mark.parametrize("workers", [0, 2])
def test_items_are_taken_as_they_are_needed(workers: int) -> None:
    taken = []

    def items() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    with Pool(Square(), workers) as pool:
        for done, _ in enumerate(pool.map(items())):
            assert len(taken) <= done + 1 + 2 * workers + 1


@pytest.mark.parametrize("workers", [0, 2])
def test_errors_are_passed_on_in_their_turn(workers: int) -> None:
    def items() -> Iterator[int]:
        yield from (1, 2, -1)
        raise UserError("the items are wrong")

    with Pool(Square(), workers) as pool:
        results = pool.map(items())
        assert [next(results), next(results)] == [1, 4]
        with pytest.raises(UserError) as caught:
            next(results)
        assert (caught.value.message, caught.value.file, caught.value.line) == (
            "is negative; use another",
            "numbers",
            3,
        )
        with pytest.raises(Exception, match="odd"):
            pool.submit(-2).result()
        assert pool.submit(5).result() == 25


def test_an_error_of_the_items_comes_last() -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise UserError("the items are wrong")

    with Pool(Square(), 2) as pool:
        results = pool.map(items())
        assert [next(results) for _ in range(5)] == [0, 1, 4, 9, 16]
        with pytest.raises(UserError, match="items are wrong"):
            next(results)


def test_a_worker_that_dies_is_an_error() -> None:
    with Pool(Square(), 1) as pool:
        assert pool.submit(2).result() == 4
        with pytest.raises(MemoryError, match="has died"):
            pool.submit(-3).result()
        with pytest.raises((MemoryError, RuntimeError), match="has died"):
            pool.submit(2).result()


PARENT = """
import os, sys, time
sys.path.insert(0, {tests!r})
from nmt.data.pool import Pool
from test_pool import Slow
pool = Pool(Slow(), 2)
futures = [pool.submit(i) for i in range(4)]
time.sleep(1)
print(*[process.pid for process in pool._processes], flush=True)
{then}
"""


class Slow:
    def __call__(self, number: int) -> int:
        while True:  # computes on, as SentencePiece would
            number += 1


@pytest.mark.parametrize(
    ("then", "code"),
    [
        ("os.kill(os.getpid(), 9)", -9),
        ("sys.exit(3)", 3),
        ("raise ValueError", 1),
        ("os._exit(4)", 4),
    ],
)
def test_workers_end_with_their_parent(then: str, code: int) -> None:
    program = PARENT.format(tests=str(ROOT / "tests"), then=then)
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as parent:
        assert parent.stdout is not None
        processes = [int(word) for word in parent.stdout.readline().split()]
        assert len(processes) == 2
        assert parent.wait(timeout=20) == code
    assert gone(processes)


def test_workers_leave_interruptions_to_their_parent() -> None:
    with Pool(Square(), 1) as pool:
        assert pool.submit(3).result() == 9
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(pool._processes[0].pid, number)
        assert pool.submit(4).result() == 16


def test_a_task_that_cannot_be_read() -> None:
    """Is an error, and no wait for ever."""
    with Pool(Unreadable(), 1) as pool:
        with pytest.raises(ModuleNotFoundError, match="missing here"):
            pool.submit(1).result(timeout=20)
        with pytest.raises(RuntimeError, match="has died"):
            pool.submit(2).result(timeout=20)
