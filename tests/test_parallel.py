"""Forked searches: what they yield, what they raise, and that nobody is left behind."""

from __future__ import annotations

import errno
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
import torch

from nmt.budget import Searching
from nmt.errors import UserError
from nmt.parallel import Copies, can_fork, one_ahead

pytestmark = pytest.mark.skipif(not can_fork(), reason="processes are not forked on this system")


def count(first: int, last: int) -> Iterator[int]:
    assert torch.get_num_threads() == 1
    for number in range(first, last):
        # A product, which would wait for ever for threads that the copy does not have.
        torch.ones(300, 300) @ torch.ones(300, 300)
        yield number


def fail(error: Exception) -> Iterator[int]:
    yield 0
    raise error


def die() -> Iterator[int]:
    yield 0
    os.kill(os.getpid(), signal.SIGKILL)
    yield 1


def wait_for_ever(marks: Path) -> Iterator[int]:
    (marks / str(os.getpid())).touch()
    yield 0
    time.sleep(600)


def children() -> set[int]:
    own = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    return set(map(int, own.read_text().split()))


def test_all_that_the_tasks_yield_comes_in_their_order() -> None:
    before, threads = children(), torch.get_num_threads()
    torch.ones(300, 300) @ torch.ones(300, 300)  # the parent's threads are there
    found: list[list[int]] = [[], [], []]
    for place, number in Copies([partial(count, 10 * i, 10 * i + 5 * i) for i in range(3)]):
        found[place].append(number)
    assert found == [[], list(range(10, 15)), list(range(20, 30))]
    assert children() == before
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("error", [UserError("wrong; mend it"), ValueError("x"), MemoryError("full")])
def test_an_error_is_raised_and_the_others_end(error: Exception, tmp_path: Path) -> None:
    before, began = children(), time.monotonic()
    with pytest.raises(type(error), match=str(error)):
        list(Copies([partial(wait_for_ever, tmp_path), partial(fail, error)]))
    assert children() == before
    assert time.monotonic() - began < 60


def test_an_error_that_cannot_be_sent_comes_as_text() -> None:
    class Local(Exception):
        pass

    with pytest.raises(RuntimeError, match="Local: what it said"):
        list(Copies([partial(fail, Local("what it said"))]))


def test_a_process_that_dies_is_a_want_of_memory() -> None:
    before = children()
    with pytest.raises(MemoryError):
        list(Copies([die, partial(count, 0, 3)]))
    assert children() == before


def test_who_stops_listening_ends_the_processes(tmp_path: Path) -> None:
    before = children()
    copies = Copies([partial(wait_for_ever, tmp_path), partial(wait_for_ever, tmp_path)])
    found = iter(copies)
    assert next(found)[1] == 0
    copies.close()
    assert children() == before


def stamped(seconds: float) -> Iterator[tuple[int, float, float]]:
    """The process, and when it began and ended."""
    began = time.monotonic()
    time.sleep(seconds)
    yield os.getpid(), began, time.monotonic()


def test_those_begun_later_wait_for_their_core() -> None:
    """But not for another: the second task of the second begins while the first of the first is at work."""
    before = children()
    copies = [Copies([partial(stamped, 0.6), partial(stamped, 0.1)]) for _ in range(3)]
    times = [{place: (began, ended) for place, (_, began, ended) in one} for one in copies]
    for earlier, later in itertools.pairwise(times):
        for place in (0, 1):
            assert later[place][0] >= earlier[place][1]
    assert times[2][1][0] < times[0][0][1]
    assert children() == before
    assert not Copies._all
    assert not Copies._last


def test_much_from_those_that_are_not_asked_yet(tmp_path: Path) -> None:
    """More than a pipe holds; nobody waits for anybody, in whatever order they are asked."""
    first, second = Copies([partial(count, 0, 20)]), Copies([partial(much, 200)])
    assert sum(len(text) for _, text in second) == 200 * 10_000
    assert [number for _, number in first] == list(range(20))


def much(times: int) -> Iterator[str]:
    for _ in range(times):
        yield "x" * 10_000


def test_one_that_dies_lets_the_next_begin() -> None:
    dead, alive = Copies([die]), Copies([partial(count, 0, 3)])
    assert [number for _, number in alive] == [0, 1, 2]
    with pytest.raises(MemoryError):
        list(dead)


