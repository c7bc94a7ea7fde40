"""nmt evaluate: scores of a model or of translations, each with its signature."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    model: Annotated[
        Path | None, typer.Argument(metavar="MODEL", help="A model or run folder, to translate --source.")
    ] = None,
    source: Annotated[
        Path | None, typer.Option(help="Text for MODEL to translate; or what systems translated.")
    ] = None,
    reference: Annotated[
        list[Path] | None, typer.Option(help="The right translation; may be given again.")
    ] = None,
    system: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE",
            help="A translation to score, text or jsonl of nmt translate; may be given again.",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="What to call MODEL; its folder's name without it.")
    ] = None,
    test_set: Annotated[
        str | None, typer.Option(help="Name of the test set; from the file without it.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Keep MODEL's translation here, .gz too.")] = None,
    ensemble: Annotated[
        list[Path] | None, typer.Option(help="A further model, to average with; may be given again.")
    ] = None,
    ensemble_by: Annotated[
        str | None, typer.Option(metavar="probability|log-probability", help="What is averaged.")
    ] = None,
    tag: Annotated[
        str | None, typer.Option(metavar="TAG", help="One of data.tags, to put before every source.")
    ] = None,
    beam_size: Annotated[int | None, typer.Option(min=1, help="1 is greedy.")] = None,
    length_penalty: Annotated[float | None, typer.Option(min=0.0, help="0 is none.")] = None,
    precision: Annotated[
        str | None,
        typer.Option(metavar="float32|bfloat16|float16|int8", help="Of matrix products in search."),
    ] = None,
    batch_tokens: Annotated[
        str | None, typer.Option(metavar="auto|N", help="Source tokens a batch; auto: what fits.")
    ] = None,
    tokenize: Annotated[
        str | None,
        typer.Option(help="sacreBLEU's tokenizer for BLEU, e.g. none; MODEL's language decides without it."),
    ] = None,
    lowercase: Annotated[
        bool, typer.Option("--lowercase", help="BLEU and chrF compare without case.")
    ] = False,
    chrf_lowercase: Annotated[
        bool | None, typer.Option(help="chrF compares without case; as --lowercase without it.")
    ] = None,
    ter_case_sensitive: Annotated[
        bool, typer.Option("--ter-case-sensitive", help="TER compares with case; without case else.")
    ] = False,
    comet: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="COMET too, e.g. Unbabel/wmt22-comet-da; needs the extra metrics."
        ),
    ] = None,
    confidence: Annotated[bool, typer.Option(help="95 % bootstrap intervals.")] = True,
    paired: Annotated[
        str | None,
        typer.Option(
            metavar="bootstrap|randomization|both|none",
            help="How systems are compared with the first; bootstrap without it.",
        ),
    ] = None,
    by_length: Annotated[bool, typer.Option("--by-length", help="Scores by words of --source too.")] = False,
    training: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE|RUN",
            help="Target side of the training text, or a run: words right by how often it has them.",
        ),
    ] = None,
    sentences: Annotated[
        Path | None, typer.Option(metavar="FILE.jsonl", help="Write each line's translations and scores.")
    ] = None,
    gold_alignment: Annotated[
        Path | None, typer.Option(help="Right word links of --source and --reference, for MODEL's AER.")
    ] = None,
    words: Annotated[
        str, typer.Option(metavar="blank|punctuation", help="What ends a word in --gold-alignment.")
    ] = "blank",
    gold_base: Annotated[int, typer.Option(min=0, max=1, help="Number of its first word.")] = 0,
    layer: Annotated[
        str | None,
        typer.Option(metavar="N|mean|best", help="Layer that aligns, from 1; the mean without it."),
    ] = None,
    head: Annotated[
        str | None, typer.Option(metavar="N|mean", help="Head of --layer; the mean without it.")
    ] = None,
    shift: Annotated[
        bool | None, typer.Option(help="Align where a word has been read; where it is predicted without it.")
    ] = None,
    results: Annotated[
        Path | None, typer.Option(help="Add the scores to this results.json, and its results.md.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """BLEU, chrF2, chrF2++ and TER by sacreBLEU, of a model or of translations; of a model perplexity and AER
    too."""
    from nmt.cli.evaluation import Options, read
    from nmt.cli.measuring import measure, print_found, try_outputs, write

    options = Options(
        model=model,
        source=source,
        reference=tuple(reference or ()),
        system=tuple(system or ()),
        name=name,
        test_set=test_set,
        output=output,
        ensemble=tuple(ensemble or ()),
        ensemble_by=ensemble_by,
        tag=tag,
        beam_size=beam_size,
        length_penalty=length_penalty,
        precision=precision,
        batch_tokens=batch_tokens,
        tokenize=tokenize,
        lowercase=lowercase,
        chrf_lowercase=chrf_lowercase,
        ter_case_sensitive=ter_case_sensitive,
        comet=comet,
        confidence=confidence,
        paired=paired,
        by_length=by_length,
        training=tuple(training or ()),
        sentences=sentences,
        gold_alignment=gold_alignment,
        words=words,
        gold_base=gold_base,
        layer=layer,
        head=head,
        shift=shift,
        results=results,
        device=device,
    )
    texts = read(options)
    outputs = try_outputs(options)
    found = measure(options, texts, outputs)
    write(options, texts, found, outputs)
    print_found(options, found, json=json)
    outputs.finish()
