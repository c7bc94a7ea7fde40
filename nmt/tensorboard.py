"""A training's metrics as TensorBoard events, in RUN/tensorboard."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from nmt.errors import UserError, install

FOLDER = "tensorboard"
# Of an event of metrics.jsonl, what becomes a curve.
CURVES = {
    "train": ("loss", "learning_rate", "gradient_norm", "target_tokens_per_second", "memory_mib"),
    "validation": ("loss", "perplexity", "bleu"),
}


class Board:
    """Listens to a training's events and writes curves: train/loss, validation/bleu, ...

    What was written after the checkpoint that training goes on from, TensorBoard leaves out. Where events
    cannot be written that is said once, and training goes on without them.

    Args:
        run: the run folder.
        observe: called with every event first.

    Raises:
        UserError: TensorBoard is not installed.
    """

    def __init__(self, run: Path, observe: Callable[[dict[str, Any]], None]):
        self.observe = observe
        self.folder = run / FOLDER
        self._writer: Any = None
        self._failed = False
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UserError(
                "training.tensorboard = true needs TensorBoard, which is not installed; "
                f"{install('tensorboard')}, or set it to false"
            ) from None
        self._make = SummaryWriter

    def __call__(self, event: dict[str, Any]) -> None:
        self.observe(event)
        if not self._failed:
            try:
                self._write(event)
            except OSError as error:
                self._failed = True
                text = f"{self.folder}: {error.strerror or error}; no more events are written for TensorBoard"
                self.observe({"event": "warning", "text": text})

    def _write(self, event: dict[str, Any]) -> None:
        kind = event["event"]
        if kind == "preflight":
            self._writer = self._make(str(self.folder), purge_step=event["continues_from"] + 1)
        elif kind in CURVES and self._writer is not None:
            for name in CURVES[kind]:
                if name in event:
                    self._writer.add_scalar(f"{kind}/{name}", event[name], event["step"])
            if kind == "validation":
                self._writer.flush()

    def close(self) -> None:
        if self._writer is not None and not self._failed:
            try:
                self._writer.close()
            except OSError:
                self._failed = True