_PARENT = """
import errno
import itertools, sys, time
from nmt.parallel import Copies

def busy():
    yield "x" * 10_000
    while True:
        pass

def full():
    yield from ("x" * 10_000 for _ in itertools.count())

copies = [Copies([busy, full]), Copies([busy, full])]
print(*(child for one in copies for child in one._children), flush=True)
time.sleep(600)
"""


def test_none_outlives_its_parent() -> None:
    """Neither one that computes, nor one whose results nobody reads, nor one that waits for its core."""
    with subprocess.Popen([sys.executable, "-c", _PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = list(map(int, parent.stdout.readline().split()))
        time.sleep(0.3)
        parent.kill()
    assert len(pids) == 4
    end = time.monotonic() + 20
    while any(_runs(pid) for pid in pids):
        assert time.monotonic() < end
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Work:
    """Says what was asked of it."""

    def __init__(self, name: int, said: list[str]):
        self.name, self.said = name, said
        said.append(f"begin {name}")

    def close(self) -> None:
        self.said.append(f"close {self.name}")


def test_one_ahead() -> None:
    said: list[str] = []
    for work in one_ahead(Work(name, said) for name in range(3)):
        said.append(f"use {work.name}")
    assert said == ["begin 0", "begin 1", "use 0", "begin 2", "use 1", "use 2"]


def test_none_ahead_where_it_would_have_to_be_waited_for() -> None:
    said: list[str] = []
    for work in one_ahead((Work(name, said) for name in range(3)), lambda: len(said) > 3):
        said.append(f"use {work.name}")
    assert said == ["begin 0", "use 0", "begin 1", "use 1", "begin 2", "use 2"]


def test_an_error_comes_after_what_was_before_it() -> None:
    said: list[str] = []

    def works() -> Iterator[Work]:
        yield Work(0, said)
        yield Work(1, said)
        raise UserError("line 3")

    def use() -> None:
        for work in one_ahead(works()):
            said.append(f"use {work.name}")

    with pytest.raises(UserError, match="line 3"):
        use()
    assert said == ["begin 0", "begin 1", "use 0", "use 1"]


def test_who_leaves_early_closes_what_is_ahead() -> None:
    said: list[str] = []
    works = one_ahead(Work(name, said) for name in range(5))
    assert next(works).name == 0
    works.close()
    assert said == ["begin 0", "begin 1", "close 1"]


def test_a_search_in_processes_finds_what_one_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every other process dies on long batches; what was found before is kept."""
    monkeypatch.setattr("nmt.budget._SENTENCES_A_PROCESS", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    parent = os.getpid()
    pids = set()

    def search(sources: list[list[int]], tokens: int) -> Iterator[tuple[int, tuple[int, int]]]:
        for place, source in enumerate(sources):
            if tokens > 100 and place == 7:
                raise MemoryError
            yield place, (sum(source), os.getpid())

    sources = [[number] * (1 + number % 9) for number in range(60)]
    found = Searching(
        search,  # type: ignore[arg-type]
        sources,
        batch_tokens=300,
        device=torch.device("cpu"),
        model=None,
    ).results()
    assert [total for total, _ in found] == list(map(sum, sources))
    pids = {pid for _, pid in found}
    assert parent not in pids
    assert len(pids) > 2  # what was left is searched in processes too


def refuse() -> int:
    raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")


def descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def test_processes_that_cannot_begin_leave_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    before = descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fork", refuse)
        for _ in range(5):
            with pytest.raises(BlockingIOError):
                Copies([partial(count, 0, 2)] * 2)
    assert descriptors() == before
    assert sorted(Copies([partial(count, 0, 2)] * 2)) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert descriptors() == before


def test_where_no_process_can_begin_threads_search(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(2)
    monkeypatch.setattr(os, "fork", refuse)
    shares = []

    def search(sources: Sequence[Sequence[int]], tokens: int) -> Iterator[tuple[int, int]]:
        shares.append(len(sources))
        for index, source in enumerate(sources):
            yield index, source[0]

    sources = [[number] for number in range(400)]
    searching = Searching(search, sources, batch_tokens=100, device=torch.device("cpu"), model=None)
    assert searching.results() == list(range(400))
    assert shares == [200, 200]
