"""The tables of the recipe multi30k: all rows in their order, and means over seeds.

FOLDER/results.json and .md are the rows of `--scores`, files that `nmt evaluate --results` wrote, one after
the other. Where a system was trained with several seeds, called "NAME (seed N)", FOLDER/means.json and .md
have mean and standard deviation over the seeds of each test set and metric. `--all TOP` also puts what lies
under TOP/PROTOCOL/PAIR into TOP/results.json and .md.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from nmt.errors import UserError
from nmt.files import write_file
from nmt.results import Row, as_markdown, digits, models_in, read_rows, without_model

_SEED = re.compile(r"(?P<system>.*) \(seed (?P<seed>\d+)\)")


@dataclass(frozen=True)
class Mean:
    """Of one number, over the seeds of a system."""

    system: str
    test_set: str
    metric: str
    mean: float
    standard_deviation: float | None  # of the sample, n - 1; None of one
    n: int
    seeds: tuple[int, ...]
    scores: tuple[float, ...]
    signature: str
    lines: int | None = None  # size of the test set
    references: str | None = None  # the beginning of their hash
    models: tuple[str, ...] = ()  # hashes, in the order of the scores


def means(rows: Sequence[Row]) -> list[Mean]:
    """In the order of the rows; a system that is not called after a seed is one of its own, with n = 1."""
    groups: dict[tuple[str, str, str, str, int | None, str | None], list[tuple[int, Row]]] = {}
    for row in rows:
        match = _SEED.fullmatch(row.system)
        system, seed = (match["system"], int(match["seed"])) if match else (row.system, 0)
        measured = (row.metric, without_model(row.signature), row.lines, row.references)
        groups.setdefault((system, row.test_set, *measured), []).append((seed, row))
    found = []
    for (system, test_set, metric, signature, lines, references), scored in groups.items():
        scores = tuple(row.score for _, row in scored)
        found.append(
            Mean(
                system=system,
                test_set=test_set,
                metric=metric,
                mean=statistics.fmean(scores),
                standard_deviation=statistics.stdev(scores) if len(scores) > 1 else None,
                n=len(scores),
                seeds=tuple(seed for seed, _ in scored if seed),
                scores=scores,
                signature=signature,
                lines=lines,
                references=references,
                models=tuple(hashes for _, row in scored for hashes in models_in(row.signature)),
            )
        )
    return found


def table(found: Sequence[Mean]) -> str:
    """Markdown: a line for each system and test set, a column for each metric."""
    columns = list(dict.fromkeys((one.metric, one.signature) for one in found))
    lines: dict[tuple[str, str], dict[tuple[str, str], Mean]] = {}
    for one in found:
        size = "" if one.lines is None else f" ({one.lines:,} lines)"
        lines.setdefault((one.system, f"{one.test_set}{size}"), {})[one.metric, one.signature] = one
    text = [
        _line(["system", "test set", "n", *(metric for metric, _ in columns), "models"]),
        _line(["---", "---", *["---:"] * (len(columns) + 1), "---"]),
    ]
    for (system, test_set), cells in lines.items():
        n = max(one.n for one in cells.values())
        scores = [_cell(cells.get(column)) for column in columns]
        models = dict.fromkeys(hashes for one in cells.values() for hashes in one.models)
        text.append(_line([system, test_set, str(n), *scores, ", ".join(models)]))
    text += ["", "Mean over n seeds, ± standard deviation of the sample.", ""]
    text += [f"- {metric}: `{signature}`" for metric, signature in columns]
    return "\n".join(text) + "\n"


def _cell(one: Mean | None) -> str:
    if one is None:
        return ""
    places = digits(one.metric)
    spread = "" if one.standard_deviation is None else f" ± {one.standard_deviation:.{places}f}"
    return f"{one.mean:.{places}f}{spread}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def write_rows(folder: Path, rows: Sequence[Row]) -> None:
    """results.json and results.md."""
    write_file(folder / "results.json", json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    write_file(folder / "results.md", as_markdown(list(rows)))


def write_means(folder: Path, rows: Sequence[Row]) -> None:
    """means.json and means.md; neither where every system has one seed."""
    found = means(rows)
    files = folder / "means.json", folder / "means.md"
    if all(one.n == 1 for one in found):
        for file in files:
            file.unlink(missing_ok=True)
        return
    write_file(files[0], json.dumps([asdict(one) for one in found], indent=2) + "\n")
    write_file(files[1], table(found))


def gather(top: Path) -> list[Row]:
    """The rows under TOP/PROTOCOL/PAIR, with both in the name of the test set."""
    return [
        replace(row, test_set=f"{file.parent.parent.name} {file.parent.name} {row.test_set}")
        for file in sorted(top.glob("*/*/results.json"))
        for row in read_rows(file)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scores", nargs="+", type=Path, required=True, metavar="FILE.json")
    parser.add_argument("--all", type=Path, metavar="TOP")
    given = parser.parse_args()
    try:
        for file in given.scores:
            if not file.exists():
                raise UserError("is not there; run the recipe again", file=file)
        rows = [row for file in given.scores for row in read_rows(file)]
        write_rows(given.folder, rows)
        write_means(given.folder, rows)
        if given.all is not None:
            write_rows(given.all, gather(given.all))
    except UserError as error:
        print(f"nmt: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
