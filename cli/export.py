"""nmt export: a model for another engine, checked against ours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nmt.cli import output as out
from nmt.errors import UserError


def export(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model folder, or a run folder.")],
    output: Annotated[Path, typer.Option(help="Folder to write; an earlier export there is replaced.")],
    format: Annotated[str, typer.Option(metavar="ctranslate2", help="The engine.")] = "ctranslate2",
    quantization: Annotated[
        str, typer.Option(metavar="float32|int8|...", help="Of the weights; int8 is a quarter of the size.")
    ] = "float32",
    sample: Annotated[
        Path | None, typer.Option(help="Source lines to compare both engines on; the validation set without.")
    ] = None,
    threads: Annotated[int, typer.Option(min=0, help="0: the engine's choice.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="The comparison as one JSON document.")] = False,
) -> None:
    """Write a Transformer for CTranslate2, after translating a sample with both engines."""
    from nmt.config import QUANTIZATIONS

    out.refuse_standard_output(output)
    if format != "ctranslate2":
        raise UserError(f"--format {format} is not known; use ctranslate2")
    if quantization not in QUANTIZATIONS:
        raise UserError(f"--quantization {quantization} is not known; use {', '.join(QUANTIZATIONS)}")

    from nmt.export import ExportFailed
    from nmt.export import export as write

    try:
        comparison = write(model, output, quantization, sample=sample, threads=threads)
    except ExportFailed as error:
        out.note(f"nmt: {output}: {error}")
        raise typer.Exit(1) from None
    if json:
        out.result_json(comparison.as_dict())
    else:
        out.result("\n".join(comparison.lines()))
    out.note(f"{output}: written; translate with `nmt translate --engine ctranslate2 {output}`")
