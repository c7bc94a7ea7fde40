"""What sacreBLEU's own command line says of files, and texts to compare on."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nmt.data.synthetic import generate

DIGITS = 10
ORDINARY = [pair.target for pair in generate("test", 60, seed=1)]
# Lines that break careless readers and tokenizers. A line holds no newline.
HOSTILE = [
    "",
    " ",
    "\t tab\tand  blanks \t",
    "a\u2028b\u2029c\u0085d",
    "\x0b\x0c\x1c\x1d\x1e",
    "nul\0nul",
    "a\rb",
    "😀👩‍👩‍👧‍👦🏳️‍🌈",
    "שלום עולם مرحبا",
    "漢字かな交じり文。中文！",
    "ÄÖÜ İSTANBUL Straße ﬁn",
    "&lt;b&gt; &amp;quot; <skipped> - ",
    "1,000.50 $3.14 50% e-mail don't U.S.A.",
    "tokenised text , as it should not be .",
    "x" * 300,
    "word " * 60,
]


def hostile_lines(count: int, seed: int) -> list[str]:
    """Lines made of pieces of HOSTILE."""
    chance = random.Random(seed)
    pieces = [piece for line in HOSTILE for piece in (line[:40], *line.split(" "))]
    return [" ".join(chance.choices(pieces, k=chance.randrange(8))) for _ in range(count)]


def disturbed(lines: list[str], seed: int) -> list[str]:
    """A bad translator's version of lines: words lost, doubled, moved, in capitals."""
    chance = random.Random(seed)
    result = []
    for line in lines:
        words = line.split(" ")
        for _ in range(chance.randrange(4)):
            place = chance.randrange(len(words))
            match chance.randrange(4):
                case 0:
                    words[place] = words[place].upper()
                case 1:
                    words.insert(place, chance.choice(words))
                case 2:
                    words[place] = ""
                case _:
                    chance.shuffle(words)
        result.append(" ".join(words))
    return result


def write(path: Path, lines: list[str]) -> str:
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())
    return str(path)


def printed(number: float) -> float:
    return float(f"{number:.{DIGITS}f}")


def sacrebleu(
    folder: Path,
    systems: list[list[str]],
    references: list[list[str]],
    *options: str,
    seed: int | None = None,
) -> str:
    """What `sacrebleu REFERENCE... --input SYSTEM... OPTIONS` prints."""
    files = [write(folder / f"reference.{i}", lines) for i, lines in enumerate(references)]
    inputs = [write(folder / f"system{i}", lines) for i, lines in enumerate(systems)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SACREBLEU")}
    given = [*files, "--input", *inputs, "--width", str(DIGITS), "--force", "--no-color", *options]
    done = subprocess.run(
        [sys.executable, "-m", "sacrebleu", *given],
        capture_output=True,
        check=True,
        env=environment | ({} if seed is None else {"SACREBLEU_SEED": str(seed)}),
    )
    return done.stdout.decode()


def single(
    folder: Path, hypotheses: list[str], references: list[list[str]], *options: str
) -> dict[str, dict[str, Any]]:
    """Name -> score, signature and, with --confidence, mean and half width. chrF2++ is a call of its own."""
    result = {}
    for metrics in (["bleu", "chrf", "ter"], ["chrf", "--chrf-word-order", "2"]):
        given = ["--format", "json", "--metrics", *metrics, *options]
        answers = json.loads(sacrebleu(folder, [hypotheses], references, *given))
        for answer in answers if isinstance(answers, list) else [answers]:
            result[answer["name"]] = answer
    return {name: result[name] for name in ("BLEU", "chrF2", "chrF2++", "TER")}


@dataclass
class PairedCell:
    score: float
    p_value: float | None
    mean: float | None
    half_width: float | None


_CELL = re.compile(r"([\d.]+)(?: \(([\d.]+) ± ([\d.]+)\))?(?: \(p = ([\d.]+)\)\*?)?")


def paired(
    folder: Path,
    systems: list[list[str]],
    references: list[list[str]],
    *options: str,
    seed: int | None = None,
) -> tuple[dict[str, list[PairedCell]], dict[str, str]]:
    """Of each metric a cell for each system; and the signatures. Options are --paired-bs or --paired-ar."""
    cells: dict[str, list[PairedCell]] = {}
    signatures: dict[str, str] = {}
    for names, metrics in (
        (["BLEU", "chrF2", "TER"], ["bleu", "chrf", "ter"]),
        (["chrF2++"], ["chrf", "--chrf-word-order", "2"]),
    ):
        given = ["--format", "latex", "--metrics", *metrics, *options]
        text = sacrebleu(folder, systems, references, *given, seed=seed)
        rows = [line for line in text.split("\n") if "system" in line and "&" in line]
        assert len(rows) == len(systems), text
        for row in rows:
            for name, cell in zip(names, row.split("&")[1:], strict=True):
                match = _CELL.search(cell.replace("\\\\", ""))
                assert match is not None, row
                score, mean, half, p = (None if group is None else float(group) for group in match.groups())
                assert score is not None
                cells.setdefault(name, []).append(PairedCell(score, p, mean, half))
        for name, signature in re.findall(r"^ - (\S+) +(nrefs:\S+)$", text, re.MULTILINE):
            signatures[name] = signature
    return cells, signatures
