"""Where a run stands on disk: whether it is finished, and the checkpoint to go on from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nmt.checkpoint import check_files, load_training_state, load_weights, read_manifest
from nmt.errors import UserError
from nmt.fingerprints import Row, changed_files
from nmt.progress import Outcome, Progress
from nmt.run import Run


def finished_outcome(run: Run) -> Outcome | None:
    """How a run ended that needs no more training; its corpus may be gone by now."""
    found = run.checkpoints()
    if not found or damage(found[-1].folder):
        return None
    progress = Progress.from_state(load_training_state(found[-1].folder)["progress"])
    if not progress.finished:
        return None
    best = next((c for c in found if c.step == progress.best_step), None)
    return Outcome(f"{progress.finished} (nothing to do; --restart begins anew)", progress.step, best)


def read_newest(run: Run, corpora: Mapping[str, list[Row]], damaged: list[str]) -> dict[str, Any] | None:
    """The newest checkpoint that is as it was written; what is wrong with newer ones is added to a list.

    Raises:
        UserError: all are damaged, or the corpora are not those it was trained on.
    """
    found = run.checkpoints()
    if not found:
        return None
    whole = list(found)
    while text := damage(whole[-1].folder):
        whole.pop()
        damaged.append(text)
        if not whole:
            raise UserError(damaged[0])
    for checkpoint in found[len(whole) :]:
        run.set_aside(checkpoint)
    folder = whole[-1].folder
    require_corpora(run, folder, corpora)
    return {
        "folder": str(folder),
        "weights": load_weights(folder),
        "state": load_training_state(folder),
        "initialized_from": read_manifest(folder).get("initialized_from"),
    }


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
        check_files(checkpoint, read_manifest(checkpoint), training_state=True)
    except UserError as error:
        return str(error)
    return None
