"""Where a run stands on disk: whether it is finished, and the checkpoint to go on from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nmt.checkpoint import check_files as check_saved
from nmt.checkpoint import load_training_state, load_weights, read_manifest
from nmt.config import Config
from nmt.data.prepare import training_files
from nmt.data.prepared import TrainingData, tokenizer_files
from nmt.errors import UserError
from nmt.fingerprints import Row, changed_files, held_out_of, rows_of
from nmt.progress import Outcome, Progress
from nmt.ranks import digest
from nmt.run import Checkpoint, Run, find_checkpoints, list_checkpoints
from nmt.training_config import TrainingConfig


def finished_outcome(run: Run, config: Config) -> Outcome | None:
    """How a run ended that needs no more training; its corpus may be gone by now.

    Raises:
        UserError: the configuration names other corpora, which are not those it was trained on.
    """
    found = run.checkpoints()
    if not found or damage(found[-1].folder):
        return None
    progress = Progress.from_state(load_training_state(found[-1].folder)["progress"])
    # Its end may have been moved since, to where it stands too.
    ended = progress.finished or (found[-1].scheduled and progress.step == config.training.max_steps)
    reason = progress.reason_to_finish(config.training)
    if not ended or not reason:
        return None
    if run.changes_since(found[-1].folder, config).moved:
        check_files(run, config, rows_of(training_files(config.data)))
    best = next((c for c in found if c.step == progress.best_step), None)
    return Outcome(
        f"{progress.finished or reason} (nothing to do; --restart begins anew)", progress.step, best
    )


def read_newest(
    run: Run, config: Config, corpora: Mapping[str, list[Row]], data: TrainingData
) -> dict[str, Any] | None:
    """The newest checkpoint that is as it was written, and under "damaged" what is wrong with others.

    Raises:
        UserError: all are damaged, the corpora or the tokenizer are not those it was trained on, or the
            configuration has training end before it.
    """
    found, unreadable = find_checkpoints(run.folder)
    if not found:
        return None
    whole = newest_whole(run.folder)
    newer = {c.folder: damage(c.folder) for c in found if whole is None or c.step > whole.step}
    if whole is None:
        raise UserError(str(newer[found[-1].folder]))
    texts = {**unreadable, **newer}
    damaged = []
    for path, text in texts.items():
        run.set_aside(path)
        is_newer = path.name > whole.folder.name
        damaged.append(
            f"{text}; it was set aside" + (", training goes on from the one before" if is_newer else "")
        )
    folder = whole.folder
    require_corpora(run, folder, corpora)
    _require_tokenizers(run, folder, data)
    state = load_training_state(folder)
    changes = run.changes_since(folder, config)
    if changes.ends:
        if not whole.scheduled and state["progress"]["step"] == config.training.max_steps:
            state["progress"]["validating"] = True  # it ends here, with the validation of an end
        _require_end_ahead(run, Progress.from_state(state["progress"]), config.training)
    return {
        "folder": str(folder),
        "weights": load_weights(folder),
        "state": state,
        "initialized_from": read_manifest(folder).get("initialized_from"),
        "changes": changes,
        "damaged": damaged,
    }


def newest_whole(run: Path) -> Checkpoint | None:
    """The newest checkpoint of a run folder that is as it was written."""
    return next((c for c in reversed(list_checkpoints(run)) if not damage(c.folder)), None)


def _require_tokenizers(run: Run, checkpoint: Path, data: TrainingData) -> None:
    """UserError where the corpus was tokenized by another tokenizer than a checkpoint has."""
    before = read_manifest(checkpoint)["files"]
    for name, content in tokenizer_files(data.source_tokenizer, data.target_tokenizer).items():
        if before.get(name) != digest(content):
            raise UserError(
                f"the corpus in {data.folder} is prepared with another {name} than this run was begun with; "
                "delete that folder, and run the same command again",
                file=run.folder,
            )


def _require_end_ahead(run: Run, progress: Progress, settings: TrainingConfig) -> None:
    """UserError where training was to end before the checkpoint that it goes on from."""
    place = "before" if progress.validating else "not after"
    step = progress.step - progress.validating
    if settings.max_steps <= step:
        end = f"training.max_steps = {settings.max_steps:,} is {place} step {progress.step:,}"
    elif not progress.validating and 0 < settings.max_epochs <= progress.epoch:
        end = f"training.max_epochs = {settings.max_epochs:,} are done at step {progress.step:,}"
    else:
        return
    raise UserError(f"{end}, where this run stands; raise it, or use --run for a new folder", file=run.folder)


def check_files(run: Run, config: Config, training: list[Row]) -> None:
    """Before a corpus is prepared: UserError if it is not that of the run to go on with."""
    found = run.checkpoints()
    if found and not damage(found[-1].folder):
        require_corpora(run, found[-1].folder, {"training_data": training, **held_out_of(config)})


def require_corpora(run: Run, checkpoint: Path, corpora: Mapping[str, list[Row]]) -> None:
    """UserError, naming files, if the corpora are not those that a checkpoint was trained on."""
    manifest = read_manifest(checkpoint)
    for kind, now in corpora.items():
        before = manifest.get(kind)
        changed = [] if before is None else changed_files(before, now)
        if changed:
            corpus = kind.removesuffix("_data")
            raise UserError(
                f"the {corpus} corpus is not the one this run was begun with: its files changed "
                f"({', '.join(changed)}); put them back, use --run for a new folder, or --restart",
                file=run.folder,
            )


def damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint's files, if anything."""
    try:
        check_saved(checkpoint, read_manifest(checkpoint), training_state=True)
    except UserError as error:
        return str(error)
    return None
