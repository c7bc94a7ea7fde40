"""nmt average: the mean of a run's checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nmt.cli import output as out
from nmt.errors import UserError


def average(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    output: Annotated[Path, typer.Option(help="Model folder to write; an earlier mean there is replaced.")],
    last: Annotated[
        int | None, typer.Option(min=1, help="How many checkpoints, the latest ones; 5 without --best.")
    ] = None,
    best: Annotated[
        int | None, typer.Option(min=1, help="How many checkpoints, the best by training.metric.")
    ] = None,
) -> None:
    """Write the mean of the last, or the best, checkpoints of a run: often better than any one of them."""
    from nmt.averaging import best_checkpoints, last_checkpoints
    from nmt.checkpoint import average as mean
    from nmt.checkpoint import load_model, save_model

    out.refuse_standard_output(output)
    if not run.is_dir():
        raise UserError("is no run folder; name the folder that `nmt train` wrote", file=run)
    if last is not None and best is not None:
        raise UserError("--last and --best choose different checkpoints; give one of them")
    if output.is_symlink() or (output / "training_state.pt").exists():
        raise UserError("is a checkpoint of a run; choose another --output", file=output)
    if output.resolve().parent == (run / "checkpoints").resolve():
        raise UserError("is where the run keeps its checkpoints; choose another --output", file=output)
    if output.exists() and not _replaceable(output):
        raise UserError("exists and is no mean of checkpoints; choose another --output", file=output)
    chosen = last_checkpoints(run, last or 5) if best is None else best_checkpoints(run, best)
    newest = load_model(chosen[-1].folder)
    manifest = {
        "step": chosen[-1].step,
        "averaged": [checkpoint.step for checkpoint in chosen],
        "train_seconds": newest.manifest.get("train_seconds"),
        "training_data": newest.manifest.get("training_data", []),
        **{key: newest.manifest[key] for key in ("longest_source",) if key in newest.manifest},
    }
    weights = mean([checkpoint.folder for checkpoint in chosen])
    save_model(output, weights, newest.config, newest.source_tokenizer, newest.target_tokenizer, manifest)
    out.note(f"{output}: mean of steps {', '.join(f'{c.step:,}' for c in chosen)}")


def _replaceable(output: Path) -> bool:
    """Whether it is an empty folder, or what an earlier `nmt average` wrote there."""
    from nmt.checkpoint import MANIFEST, read_manifest

    if not output.is_dir():
        return False
    if not any(output.iterdir()):
        return True
    return (output / MANIFEST).is_file() and bool(read_manifest(output).get("averaged"))
