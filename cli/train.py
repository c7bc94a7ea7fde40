"""nmt train: from a configuration to a trained model, continued wherever it was stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nmt.cli import output as out
from nmt.cli.plain import Lines
from nmt.errors import InterruptedRun


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

    from nmt.run import Run
    from nmt.training import train as train_model

    with Run.open(folder, resolved, restart=restart) as opened:
        show = live_view() if out.is_terminal() else Lines()
        try:
            outcome = train_model(resolved, opened, show)
        finally:
            show.close()
    if outcome.interrupted_by is not None:
        raise InterruptedRun(f"{folder}: step {outcome.step:,}: {outcome.reason}", outcome.interrupted_by)
    best = f"; best checkpoint {folder / 'best'} (step {outcome.best.step:,})" if outcome.best else ""
    out.note(f"finished: {outcome.reason}{best}")


def live_view() -> Lines:
    from nmt.cli.live import LiveView

    return LiveView()
