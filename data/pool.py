"""Worker processes: a task in several processes, its results in the order of its items.

A worker is a fresh Python that gets the task and its items through pipes. Nothing of this process is
copied into it, so threads and a GPU in use do no harm. Workers leave interruptions to this process, and when
it ends, by whatever cause, their pipes do too and they are gone.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, BinaryIO, Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_PROGRAM = "import sys; sys.path[:] = {path!r}; from nmt.data.pool import serve; serve()"


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Pool(Generic[Item, Result]):
    """Processes that compute `task(item)`; with no workers this process does.

    A task is picklable; what it keeps between items, each worker has of its own. Items and results
    are picklable. Used as a context manager, or ended by `close`.
    """

    def __init__(self, task: Callable[[Item], Result], workers: int):
        """`workers` may be 0: then `submit` computes at once."""
        self._task = task
        self.workers = workers
        self._queue: queue.SimpleQueue[tuple[Item, Future[Result]] | None] = queue.SimpleQueue()
        self._processes: list[subprocess.Popen[bytes]] = []
        content = pickle.dumps(task) if workers else b""
        for _ in range(workers):
            process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM.format(path=sys.path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                process_group=0,  # a terminal's Ctrl-C is this process's to answer
            )
            self._processes.append(process)
            threading.Thread(target=self._drive, args=(process, content), daemon=True).start()
        atexit.register(self.close)

    def submit(self, item: Item) -> Future[Result]:
        """Begin with an item; its result, or the error of the task, comes with the future.

        MemoryError stands for a worker that the system has killed.
        """
        future: Future[Result] = Future()
        if self.workers:
            self._queue.put((item, future))
        else:
            try:
                future.set_result(self._task(item))
            except Exception as error:
                future.set_exception(error)
        return future

    def map(self, items: Iterable[Item]) -> Iterator[Result]:
        """The results in the order of the items, of which only a few more than there are workers are held.

        An error that `items` raises comes after the results of the items before it, as without workers.
        """
        waiting: deque[Future[Result]] = deque()
        failure: Exception | None = None
        source = iter(items)
        while True:
            while failure is None and len(waiting) <= 2 * self.workers:
                try:
                    waiting.append(self.submit(next(source)))
                except StopIteration:
                    break
                except Exception as error:
                    failure = error
            if not waiting:
                break
            yield waiting.popleft().result()
        if failure is not None:
            raise failure

    def close(self) -> None:
        """End the workers, whatever they are at."""
        atexit.unregister(self.close)
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
            self._queue.put(None)
        self._processes.clear()

    def __enter__(self) -> Pool[Item, Result]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _drive(self, process: subprocess.Popen[bytes], task: bytes) -> None:
        """In a thread: give one worker item after item."""
        assert process.stdin is not None
        assert process.stdout is not None
        sender, receiver = process.stdin, process.stdout
        with contextlib.suppress(OSError), sender, receiver:  # what a dead worker was not sent is lost
            waiting = task
            while (entry := self._queue.get()) is not None:
                item, future = entry
                if not future.set_running_or_notify_cancel():
                    continue
                try:
                    content = pickle.dumps(item, protocol=pickle.HIGHEST_PROTOCOL)
                    sender.write(waiting)
                    waiting = b""
                    sender.write(content)
                    sender.flush()
                    error, result = pickle.load(receiver)
                except (EOFError, OSError, pickle.UnpicklingError):
                    code = process.wait()
                    died = f"a worker process of nmt has died (exit code {code})"
                    error, result = (MemoryError if code == -signal.SIGKILL else RuntimeError)(died), None
                except Exception as failure:  # such as an item that cannot be pickled
                    error, result = failure, None
                if error is None:
                    future.set_result(result)
                else:
                    future.set_exception(error)


def serve() -> None:
    """In a worker: results of the items that arrive, until there are no more."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the parent's to answer
        signal.signal(number, signal.SIG_IGN)
    # What a library prints must not come between results.
    results = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    arrived: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(os.fdopen(os.dup(0), "rb"), arrived), daemon=True).start()
    task = arrived.get()
    while True:
        item = task if isinstance(task, _Unread) else arrived.get()
        answer: tuple[BaseException | None, Any]
        try:
            if isinstance(item, _Unread):
                raise item.error
            answer = (None, task(item))
        except Exception as error:
            answer = (_portable(error), None)
        try:
            pickle.dump(answer, results, protocol=pickle.HIGHEST_PROTOCOL)
            results.flush()
        except OSError:
            os._exit(1)
        if isinstance(item, _Unread):
            os._exit(1)


@dataclass(frozen=True)
class _Unread:
    """In place of what has arrived: why it could not be read. After it nothing can."""

    error: Exception


def _receive(stream: BinaryIO, arrived: queue.SimpleQueue[Any]) -> None:
    """Take in what is sent; with the end of the parent its pipe ends, and this process too."""
    try:
        while True:
            arrived.put(pickle.load(stream))
    except EOFError:
        os._exit(0)
    except Exception as error:  # such as a task of a module that is not there
        arrived.put(_Unread(error))


def _portable(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
