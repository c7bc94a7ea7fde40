"""Results tables: `results.json`, a list of rows, and the same as `results.md`."""

from __future__ import annotations

import json
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


def read_rows(path: Path) -> list[Row]:
    """The rows of a results.json; none where there is no file."""
    try:
        return [Row(**row) for row in json.loads(path.read_text(encoding="utf-8"))]
    except FileNotFoundError:
        return []
    except (ValueError, TypeError):
        raise UserError("is not a results table; move it away", file=path) from None


def add_rows(path: Path, rows: list[Row]) -> None:
    """Add rows, replacing those of the same system, test set, metric and signature; write both files."""

    def key(row: Row) -> tuple[str, ...]:
        return (row.system, row.test_set, row.metric, row.signature)

    merged = {key(row): row for row in read_rows(path)}
    merged |= {key(row): row for row in rows}
    write_file(path, json.dumps([asdict(row) for row in merged.values()], indent=2) + "\n")
    write_file(path.with_suffix(".md"), as_markdown(list(merged.values())))


def as_markdown(rows: list[Row]) -> str:
    """A table with a line for each system and test set and a column for each metric, then the signatures."""
    columns = list(dict.fromkeys((row.metric, row.signature) for row in rows))
    names: dict[tuple[str, str], str] = {}
    for metric, signature in columns:  # BLEU, and BLEU 2 where there are two kinds of it
        same = sum(1 for known in names if known[0] == metric)
        names[metric, signature] = f"{metric} {same + 1}" if same else metric
    header = ["system", "test set", *names.values(), "parameters", "training", "device"]
    lines = [_line(header), _line(["---"] * 2 + ["---:"] * (len(columns) + 2) + ["---"])]
    groups: dict[tuple[str, str], dict[tuple[str, str], Row]] = {}
    for row in rows:
        groups.setdefault((row.system, row.test_set), {})[row.metric, row.signature] = row
    for (system, test_set), found in groups.items():
        first = next(iter(found.values()))
        lines.append(
            _line(
                [
                    system,
                    test_set,
                    *(_score(found.get(column)) for column in columns),
                    "" if first.parameters is None else f"{first.parameters:,}",
                    "" if first.train_seconds is None else f"{first.train_seconds / 60:.1f} min",
                    first.device or "",
                ]
            )
        )
    lines += ["", *(f"- {name}: `{signature}`" for (_, signature), name in names.items())]
    return "\n".join(lines) + "\n"


def _score(row: Row | None) -> str:
    if row is None:
        return ""
    if row.confidence_low is None or row.confidence_high is None:
        return f"{row.score:.4f}" if row.metric == "AER" else f"{row.score:.2f}"
    return f"{row.score:.2f} ({row.confidence_low:.1f}-{row.confidence_high:.1f})"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
