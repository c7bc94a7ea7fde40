"""Training on a terminal: progress with speed and time left, and a line for each validation."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from nmt.cli.output import duration
from nmt.cli.plain import Lines, preflight, validation_line


class LiveView(Lines):
    """Rich progress on stderr; validations stay above it."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        self.progress = Progress(
            TextColumn("step"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            console=self.console,
            transient=True,
        )
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
            self.progress.update(
                self.task,
                completed=event["step"],
                state=f"loss {event['loss']:.3f}  rate {event['learning_rate']:.2e}  "
                f"{event['target_tokens_per_second']:,.0f} tokens/s  {event['memory_mib']:,.0f} MiB  "
                f"{duration(max(0.0, left))} left",
            )
        elif kind == "validation":
            self.line(validation_line(event), style="bold" if event["best"] else "")
        else:
            super().__call__(event)

    def line(self, text: str, style: str = "") -> None:
        self.console.print(text, style=style, markup=False, soft_wrap=True)

    def close(self) -> None:
        self.progress.stop()
