"""nmt score: the log-probability of given translations, line by line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nmt.cli import output as out
from nmt.cli.ensemble import load_ensemble
from nmt.cli.search_options import search_options
from nmt.cli.usage import check_order
from nmt.errors import UserError, counted

if TYPE_CHECKING:
    from nmt.data.tokenizer import Tokenizer
    from nmt.hypotheses import Chosen
    from nmt.scoring import Scored, Scorer

JSONL = (".jsonl", ".jsonl.gz")


def score(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model folder, or a run folder.")],
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Text, plain or .gz; - is standard input.")],
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="Its translation, line by line: text, or .jsonl as nmt translate --format jsonl writes it, "
            "of which the very tokens are scored; - is standard input.",
        ),
    ],
    output: Annotated[Path | None, typer.Option(help="Write here instead of to standard output.")] = None,
    format: Annotated[
        str, typer.Option(metavar="text|jsonl", help="text: a number a line; jsonl: also token by token.")
    ] = "text",
    target_format: Annotated[
        str | None, typer.Option(metavar="text|jsonl", help="What TARGET is; by its name without this.")
    ] = None,
    length_penalty: Annotated[
        float | None, typer.Option(min=0.0, max=100.0, help="Of score in jsonl; the model's without it.")
    ] = None,
    batch_tokens: Annotated[
        str | None, typer.Option(metavar="auto|N", help="Tokens of the longer side a batch.")
    ] = None,
    ensemble: Annotated[
        list[Path] | None, typer.Option(help="A further model, to average with; may be given again.")
    ] = None,
    ensemble_by: Annotated[
        str | None, typer.Option(metavar="probability|log-probability", help="What is averaged.")
    ] = None,
    coverage_penalty: Annotated[
        float | None, typer.Option(min=0.0, help="Of score in jsonl: of source words left out; 0 is none.")
    ] = None,
    normalization: Annotated[
        str | None, typer.Option(metavar="gnmt|average", help="How --length-penalty counts length.")
    ] = None,
    tag: Annotated[
        str | None, typer.Option(metavar="TAG", help="One of data.tags, to put before every source.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Log-probability of given translations, natural, the end of sentence counted: a line out for each pair.

    Of a .jsonl TARGET with several translations a line, their numbers stand on one line with tabs between.
    """
    for option, value in (("--format", format), ("--target-format", target_format or "text")):
        if value not in ("text", "jsonl"):
            raise UserError(f"{option} {value} is not known; use text or jsonl")
    check_order("score", model, source)
    is_jsonl = target.endswith(JSONL) if target_format is None else target_format == "jsonl"
    pairs = Pairs(source, target, is_jsonl)  # before the model: what is wrong with the files is told at once
    output = out.file_of(output)
    if output is not None:
        out.check_output(output, source, target)

    from nmt.checkpoint import load_model
    from nmt.config_file import changed_search
    from nmt.device import choose_device
    from nmt.scoring import Scorer

    given = search_options(
        {
            "length_penalty": length_penalty,
            "batch_tokens": batch_tokens,
            "ensemble_by": ensemble_by,
            "coverage_penalty": coverage_penalty,
            "normalization": normalization,
            "tag": tag,
        },
        ensemble=bool(ensemble),
    )
    loaded = load_model(model, choose_device(device))
    search = changed_search(loaded.config.search, given)
    # What reads attention, for the coverage, reads the source as search does.
    loaded = replace(loaded, config=loaded.config.model_copy(update={"search": search}))
    scorer = Scorer(loaded, search, ensemble=load_ensemble(ensemble or [], loaded, device))
    with out.writing(output) as stream:
        _run(scorer, pairs, stream, format)


