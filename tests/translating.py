"""What the tests of `nmt translate` share."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

from nmt import products
from nmt.partial import read_record

RUN = "runs/tiny"


def hostile_lines(count: int, seed: int = 1) -> list[str]:
    """Lines that break careless tools; none holds a newline or ends in a carriage return."""
    chance = random.Random(seed)
    kinds = [
        lambda: "",
        lambda: " " * chance.randint(1, 9),
        lambda: "\t" * chance.randint(1, 3),
        lambda: "a\u2028b\u2029c\u0085d",
        lambda: "nul\0nul",
        lambda: "\x0b\x0c\x1c\x1d\x1e",
        lambda: "😀👩‍👩‍👧‍👦🏳️‍🌈" * chance.randint(1, 3),
        lambda: "שלום עולם مرحبا",
        lambda: "e\u0301\u0301\u0301 \u200b\u200d\ufeff",
        lambda: "▁under▁ ▁ ▁",
        lambda: "<s> </s> <pad> <unk> <0x0A>",
        lambda: "\"'\\,;{}[]%$#",
        lambda: "\ufffd\U0010ffff",
        lambda: "word " * chance.randint(1, 40),
        lambda: "x" * chance.randint(1, 200),
        lambda: "a\rb",
        lambda: "The dog sees the old house.",
    ]
    return [chance.choice(kinds)() for _ in range(count)]


def write_lines(path: Path, lines: list[str]) -> Path:
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())
    return path


def command(source: Path, output: Path, *options: str) -> list[object]:
    format = "jsonl" if "jsonl" in output.name else "text"
    return ["translate", RUN, source, "--output", output, "--format", format, "--beam-size", "1", *options]


def content(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def comparable(path: Path) -> object:
    """What does not depend on how lines were batched: all of it where products are ours; elsewhere scores to
    three digits."""

    def shorten(pairs: list[tuple[str, object]]) -> dict[str, object]:
        return {key: round(value, 3) if isinstance(value, float) else value for key, value in pairs}

    records = content(path)
    if products.available() or not records.startswith(b"{"):
        return records
    return [json.loads(line, object_pairs_hook=shorten) for line in records.decode().split("\n")[:-1]]


def lines_in(output: Path) -> int:
    """How many a partial file says it has, also one of several processes."""
    partials = output.parent.glob(f"{output.name}.partial*.json")
    records = [read_record(path.with_suffix("")) for path in partials]
    return sum(record["lines"] for record in records if record)


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}
