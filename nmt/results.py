"""Results tables: `results.json`, a list of rows, and the same as `results.md`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args, get_type_hints

from nmt.errors import UserError, counted
from nmt.files import lock, write_file


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
    references: str | None = None  # of its references, the beginning of their hash


_MOST_DIGITS = 4
_MODEL = re.compile(r" model:(?P<hashes>[0-9a-f+]+)(?:\([^)]*\))?")


def of_model(*model_hashes: str, chosen: str = "") -> str:
    """What a signature ends with that is about a model: which one, by `nmt.checkpoint.model_hash`.

    Args:
        model_hashes: several of models that made one number together.
        chosen: what was chosen for this model by a rule that the rest of the signature names.
    """
    hashes = "+".join(hash_[:12] for hash_ in model_hashes)
    return f" model:{hashes}" + (f"({chosen})" if chosen else "")


def without_model(signature: str) -> str:
    """How a number was measured, whichever model it is of."""
    return _MODEL.sub("", signature)


def models_in(signature: str) -> list[str]:
    """What `of_model` put into a signature: hashes, those of models together joined by +."""
    return [match["hashes"] for match in _MODEL.finditer(signature)]


def read_rows(path: Path) -> list[Row]:
    """The rows of a results.json; none where there is no file.

    Raises:
        UserError: it is no results table, or is not named .json.
    """
    _check_name(path)
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(rows, list):
            raise TypeError
        return [_checked(Row(**row)) for row in rows]
    except FileNotFoundError:
        return []
    except (ValueError, TypeError, RecursionError):
        raise UserError("is not a results table; move it away", file=path) from None


def _checked(row: Row) -> Row:
    """TypeError where a value is of another type than a row has; a whole number is a number too."""
    for name, kind in get_type_hints(Row).items():
        value, kinds = getattr(row, name), get_args(kind) or (kind,)
        is_number = isinstance(value, int) and not isinstance(value, bool) and float in kinds
        if type(value) not in kinds and not is_number:
            raise TypeError(name)
    return row


def add_rows(path: Path, rows: list[Row]) -> None:
    """Add rows, replacing those of the same system, test set, metric and signature; write both files.

    A system that was trained again has another model in its signature, and its rows are replaced. A test set
    of the same name with other references is another. Several processes may add to one file.
    """
    _check_name(path)
    file = path.resolve()  # a link stays a link
    file.parent.mkdir(parents=True, exist_ok=True)
    with lock(file.parent, wait=True, name=f".{file.name}.lock"):  # not of the file itself, which is replaced
        merged = {_key(row): row for row in read_rows(path)}
        for row in rows:
            of_earlier_version = (*_key(row)[:-1], None)  # which did not hash references
            if row.references is not None and of_earlier_version in merged:
                # In its place, as with a row of the same key.
                merged = {_key(row) if key == of_earlier_version else key: old for key, old in merged.items()}
            merged[_key(row)] = row
        table = as_markdown(list(merged.values()))
        write_file(path, json.dumps([asdict(row) for row in merged.values()], indent=2) + "\n")
        write_file(path.with_suffix(".md"), table)


def _check_name(path: Path) -> None:
    if path.suffix != ".json":  # the table beside it, named .md, would take its place
        raise UserError("is not a results table; name a file FILE.json", file=path)


def _key(row: Row) -> tuple[str | int | None, ...]:
    """What a row is the number of: a later one of the same takes its place."""
    return (
        row.system,
        row.test_set,
        row.metric,
        without_model(row.signature),
        row.lines,
        row.references,
    )


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
    name = _namer(rows)
    groups: dict[tuple[str, str], dict[tuple[str, str], Row]] = {}
    for row in rows:
        groups.setdefault((row.system, name(row)), {})[row.metric, without_model(row.signature)] = row
    for (system, test_set), found in groups.items():
        first = next(iter(found.values()))
        models = dict.fromkeys(hashes for row in found.values() for hashes in models_in(row.signature))
        cells = [
            system,
            test_set,
            *(_score(found.get(column)) for column in columns),
            "" if first.parameters is None else f"{first.parameters:,}",
            "" if first.train_seconds is None else f"{first.train_seconds / 60:.1f} min",
            first.device or "",
        ]
        lines.append(_line(cells + ([", ".join(models)] if with_models else [])))
    lines += ["", *(f"- {name}: `{signature}`" for (_, signature), name in names.items())]
    return "\n".join(lines) + "\n"


def _namer(rows: Sequence[Row]) -> Callable[[Row], str]:
    """How a table calls the test set of a row: with its size, and by its hash where that tells it apart."""
    known: dict[tuple[str, int | None], set[str]] = {}
    for row in rows:
        if row.references is not None:
            known.setdefault((row.test_set, row.lines), set()).add(row.references)

    def name(row: Row) -> str:
        about = [] if row.lines is None else [counted(row.lines, "line")]
        if row.references is not None and len(known[row.test_set, row.lines]) > 1:
            about.append(f"references {row.references}")
        return f"{row.test_set} ({', '.join(about)})" if about else row.test_set

    return name


def _score(row: Row | None) -> str:
    if row is None:
        return ""
    low, high = row.confidence_low, row.confidence_high
    if low is None or high is None:
        return f"{row.score:.{digits(row.metric)}f}"
    fewer = digits(row.metric) - (row.metric != "perplexity")
    # One of a long test set may be narrower than the last digit.
    while low != high and fewer < _MOST_DIGITS and f"{low:.{fewer}f}" == f"{high:.{fewer}f}":
        fewer += 1
    interval = f"{low:.{fewer}f}-{high:.{fewer}f}"
    return f"{row.score:.{digits(row.metric)}f} ({interval})"


def digits(metric: str) -> int:
    """After the point: AER and COMET are between 0 and 1, the others between 0 and 100 or so."""
    return 4 if metric in ("AER", "COMET") else 2


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(_cell(text) for text in cells)} |"


def _cell(text: str) -> str:
    """Text that neither ends a cell nor a line."""
    return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").split())
