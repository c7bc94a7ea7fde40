"""nmt tokenizer: the tokenizer by itself."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from nmt.cli import output as out
from nmt.errors import UserError, writing_to

app = typer.Typer(no_args_is_help=True, help="Train a SentencePiece tokenizer, and use one.")

Model = Annotated[Path, typer.Argument(metavar="TOKENIZER", help="A tokenizer .model file.")]
Source = Annotated[
    str, typer.Argument(metavar="INPUT", help="Text, plain or .gz; standard input without it.")
]


@app.command()
def train(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Text, plain or .gz.")],
    output: Annotated[Path, typer.Option(help="The .model file to write.")],
    type: Annotated[
        str, typer.Option(metavar="bpe|unigram|word|char", help="bpe and unigram: subwords.")
    ] = "bpe",
    vocabulary_size: Annotated[int, typer.Option(min=8, max=100_000_000, help="Entries.")] = 8000,
    character_coverage: Annotated[float, typer.Option(help="The rest is spelled in bytes.")] = 0.9999,
) -> None:
    """Train on one or more texts."""
    from nmt.data.corpus import read_lines
    from nmt.data.tokenizer import train_tokenizer
    from nmt.files import write_file

    if type not in ("bpe", "unigram", "word", "char"):
        raise UserError(f"--type {type} is not known; use bpe, unigram, word or char")
    if not 0.98 <= character_coverage <= 1:
        raise UserError(f"--character-coverage {character_coverage} is not between 0.98 and 1")
    with writing_to(output):
        output.parent.mkdir(parents=True, exist_ok=True)
    out.check_output(output, *files)
    try:
        trained = train_tokenizer(
            (line for file in files for line in read_lines(file)),
            type=type,
            vocabulary_size=vocabulary_size,
            character_coverage=character_coverage,
        )
    except UserError as error:  # in the words of a configuration
        for name in ("vocabulary_size", "character_coverage"):
            error.message = error.message.replace(f"tokenizer.{name}", f"--{name.replace('_', '-')}")
        raise
    write_file(output, trained.model)
    out.note(f"{output}: {type}, {len(trained):,} entries")


@app.command()
def encode(
    tokenizer: Model,
    source: Source = "-",
    ids: Annotated[bool, typer.Option("--ids", help="Write ids instead of pieces.")] = False,
) -> None:
    """Text to pieces (or ids), blank-separated, a line for a line."""
    from nmt.data.corpus import read_lines
    from nmt.data.tokenizer import Tokenizer

    loaded = Tokenizer.load(tokenizer)
    for line in read_lines(source):
        encoded = loaded.encode(line)
        out.result(" ".join(map(str, encoded) if ids else loaded.pieces(encoded)))
        sys.stdout.flush()


@app.command()
def decode(
    tokenizer: Model,
    source: Source = "-",
    ids: Annotated[bool, typer.Option("--ids", help="The input is ids, not pieces.")] = False,
) -> None:
    """Pieces (or ids) back to text, a line for a line."""
    from nmt.data.corpus import display_name, read_lines
    from nmt.data.tokenizer import Tokenizer

    loaded = Tokenizer.load(tokenizer)
    for number, line in enumerate(read_lines(source), start=1):
        words = [word for word in line.split(" ") if word]
        if ids:
            most = len(str(len(loaded)))
            wrong = next(
                (w for w in words if not (w.isdecimal() and len(w) <= most and int(w) < len(loaded))), None
            )
            if wrong is not None:
                raise UserError(
                    f"{wrong} is no id of this tokenizer (0 to {len(loaded) - 1:,}); drop --ids for pieces",
                    file=display_name(source),
                    line=number,
                )
            encoded = [int(word) for word in words]
        else:
            encoded = [loaded.id_of(word) for word in words]
        # A token may be the byte of a newline; a line stays a line.
        out.result(loaded.decode(encoded).replace("\n", " "))
        sys.stdout.flush()
