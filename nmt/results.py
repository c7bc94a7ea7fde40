"""Results tables: `results.json`, a list of rows, and the same as `results.md`."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from nmt.errors import UserError
from nmt.files import write_file


@dataclass(frozen=True)
class Row:
    """One number and what it was measured on."""

    system: str
    test_set: str
    metric: str
    score: float
    confidence_low: float | None
    confidence_high: float | None
    signature: str
    parameters: int | None = None
    train_seconds: float | None = None
    device: str | None = None
    lines: int | None = None  # size of the test set


_MODEL = re.compile(r" model:([0-9a-f]+)")


def of_model(manifest_hash: str) -> str:
    """What a signature ends with that is about a model: which one, by the sha256 of its manifest.json."""
    return f" model:{manifest_hash[:12]}"


def without_model(signature: str) -> str:
    """How a number was measured, whichever model it is of."""
    return _MODEL.sub("", signature)


def read_rows(path: Path) -> list[Row]:
    """The rows of a results.json; none where there is no file."""
    try:
        return [Row(**row) for row in json.loads(path.read_text(encoding="utf-8"))]
    except FileNotFoundError:
        return []
    except (ValueError, TypeError):
        raise UserError("is not a results table; move it away", file=path) from None


def add_rows(path: Path, rows: list[Row]) -> None:
    """Add rows, replacing those of the same system, test set, metric and signature; write both files.

    A system that was trained again has another model in its signature, and its rows are replaced.
    """

    def key(row: Row) -> tuple[str, ...]:
        return (row.system, row.test_set, row.metric, without_model(row.signature))

    merged = {key(row): row for row in read_rows(path)}
    merged |= {key(row): row for row in rows}
    write_file(path, json.dumps([asdict(row) for row in merged.values()], indent=2) + "\n")
    write_file(path.with_suffix(".md"), as_markdown(list(merged.values())))


def as_markdown(rows: list[Row]) -> str:
    """A table with a line for each system and test set and a column for each metric, then the signatures."""
    columns = list(dict.fromkeys((row.metric, without_model(row.signature)) for row in rows))
    names: dict[tuple[str, str], str] = {}
    for metric, signature in columns:  # BLEU, and BLEU 2 where there are two kinds of it
        same = sum(1 for known in names if known[0] == metric)
        names[metric, signature] = f"{metric} {same + 1}" if same else metric
    with_models = any(_MODEL.search(row.signature) for row in rows)
    header = ["system", "test set", *names.values(), "parameters", "training", "device"]
    header += ["model"] if with_models else []
    marks = ["---"] * 2 + ["---:"] * (len(columns) + 2) + ["---"] * (1 + with_models)
    lines = [_line(header), _line(marks)]
    groups: dict[tuple[str, str], dict[tuple[str, str], Row]] = {}
    for row in rows:
        groups.setdefault((row.system, row.test_set), {})[row.metric, without_model(row.signature)] = row
    for (system, test_set), found in groups.items():
        first = next(iter(found.values()))
        models = dict.fromkeys(hash_ for row in found.values() for hash_ in _MODEL.findall(row.signature))
        cells = [
            system,
            test_set if first.lines is None else f"{test_set} ({first.lines:,} lines)",
            *(_score(found.get(column)) for column in columns),
            "" if first.parameters is None else f"{first.parameters:,}",
            "" if first.train_seconds is None else f"{first.train_seconds / 60:.1f} min",
            first.device or "",
        ]
        lines.append(_line(cells + ([", ".join(models)] if with_models else [])))
    lines += ["", *(f"- {name}: `{signature}`" for (_, signature), name in names.items())]
    return "\n".join(lines) + "\n"


def _score(row: Row | None) -> str:
    if row is None:
        return ""
    if row.confidence_low is None or row.confidence_high is None:
        return f"{row.score:.{digits(row.metric)}f}"
    fewer = digits(row.metric) - 1
    interval = f"{row.confidence_low:.{fewer}f}-{row.confidence_high:.{fewer}f}"
    return f"{row.score:.{digits(row.metric)}f} ({interval})"


def digits(metric: str) -> int:
    """After the point: AER and COMET are between 0 and 1, the others between 0 and 100 or so."""
    return 4 if metric in ("AER", "COMET") else 2


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
