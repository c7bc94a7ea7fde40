"""How far a translation is: one line on the terminal."""

from __future__ import annotations

import sys
import time

from nmt.cli import output as out

_EVERY_SECONDS = 0.5


class Progress:
    """Lines done, speed, time left; nothing where stderr is no terminal."""

    def __init__(self, total: int | None, *, begun: int = 0, shown: bool = True):
        """`begun` lines were done before; `total` is None where nobody knows it."""
        self._total = total
        self._begun = begun
        self._done = begun
        self._shown = shown and out.is_terminal()
        self._began = self._told = time.perf_counter()
        self._found = 0  # since the last `show`

    def show(self, done: int) -> None:
        """Lines that are done."""
        self._done, self._found = done, 0
        self._tell(done)

    def found(self) -> None:
        """One more is translated, of lines that are not all done."""
        self._found += 1
        if self._shown and time.perf_counter() - self._told > _EVERY_SECONDS:
            most = self._total or self._done + self._found
            self._tell(min(self._done + self._found, most))  # of long lines there may be several parts

    def _tell(self, done: int) -> None:
        fresh = done - self._begun
        self._told = time.perf_counter()
        if not self._shown or not fresh:
            return
        seconds = self._told - self._began
        lines = f"{done:,} lines" if self._total is None else f"{done:,} of {self._total:,} lines"
        text = f"{lines}, {fresh / seconds:,.0f} a second"
        if self._total is not None:
            text += f", {out.duration((self._total - done) * seconds / fresh)} left"
        out.status(text)

    def end(self) -> None:
        if self._shown:
            seconds = time.perf_counter() - self._began
            sys.stderr.write(f"\r\x1b[K{self._done - self._begun:,} lines in {out.duration(seconds)}\n")
