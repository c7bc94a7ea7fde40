"""nmt report: one page on one run, or on several side by side."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from nmt.cli import output as out
from nmt.errors import UserError, counted


def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Run folders; others are compared with the first.")
    ],
    output: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="The page to write; not needed with --json.")
    ] = None,
    test: Annotated[
        str | None,
        typer.Option(
            metavar="PREFIX", help="A test set; without it the first of data.test, or the validation set."
        ),
    ] = None,
    max_sentences: Annotated[int, typer.Option(min=1, help="The most sentences of each list.")] = 25,
    line: Annotated[
        list[int] | None,
        typer.Option(min=1, help="A line of the test set whose attention is drawn; may be given again."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    json: Annotated[
        bool, typer.Option("--json", help="All that the page says as one JSON document.")
    ] = False,
) -> None:
    """One HTML file on one run or several: configuration, curves, scores with intervals and significance,
    sentences, attention, speed, cost and commands. It opens without a network."""
    if output is None and not json:
        raise UserError("no file to write; add --output FILE.html, or --json")
    if output is not None:
        if output.suffix.lower() not in (".html", ".htm"):
            raise UserError(f"--output {output}: a report is a page; name a .html file")
        out.check_output(output)

    from nmt.device import choose_device
    from nmt.files import write_file
    from nmt.report import Observer
    from nmt.report import report as gather
    from nmt.report_page import report_page

    facts = gather(
        runs,
        test=test,
        max_sentences=max_sentences,
        lines=line or [],
        device=str(choose_device(device)),
        command=sys.argv,
        observer=Observer(out.status, out.note, out.warn),
    )
    out.status("")
    if output is not None:
        page = report_page(facts)
        write_file(output, page)
        about = f"{counted(len(runs), 'run')}, {len(page) / 1e6:.1f} MB"
        out.note(f"{output}: {about}, {facts['test_set']['name']}, {facts['test_set']['lines']:,} lines")
    if json:
        out.result_json(facts)
