"""nmt translate: lines in, lines out."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nmt.cli import output as out
from nmt.cli.usage import check_order
from nmt.errors import UserError, writing_to

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
    sample: Annotated[bool, typer.Option("--sample", help="Draw --n-best translations by chance.")] = False,
    mbr: Annotated[
        int | None,
        typer.Option(metavar="N", help="Of N samples, the one most like the others (minimum risk)."),
    ] = None,
    temperature: Annotated[float | None, typer.Option(help="Of samples; below 1 the likely more so.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Sample of the N likeliest tokens.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Sample of the fewest tokens of probability P.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of samples: a line has the same again. 1 if not given.")
    ] = None,
    utility: Annotated[
        str | None, typer.Option(metavar="chrf|bleu", help="By which --mbr compares; chrf if not given.")
    ] = None,
    min_length: Annotated[int | None, typer.Option(min=0, help="Tokens of a translation, at least.")] = None,
    max_length: Annotated[int | None, typer.Option(min=0, help="Tokens of a translation, at most.")] = None,
    min_length_factor: Annotated[
        float | None, typer.Option(min=0.0, help="At least so many times the source's tokens.")
    ] = None,
    max_length_factor: Annotated[
        float | None, typer.Option(min=0.0, help="At most so many times, and search.max_length_offset.")
    ] = None,
    prefix: Annotated[
        Path | None,
        typer.Option(help="How each line's translation begins; a blank at the end ends the word."),
    ] = None,
    constraints: Annotated[
        Path | None, typer.Option(help="Phrases that each line's translation holds, tabs between them.")
    ] = None,
    forbid: Annotated[
        Path | None, typer.Option(help="Text that each line's translation must not hold, tabs between.")
    ] = None,
    forbid_everywhere: Annotated[
        list[str] | None, typer.Option(help="Text that no translation may hold; may be given again.")
    ] = None,
    no_repeat_ngram: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="No N tokens in a row twice; 0 is off.")
    ] = None,
    coverage_penalty: Annotated[
        float | None, typer.Option(min=0.0, help="Of source words left out; 0 is none.")
    ] = None,
    normalization: Annotated[
        str | None, typer.Option(metavar="gnmt|average", help="How --length-penalty counts length.")
    ] = None,
    beam_groups: Annotated[
        int | None, typer.Option(min=1, help="Divide the beam, for an n-best list with variety.")
    ] = None,
    diversity: Annotated[
        float | None, typer.Option(min=0.0, help="How far --beam-groups keep apart.")
    ] = None,
    tag: Annotated[
        str | None, typer.Option(metavar="TAG", help="One of data.tags, to put before every source.")
    ] = None,
    format: Annotated[str, typer.Option(metavar="text|jsonl", help="jsonl has scores and tokens.")] = "text",
    alignment: Annotated[
        bool, typer.Option("--alignment", help="Add word links from attention; needs --format jsonl.")
    ] = False,
    attention: Annotated[
        bool,
        typer.Option("--attention", help="Add attention, target by source tokens; needs --format jsonl."),
    ] = False,
    batch_tokens: Annotated[
        str | None, typer.Option(metavar="auto|N", help="Source tokens a batch; auto: what fits.")
    ] = None,
    max_source_tokens: Annotated[
        int | None,
        typer.Option(min=8, help="Translate longer lines in parts; as long as in training without it."),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(metavar="float32|bfloat16|float16|int8", help="Of matrix products."),
    ] = None,
    ensemble: Annotated[
        list[Path] | None, typer.Option(help="A further model, to average with; may be given again.")
    ] = None,
    ensemble_by: Annotated[
        str | None, typer.Option(metavar="probability|log-probability", help="What is averaged.")
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
    engine: Annotated[
        str, typer.Option(metavar="nmt|ctranslate2", help="ctranslate2: of a Transformer, exported or not.")
    ] = "nmt",
) -> None:
    """Translate text, line by line: as many lines out as in, in order. A line typed is a line answered."""
    from nmt.cli.drawing import Drawing
    from nmt.cli.guiding import Guiding
    from nmt.cli.saving import save, stream, terminable
    from nmt.cli.shards import torchrun_rank
    from nmt.cli.translation import Options, Translating
    from nmt.partial import partial_of

    check_order("translate", model, source)
    output = out.file_of(output)
    options = Options(
        model=model,
        source=source,
        output=output,
        restart=restart,
        beam_size=beam_size,
        length_penalty=length_penalty,
        n_best=n_best,
        tag=tag,
        format=format,
        alignment=alignment,
        attention=attention,
        batch_tokens=batch_tokens,
        max_source_tokens=max_source_tokens,
        precision=precision,
        ensemble=tuple(ensemble or ()),
        ensemble_by=ensemble_by,
        replace_unknown=replace_unknown,
        dictionary=dictionary,
        device=device,
        engine=engine,
        drawing=Drawing(sample, mbr, temperature, top_k, top_p, seed, utility),
        guiding=Guiding(
            prefix=prefix,
            constraints=constraints,
            forbid=forbid,
            forbid_everywhere=tuple(forbid_everywhere or ()),
            min_length=min_length,
            max_length=max_length,
            min_length_factor=min_length_factor,
            max_length_factor=max_length_factor,
            normalization=normalization,
            coverage_penalty=coverage_penalty,
            no_repeat_ngram=no_repeat_ngram,
            beam_groups=beam_groups,
            diversity=diversity,
        ),
    )
    rank = torchrun_rank()
    if rank is not None and processes > 1:
        raise UserError("--processes is for a machine without torchrun, which starts its own; leave it out")
    target = None
    if output is not None:
        inputs: list[str | Path] = [source, *options.guiding.files.values()]
        inputs += [] if dictionary is None else [dictionary]
        out.check_output(output, *inputs)
        target = output.resolve()  # a link stays a link
        out.check_output(partial_of(target), *inputs)
    with terminable():
        if rank is not None or processes > 1:
            _translate_in_several(options, processes, rank)
            return
        # Before the model: a missing file is told at once.
        lines = options.guiding.lines(source, count=out.is_terminal())
        translating = Translating(options, device, lines.name)
        if target is None:
            stream(translating, lines, sys.stdout.buffer, "standard output")
        elif target.exists() and not target.is_file():  # a pipe or a device is written to, not replaced
            with writing_to(target), target.open("wb") as file:  # closing writes too
                stream(translating, lines, file, str(target))
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
        shards = Shards.of(options, processes)
        shards = replace(shards, count=max(1, min(processes, shards.lines)))
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        if shards.count > cores:
            out.warn(
                f"{shards.count} processes share {cores} {'core' if cores == 1 else 'cores'}: that is slower"
            )
        options.guiding.check_count(shards.lines)
        run_processes(options, shards)
    else:
        number, count, local = rank
        shards = Shards.of(options, count)
        options.guiding.check_count(shards.lines)
        run_rank(options, shards, number + 1, device_of(options.device, local))
