"""nmt evaluate: scores of a model or of translations, each with its signature."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nmt.cli import output as out
from nmt.cli.align import Reading
from nmt.errors import UserError

if TYPE_CHECKING:
    from nmt.alignment import Gold
    from nmt.checkpoint import LoadedModel
    from nmt.evaluation import Score
    from nmt.results import Row


def evaluate(
    model: Annotated[
        Path | None, typer.Argument(metavar="MODEL", help="A model or run folder, to translate --source.")
    ] = None,
    source: Annotated[Path | None, typer.Option(help="Text for MODEL to translate.")] = None,
    reference: Annotated[
        list[Path] | None, typer.Option(help="The right translation; may be given again.")
    ] = None,
    system: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FILE", help="A translation to score; may be given again."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="What to call MODEL; its folder's name without it.")
    ] = None,
    test_set: Annotated[
        str | None, typer.Option(help="Name of the test set; from the file without it.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Keep MODEL's translation here.")] = None,
    beam_size: Annotated[int | None, typer.Option(min=1, help="1 is greedy.")] = None,
    length_penalty: Annotated[float | None, typer.Option(min=0.0, help="0 is none.")] = None,
    tokenize: Annotated[str | None, typer.Option(help="sacreBLEU's tokenizer for BLEU, e.g. none.")] = None,
    lowercase: Annotated[bool, typer.Option("--lowercase", help="Compare without case.")] = False,
    confidence: Annotated[bool, typer.Option(help="95 % bootstrap intervals.")] = True,
    gold_alignment: Annotated[
        Path | None, typer.Option(help="Right word links of --source and --reference, for MODEL's AER.")
    ] = None,
    words: Annotated[
        str, typer.Option(metavar="blank|punctuation", help="What ends a word in --gold-alignment.")
    ] = "blank",
    gold_base: Annotated[int, typer.Option(min=0, max=1, help="Number of its first word.")] = 0,
    layer: Annotated[
        str | None, typer.Option(metavar="N|best", help="Layer that aligns, from 1; the mean without it.")
    ] = None,
    head: Annotated[int | None, typer.Option(min=1, help="Head of --layer; the mean without it.")] = None,
    results: Annotated[
        Path | None, typer.Option(help="Add the scores to this results.json, and its results.md.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """BLEU, chrF2 and TER by sacreBLEU, of a model or of translations; of a model perplexity and AER too."""
    if not reference:
        raise UserError("no reference given; add --reference FILE")
    if (model is None) == (not system):
        raise UserError("give either MODEL with --source, or --system NAME=FILE")
    if system and (source is not None or output is not None or gold_alignment is not None):
        raise UserError("--source, --output and --gold-alignment go with MODEL, not with --system")
    if gold_alignment is None and (layer is not None or head is not None):
        raise UserError("--layer and --head choose the attention that --gold-alignment measures; add that")
    if model is not None and source is None:
        raise UserError("MODEL needs text to translate; add --source FILE")

    reading = Reading(words, gold_alignment, gold_base, layer, head)
    if output is not None and output.is_dir():
        raise UserError("is a folder; name a file with --output", file=output)

    from nmt.data.corpus import read_lines
    from nmt.evaluation import check
    from nmt.evaluation import evaluate as score
    from nmt.results import add_rows, read_rows

    # All that can be wrong is found before the minutes that translation takes.
    references = [list(read_lines(path)) for path in reference]

    def read_parallel(path: str | Path) -> list[str]:
        lines = list(read_lines(path))
        if len(lines) != len(references[0]):
            raise UserError(
                f"has {len(lines):,} lines and {reference[0]} has {len(references[0]):,}; "
                "give files that are parallel",
                file=path,
            )
        return lines

    references = [references[0], *(read_parallel(path) for path in reference[1:])]
    hypotheses: dict[str, list[str]] = {}
    for given in system or []:
        system_name, equals, path = given.partition("=")
        if not (equals and path):
            raise UserError(f"--system {given} is not of the form NAME=FILE")
        if system_name in hypotheses:
            raise UserError(f"--system {given}: there are two systems of that name; call one otherwise")
        hypotheses[system_name] = read_parallel(path)
    sources = [] if source is None else read_parallel(source)
    check(len(references[0]), references, tokenize=tokenize)
    gold = reading.gold_of(sources, references[0])
    if results is not None:
        read_rows(results)

    test_set = test_set or _stem(source or reference[0])
    about: dict[str, Any] = {}
    searched = ""
    measured: list[Score] = []
    if model is not None:
        from nmt.checkpoint import load_model
        from nmt.device import choose_device
        from nmt.files import write_file

        loaded = load_model(model, choose_device(device))
        measured = _force_decode(loaded, sources, references[0], reading, gold)
        given_search = {"beam_size": beam_size, "length_penalty": length_penalty}
        chosen = {key: value for key, value in given_search.items() if value is not None}
        searched = _search_signature(loaded, chosen)
        system_name = name or _model_name(model)
        hypotheses[system_name] = _translate(loaded, sources, chosen)
        if output is not None:
            write_file(output, "".join(f"{line}\n" for line in hypotheses[system_name]))
        about = _about(loaded)

    rows = []
    for system_name, lines in hypotheses.items():
        scores = score(lines, references, tokenize=tokenize, lowercase=lowercase, confidence=confidence)
        scores = [replace(found, signature=found.signature + searched) for found in scores]
        rows += [_row(system_name, test_set, found, about) for found in [*scores, *measured]]
    if results is not None:
        add_rows(results, rows)
    if json:
        out.result_json([asdict(row) for row in rows])
        return
    out.result(f"{test_set}, {len(references[0]):,} lines")
    header = ["system", "metric", "score", "95 % interval"] if confidence else ["system", "metric", "score"]
    body = [_cells(row) + ([_interval(row)] if confidence else []) for row in rows]
    out.result(out.table(header, body, left=2))
    for row in rows[: len(rows) // len(hypotheses)]:
        out.result(f"{row.metric} {row.signature}")


def _translate(loaded: LoadedModel, sources: list[str], chosen: dict[str, float]) -> list[str]:
    from nmt.config_file import changed_search
    from nmt.translator import Translator

    search = changed_search(loaded.config.search, chosen)
    return [t.text for t in Translator.of(loaded, search).translate(sources)]


def _search_signature(loaded: LoadedModel, chosen: dict[str, float]) -> str:
    """How the search differs from the model's own, which is part of the model: rows of another are others."""
    configured = loaded.config.search.model_dump()
    names = {"beam_size": "beam", "length_penalty": "penalty"}
    return "".join(f"|{names[key]}:{value}" for key, value in chosen.items() if value != configured[key])


