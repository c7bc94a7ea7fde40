"""nmt align: which source word each target word comes from."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nmt.cli import output as out
from nmt.errors import UserError

if TYPE_CHECKING:
    from nmt.alignment import Alignment, Gold
    from nmt.checkpoint import LoadedModel


def align(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model folder, or a run folder.")],
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Text, plain or .gz.")],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="Its translation, line by line.")],
    output: Annotated[Path | None, typer.Option(help="Write here instead of to standard output.")] = None,
    words: Annotated[
        str, typer.Option(metavar="blank|punctuation", help="What ends a word; punctuation: marks are words.")
    ] = "blank",
    gold: Annotated[Path | None, typer.Option(help="Right links, to measure the error rate AER.")] = None,
    gold_base: Annotated[int, typer.Option(min=0, max=1, help="Number of the first word in --gold.")] = 0,
    layer: Annotated[
        str | None, typer.Option(metavar="N|best", help="Layer to read, from 1; the mean without it.")
    ] = None,
    head: Annotated[int | None, typer.Option(min=1, help="Head of --layer; the mean without it.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Align the words of a translated text by attention: links "source-target" from 0, line by line."""
    reading = Reading(words, gold, gold_base, layer, head)

    from nmt.checkpoint import load_model
    from nmt.data.corpus import display_name, read_lines, unequal_counts
    from nmt.device import choose_device
    from nmt.files import write_file

    if source == target == "-":
        raise UserError("SOURCE and TARGET cannot both be standard input; give a file for one of them")
    sources, targets = list(read_lines(source)), list(read_lines(target))
    if len(sources) != len(targets):
        raise unequal_counts(source, len(sources), target, len(targets))
    right = reading.gold_of(sources, targets)
    if output is not None:
        out.check_output(output, source, target, *([] if gold is None else [gold]))
    found = reading.align(load_model(model, choose_device(device)), sources, targets, right)
    for number in found.too_long:
        out.warn(f"{display_name(source)}:{number + 1}: the pair is too long for the model; left unaligned")
    agreement = found.agreement
    text = "".join(f"{line}\n" for line in found.lines)
    if output is not None:
        write_file(output, text)
    if json:
        out.result_json(
            {
                "aer": None if agreement is None else round(agreement.aer, 4),
                "precision": None if agreement is None else round(agreement.precision, 4),
                "recall": None if agreement is None else round(agreement.recall, 4),
                "lines": len(sources),
                "words": words,
                "layer": found.view.layer,
                "head": found.view.head,
                "links": found.lines,
            }
        )
    elif output is None:
        sys.stdout.write(text)
    if agreement is not None and not json:
        out.note(
            f"AER {agreement.aer:.4f} (precision {agreement.precision:.4f}, recall {agreement.recall:.4f}, "
            f"{len(sources):,} lines; {found.view})"
        )


@dataclass(frozen=True)
class Reading:
    """How links are read off attention, and what they are compared to; nmt evaluate has the same options.

    Raises:
        UserError: the options are wrong.
    """

    words: str
    gold: Path | None
    gold_base: int
    layer: str | None
    head: int | None

    def __post_init__(self) -> None:
        if self.words not in ("blank", "punctuation"):
            raise UserError(f"--words {self.words} is not known; use blank or punctuation")
        if self.layer is None and self.head is not None:
            raise UserError(f"--head {self.head} needs --layer: heads of different layers are strangers")
        if self.layer == "best" and (self.gold is None or self.head is not None):
            raise UserError("--layer best needs a gold alignment, and chooses the head itself")
        if self.layer not in (None, "best") and not re.fullmatch(r"[1-9]\d{0,3}", self.layer, re.ASCII):
            raise UserError(f"--layer {self.layer} is not a number from 1, nor best")

    def gold_of(self, sources: Sequence[str], targets: Sequence[str]) -> list[Gold] | None:
        from nmt.alignment import read_gold

        if self.gold is None:
            return None
        pairs = list(zip(sources, targets, strict=True))
        return read_gold(self.gold, pairs, words=self.words, base=self.gold_base)

    def align(
        self, loaded: LoadedModel, sources: Sequence[str], targets: Sequence[str], gold: list[Gold] | None
    ) -> Alignment:
        from nmt.alignment import Aligner, View, align_text

        aligner = Aligner(loaded, self.words)
        if self.layer == "best":
            views = aligner.views()
        else:
            views = [View(None if self.layer is None else int(self.layer), self.head)]
        pairs = list(zip(sources, targets, strict=True))
        total = len(pairs)
        found = align_text(aligner, pairs, views, gold, lambda n: out.status(f"{n:,} of {total:,} lines"))
        out.status("")
        return found
