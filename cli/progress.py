"""How far a translation is: one line on the terminal."""

from __future__ import annotations

import sys
import time

from nmt.cli import output as out


class Progress:
    """Lines done, speed, time left; nothing where stderr is no terminal."""

    def __init__(self, total: int | None, *, begun: int = 0, shown: bool = True):
        """`begun` lines were done before; `total` is None where nobody knows it."""
        self._total = total
        self._begun = begun
        self._done = begun
        self._shown = shown and out.is_terminal()
        self._began = time.perf_counter()

    def show(self, done: int) -> None:
        self._done = done
        fresh = done - self._begun
        if not self._shown or not fresh:
            return
        seconds = time.perf_counter() - self._began
        lines = f"{done:,} lines" if self._total is None else f"{done:,} of {self._total:,} lines"
        text = f"{lines}, {fresh / seconds:,.0f} a second"
        if self._total is not None:
            text += f", {out.duration((self._total - done) * seconds / fresh)} left"
        out.status(text)

    def end(self) -> None:
        if self._shown:
            seconds = time.perf_counter() - self._began
            sys.stderr.write(f"\r\x1b[K{self._done - self._begun:,} lines in {out.duration(seconds)}\n")
