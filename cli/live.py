"""Training on a terminal: progress with speed and time left, and a line for each validation."""

from __future__ import annotations

import textwrap
import time
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from nmt.cli.output import duration
from nmt.cli.plain import Lines, preflight, validation_line

_SHOWN = ("loss", "rate", "speed", "memory", "left")  # from left to right
_SHORTEST_BAR = 8  # columns


class LiveView(Lines):
    """Rich progress on stderr; validations stay above it."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        self.bar = BarColumn()
        self.columns = (
            TextColumn("step"),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
        )
        self.progress = Progress(*self.columns, console=self.console, transient=True)
        self.task: Any = None
        self.first_step = 0
        self.began = 0.0

    def __call__(self, event: dict[str, Any]) -> None:
        kind = event["event"]
        if kind == "preflight":
            for text in preflight(event):
                self.line(text)
            self.first_step = event["continues_from"]
            self.task = self.progress.add_task(
                "step", total=event["steps"], completed=self.first_step, state="first batches"
            )
            self.progress.start()
            self.began = time.perf_counter()
        elif kind in ("train", "first step"):
            done = event["step"] - self.first_step
            total = self.progress.tasks[0].total or 0
            left = (total - event["step"]) * (time.perf_counter() - self.began) / max(done, 1)
            # Where the terminal is narrow, what comes first here stays.
            parts = {
                "loss": f"loss {event['loss']:.3f}",
                "left": f"{duration(max(0.0, left))} left",
                "speed": f"{event['target_tokens_per_second']:,.0f} tokens/s",
                "rate": f"rate {event['learning_rate']:.2e}",
                "memory": f"{event['memory_mib']:,.0f} MiB",
            }
            state = self._fit(parts, event["step"], int(total))
            self.progress.update(self.task, completed=event["step"], state=state)
        elif kind == "validation":
            self.line(validation_line(event), style="bold" if event["best"] else "")
        else:
            super().__call__(event)

    def _fit(self, parts: dict[str, str], step: int, total: int) -> str:
        """As many of the parts as the terminal has room for, whole ones, in the order they are shown; the bar
        where all of them leave room for it."""
        elapsed = str(timedelta(seconds=int(time.perf_counter() - self.began)))
        # Two more, since the clock goes on between two events.
        room = self.console.width - len(f"step {total}/{total}  {elapsed}") - 2
        kept = list(parts)
        while kept and sum(len(parts[name]) + 2 for name in kept) - 2 > room:
            kept.pop()
        room -= sum(len(parts[name]) + 2 for name in kept)
        self.bar.bar_width = min(40, room)
        step_column, *others = self.columns
        with_bar = len(kept) == len(parts) and room >= _SHORTEST_BAR
        self.progress.columns = (step_column, *([self.bar] if with_bar else []), *others)
        return "  ".join(parts[name] for name in _SHOWN if name in kept)

    def line(self, text: str, style: str = "") -> None:
        # Broken between words, not in a number; a path longer than the terminal is wide stays whole.
        lines = textwrap.fill(
            text, self.console.width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
        )
        self.console.print(lines, style=style, markup=False, soft_wrap=True)

    def close(self) -> None:
        self.progress.stop()
