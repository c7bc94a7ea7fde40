"""nmt train: from a configuration to a trained model, continued wherever it was stopped."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nmt.cli import output as out
from nmt.cli.plain import Lines
from nmt.errors import InterruptedRun, UserError
from nmt.place import Place

if TYPE_CHECKING:
    from nmt.config import Config, ExportConfig
    from nmt.peers import Ended
    from nmt.ranks import Ranks


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
    place = Place.of_environment()
    if place is None:
        from nmt.ranks import ALONE

        _train(config, run, set or [], restart, ALONE)
    else:
        _train_in_several(place, config, run, set or [], restart)


def _train(config: Path, run: Path | None, changes: list[str], restart: bool, ranks: Ranks) -> None:
    from nmt.config_file import load_config

    resolved = load_config(config, changes, strict=True)
    ranks.require_same("configuration", _keys(resolved))
    folder = run or Path("runs") / config.stem
    if resolved.training.initialize_from is not None:
        from nmt.fine_tuning import resolved as with_vocabulary

        given = resolved
        resolved = ranks.from_first(lambda: with_vocabulary(given, folder, restart=restart))
    if resolved.export is not None:
        from nmt.export import check_config

        check_config(resolved, file=config)

    from nmt.run import Run
    from nmt.training import train as train_model

    # The first process keeps the run; to the others it is a name.
    with Run.open(folder, resolved, restart=restart) if ranks.is_first else Run(folder) as opened:
        if opened.aside is not None:
            out.note(f"the run that was in {folder} is now {opened.aside}")
        show = live_view() if ranks.is_first and out.is_terminal() else Lines()
        try:
            outcome = train_model(resolved, opened, show, ranks)
        except UserError:
            show.close()
            if opened.put_back():
                out.note(f"nothing was trained: {opened.aside} is {folder} again")
            raise
        finally:
            show.close()
        if resolved.export is not None and outcome.interrupted_by is None and ranks.is_first:
            _export(folder, resolved.export)
    if outcome.interrupted_by is not None:
        raise InterruptedRun(f"{folder}: step {outcome.step:,}: {outcome.reason}", outcome.interrupted_by)
    if ranks.is_first:
        best = f"; best checkpoint {folder / 'best'} (step {outcome.best.step:,})" if outcome.best else ""
        out.note(f"finished: {outcome.reason}{best}")


def _keys(config: Config) -> dict[str, str]:
    """Every key and its value, for comparison."""
    sections = config.model_dump()
    return {
        f"{section}.{key}": repr(value)
        for section, keys in sections.items()
        for key, value in (keys or {}).items()
    }


def _train_in_several(
    place: Place, config: Path, run: Path | None, changes: list[str], restart: bool
) -> None:
    """One of torchrun's processes. What goes wrong is said once, by the process that it went wrong in."""
    from nmt.ranks import EndedElsewhere, joined

    stopped: InterruptedRun | None = None
    try:
        with joined(place, lambda ended: _end(ended, place)) as ranks:
            try:
                _train(config, run, changes, restart, ranks)
            except InterruptedRun as stop:  # agreed on, so no error of this process
                stopped = stop
    except EndedElsewhere as elsewhere:
        _tell(elsewhere.ended, place)
        sys.exit(elsewhere.ended.code)
    if stopped is not None:
        if place.rank:
            sys.exit(stopped.exit_code)
        raise stopped


def _end(ended: Ended, place: Place) -> None:
    """End this process whatever its main thread waits for: another one has ended."""
    _tell(ended, place)
    os._exit(ended.code)


def _tell(ended: Ended, place: Place) -> None:
    """One line on each machine where the process that ended has not said itself what happened."""
    rank = f"rank {ended.rank} of {place.size}"
    speaks = place.local_rank == (1 if ended.group == place.group and ended.rank == place.rank - 1 else 0)
    if ended.message is None and speaks:
        out.note(
            f"nmt: {rank} died without a word (killed, or its machine is gone); the same command goes on "
            "from the last checkpoint"
        )
    elif ended.group != place.group and place.local_rank == 0:
        out.note(f"nmt: {rank}: {ended.message}")


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
