"""nmt translate: lines in, lines out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nmt.cli import output as out
from nmt.errors import UserError

if TYPE_CHECKING:
    from nmt.cli.translation import Options


def translate(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model folder, or a run folder.")],
    source: Annotated[
        str, typer.Argument(metavar="INPUT", help="Text, plain or .gz; standard input without it.")
    ] = "-",
    output: Annotated[
        Path | None,
        typer.Option(help="Write here, .gz too, instead of to standard output; goes on where it stopped."),
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Begin a half-written --output anew.")] = False,
    beam_size: Annotated[int | None, typer.Option(min=1, help="1 is greedy.")] = None,
    length_penalty: Annotated[float | None, typer.Option(min=0.0, help="0 is none.")] = None,
    n_best: Annotated[int, typer.Option(min=1, help="Translations a line; needs --format jsonl.")] = 1,
    format: Annotated[str, typer.Option(metavar="text|jsonl", help="jsonl has scores and tokens.")] = "text",
    alignment: Annotated[
        bool, typer.Option("--alignment", help="Add word links from attention; needs --format jsonl.")
    ] = False,
    attention: Annotated[
        bool,
        typer.Option("--attention", help="Add attention, target by source tokens; needs --format jsonl."),
    ] = False,
    batch_tokens: Annotated[int | None, typer.Option(min=1, help="Source tokens a batch.")] = None,
    ensemble: Annotated[
        list[Path] | None, typer.Option(help="A further model, to average with; may be given again.")
    ] = None,
    replace_unknown: Annotated[
        bool, typer.Option("--replace-unknown", help="Translate or copy words outside the vocabulary.")
    ] = False,
    dictionary: Annotated[
        Path | None, typer.Option(help="Lines source<TAB>target, for --replace-unknown.")
    ] = None,
    processes: Annotated[
        int, typer.Option(min=1, help="Processes on the CPU that share a file; for GPUs use torchrun.")
    ] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Translate text, line by line: as many lines out as in, in order. A line typed is a line answered."""
    from nmt.cli.lines import Lines
    from nmt.cli.saving import save, stream, terminable
    from nmt.cli.shards import torchrun_rank
    from nmt.cli.translation import Options, Translating
    from nmt.partial import partial_of

    options = Options(
        model=model,
        source=source,
        output=output,
        restart=restart,
        beam_size=beam_size,
        length_penalty=length_penalty,
        n_best=n_best,
        format=format,
        alignment=alignment,
        attention=attention,
        batch_tokens=batch_tokens,
        ensemble=tuple(ensemble or ()),
        replace_unknown=replace_unknown,
        dictionary=dictionary,
        device=device,
    )
    rank = torchrun_rank()
    if rank is not None and processes > 1:
        raise UserError("--processes is for a machine without torchrun, which starts its own; leave it out")
    target = None
    if output is not None:
        inputs: list[str | Path] = [source, *([] if dictionary is None else [dictionary])]
        out.check_output(output, *inputs)
        target = output.resolve()  # a link stays a link
        out.check_output(partial_of(target), *inputs)
    with terminable():
        if rank is not None or processes > 1:
            _translate_in_several(options, processes, rank)
            return
        # Before the model: a missing file is told at once.
        lines = Lines(source, count=out.is_terminal())
        translating = Translating(options, device, lines.name)
        if target is None:
            stream(translating, lines, sys.stdout.buffer)
        elif target.exists() and not target.is_file():  # a pipe or a device is written to, not replaced
            with target.open("wb") as file:
                stream(translating, lines, file)
        else:
            save(translating, lines, target, restart=restart)


def _translate_in_several(options: Options, processes: int, rank: tuple[int, int, int] | None) -> None:
    from nmt.cli.processes import run_processes, run_rank
    from nmt.cli.shards import Shards, device_of

    if rank is None:
        if options.device not in ("auto", "cpu"):
            raise UserError(
                f"--processes is for the CPU, not --device {options.device}; use torchrun for GPUs"
            )
        run_processes(options, Shards.of(options, processes))
    else:
        number, count, local = rank
        shards = Shards.of(options, count)
        run_rank(options, shards, number + 1, device_of(options.device, local))
