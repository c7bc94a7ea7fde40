"""nmt heads: what each head of attention does, and what the model loses without it."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nmt.cli import output as out
from nmt.cli.attention import Text
from nmt.cli.outputs import check_new
from nmt.cli.usage import check_order
from nmt.errors import UserError, counted

if TYPE_CHECKING:
    from nmt.attention_maps import Pair
    from nmt.checkpoint import LoadedModel
    from nmt.head_analysis import Analysis, HeadReport, Importances

# Of what changes without a head: the sign where the model is worse.
WORSE = {"loss": 1, "BLEU": -1}
# Columns of the table: their names, and the scores they show.
COLUMNS = {
    "entropy": "entropy",
    "of most": "normalized_entropy",
    "confidence": "confidence",
    "at -1": "before",
    "at 0": "same",
    "at +1": "after",
    "positional": "offset_share",
    "rare": "rare",
    "copying": "copying",
    "induction": "induction",
}
# What they say, for those that are shown.
MEANINGS = {
    ("entropy",): "of a row of weights, in nats; 0 looks at one place",
    ("of most",): "that entropy, as a share of what even weights would have",
    ("confidence",): "the largest weight of a row, a mean",
    ("at -1", "at 0", "at +1"): "weight one place back, at the same place, one place on",
    ("positional",): "where the largest weight is most often, by distance, and how often; * in 90 % or more",
    ("rare",): "how often the largest weight is on the rarest token of the source",
    ("copying",): "weight on the source word that is copied",
    ("induction",): "weight on what followed the first time, where two tokens in a row come again",
    ("loss",): "what the loss rises by without the head, in nats a token",
    ("BLEU",): "what BLEU changes by without the head",
}


def heads(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model folder, or a run folder.")],
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Sentences, one a line; - is stdin.")],
    target: Annotated[
        str | None, typer.Argument(metavar="TARGET", help="Their translations; the model's own without it.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="The table as a page, .html, or as a picture, .png, .svg or .pdf.")
    ] = None,
    importance: Annotated[
        bool, typer.Option("--importance", help="Mask each head: how much the loss of TARGET rises.")
    ] = False,
    reference: Annotated[
        list[Path] | None,
        typer.Option(help="With --importance: how much BLEU falls, too. Translates anew for each head."),
    ] = None,
    training: Annotated[
        Path | None,
        typer.Option(help="Text of the source's language whose counts say what is rare; SOURCE without it."),
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option(help="A column, the highest (of BLEU the deepest fall) first; else by layer."),
    ] = None,
    max_sentences: Annotated[int, typer.Option(min=1, help="The most sentences that are read.")] = 1000,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """What each head of attention does on a text: entropy, positions, rare words, copying, induction."""
    references = list(reference or ())
    if references and not importance:
        raise UserError("--reference goes with --importance; add that")
    _check_sort(sort, importance, bool(references))
    if output is not None and output.suffix not in (".html", ".png", ".svg", ".pdf"):
        raise UserError(f"--output {output}: the format is not known; use .html, .png, .svg or .pdf")
    check_order("heads", model, source)
    text = Text(source, target, None, max_sentences)

    from nmt.checkpoint import load_model, model_hash
    from nmt.device import choose_device
    from nmt.files import write_file
    from nmt.head_analysis import all_heads, analyse
    from nmt.head_analysis import importance as measure
    from nmt.results import of_model

    if output is not None:
        check_new("--output", output, [*text.files, *references, *([] if training is None else [training])])
    loaded = load_model(model, choose_device(device))
    lines = text.read(loaded)
    if importance:
        all_heads(loaded.model)
    right = [_read_reference(path, lines.total, lines.name) for path in references]
    pairs = lines.pairs(loaded)
    total = len(pairs)
    found = analyse(
        loaded, pairs, _counts(loaded, pairs, training), lambda n: out.status(f"{n:,} of {total:,} sentences")
    )
    worth = None
    if importance:
        of_pairs = [[reference[pair.line - 1] for pair in pairs] for reference in right]
        worth = measure(loaded, pairs, of_pairs, lambda n, of: out.status(f"{n} of {of} heads masked"))
    out.status("")
    identity = of_model(model_hash(loaded.manifest)).strip()
    names = " and ".join(str(path) for path in references)
    table = _Table(found, worth, sort, f"{names}, {counted(total, 'sentence')}, {identity}")
    about = {
        "model": str(loaded.folder),
        "model_hash": identity.removeprefix("model:"),
        "source": source,
        "target": target,
        "references": [str(path) for path in references],
        "rare_by": str(training or source),
    }
    if output is not None:
        title = f"Heads of {model}, {counted(total, 'sentence')} of {source}, {identity}"
        content = table.page(title) if output.suffix == ".html" else table.picture(title, output.suffix)
        write_file(output, content)
        out.note(f"{output}: {len(found.heads)} heads")
    if json:
        out.result_json({**about, "sentences": total, **table.document()})
    else:
        out.result(out.table(table.header, table.rows))
        for line in [*table.summary(), *table.legend()]:
            out.result(line)


def _check_sort(sort: str | None, importance: bool, bleu: bool) -> None:
    known = [*COLUMNS, *(["loss"] if importance else []), *(["BLEU"] if bleu else [])]
    if sort is not None and sort not in known:
        raise UserError(f"--sort {sort} is no column; use {', '.join(known)}")


def _read_reference(path: Path, count: int, source: str) -> list[str]:
    from nmt.data.corpus import read_lines

    lines = list(read_lines(path))
    if len(lines) != count:
        raise UserError(
            f"has {counted(len(lines), 'line')} and {source} has {count:,}; give its translation", file=path
        )
    if not any(line.strip() for line in lines):
        raise UserError(f"is blank in all its {count:,} lines; give a reference with text", file=path)
    return lines


def _counts(loaded: LoadedModel, pairs: list[Pair], training: Path | None) -> Any:
    """How often tokens come: in a text of the source's language, or in the sentences themselves."""
    from nmt.data.corpus import read_lines
    from nmt.head_analysis import count_tokens

    counts = count_tokens(loaded, pairs)
    if training is None:
        return counts
    sources: Counter[int] = Counter()
    chunk: list[str] = []
    for line in read_lines(training):
        chunk.append(line)
        if len(chunk) == 10_000:
            sources.update(i for ids in loaded.source_tokenizer.encode_all(chunk) for i in ids)
            chunk = []
    sources.update(i for ids in loaded.source_tokenizer.encode_all(chunk) for i in ids)
    if not sources:
        raise UserError("holds no text; give the training text", file=training)
    return sources, counts[1]


