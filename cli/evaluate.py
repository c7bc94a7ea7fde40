"""nmt evaluate: scores of a model or of translations, each with its signature."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from nmt.cli import output as out
from nmt.errors import UserError


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
    results: Annotated[
        Path | None, typer.Option(help="Add the scores to this results.json, and its results.md.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """BLEU, chrF2 and TER by sacreBLEU, of a model on a test set or of finished translations."""
    if not reference:
        raise UserError("no reference given; add --reference FILE")
    if (model is None) == (not system):
        raise UserError("give either MODEL with --source, or --system NAME=FILE")
    if system and (source is not None or output is not None):
        raise UserError("--source and --output go with MODEL, not with --system")
    if model is not None and source is None:
        raise UserError("MODEL needs text to translate; add --source FILE")

    from nmt.data.corpus import read_lines
    from nmt.evaluation import evaluate as score
    from nmt.results import Row, add_rows

    references = [list(read_lines(path)) for path in reference]
    test_set = test_set or _stem(source or reference[0])
    about: dict[str, dict[str, Any]] = {}
    hypotheses: dict[str, list[str]] = {}
    if model is not None and source is not None:
        sources = list(read_lines(source))
        if len(sources) != len(references[0]):
            raise UserError(
                f"has {len(sources):,} lines and {reference[0]} has {len(references[0]):,}; "
                "give files that are parallel",
                file=source,
            )
        system_name = name or _model_name(model)
        hypotheses[system_name], about[system_name] = _translate(
            model, sources, device, beam_size=beam_size, length_penalty=length_penalty
        )
        if output is not None:
            from nmt.files import write_file

            write_file(output, "".join(f"{line}\n" for line in hypotheses[system_name]))
    for given in system or []:
        system_name, equals, path = given.partition("=")
        if not (equals and path):
            raise UserError(f"--system {given} is not of the form NAME=FILE")
        if system_name in hypotheses:
            raise UserError(f"--system {given}: there are two systems of that name; call one otherwise")
        hypotheses[system_name] = list(read_lines(path))
        if len(hypotheses[system_name]) != len(references[0]):
            raise UserError(
                f"has {len(hypotheses[system_name]):,} lines and {reference[0]} has "
                f"{len(references[0]):,}; give files that are parallel",
                file=path,
            )

    rows = [
        Row(
            system=system_name,
            test_set=test_set,
            metric=found.metric,
            score=round(found.score, 4),
            confidence_low=_rounded(found.confidence_low),
            confidence_high=_rounded(found.confidence_high),
            signature=found.signature,
            **about.get(system_name, {}),
        )
        for system_name, lines in hypotheses.items()
        for found in score(lines, references, tokenize=tokenize, lowercase=lowercase, confidence=confidence)
    ]
    if results is not None:
        add_rows(results, rows)
    if json:
        from dataclasses import asdict

        out.result_json([asdict(row) for row in rows])
        return
    out.result(f"{test_set}, {len(references[0]):,} lines")
    header = ["system", "metric", "score", "95 % interval"] if confidence else ["system", "metric", "score"]
    body = [
        [row.system, row.metric, f"{row.score:.2f}"]
        + ([f"{row.confidence_low:.2f} - {row.confidence_high:.2f}"] if confidence else [])
        for row in rows
    ]
    out.result(out.table(header, body, left=2))
    for row in rows[: len(rows) // len(hypotheses)]:
        out.result(f"{row.metric} {row.signature}")


def _translate(
    path: Path, sources: list[str], device: str, **chosen: float | None
) -> tuple[list[str], dict[str, Any]]:
    from nmt.checkpoint import load_model
    from nmt.models import parameter_counts
    from nmt.training import choose_device
    from nmt.translator import Translator

    loaded = load_model(path, choose_device(device))
    search = loaded.config.search.model_copy(update={k: v for k, v in chosen.items() if v is not None})
    lines = [t.text for t in Translator.of(loaded, search).translate(sources)]
    return lines, {
        "parameters": parameter_counts(loaded.model)["total"],
        "train_seconds": loaded.manifest.get("train_seconds"),
        "device": str(next(loaded.model.parameters()).device),
    }


def _model_name(path: Path) -> str:
    """RUN/best and RUN/checkpoints/step-1 are called RUN."""
    parts = [p for p in path.parts if p not in ("best", "last", "checkpoints") and not p.startswith("step-")]
    return parts[-1] if parts else str(path)


def _stem(path: Path) -> str:
    """test.en.gz -> test."""
    return path.name.removesuffix(".gz").rpartition(".")[0] or path.name


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
