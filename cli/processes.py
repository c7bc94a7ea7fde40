"""Several processes that translate one file: those of --processes, and those that torchrun starts."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
import traceback
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from nmt.cli.progress import Progress
from nmt.cli.saving import continuing, kept
from nmt.cli.shards import Shards
from nmt.partial import PartialFile, partial_of, read_record, remove_parts

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

    from nmt.cli.translation import Options

_POLL = 0.1  # seconds


def run_processes(options: Options, shards: Shards) -> None:
    """Start processes on this machine, each with its part of the threads, and put their work together.

    Raises:
        UserError: what the first process that failed says.
        ChildProcessError: one was killed.
    """
    whole = shards.whole(restart=options.restart)
    if whole.is_new:
        remove_parts(shards.target)
    try:
        _run_children(options, shards)
        shards.join(whole)
    except BaseException as error:
        raise kept(error, shards.leave(whole), shards.everywhere, options) from None


def _run_children(options: Options, shards: Shards) -> None:
    context = multiprocessing.get_context("spawn")
    children: list[tuple[SpawnProcess, Connection]] = []
    done = 0 if options.restart else shards.done()
    if done:
        continuing(done, shards.everywhere)
    progress = Progress(shards.lines, begun=done)
    try:
        for process in range(1, shards.count + 1):
            receiving, sending = context.Pipe(duplex=False)
            child = context.Process(target=_child, args=(options, shards, process, sending), daemon=True)
            child.start()
            sending.close()
            children.append((child, receiving))
        running = dict(enumerate(children, start=1))
        while running:
            multiprocessing.connection.wait([child.sentinel for child, _ in running.values()], timeout=0.5)
            for process, (child, receiving) in list(running.items()):
                if child.exitcode is not None:
                    _raise_what_it_said(process, shards.count, child, receiving)
                    del running[process]
            progress.show(shards.done())
        progress.end()
    finally:
        for child, _ in children:
            child.terminate()
        for child, _ in children:
            child.join()


def _raise_what_it_said(process: int, count: int, child: SpawnProcess, receiving: Connection) -> None:
    if receiving.poll():
        with contextlib.suppress(EOFError):  # it died before it said anything
            raise receiving.recv()
    if child.exitcode:
        number = -child.exitcode
        how = f"was killed by signal {number}" if number > 0 else f"ended with exit code {child.exitcode}"
        raise ChildProcessError(f"process {process} of {count} {how}; run the same command again to go on")


def _child(options: Options, shards: Shards, process: int, sending: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it too, and ends us
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        import torch

        torch.set_num_threads(max(1, torch.get_num_threads() // shards.count))
        shards.work(process, options, "cpu")
    except Exception as error:
        error.add_note(traceback.format_exc())
        try:
            sending.send(error)
        except Exception:  # not every error can be sent
            sending.send(RuntimeError(f"{type(error).__name__}: {error}"))
    finally:
        sending.close()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def run_rank(options: Options, shards: Shards, process: int, device: str) -> None:
    """The share of one of torchrun's processes; number 1 puts all together, the others wait for that.

    They meet through files, so the machines of a job need a common folder. A process that dies is not
    waited for: torchrun ends the others.
    """
    if process > 1:
        _answer(shards.work(process, options, device), shards)
        return
    whole = shards.whole(restart=options.restart)
    try:
        shards.work(process, options, device).complete(whole.run)
        while not shards.complete_in(whole.run):
            time.sleep(_POLL)
        shards.join(whole)
    except BaseException as error:
        lines = shards.done()
        whole.close(keep=lines > 0)
        raise kept(error, lines, shards.everywhere, options) from None


def _answer(share: PartialFile, shards: Shards) -> None:
    """Say that a share is complete until process 1, as it runs now, has taken it.

    A process 1 that runs later than this one, or ran earlier, says so by the name of its run.
    """
    while share.path.exists():
        record = read_record(partial_of(shards.target))
        if record is not None and record["run"] != share.run:
            share.complete(record["run"])
        time.sleep(_POLL)