class Pairs:
    """The two files, line by line."""

    def __init__(self, source: str, target: str, is_jsonl: bool):
        """UserError for what can be told without reading a pipe, which can be read once only."""
        from nmt.data.corpus import display_name, read_lines

        if source == target == "-":
            raise UserError("SOURCE and TARGET cannot both be standard input; give a file for one of them")
        self.source, self.target, self.is_jsonl = source, target, is_jsonl
        self.source_name, self.target_name = display_name(source), display_name(target)
        counts = [
            sum(1 for _ in read_lines(path)) if path != "-" and _is_lasting(Path(path)) else None
            for path in (source, target)
        ]
        if None not in counts and counts[0] != counts[1]:
            raise self._unequal(counts[0] or 0, counts[1] or 0)
        self.total = next((count for count in counts if count is not None), None)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Pairs of lines; UserError at the end where one side has more."""
        from nmt.data.corpus import read_lines

        sources, targets = read_lines(self.source), read_lines(self.target)
        number = 0
        while True:
            source, target = next(sources, None), next(targets, None)
            if source is None and target is None:
                return
            if source is None or target is None:
                more = (
                    (source is not None) + sum(1 for _ in sources),
                    (target is not None) + sum(1 for _ in targets),
                )
                raise self._unequal(number + more[0], number + more[1])
            number += 1
            yield source, target

    def _unequal(self, sources: int, targets: int) -> UserError:
        from nmt.data.corpus import unequal_counts

        if self.is_jsonl or "-" in (self.source, self.target):
            longer = self.source_name if sources > targets else self.target_name
            return UserError(
                f"{longer} is longer: {self.source_name} has {counted(sources, 'line')} and "
                f"{self.target_name} has {targets:,}; give files that are parallel"
            )
        return unequal_counts(self.source, sources, self.target, targets)


def _is_lasting(path: Path) -> bool:
    """Whether reading it twice gives the same, or the same error."""
    return path.is_file() or path.is_dir() or not path.exists()


@dataclass
class Chunk:
    """Lines that are scored together: few enough to keep memory flat."""

    first: int  # number of the first line, from 1
    sources: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)  # of a TARGET that is text
    chosen: list[Sequence[Chosen]] = field(default_factory=list)  # of one that is jsonl
    size: int = 0  # translations


def _chunks(pairs: Pairs, tokenizer: Tokenizer, most: int) -> Iterator[Chunk]:
    """What comes before a line that is wrong is yielded before its error is raised."""
    from nmt.hypotheses import read_record

    chunk, number, warned = Chunk(1), 0, False
    end: UserError | None = None
    try:
        for source, target in pairs:
            if pairs.is_jsonl:
                record = read_record(target, number + 1, tokenizer, file=pairs.target_name)
                if record.source not in (None, source) and not warned:
                    warned = True
                    out.warn(
                        f"{pairs.target_name}:{number + 1}: made from another source than that line of "
                        f"{pairs.source_name}, given which it is scored"
                    )
                chunk.chosen.append(record.translations)
            else:
                chunk.texts.append(target)
            chunk.sources.append(source)
            chunk.size += len(record.translations) if pairs.is_jsonl else 1
            number += 1
            if chunk.size >= most:
                yield chunk
                chunk = Chunk(number + 1)
    except UserError as error:
        end = error
    if chunk.sources:
        yield chunk
    if end is not None:
        raise end


def _run(scorer: Scorer, pairs: Pairs, stream: Any, format: str) -> None:
    from nmt.translator import CHUNK_LINES

    problems: dict[str, out.Repeated] = {}
    for chunk in _chunks(pairs, scorer.target_tokenizer, CHUNK_LINES):
        if pairs.is_jsonl:
            found: list[list[Scored]] = scorer.score_chosen(chunk.sources, chunk.chosen)
        else:
            found = [[scored] for scored in scorer.score_texts(chunk.sources, chunk.texts)]
        for number, line in enumerate(found, start=chunk.first):
            for problem in dict.fromkeys(scored.problem for scored in line if scored.problem):
                kind = problems.setdefault(str(problem), out.Repeated(pairs.source_name, str(problem)))
                kind.warn(number, str(problem))
            stream.write(_line(number, line, pairs.is_jsonl, format).encode() + b"\n")
        stream.flush()
        done = chunk.first + len(found) - 1
        out.status(f"{done:,} of {pairs.total:,} lines" if pairs.total else f"{done:,} lines")
    out.status("")
    for kind in problems.values():
        kind.end()


def _line(number: int, line: list[Scored], is_jsonl: bool, format: str) -> str:
    if format == "text":
        values = [scored.log_probability for scored in line]
        return "\t".join("" if value is None else repr(value) for value in values)
    records = [
        {
            "log_probability": scored.log_probability,
            "score": scored.score,
            "tokens": scored.tokens,
            "token_log_probabilities": scored.token_log_probabilities,
        }
        for scored in line
    ]
    return json.dumps(
        {"line": number, **({"translations": records} if is_jsonl else records[0])}, ensure_ascii=False
    )
