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
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import TypeVar

import torch

Result = TypeVar("Result")


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


def in_processes(tasks: Sequence[Callable[[], Iterator[Result]]]) -> Iterator[tuple[int, Result]]:
    """What the tasks yield, as it comes, with the task's place; each works in a copy of this process.

    The first error of a task is raised and the others are ended, as they are when the caller stops.
    A process that dies, as for want of memory, is a MemoryError.
    """
    places: dict[Connection, int] = {}
    children: list[int] = []
    try:
        for place, task in enumerate(tasks):
            receiver, sender = Pipe(duplex=False)
            child = os.fork()
            if not child:
                _work(task, sender)
            sender.close()
            places[receiver] = place
            children.append(child)
        while places:
            for ready in wait(list(places)):
                assert isinstance(ready, Connection)
                try:
                    kind, content = ready.recv()
                except EOFError:
                    raise MemoryError("a process that searched has died") from None
                if kind == "error":
                    raise content
                if kind == "end":
                    del places[ready]
                    ready.close()
                else:
                    yield places[ready], content
    finally:
        for connection in places:
            connection.close()
        for child in children:
            if places:
                os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def _work(task: Callable[[], Iterator[object]], sender: Connection) -> None:
    """In the copy: send what the task yields, and leave without the copy's share of the parent's affairs."""
    code = 1
    try:
        for number in (signal.SIGINT, signal.SIGTERM):  # the parent's to answer
            signal.signal(number, signal.SIG_IGN)
        torch.set_num_threads(1)
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
