"""nmt attention: look at what a model looks at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nmt.cli import output as out
from nmt.errors import UserError


def attention(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model folder, or a run folder.")],
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Text; its first line is drawn.")],
    target: Annotated[
        str | None, typer.Argument(metavar="TARGET", help="Its translation; the model's own without it.")
    ] = None,
    output: Annotated[Path, typer.Option(help="Picture to write: .png, .svg or .pdf.")] = Path(
        "attention.png"
    ),
    line: Annotated[int, typer.Option(min=1, help="Which line of SOURCE to draw.")] = 1,
) -> None:
    """Draw the attention over one source sentence, the mean of all layers and heads."""
    if output.suffix not in (".png", ".svg", ".pdf"):
        raise UserError(f"--output {output}: the picture's format is not known; use .png, .svg or .pdf")

    from nmt.checkpoint import load_model
    from nmt.data.corpus import read_lines
    from nmt.heatmap import attention_weights, draw

    def pick(file: str) -> str:
        for number, text in enumerate(read_lines(file), start=1):
            if number == line:
                return text
        raise UserError(f"has no line {line}; choose another --line", file=file)

    sentence = pick(source)
    translation = None if target is None else pick(target)
    loaded = load_model(model)
    weights, source_pieces, target_pieces = attention_weights(loaded, sentence, translation)
    output.parent.mkdir(parents=True, exist_ok=True)
    draw(weights, source_pieces, target_pieces, output, title=loaded.config.model.architecture)
    out.note(f"{output}: {len(target_pieces)} target by {len(source_pieces)} source tokens")
