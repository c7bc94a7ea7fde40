"""Where a training stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from nmt.run import Checkpoint, merit
from nmt.stream import Position
from nmt.training_config import TrainingConfig


@dataclass
class Progress:
    """Where training stands; all of it is in every checkpoint, and it is the same on all processes."""

    step: int = 0  # updates, those that were skipped among them
    epoch: int = 0
    window: int = 0  # of the epoch; checkpoints of before windows have none
    batch: int = 0  # next batch of the window
    seconds: float = 0.0  # spent training, over all continuations
    best_score: float | None = None
    best_loss: float | None = None  # of the same validation
    best_step: int = 0
    validations_since_best: int = 0
    validating: bool = False  # stopped in the validation after this step, which is to be made
    finished: str = ""  # why, once it is
    changed: list[str] = field(default_factory=list)  # of what updates depend on, and after which step
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

    def note_scores(self, scores: Mapping[str, float], metric: str) -> bool:
        """Whether a validation is the best so far; of equal ones that with the lower loss is, since at first
        all BLEU is 0."""
        best = {"loss": self.best_loss, metric: self.best_score}
        better = self.best_score is None or merit(scores, metric) < merit(best, metric)
        if better:
            self.best_score, self.best_loss, self.best_step = scores[metric], scores["loss"], self.step
        self.validations_since_best = 0 if better else self.validations_since_best + 1
        return better

    def reason_to_finish(self, settings: TrainingConfig) -> str:
        """Why training ends after a validation; empty where it does not."""
        done = self._all_done(settings)
        if not done and settings.patience and self.validations_since_best >= settings.patience:
            return (
                f"{settings.metric} did not improve in {settings.patience} validations; "
                f"the best was at step {self.best_step:,}"
            )
        return done

    def is_to_validate(self, settings: TrainingConfig) -> bool:
        """Whether a validation is due after this step: one is at the end, too."""
        at_end = bool(self._all_done(settings))
        return self.validating or at_end or self.step % settings.validate_every == 0

    def _all_done(self, settings: TrainingConfig) -> str:
        """That all the epochs or steps of the configuration are done; empty where they are not."""
        if 0 < settings.max_epochs <= self.epoch:
            return f"{settings.max_epochs:,} epochs done"
        return f"{settings.max_steps:,} steps done" if self.step >= settings.max_steps else ""

    def place(self) -> dict[str, Any]:
        """Of every event."""
        return {"step": self.step, "epoch": self.epoch, "seconds": round(self.seconds, 3)}

    def logged(self) -> dict[str, Any]:
        """What there is to log of the steps since the last time; not all of them were skipped."""
        return {
            "loss": self.logged_loss / self.logged_tokens,
            "target_tokens_per_second": round(self.logged_tokens / self.logged_seconds, 1),
        }

    def forget_logged(self) -> None:
        self.logged_loss, self.logged_tokens, self.logged_seconds = 0.0, 0, 0.0

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