def _force_decode(
    loaded: LoadedModel, sources: list[str], targets: list[str], reading: Reading, gold: list[Gold] | None
) -> list[Score]:
    """Perplexity of the reference, and the alignment error rate where there is a gold alignment."""
    from nmt import __version__
    from nmt.evaluation import Score, perplexity
    from nmt.forced import fitting, negative_log_likelihood

    encoded = [
        loaded.source_tokenizer.encode_all(sources),
        loaded.target_tokenizer.encode_all(targets),
    ]
    fits = fitting(loaded, *encoded)
    source_ids, target_ids = ([ids for ids, does in zip(side, fits, strict=True) if does] for side in encoded)
    scores = []
    left_out = fits.count(False)
    if left_out:
        out.warn(f"{left_out:,} of {len(fits):,} pairs are too long for the model to be force-decoded")
    if source_ids:
        nats, tokens = negative_log_likelihood(loaded, source_ids, target_ids)
        about = f"tokens:{loaded.config.tokenizer.type}|vocabulary:{len(loaded.target_tokenizer)}"
        about += f"|left-out:{left_out}" if left_out else ""
        scores.append(Score("perplexity", perplexity(nats / tokens), f"{about}|nmt:{__version__}"))
    if gold is not None:
        found = reading.align(loaded, sources, targets, gold)
        assert found.agreement is not None
        view = found.view
        about = f"words:{reading.words}|layer:{view.layer or 'mean'}|head:{view.head or 'mean'}|links:argmax"
        scores.append(Score("AER", found.agreement.aer, f"{about}|nmt:{__version__}"))
    return scores


def _about(loaded: LoadedModel) -> dict[str, Any]:
    from nmt.models import parameter_counts

    return {
        "parameters": parameter_counts(loaded.model)["total"],
        "train_seconds": loaded.manifest.get("train_seconds"),
        "device": str(next(loaded.model.parameters()).device),
    }


def _row(system: str, test_set: str, found: Score, about: dict[str, Any]) -> Row:
    from nmt.results import Row

    return Row(
        system=system,
        test_set=test_set,
        metric=found.metric,
        score=round(found.score, 4),
        confidence_low=_rounded(found.confidence_low),
        confidence_high=_rounded(found.confidence_high),
        signature=found.signature,
        **about,
    )


def _cells(row: Row) -> list[str]:
    return [row.system, row.metric, f"{row.score:.4f}" if row.metric == "AER" else f"{row.score:.2f}"]


def _interval(row: Row) -> str:
    if row.confidence_low is None or row.confidence_high is None:
        return ""
    return f"{row.confidence_low:.2f} - {row.confidence_high:.2f}"


def _model_name(path: Path) -> str:
    """RUN/best and RUN/checkpoints/step-1 are called RUN."""
    parts = [p for p in path.parts if p not in ("best", "last", "checkpoints") and not p.startswith("step-")]
    return parts[-1] if parts else str(path)


def _stem(path: Path) -> str:
    """test.en.gz -> test."""
    return path.name.removesuffix(".gz").rpartition(".")[0] or path.name


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
