"""Several searches at once on a CPU, a core each: with small tensors faster than all cores on one.

In threads they wait for each other's Python, a fifth of the time; in forked processes they do not.
"""

from __future__ import annotations

import gc
import os
import pickle
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import torch

Result = TypeVar("Result")
_PR_SET_PDEATHSIG = 1  # sys/prctl.h


def in_threads(tasks: Sequence[Callable[[], Result]]) -> list[Result]:
    """What the tasks return, each computed in a thread of its own that has one core for torch.

    The first error of a task is raised, once all have ended.
    """
    results: list[Result | None] = [None] * len(tasks)
    errors: list[BaseException] = []

    def run(place: int) -> None:
        torch.set_num_threads(1)
        try:
            results[place] = tasks[place]()
        except BaseException as error:
            errors.append(error)

    threads_before = torch.get_num_threads()
    threads = [threading.Thread(target=run, args=(place,), daemon=True) for place in range(len(tasks))]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        torch.set_num_threads(threads_before)
    if errors:
        raise errors[0]
    return results  # type: ignore[return-value]


def can_fork() -> bool:
    """Whether a copy of this process can work on: not on every system, and not with a GPU in use."""
    return sys.platform == "linux" and not bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


class Copies(Generic[Result]):
    """Tasks at work, each in a copy of this process: an iterable of what they yield, as it comes, with the
    task's place.

    Of several that are at work the n-th task of each waits until that of the one before has ended, so that
    each has a core; meanwhile what all of them yield is taken in.

    The first error of a task is raised and the others are ended, as they are by `close`. A process that dies,
    as for want of memory, is a MemoryError.
    """

    _all: ClassVar[list[Copies[Any]]] = []  # at work
    _last: ClassVar[dict[int, int]] = {}  # for each place a pipe that ends when the last copy there does

    def __init__(self, tasks: Sequence[Callable[[], Iterator[Result]]]):
        self._arrived: deque[tuple[str, int, Any]] = deque()
        self._places: dict[Connection, int] = {}
        self._children: list[int] = []
        self._all.append(self)
        try:
            for place, task in enumerate(tasks):
                self._begin(place, task)
        except BaseException:
            self.close()
            raise

    def _begin(self, place: int, task: Callable[[], Iterator[Result]]) -> None:
        receiver, sender = Pipe(duplex=False)
        before = self._last.pop(place, None)
        ended, alive = os.pipe()
        parent = os.getpid()
        try:
            child = os.fork()
        except OSError:
            receiver.close()
            sender.close()
            for end in (ended, alive, before):
                if end is not None:
                    os.close(end)
            raise
        if not child:
            for copies in self._all:  # whoever reads of another would keep it from noticing that nobody does
                for connection in copies._places:
                    connection.close()
            receiver.close()
            _work(task, sender, before, parent)
        sender.close()
        os.close(alive)  # only the child has it now
        if before is not None:
            os.close(before)
        self._last[place] = ended
        self._places[receiver] = place
        self._children.append(child)

    def __iter__(self) -> Iterator[tuple[int, Result]]:
        try:
            while self._arrived or self._places:
                while self._arrived:
                    kind, place, content = self._arrived.popleft()
                    if kind == "error":
                        raise content
                    yield place, content
                if self._places:
                    self._take_in()
        finally:
            self.close()

    def _take_in(self) -> None:
        """Wait until there is something of one that is at work."""
        owners = {connection: copies for copies in self._all for connection in copies._places}
        for ready in wait(list(owners)):
            assert isinstance(ready, Connection)
            owners[ready]._take(ready)

    def _take(self, ready: Connection) -> None:
        try:
            kind, content = ready.recv()
        except EOFError:
            kind, content = "error", MemoryError("a process that searched has died")
        if kind != "end":
            self._arrived.append((kind, self._places[ready], content))
        if kind != "item":
            del self._places[ready]
            ready.close()

    def close(self) -> None:
        """End what is still at work."""
        for connection in self._places:
            connection.close()
        for child in self._children:
            if self._places:
                os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        self._places, self._children = {}, []
        self._arrived.clear()
        if self in self._all:
            self._all.remove(self)
        if not self._all:
            for ended in self._last.values():
                os.close(ended)
            self._last.clear()


class Begun(Protocol):
    """What is at work."""

    def close(self) -> None: ...


BegunT = TypeVar("BegunT", bound=Begun)


def one_ahead(
    works: Iterator[BegunT], at_hand: Callable[[], bool] = lambda: True
) -> Generator[BegunT, None, None]:
    """The same, but before one is given out the next is asked for, and so begun.

    An error of `works` comes after those before it. What has not been given out at the end is closed.

    Args:
        at_hand: whether the next comes without waiting; where it does not it is not asked for yet.
    """
    waiting: deque[BegunT] = deque()
    error: Exception | None = None
    more = True
    try:
        while more or waiting:
            if more and len(waiting) < 2 and (not waiting or at_hand()):
                try:
                    waiting.append(next(works))
                except StopIteration:
                    more = False
                except Exception as found:
                    more, error = False, found
            else:
                yield waiting.popleft()
        if error is not None:
            raise error
    finally:
        for work in waiting:
            work.close()


def _end_with(parent: int) -> None:
    """Have the system end this process when its parent is gone, which may come before the next result."""
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _work(task: Callable[[], Iterator[object]], sender: Connection, before: int | None, parent: int) -> None:
    """In the copy: send what the task yields, and leave without the copy's share of the parent's affairs.

    `before` can be read to its end when the copy that must end before has ended.
    """
    code = 1
    try:
        _end_with(parent)
        for number in (signal.SIGINT, signal.SIGTERM):  # the parent's to answer
            signal.signal(number, signal.SIG_IGN)
        torch.set_num_threads(1)
        if before is not None:
            os.read(before, 1)
        gc.freeze()  # what comes from the parent is no garbage of ours
        try:
            for item in task():
                sender.send(("item", item))
            sender.send(("end", None))
        except Exception as error:
            try:
                pickle.loads(pickle.dumps(error))
            except Exception:
                error = RuntimeError(f"{type(error).__name__}: {error}")
            sender.send(("error", error))
        code = 0
    finally:
        os._exit(code)
