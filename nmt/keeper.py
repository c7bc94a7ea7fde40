"""What training writes into its run folder, and how it goes on where the disk does not take it.

With several processes the first one keeps the run; on the others a keeper does nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nmt.budget import is_out_of_memory
from nmt.changes import Changes
from nmt.checkpoint import Weights, save_model
from nmt.config import Config
from nmt.data.prepared import TrainingData
from nmt.errors import UserError
from nmt.progress import Progress
from nmt.run import Checkpoint, Run, rank

Event = dict[str, Any]
Observer = Callable[[Event], None]


class Keeper:
    """Logs and saves one run.

    Args:
        corpora: of the manifest: file names and sha256 of what is trained and validated on.
        observe: called with every event.
        is_first: False where another process keeps the run.
    """

    def __init__(
        self,
        run: Run,
        config: Config,
        corpora: dict[str, Any],
        data: TrainingData,
        observe: Observer,
        *,
        is_first: bool,
        processes: int,
    ):
        self.run = run
        self.config = config
        self.corpora = corpora
        self.data = data
        self.observe = observe
        self.is_first = is_first
        self.processes = processes
        self._metrics_fail = False

    def log(self, progress: Progress, event: Event) -> None:
        """Show an event, and add it to the metrics with where training stands."""
        if not self.is_first:
            return
        name = event.pop("event")
        event = {"event": name, **progress.place(), **event}
        try:
            self.run.log(event)
            self._metrics_fail = False
        except OSError as error:
            if not self._metrics_fail:  # once, until it works again
                self._metrics_fail = True
                self._say(progress, f"{_reason(error, self.run)}; metrics wait in memory, training goes on")
        self.observe(event)

    def warn(self, progress: Progress, text: str) -> None:
        self.log(progress, {"event": "warning", "text": text})

    def note_changes(self, progress: Progress, changes: Changes) -> None:
        """Say what changed since the checkpoint that training goes on from; keep what updates depend on."""
        if changes.allowed:
            self.observe({"event": "status", "text": f"changed since step {progress.step:,}: {changes}"})
        if changes.steering:
            text = f"after step {progress.step:,}: {'; '.join(changes.steering)}"
            progress.changed.append(text)
            self.warn(progress, f"{text}; one command does not give this model again, its manifest says so")

    def _say(self, progress: Progress, text: str) -> None:
        """A warning that need not reach the disk now."""
        event = {"event": "warning", "step": progress.step, "epoch": progress.epoch, "text": text}
        self.run.log_later({**event, "seconds": round(progress.seconds, 3)})
        self.observe(event)

    def save(
        self,
        weights: Weights,
        state: dict[str, Any],
        progress: Progress,
        scores: dict[str, float],
        *,
        scheduled: bool,
        is_last: bool,
        initialized_from: dict[str, Any] | None = None,
    ) -> None:
        """Write a checkpoint.

        Where that fails it is reported, the checkpoints that are there stay, and training goes on to the
        next; with `is_last` there is no next.

        Args:
            state: what continuation needs beside `progress`, by name.
            initialized_from: for the manifest: the model that training began with.

        Raises:
            UserError: the last one could not be written.
        """
        if not self.is_first:
            return
        folder = self.run.checkpoint_folder(progress.step)
        if scheduled:
            self.log(progress, {"event": "checkpoint", "checkpoint": folder.name})
        is_written = False
        try:
            if self.run.make_again(self.config):
                self._say(progress, f"{self.run.folder} has vanished, with what it held; it is made again")
            progress.metrics_size = self.run.sync_metrics()
            save_model(
                folder,
                weights,
                self.config,
                self.data.source_tokenizer,
                self.data.target_tokenizer,
                {
                    "step": progress.step,
                    "scores": scores,
                    "scheduled": scheduled,
                    "train_seconds": round(progress.seconds, 1),
                    "processes": self.processes,
                    "longest_source": self.data.longest_source,
                    **self.corpora,
                    **({} if initialized_from is None else {"initialized_from": initialized_from}),
                    **({"changed": progress.changed} if progress.changed else {}),
                },
                {"progress": progress.state(), **state},
            )
            # A folder of this step proves nothing: it may be of an interruption before the validation.
            is_written = True
            self.keep()
        except (OSError, UserError, MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not is_out_of_memory(error):
                raise
            failed = "old checkpoints were not tidied up" if is_written else "the checkpoint was not written"
            text = f"{_reason(error, self.run)}; {failed}, {self.whereabouts()}"
            if is_last and not is_written:
                raise UserError(
                    f"{text}; see that {self.run.folder} can be written, and run the same command to go on"
                ) from None
            self._say(progress, f"{text}; training goes on and tries again after the next validation")

    def keep(self) -> None:
        """Point `best` and `last`, and remove the checkpoints that are not to be kept."""
        if self.is_first:
            settings = self.config.training
            self.run.keep(last=settings.keep_last, best=settings.keep_best, metric=settings.metric)

    def newest_step(self) -> int:
        """Of the checkpoints that are there; 0 without one, or where another process keeps the run."""
        found = self.run.checkpoints() if self.is_first else []
        return found[-1].step if found else 0

    def best(self, step: int) -> Checkpoint | None:
        """The checkpoint of a step, or the best that could be written."""
        found = self.run.checkpoints() if self.is_first else []
        at_step = [c for c in found if c.step == step]
        ranked = rank([c for c in found if c.scheduled], self.config.training.metric)
        return next(iter([*at_step, *ranked]), None)

    def whereabouts(self) -> str:
        try:
            found = self.run.checkpoints()
        except (OSError, UserError):
            return "the last checkpoint cannot be read"
        if not found:
            return "there is no checkpoint yet"
        return f"the last checkpoint is {found[-1].folder}"


def _reason(error: Exception, run: Run) -> str:
    if isinstance(error, UserError):
        return str(error)
    if not isinstance(error, OSError):
        return f"{run.folder}: there was no memory left to write with"
    return f"{error.filename or run.folder}: {error.strerror or error}"
