"""Results as tables: on the terminal, and in files."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from nmt.files import write_file

from .parts import REST


def machine(threads: int) -> dict[str, Any]:
    """What numbers depend on."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": threads,
        "python": platform.python_version(),
        **{name: _version(name) for name in ("nmt", "torch", "ctranslate2", "transformers")},
    }


def machine_text(found: dict[str, Any]) -> str:
    versions = ", ".join(
        f"{name} {found[name]}" for name in ("nmt", "torch", "ctranslate2", "transformers") if found[name]
    )
    return f"{found['processor']}, {found['cores']} cores, {found['threads']} threads; {versions}"


def save(folder: Path, name: str, found: dict[str, Any], text: str) -> None:
    """`name`.json and `name`.md."""
    write_file(folder / f"{name}.json", json.dumps(found, indent=2) + "\n")
    write_file(folder / f"{name}.md", text)


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """In Markdown, padded so that it is read as it stands; all columns but the first to the right."""
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = [
        "| "
        + " | ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        + " |"
        for row in cells
    ]
    rule = (
        "|"
        + "|".join(
            " " + "-" * width + " " if i == 0 else " " + "-" * (width - 1) + ": "
            for i, width in enumerate(widths)
        )
        + "|"
    )
    return "\n".join([lines[0], rule, *lines[1:]])


def ceilings_text(rows: Sequence[dict[str, Any]]) -> str:
    shapes = list(dict.fromkeys(tuple(row["shape"]) for row in rows))
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    speed = {(row["kind"], tuple(row["shape"])): row["gflops"] for row in rows}
    header = ["GFLOP/s", *(f"({n}, {width}) x ({width}, {outputs})" for n, width, outputs in shapes)]
    return table(header, [[kind, *(_number(speed[kind, shape]) for shape in shapes)] for kind in kinds])


def training_text(rows: Sequence[dict[str, Any]], batch_tokens: int = 4096) -> str:
    cells = [
        [
            row["model"],
            row["precision"],
            _number(row["target_tokens_per_second"]),
            "" if row["gflops"] is None else _number(row["gflops"]),
            "" if row["gflops"] is None else f"{100 * row['gflops'] / row['ceiling_gflops']:.0f} %",
            _number(row["peak_mib"]),
        ]
        for row in rows
    ]
    header = [
        f"batches of {batch_tokens:,} tokens",
        "precision",
        "target tokens/s",
        "GFLOP/s of its products",
    ]
    header += ["of the ceiling (MFU)", "peak MiB"]
    parts = list(dict.fromkeys(part for row in rows for part in row["parts"]))
    parts.sort(key=lambda part: part == REST)
    shares = [
        [row["model"], row["precision"], *(f"{100 * row['parts'].get(part, 0.0):.0f} %" for part in parts)]
        for row in rows
    ]
    where = table(["share of a step's time", "precision", *parts], shares)
    return f"{table(header, cells)}\n\n{where}"


def comparison_text(found: dict[str, Any]) -> str:
    """A caption, the table, and what is to be known of it."""
    header = ["engine", "sentences/s", "of nmt", "min-max", "tokens/s", "lines", "words", "tokens"]
    header += ["equal", "BLEU"]
    header += ["MiB, 1,000 lines", "MiB, all", "settings"]
    rows = []
    for row in found["rows"]:
        speeds = [row["lines"] / seconds for seconds in row["seconds"]]
        rows.append(
            [
                row["engine"],
                _number(row["sentences_per_second"]),
                f"{row['ratio']:.2f}",
                f"{_number(min(speeds))}-{_number(max(speeds))}",
                _number(row["tokens_per_second"]),
                _number(row["lines"]),
                _number(row["words"]),
                _number(row["tokens"]),
                f"{100 * row['equal']:.1f} %",
                "" if row["bleu"] is None else f"{row['bleu']:.2f}",
                _number(row["peak_mib_1000"]),
                _number(row["peak_mib"]),
                row["settings"],
            ]
        )
    caption = (
        f"{found['model']} ({found['architecture']}, {found['parameters']:,} parameters), "
        f"{found['test_set']}, beam {found['beam_size']}, length penalty {found['length_penalty']:g}, "
        f"{found['device']}, {found['threads']} threads, medians of {found['repeats']} passes in turns"
    )
    notes = [f"- {note}" for note in found["notes"]]
    notes += [f"- {name}, one line, loading included: {t:.2f} s" for name, t in found["latency"].items()]
    return "\n".join([f"{caption}:", "", table(header, rows), "", *notes]) + "\n"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 20 or value == int(value) else f"{value:.1f}"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(errors="replace").split("\n"):
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
