"""The line on the terminal that says how far a translation is."""

from __future__ import annotations

import io
import sys

import pytest

from nmt.cli import progress as module
from nmt.cli.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    return now


def test_speed_and_time_left_are_of_this_run(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", screen := Terminal())
    progress = Progress(10_000, begun=4_000)
    progress.show(4_000)
    assert screen.getvalue() == ""  # nothing is known yet
    clock[0] += 20
    progress.show(6_000)
    assert screen.getvalue().endswith("6,000 of 10,000 lines, 100 a second, 0:40 left")
    clock[0] += 40
    progress.show(10_000)
    progress.end()
    assert screen.getvalue().endswith("\r\x1b[K6,000 lines in 1:00\n")


def test_without_a_total_and_without_a_terminal(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", screen := Terminal())
    progress = Progress(None)
    clock[0] += 2
    progress.show(50)
    assert screen.getvalue().endswith("50 lines, 25 a second")
    monkeypatch.setattr(sys, "stderr", screen := Terminal())
    typed = Progress(None, shown=False)
    typed.show(1)
    typed.end()
    monkeypatch.setattr(sys, "stderr", file := io.StringIO())
    other = Progress(3)
    other.show(1)
    other.end()
    assert screen.getvalue() == file.getvalue() == ""
