"""nmt evaluate: scores of a model or of translations, each with its signature."""

from __future__ import annotations

import unicodedata
from codecs import BOM_UTF8
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nmt.cli import output as out
from nmt.cli import scores
from nmt.cli.ensemble import load_ensemble
from nmt.cli.outputs import Outputs
from nmt.cli.reading import Reading
from nmt.cli.score import JSONL
from nmt.cli.search_options import search_options
from nmt.errors import UserError

if TYPE_CHECKING:
    from nmt.assessment import Measured
    from nmt.gold import Gold
    from nmt.model_evaluation import ModelUnderTest

PAIRED = {
    "bootstrap": ("bootstrap",),
    "randomization": ("randomization",),
    "both": ("bootstrap", "randomization"),
    "none": (),
}


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
    if not reference:
        raise UserError("no reference given; add --reference FILE")
    if (model is None) == (not system):
        raise UserError("give either MODEL with --source, or --system NAME=FILE")
    if system and (output is not None or gold_alignment is not None):
        raise UserError("--output and --gold-alignment go with MODEL, not with --system")
    if gold_alignment is None and (layer is not None or head is not None or shift is not None):
        raise UserError(
            "--layer, --head and --shift choose the attention that --gold-alignment measures; add that"
        )
    options_of_search = search_options(
        {
            "beam_size": beam_size,
            "length_penalty": length_penalty,
            "tag": tag,
            "precision": precision,
            "batch_tokens": batch_tokens,
            "ensemble_by": ensemble_by,
        },
        ensemble=bool(ensemble),
    )
    if system and (options_of_search or ensemble):
        raise UserError("--system is a translation; options of search and --ensemble go with MODEL")
    if name is not None and model is None:
        raise UserError("--name is what to call MODEL; a system of --system NAME=FILE has its name there")
    systems = [("--system", one.partition("=")[0]) for one in system or []]
    for option, one in [("--name", name or ""), ("--test-set", test_set or ""), *systems]:
        if any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in one):
            raise UserError(f"{option} {one!r} holds a character that breaks lines of a table; leave it out")
    if ensemble and gold_alignment is not None:
        raise UserError("--gold-alignment is about the attention of one model; leave out --ensemble")
    if model is not None and source is None:
        raise UserError("MODEL needs text to translate; add --source FILE")
    if source is None and (by_length or comet is not None):
        raise UserError(f"{'--by-length' if by_length else '--comet'} looks at the source; add --source FILE")
    if paired is not None and paired not in PAIRED:
        raise UserError(f"--paired {paired} is not known; use {', '.join(PAIRED)}")
    if paired not in (None, "none") and len(system or []) < 2:
        raise UserError("--paired compares systems; give two or more with --system NAME=FILE")
    default = "bootstrap" if len(system or []) > 1 and confidence else "none"
    tests = PAIRED[paired or default]
    reading = Reading(words, gold_alignment, gold_base, layer, head, shift)
    test_set = test_set or _stem(source or reference[0])

    from nmt.assessment import assess
    from nmt.breakdown import count_words
    from nmt.data.corpus import read_lines
    from nmt.evaluation import check, unequal_lengths
    from nmt.hypotheses import first_texts, is_record
    from nmt.metric_set import MetricOptions, MetricSet, default_tokenizer
    from nmt.model_evaluation import training_lines
    from nmt.results import add_rows, read_rows
    from nmt.sentences import sentence_table

    # All that can be wrong is found before the minutes that translation takes.
    inputs = [*reference, *([source] if source else [])]
    references = [list(read_lines(path)) for path in reference]

    def parallel(path: str | Path, lines: list[str]) -> list[str]:
        error = unequal_lengths(str(path), lines, str(reference[0]), references[0])
        if error is not None:
            raise error
        inputs.append(Path(path))
        return lines

    def read_system(path: str) -> list[str]:
        lines = list(read_lines(path))
        if path.endswith(JSONL) or (lines and is_record(lines[0])):
            lines = first_texts(lines, file=path)
            out.note(f"{path}: JSON lines; the first translation of each is scored")
        return parallel(path, lines)

    for file, lines in zip(reference, references, strict=True):
        if lines and is_record(lines[0]):
            raise UserError("has JSON lines, as translations may; give references as plain text", file=file)
    if not references[0]:
        raise UserError("there are no lines to evaluate; give a reference with text", file=reference[0])
    for file, lines in zip(reference[1:], references[1:], strict=True):
        parallel(file, lines)
    hypotheses: dict[str, list[str]] = {}
    for given in system or []:
        system_name, equals, path = given.partition("=")
        if not (equals and path and system_name.strip()):
            raise UserError(f"--system {given} is not of the form NAME=FILE")
        if system_name in hypotheses:
            raise UserError(f"--system {given}: there are two systems of that name; call one otherwise")
        hypotheses[system_name] = read_system(path)
    sources = None if source is None else parallel(source, list(read_lines(source)))
    if model is not None and tokenize is None:
        tokenize = default_tokenizer(_target_language(model))
    check(len(references[0]), references, tokenize=tokenize, names=[str(path) for path in reference])
    for file in dict.fromkeys(inputs):
        _warn_of_mark(file)
    gold = None if sources is None else reading.gold_of(sources, references[0])
    tables: dict[str, Path | None] = {"--results": results}
    if results is not None and not results.is_dir():
        read_rows(results)
        tables["the table of --results"] = results.with_suffix(".md")
    outputs = Outputs(
        {"--output": output, "--sentences": sentences, **tables},
        [*inputs, *(training or []), *([] if gold_alignment is None else [gold_alignment])],
    )
    extra = [] if comet is None else [_comet(comet, sources or [], references, device)]
    metrics = MetricSet(
        references, MetricOptions(tokenize, lowercase, chrf_lowercase, ter_case_sensitive), extra=extra
    )
    counts = None
    if training:
        counts = count_words((line for path in training for line in training_lines(path)), metrics)
        if not counts:
            raise UserError("has no words; give the target side of the training text", file=training[0])

    about: dict[str, Any] = {}
    suffixes: dict[str, str] = {}
    measured: list[Measured] = []
    if model is not None:
        assert sources is not None
        tested = _load(model, ensemble or [], device, options_of_search)
        system_name = name or _model_name(model)
        measured = _force_decode(tested, system_name, sources, references[0], reading, gold, confidence)
        hypotheses[system_name] = _translate(tested, sources)
        outputs.write(output, "".join(f"{line}\n" for line in hypotheses[system_name]))
        about = tested.about()
        suffixes[system_name] = tested.identity + tested.search_signature

    found = assess(
        hypotheses,
        metrics,
        confidence=confidence,
        tests=tests,
        sources=sources if by_length else None,
        training=counts,
        suffixes=suffixes,
    )
    found += measured
    if sentences is not None:
        table = sentence_table(hypotheses, metrics, test_set=test_set, sources=sources, suffixes=suffixes)
        outputs.write(sentences, "".join(f"{line}\n" for line in table))
    rows = [one.row(test_set, metrics, about) for one in found]
    if results is not None:
        outputs.attempt(results, lambda: add_rows(results, rows))
    if json:
        out.result_json([asdict(row) | one.details() for row, one in zip(rows, found, strict=True)])
    else:
        title = f"{test_set}, {metrics.size:,} {'line' if metrics.size == 1 else 'lines'}"
        scores.print_scores(found, title, confidence=confidence)
        scores.print_parts(found, title)
    outputs.finish()