class _Table:
    """The reports as rows, in order."""

    def __init__(self, found: Analysis, worth: Importances | None, sort: str | None, measured_on: str):
        """`measured_on` says what BLEU is of: the references, their number, the model."""
        self.found, self.worth, self.measured_on = found, worth, measured_on
        self.reports = list(found.heads)
        if sort is not None:
            # What matters most comes first: of BLEU the deepest fall. Heads without that score come last.
            sign = 1 if sort == "BLEU" else -1
            self.reports.sort(key=lambda report: sign * (self._numbers(report)[sort] or 0))
            self.reports.sort(key=lambda report: self._numbers(report)[sort] is None)
        columns = [name for name in self._numbers(found.heads[0]) if self._any(name)]
        self.columns = columns
        self.header = ["attention", "layer", "head", *columns]
        self.rows = [self._row(report) for report in self.reports]

    def _numbers(self, report: HeadReport) -> dict[str, float | None]:
        numbers: dict[str, float | None] = {name: getattr(report, key) for name, key in COLUMNS.items()}
        if self.worth is not None:
            of_head = self.worth.by_head[report.head]
            numbers["loss"] = of_head.loss
            if of_head.bleu is not None:
                numbers["BLEU"] = 0.0 - round(of_head.bleu, 4)
        return numbers

    def _any(self, name: str) -> bool:
        return any(self._numbers(report)[name] is not None for report in self.found.heads)

    def _row(self, report: HeadReport) -> list[str]:
        cells = []
        for name in self.columns:
            number = self._numbers(report)[name]
            if number is None:
                cells.append("-")
            elif name == "positional":
                # A star where Voita et al. would call the head positional.
                star = "*" if report.positional else ""
                place = f"{report.offset:+d}" if report.offset else "0"
                cells.append(f"{place} {number:.0%}{star}")
            elif name in ("loss", "BLEU"):
                cells.append(f"{number:+.3f}" if name == "loss" else f"{number:+.2f}")
            else:
                cells.append(f"{number:.2f}")
        return [report.head.kind, str(report.head.layer), str(report.head.head), *cells]

    def legend(self) -> list[str]:
        """What the columns are, each on a line."""
        meaning = {name: text for names, text in MEANINGS.items() for name in names}
        lines = list(dict.fromkeys(meaning[name] for name in self.columns))
        return [
            f"{', '.join(name for name in self.columns if meaning[name] == text)}: {text}" for text in lines
        ]

    def summary(self) -> list[str]:
        """For each score the head that has most of it, and what even weights would give."""
        from nmt.head_analysis import RANKED

        lines = []
        for score, name in RANKED.items():
            ranked = self.found.ranked(score)
            if not ranked:
                continue
            first = ranked[0]
            chance = self.found.chance[first.head.kind].get(score)
            beside = "" if chance is None else f"; weights spread evenly: {chance:.2f}"
            lines.append(f"most {name}: {first.head} ({getattr(first, score):.2f}{beside})")
        if self.worth is not None:
            worst = max(self.worth.by_head, key=lambda head: self.worth.by_head[head].loss)  # type: ignore[union-attr]
            rise = self.worth.by_head[worst].loss
            lines.append(
                f"most important: {worst} (without it the loss is {self.worth.loss + rise:.3f} nats a token, "
                f"with it {self.worth.loss:.3f})"
            )
            if self.worth.bleu is not None:
                lines.append(
                    f"BLEU with all heads: {self.worth.bleu:.2f} ({self.measured_on}; "
                    f"{self.worth.bleu_signature})"
                )
        return lines

    def document(self) -> dict[str, Any]:
        from nmt.head_analysis import RANKED

        heads = []
        for report in self.reports:
            scores = asdict(report) | {"positional": report.positional}
            scores = scores.pop("head") | {key: _rounded(value) for key, value in scores.items()}
            if self.worth is not None:
                of_head = self.worth.by_head[report.head]
                scores["loss_without"] = round(self.worth.loss + of_head.loss, 6)
                if of_head.bleu is not None and self.worth.bleu is not None:
                    scores["bleu_without"] = round(self.worth.bleu - of_head.bleu, 4)
            heads.append(scores)
        ranking = {score: [asdict(report.head) for report in self.found.ranked(score)] for score in RANKED}
        chance = {
            kind: {score: round(value, 6) for score, value in scores.items()}
            for kind, scores in self.found.chance.items()
        }
        document: dict[str, Any] = {"heads": heads, "ranking": ranking, "spread_evenly": chance}
        if self.worth is not None:
            document |= {"loss": round(self.worth.loss, 6), "bleu": self.worth.bleu}
            document["bleu_signature"] = self.worth.bleu_signature
        return document

    def picture(self, title: str, suffix: str) -> bytes:
        import numpy as np

        from nmt.heatmap import draw_heads

        scores: dict[str, dict[str, Any]] = {}
        for name in self.columns:
            for report in self.found.heads:
                head, number = report.head, self._numbers(report)[name]
                kinds = scores.setdefault(name, {})
                if head.kind not in kinds:
                    of_kind = [other.head for other in self.found.heads if other.head.kind == head.kind]
                    size = (max(other.layer for other in of_kind), max(other.head for other in of_kind))
                    kinds[head.kind] = np.full(size, np.nan)
                if number is not None:
                    kinds[head.kind][head.layer - 1, head.head - 1] = number
        return draw_heads(scores, suffix, title, WORSE)

    def page(self, title: str) -> str:
        from nmt.page import fill_table

        most = {
            name: max((abs(self._numbers(report)[name] or 0) for report in self.reports), default=0) or 1
            for name in self.columns
        }
        rows = []
        for report, row in zip(self.reports, self.rows, strict=True):
            numbers = {name: self._numbers(report)[name] or 0 for name in self.columns}
            shades = [
                -WORSE[name] * number / most[name] if name in WORSE else abs(number) / most[name]
                for name, number in numbers.items()
            ]
            names: list[float | None] = [None] * 3
            rows.append(list(zip(row, [*names, *shades], strict=True)))
        return fill_table(title, self.header, rows, self.summary())


def _rounded(value: Any) -> Any:
    return round(value, 6) if isinstance(value, float) else value
