"""Several processes of one training, as torchrun starts them, but forked: torch need not be loaded again."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

Work = Callable[[int], int]  # from a rank to an exit code


@dataclass
class Ended:
    codes: list[int]  # by rank; minus the signal that killed it
    said: list[str]  # on stderr, by rank

    @property
    def errors(self) -> list[str]:
        """The lines of all processes that say what went wrong."""
        lines = [line for text in self.said for line in text.split("\n")]
        return [line for line in lines if line.startswith("nmt: ") and "warning" not in line]


class Several:
    """Processes of this machine that run until they are `ended`.

    Args:
        folder: where they work.
        work: of each process; `command` makes one of arguments of `nmt`.
    """

    def __init__(self, folder: Path, work: Work, size: int = 2):
        self.port = free_port()
        self.files = [folder / f".said-{self.port}-{rank}" for rank in range(size)]
        self.codes: list[int | None] = [None] * size
        self.pids = [self._fork(folder, work, rank) for rank in range(size)]

    def _fork(self, folder: Path, work: Work, rank: int) -> int:
        size = len(self.files)
        place = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": size}
        more = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": self.port, "GROUP_RANK": 0}
        self.files[rank].touch()
        pid = os.fork()
        if pid:
            return pid
        code = 70
        try:
            # A shell starts what it puts in the background with SIGINT ignored, and that is inherited.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.environ.update({name: str(value) for name, value in (place | more).items()})
            os.chdir(folder)
            # Of several threads, those that the parent began, OpenMP in a fork would wait for ever.
            torch.set_num_threads(1)
            sys.stderr = sys.stdout = self.files[rank].open("w")
            code = work(rank)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)

    def send(self, rank: int, number: int) -> None:
        os.kill(self.pids[rank], number)

    def said(self, rank: int = 0) -> str:
        return self.files[rank].read_text()

    def is_running(self, rank: int) -> bool:
        if self.codes[rank] is None:
            pid, status = os.waitpid(self.pids[rank], os.WNOHANG)
            if pid:
                self.codes[rank] = os.waitstatus_to_exitcode(status)
        return self.codes[rank] is None

    def wait_for(self, text: str, rank: int = 0, seconds: float = 90) -> None:
        """Until a process has said something."""
        wait(lambda: text in self.said(rank) or not self.is_running(rank), seconds)
        assert text in self.said(rank), [file.read_text() for file in self.files]

    def ended(self, seconds: float = 100) -> Ended:
        """What is left when all have ended, within so many seconds."""
        ranks = range(len(self.pids))
        try:
            wait(lambda: not sum(self.is_running(rank) for rank in ranks), seconds)
        finally:
            for rank in ranks:
                if self.is_running(rank):
                    self.send(rank, signal.SIGKILL)
                    os.waitpid(self.pids[rank], 0)
            said = [file.read_text() for file in self.files]
            for file in self.files:
                file.unlink()
        return Ended([code or 0 for code in self.codes], said)


def command(*arguments: object, of_rank: dict[int, list[object]] | None = None) -> Work:
    """The command line, in each process with the same arguments, or with other ones for some ranks."""

    def work(rank: int) -> int:
        from nmt.cli.main import app, run

        mine = [str(a) for a in (of_rank or {}).get(rank, arguments)]
        return run(lambda: app(args=mine, standalone_mode=False), debug=False)

    return work


def wait(is_so: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
