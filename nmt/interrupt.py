"""The signals that end a training early: after its step, or in the middle of a validation."""

from __future__ import annotations

import signal
import threading
from typing import Any


class Stopped(Exception):
    """Work was left that can be done again, because of a signal."""

    def __init__(self, number: int):
        super().__init__(f"signal {number}")
        self.number = number


class Interrupt:
    """SIGINT and SIGTERM ask for a checkpoint and an end; a second SIGINT ends at once."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: Any) -> None:
        if self.signal == signal.SIGINT and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number
