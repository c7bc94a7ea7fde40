"""nmt train: from a configuration to a trained model, continued wherever it was stopped."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nmt.cli import output as out
from nmt.cli.plain import Lines
from nmt.errors import InterruptedRun

if TYPE_CHECKING:
    from nmt.config import ExportConfig


def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.toml", help="Written by `nmt init`, or by hand.")],
    run: Annotated[Path | None, typer.Option(help="Run folder; runs/NAME for NAME.toml without it.")] = None,
    set: Annotated[
        list[str] | None,
        typer.Option(metavar="section.key=value", help="Change one key; may be given again."),
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Move an existing run aside and begin anew.")
    ] = False,
) -> None:
    """Train a model. The same command again continues exactly where training stopped."""
    from nmt.config_file import load_config

    resolved = load_config(config, set or [])
    folder = run or Path("runs") / config.stem
    if resolved.export is not None:
        from nmt.export import check_config

        check_config(resolved, file=config)

    from nmt.run import Run
    from nmt.training import train as train_model

    with Run.open(folder, resolved, restart=restart) as opened:
        show = live_view() if out.is_terminal() else Lines()
        try:
            outcome = train_model(resolved, opened, show)
        finally:
            show.close()
        if resolved.export is not None and outcome.interrupted_by is None:
            _export(folder, resolved.export)
    if outcome.interrupted_by is not None:
        raise InterruptedRun(f"{folder}: step {outcome.step:,}: {outcome.reason}", outcome.interrupted_by)
    best = f"; best checkpoint {folder / 'best'} (step {outcome.best.step:,})" if outcome.best else ""
    out.note(f"finished: {outcome.reason}{best}")


def _export(folder: Path, settings: ExportConfig) -> None:
    """RUN/export, once; training is safe whatever becomes of it."""
    from nmt.export import FOLDER, ExportFailed, export_run

    output = folder / FOLDER
    try:
        comparison = export_run(folder, settings)
    except ExportFailed as error:
        out.note(f"nmt: {output}: {error}")
        raise typer.Exit(1) from None
    for line in [] if comparison is None else comparison.lines():
        out.note(f"export: {line}")
    out.note(f"{output}: " + ("is there already" if comparison is None else "written"))


def live_view() -> Lines:
    from nmt.cli.live import LiveView

    return LiveView()
