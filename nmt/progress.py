"""Where a training stands."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from nmt.run import Checkpoint
from nmt.stream import Position


@dataclass
class Progress:
    """Where training stands; all of it is in every checkpoint, and it is the same on all processes."""

    step: int = 0  # updates, those that were skipped among them
    epoch: int = 0
    window: int = 0  # of the epoch; checkpoints of before windows have none
    batch: int = 0  # next batch of the window
    seconds: float = 0.0  # spent training, over all continuations
    best_score: float | None = None
    best_step: int = 0
    validations_since_best: int = 0
    finished: str = ""  # why, once it is
    skipped: int = 0  # updates whose loss or gradient was not finite
    skipped_in_row: int = 0
    most_tokens: int = 0  # padding counted, that memory was found to hold at once; 0: it never ran out
    # Sums since the last logged step.
    logged_loss: float = 0.0
    logged_tokens: int = 0
    logged_seconds: float = 0.0
    metrics_size: int = 0  # bytes of metrics.jsonl that belong to this state

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Progress:
        """Of a checkpoint, which may be of an earlier version."""
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in state.items() if name in known})

    def state(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def position(self) -> Position:
        return Position(self.epoch, self.window, self.batch)

    @position.setter
    def position(self, position: Position) -> None:
        self.epoch, self.window, self.batch = position.epoch, position.window, position.batch


@dataclass
class Outcome:
    reason: str  # why training stopped
    step: int
    best: Checkpoint | None
    interrupted_by: int | None = None  # signal number
