"""Searches that run out of memory are taken up with smaller batches; several cores search at once."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt.budget import Searching, is_out_of_memory
from nmt.errors import UserError
from nmt.parallel import in_threads

CPU = torch.device("cpu")
ERRORS: list[Exception] = [
    MemoryError(),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory: you tried"
    ),
    RuntimeError("CUDA error: out of memory"),
    torch.OutOfMemoryError("Tried to allocate 2.00 GiB."),
]


@pytest.fixture(autouse=True)
def _one_thread_and_no_collection(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Collecting garbage, which every failed search does, takes longer than these searches."""
    monkeypatch.setattr("nmt.budget.gc", SimpleNamespace(collect=lambda: 0))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def threads_now() -> tuple[int, int]:
    """Of this thread, and of one that starts now: torch keeps both."""
    of_new: list[int] = []
    thread = threading.Thread(target=lambda: of_new.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return torch.get_num_threads(), of_new[0]


class Search:
    """Takes batches of sources of at most so many tokens, padding and ends counted, and has memory for
    `limit`. A source's first id is its name; a result is that name."""

    def __init__(self, limit: int, error: Exception | type[Exception] = MemoryError):
        self.limit, self.error = limit, error
        self.asked: list[tuple[int, int]] = []  # sources and tokens of each call
        self.searched: list[int] = []
        self.lock = threading.Lock()

    def __call__(self, sources: Sequence[Sequence[int]], tokens: int) -> Iterator[tuple[int, str]]:
        with self.lock:
            self.asked.append((len(sources), tokens))
        lengths = [len(source) + 1 for source in sources]
        assert lengths == sorted(lengths, reverse=True)
        place = 0
        while place < len(sources):
            count = max(1, tokens // lengths[place])
            batch = range(place, min(place + count, len(sources)))
            if lengths[place] * len(batch) > self.limit:
                raise self.error
            for index in reversed(batch):  # not in order
                with self.lock:
                    self.searched.append(sources[index][0])
                yield index, f"result {sources[index][0]}"
            place += count


def sources_of(lengths: Sequence[int]) -> list[list[int]]:
    return [[name] * length for name, length in enumerate(lengths)]


def run(search: Any, lengths: Sequence[int], batch_tokens: int | None) -> list[str]:
    return Searching(
        search, sources_of(lengths), batch_tokens=batch_tokens, device=CPU, model=of_width(512)
    ).results()


def results_of(lengths: Sequence[int]) -> list[str]:
    return [f"result {name}" for name in range(len(lengths))]


# --- memory ------------------------------------------------------------------------------------------------


def test_enough_memory_is_one_search() -> None:
    search = Search(10**9)
    lengths = [3, 9, 1, 4, 9]
    assert run(search, lengths, 100) == results_of(lengths)
    assert search.asked == [(5, 100)]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_sizes_are_halved_until_they_fit(error: Exception) -> None:
    search = Search(100, error)
    lengths = [9] * 60  # 600 tokens
    assert run(search, lengths, 800) == results_of(lengths)
    # What is asked for is halved; where all that waits is less than that, it is halved.
    assert search.asked == [(60, 800), (60, 300), (60, 150), (60, 75)]
    assert sorted(search.searched) == list(range(60))


def test_what_is_found_is_kept() -> None:
    """Memory that runs out later: what came before is not searched again."""
    search = Search(64)
    lengths = [15] * 4 + [1] * 100  # a batch of four long ones fits, later ones are padded less
    calls = 0

    def fails_later(sources: Sequence[Sequence[int]], tokens: int) -> Iterator[tuple[int, str]]:
        nonlocal calls
        calls += 1
        for number, found in enumerate(search(sources, tokens)):
            if calls <= 2 and number == 10 * calls:
                raise MemoryError
            yield found

    assert run(fails_later, lengths, 64) == results_of(lengths)
    assert [count for count, _ in search.asked] == [104, 94, 74]
    tokens = [tokens for _, tokens in search.asked]
    assert all(later <= earlier // 2 for earlier, later in pairwise(tokens))


@pytest.mark.parametrize(("cores", "processes"), [(1, False), (2, False), (2, True)])
def test_who_looks_may_end_the_search(monkeypatch: pytest.MonkeyPatch, cores: int, processes: bool) -> None:
    """In one search, in threads and in processes."""

    class Enough(Exception):
        pass

    monkeypatch.setattr("nmt.budget._SENTENCES_A_PROCESS", 1 if processes else 10**6)
    monkeypatch.setattr(torch, "get_num_threads", lambda: cores)
    looked: list[int] = []

    def look() -> None:
        looked.append(os.getpid())
        if len(looked) > 5:
            raise Enough

    def search(sources: Sequence[Sequence[int]], tokens: int) -> Iterator[tuple[int, int]]:
        for place in range(len(sources)):
            yield place, 0

    tasks = sources_of([3] * 200)
    with pytest.raises(Enough):
        Searching(search, tasks, batch_tokens=100, device=CPU, model=None).results(look)
    assert 6 <= len(looked) <= 5 + cores
    assert set(looked) == {os.getpid()}


@settings(max_examples=150, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 30), max_size=60),
    batch_tokens=st.one_of(st.none(), st.integers(1, 3000)),
    limit=st.integers(31, 500),
)
def test_every_result_once_and_in_order(lengths: list[int], batch_tokens: int | None, limit: int) -> None:
    """Wherever every sentence fits alone."""
    search = Search(limit)
    assert run(search, lengths, batch_tokens) == results_of(lengths)
    assert sorted(search.searched) == list(range(len(lengths)))
    asked = [tokens for _, tokens in search.asked]
    assert all(later <= earlier // 2 or later <= 31 for earlier, later in pairwise(asked))


@pytest.mark.parametrize("batch_tokens", [1, 40, 79, 80, 1000, None])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_sentence_too_long(error: Exception, batch_tokens: int | None) -> None:
    """39 tokens and its end; the others would fit."""
    with pytest.raises(UserError) as raised:
        run(Search(39, error), [3, 39, 5, 20, 1, 1], batch_tokens)
    message = str(raised.value)
    assert "out of memory with a single sentence of 40 tokens" in message
    assert "\n" not in message


def test_all_that_fits_is_found_before_a_shorter_one_fails() -> None:
    """The sentence named is the one that failed, not the longest of all."""
    search = Search(10**9)

    def fails_at_the_third(sources: Sequence[Sequence[int]], tokens: int) -> Iterator[tuple[int, str]]:
        if sources[0][0] == 2:
            raise MemoryError
        for index, found in search(sources, tokens):
            if sources[index][0] == 2:
                raise MemoryError
            yield index, found

    with pytest.raises(UserError, match="a single sentence of 6 tokens"):
        run(fails_at_the_third, [20, 10, 5], 1)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("out of memory"),
        RuntimeError("mat1 and mat2 differ"),
        UserError("too long"),
        OSError("full"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("threads", [1, 2])
def test_other_errors_pass(error: Exception, threads: int) -> None:
    torch.set_num_threads(threads)
    search = Search(50, error)
    with pytest.raises(type(error)) as raised:
        run(search, [9] * 40, 1000)
    assert raised.value is error
    assert len(search.asked) == threads  # none is tried again
    assert threads_now() == (threads, threads)


def test_no_sources() -> None:
    search = Search(0)
    assert run(search, [], 100) == []
    assert run(search, [], None) == []
    assert search.asked == []


def test_which_errors_are_of_memory() -> None:
    assert all(map(is_out_of_memory, ERRORS))
    for error in (
        RuntimeError("shapes"),
        ValueError("out of memory"),
        KeyboardInterrupt(),
        OSError(12, "no"),
    ):
        assert not is_out_of_memory(error)


# --- several cores -----------------------------------------------------------------------------------------


def test_cores_share_the_sources() -> None:
    torch.set_num_threads(2)
    search = Search(10**9)
    lengths = [1 + 7 * i % 23 for i in range(41)]
    assert run(search, lengths, 200) == results_of(lengths)
    assert sorted(search.asked) == [(20, 100), (21, 100)]
    assert threads_now() == (2, 2)


def test_few_sources_are_one_search() -> None:
    torch.set_num_threads(2)
    search = Search(10**9)
    assert run(search, [3] * 31, 200) == results_of([3] * 31)
    assert search.asked == [(31, 200)]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_memory_runs_out_in_one_thread(error: Exception) -> None:
    """What the other has found is kept; then one search goes on alone, with half the tokens."""
    torch.set_num_threads(2)
    lengths = [9] * 40
    search = Search(10**9)

    def fails_in_one(sources: Sequence[Sequence[int]], tokens: int) -> Iterator[tuple[int, str]]:
        for number, (index, found) in enumerate(search(sources, tokens)):
            if len(search.asked) <= 2 and number == 5 and sources[0][0] == 0:
                raise error
            yield index, found

    assert run(fails_in_one, lengths, 200) == results_of(lengths)
    assert search.asked[:2] == [(20, 100), (20, 100)]
    assert search.asked[2:] == [(15, 75)]  # of 150 tokens that wait, half
    assert threads_now() == (2, 2)


def test_after_memory_ran_out_all_cores_go_on() -> None:
    """Where there are sentences enough left; together with half the tokens."""
    torch.set_num_threads(2)
    lengths = [9] * 80
    search = Search(10**9)

    def fails_once(sources: Sequence[Sequence[int]], tokens: int) -> Iterator[tuple[int, str]]:
        for number, (index, found) in enumerate(search(sources, tokens)):
            if len(search.asked) <= 2 and number == 5 and sources[0][0] == 0:
                raise MemoryError
            yield index, found

    assert run(fails_once, lengths, 200) == results_of(lengths)
    assert search.asked[:2] == [(40, 100), (40, 100)]
    assert sorted(search.asked[2:]) == [(17, 50), (18, 50)]


def test_memory_runs_out_in_all_threads() -> None:
    torch.set_num_threads(2)
    lengths = [1 + i % 9 for i in range(64)]
    search = Search(45)
    assert run(search, lengths, 400) == results_of(lengths)
    assert sorted(search.searched) == list(range(64))


def test_threads_have_a_core_each_and_their_results_an_order() -> None:
    torch.set_num_threads(2)
    started = threading.Barrier(3, timeout=20)  # or they do not run at once

    def task(number: int) -> tuple[int, int]:
        started.wait()
        return number, torch.get_num_threads()

    assert in_threads([lambda n=n: task(n) for n in range(3)]) == [(0, 1), (1, 1), (2, 1)]  # type: ignore[misc]
    assert threads_now() == (2, 2)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_are_given_back_after_an_error(threads: int) -> None:
    torch.set_num_threads(threads)
    finished = []

    def fails() -> None:
        raise KeyError("the task's own")

    def works() -> None:
        finished.append(torch.get_num_threads())

    with pytest.raises(KeyError, match="the task's own"):
        in_threads([works, fails, works])
    assert finished == [1, 1]  # the others end first
    assert threads_now() == (threads, threads)
    assert in_threads([]) == []


def of_width(width: int) -> Any:
    return SimpleNamespace(embeddings=SimpleNamespace(target=torch.nn.Embedding(5, width)))


@pytest.mark.parametrize(("width", "tokens"), [(32, 4096), (256, 4096), (512, 1024), (1024, 1024)])
def test_wide_models_search_fewer_sentences_together(width: int, tokens: int) -> None:
    asked = []

    def search(sources: Sequence[Sequence[int]], tokens: int) -> Iterator[tuple[int, int]]:
        asked.append(tokens)
        yield from enumerate(map(len, sources))

    sources = sources_of([3] * 9)
    Searching(search, sources, batch_tokens=None, device=CPU, model=of_width(width)).results()
    assert asked == [tokens]


def test_a_process_that_dies_when_its_work_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """All results are there: there is nothing to be searched again."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    parent = os.getpid()

    def search(sources: Sequence[Sequence[int]], tokens: int) -> Iterator[tuple[int, int]]:
        for place, source in enumerate(sources):
            yield place, len(source)
        if os.getpid() != parent:
            time.sleep(0.5)  # the other has sent its results too, or what is left is searched again
            os._exit(9)

    lengths = [1 + i % 9 for i in range(200)]
    found = Searching(
        search, sources_of(lengths), batch_tokens=None, device=CPU, model=of_width(128)
    ).results()
    assert found == lengths


def test_more_cores_than_there_are_lines_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process for each hundred lines, and no threads, which would wait for each other."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    shares: list[int] = []

    def copies(tasks: Sequence[Callable[[], Iterator[Any]]]) -> Iterator[tuple[int, Any]]:
        for number, task in enumerate(tasks):
            found = list(task())
            shares.append(len(found))
            yield from ((number, pair) for pair in found)

    def search(sources: Sequence[Sequence[int]], tokens: int) -> Iterator[tuple[int, int]]:
        for place, source in enumerate(sources):
            yield place, len(source)

    monkeypatch.setattr("nmt.budget.Copies", copies)
    lengths = [1 + i % 9 for i in range(1000)]
    found = Searching(
        search, sources_of(lengths), batch_tokens=None, device=CPU, model=of_width(128)
    ).results()
    assert found == lengths
    assert shares == [100] * 10
