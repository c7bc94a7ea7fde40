"""What of a run's configuration may change when it goes on.

What weights and the order of sentences depend on must stay: else they would be of no configuration that
could be given again. Three keys that are changed to rescue a training may, and are written down.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nmt.config import Config, DataConfig
from nmt.config_file import changed_keys
from nmt.idle import idle_keys
from nmt.training_config import TrainingConfig

# Who does the work, what is shown and kept, when to stop: each update is the same. Of [search] what
# validation, a greedy or beam search of its own width with one model, does not read.
_FREE = {
    *("data.workers", "model.preset", "search.batch_tokens", "search.beam_groups", "search.beam_size"),
    *("search.diversity", "search.ensemble_by", "training.activation_checkpointing", "training.device"),
    *("training.keep_best", "training.keep_last", "training.log_every", "training.max_nonfinite"),
    *("training.patience", "training.preset", "training.shard", "training.tensorboard", "training.threads"),
    *("training.validate_every", "export.format", "export.quantization"),
}
_ROUNDING = {"training.device", "training.threads"}
_STEERING = {"training.clip_norm", "training.learning_rate", "training.warmup_steps"}
_ENDS = {"training.max_epochs", "training.max_steps"}
_BASE = "training.initialize_from"
_CORPORA = {"data.alignments", "data.test", "data.train", "data.validation"}
TO_THE_END = ("cosine", "linear")  # schedules that go down to 0 at training.max_steps


@dataclass(frozen=True)
class Changes:
    """From one configuration to another, each as ``section.key: old -> new``."""

    allowed: tuple[str, ...] = ()
    steering: tuple[str, ...] = ()  # of those, the ones that later updates depend on
    refused: tuple[str, ...] = ()
    moved: bool = False  # corpora may have moved: their content is to be compared
    ends: bool = False  # training ends elsewhere
    rounding: bool = False  # sums may be made in another order

    @classmethod
    def between(cls, before: Config, now: Config, *, same_base: bool = False) -> Changes:
        """What changed, sorted.

        Args:
            same_base: where `training.initialize_from` names another place, it may be the same model there.
        """
        rows = {row.partition(":")[0]: row for row in changed_keys(before, now)}
        may = {key for key in rows if key in _FREE | _STEERING | _ENDS}
        may |= rows.keys() & idle_keys(before).keys() & idle_keys(now).keys()
        if _shape(before.data) == _shape(now.data):
            may |= rows.keys() & _CORPORA
        if same_base:
            may |= rows.keys() & {_BASE}
        reasons = dict(_reasons(before.training, now.training, same_base=same_base))
        return cls(
            allowed=tuple(row for key, row in rows.items() if key in may and key not in reasons),
            steering=tuple(row for key, row in rows.items() if key in _STEERING),
            refused=tuple(
                f"{row} ({reasons[key]})" if key in reasons else row
                for key, row in rows.items()
                if key in reasons or key not in may
            ),
            # Of test sets training reads only what to drop.
            moved=bool(rows.keys() & _CORPORA - ({"data.test"} if not now.data.drop_overlap else set())),
            ends=bool(rows.keys() & _ENDS),
            rounding=bool(rows.keys() & _ROUNDING),
        )

    def __str__(self) -> str:
        text = "; ".join(self.allowed)
        return f"{text} (results may differ by rounding)" if self.rounding else text


def _shape(data: DataConfig) -> object:
    """What must stay where the same files have other names: how many corpora, and which have links."""
    return len(data.train_prefixes), [bool(file) for file in data.alignment_files]


def _reasons(before: TrainingConfig, now: TrainingConfig, *, same_base: bool) -> Iterator[tuple[str, str]]:
    bases = before.initialize_from, now.initialize_from
    if bases[0] != bases[1] and None not in bases and not same_base:
        yield _BASE, "another model than this run began with"
    if before.max_steps != now.max_steps and before.schedule in TO_THE_END:
        yield (
            "training.max_steps",
            f"the {before.schedule} schedule goes down to 0 at the old end; to train on, begin a new run "
            "with training.initialize_from naming this one",
        )
