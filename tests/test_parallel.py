"""Forked searches: what they yield, what they raise, and that nobody is left behind."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from nmt.budget import search_all
from nmt.errors import UserError
from nmt.parallel import can_fork, in_processes

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
    for place, number in in_processes([partial(count, 10 * i, 10 * i + 5 * i) for i in range(3)]):
        found[place].append(number)
    assert found == [[], list(range(10, 15)), list(range(20, 30))]
    assert children() == before
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("error", [UserError("wrong; mend it"), ValueError("x"), MemoryError("full")])
def test_an_error_is_raised_and_the_others_end(error: Exception, tmp_path: Path) -> None:
    before, began = children(), time.monotonic()
    with pytest.raises(type(error), match=str(error)):
        list(in_processes([partial(wait_for_ever, tmp_path), partial(fail, error)]))
    assert children() == before
    assert time.monotonic() - began < 60


def test_an_error_that_cannot_be_sent_comes_as_text() -> None:
    class Local(Exception):
        pass

    with pytest.raises(RuntimeError, match="Local: what it said"):
        list(in_processes([partial(fail, Local("what it said"))]))


def test_a_process_that_dies_is_a_want_of_memory() -> None:
    before = children()
    with pytest.raises(MemoryError):
        list(in_processes([die, partial(count, 0, 3)]))
    assert children() == before


def test_who_stops_listening_ends_the_processes(tmp_path: Path) -> None:
    before = children()
    found = in_processes([partial(wait_for_ever, tmp_path), partial(wait_for_ever, tmp_path)])
    assert next(found)[1] == 0
    found.close()  # type: ignore[attr-defined]
    assert children() == before


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
    found = search_all(
        search,  # type: ignore[arg-type]
        sources,
        batch_tokens=300,
        device=torch.device("cpu"),
        model=None,
    )
    assert [total for total, _ in found] == list(map(sum, sources))
    pids = {pid for _, pid in found}
    assert parent not in pids
    assert len(pids) > 2  # what was left is searched in processes too