def _load(model: Path, ensemble: list[Path], device: str, chosen: dict[str, Any]) -> ModelUnderTest:
    """Models that can translate together as is wanted, else UserError."""
    from nmt.checkpoint import load_model
    from nmt.device import choose_device
    from nmt.model_evaluation import ModelUnderTest

    loaded = load_model(model, choose_device(device))
    tested = ModelUnderTest(loaded, chosen, load_ensemble(ensemble, loaded, device))
    tested.translator.prepare()  # says what does not go together
    return tested


def _translate(tested: ModelUnderTest, sources: list[str]) -> list[str]:
    from nmt.cli.progress import Progress

    progress = Progress(len(sources))
    found = tested.translate(sources, progress.found)
    progress.show(len(sources))
    progress.end()
    return found


def _target_language(model: Path) -> str:
    from nmt.checkpoint import CONFIG, find_model
    from nmt.config_file import load_config

    return load_config(find_model(model) / CONFIG).data.target_language


def _warn_of_mark(path: Path) -> None:
    """Under one and the same signature sacreBLEU's command line gives another number."""
    from nmt.data.corpus import open_bytes

    if not path.is_file():  # a pipe is read once
        return
    with open_bytes(path) as file:
        if file.read(len(BOM_UTF8)) == BOM_UTF8:
            out.warn(
                f"{path}: begins with a byte order mark, which is no text here; the command sacrebleu takes "
                "it for part of the first line"
            )


def _force_decode(
    tested: ModelUnderTest,
    name: str,
    sources: list[str],
    targets: list[str],
    reading: Reading,
    gold: list[Gold] | None,
    confidence: bool,
) -> list[Measured]:
    """Perplexity of the reference, and the alignment error rate where there is a gold alignment."""
    from nmt.assessment import Measured

    found = []
    perplexity, left_out = tested.perplexity(sources, targets, confidence=confidence)
    if left_out:
        out.warn(f"{left_out:,} of {len(sources):,} pairs are too long for the model to be force-decoded")
    if perplexity is not None:
        found.append(Measured(name, perplexity))
    if gold is not None:
        alignment = reading.align(tested.loaded, sources, targets, gold)
        score = tested.error_rate(alignment, gold, reading.words, confidence=confidence)
        found.append(Measured(name, score))
    return found


def _comet(model: str, sources: list[str], references: list[list[str]], device: str) -> Any:
    from nmt.comet import comet_metric
    from nmt.device import choose_device

    return comet_metric(model, sources, references, device=str(choose_device(device)))


def _model_name(path: Path) -> str:
    """RUN/best and RUN/checkpoints/step-1 are called RUN."""
    parts = [p for p in path.parts if p not in ("best", "last", "checkpoints") and not p.startswith("step-")]
    return parts[-1] if parts else str(path)


def _stem(path: Path) -> str:
    """test.en.gz -> test."""
    return path.name.removesuffix(".gz").rpartition(".")[0] or path.name
