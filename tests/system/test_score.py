"""nmt score answers a line with a line, whatever the lines hold, and agrees with nmt translate."""

from __future__ import annotations

import gzip
import json
import math
import os
import random
import threading
from pathlib import Path
from typing import Any

import pytest
from support import Nmt

RUN = "runs/tiny"
TEST = ["corpus/test.en", "corpus/test.de"]
ODD = [
    *(
        "",
        "   ",
        "\t",
        "a\u2028b\u0085 c",
        "nul\0nul",
        "\x0b \x0c",
        "😀👩‍👩‍👧‍👦 🏳️‍🌈",
        "שלום עולם",
        "▁a▁ ▁",
        "\ufeff",
    ),
    *(
        "<s> </s> <0x0A>",
        "  two  blanks ",
        "a\rb",
        "x" * 60,
        "The dog sees the house.",
        '{"line": 1}',
        "\u3000",
    ),
]


def write(path: Path, lines: list[str], end: str = "\n") -> Path:
    path.write_bytes("".join(f"{line}{end}" for line in lines).encode())
    return path


def records(lines: list[str]) -> list[Any]:
    return [json.loads(line) for line in lines]


def test_scores_are_those_of_translate(tiny_run: Path, tmp_path: Path) -> None:
    """Of every candidate, of lines that were translated in parts too."""
    nmt = Nmt(tiny_run)
    lines = [*ODD, *(tiny_run / "corpus/train.en").read_text().split("\n")[:200]]
    long = ["The dog sees the old house. " * 60, "x" * 1000, "word " * 5000]
    source = write(tmp_path / "s", [*lines[:50], *long, *lines[50:]])
    chosen = tmp_path / "chosen.jsonl.gz"
    options = ["--beam-size", "4", "--n-best", "3", "--length-penalty", "0.4"]
    nmt("translate", RUN, source, *options, "--format", "jsonl", "--output", chosen)
    theirs = records(gzip.decompress(chosen.read_bytes()).decode().split("\n")[:-1])
    done = nmt("score", RUN, source, chosen, "--format", "jsonl", "--length-penalty", "0.4")
    assert done.stderr == ""
    ours = records(done.lines)
    assert [record["line"] for record in ours] == list(range(1, len(theirs) + 1))
    counted = in_parts = 0
    real = {number for number, record in enumerate(theirs, start=1) if record["source"].strip()}
    for mine, their in zip(ours, theirs, strict=True):
        for scored, candidate in zip(mine["translations"], their["translations"], strict=True):
            assert scored["log_probability"] == pytest.approx(
                candidate["log_probability"], abs=1e-4, rel=1e-6
            )
            assert scored["score"] == pytest.approx(candidate["score"], abs=1e-4, rel=1e-6)
            assert [t for t in scored["tokens"] if t != "</s>"] == candidate["tokens"]
            assert len(scored["tokens"]) == len(scored["token_log_probabilities"])
            counted += 1
            in_parts += "parts" in candidate
            assert scored["tokens"].count("</s>") == len(candidate.get("parts", [0])) * bool(
                mine["line"] in real
            )
    assert (counted > 500, in_parts) == (True, 9)
    text = nmt("score", RUN, source, chosen).lines
    for line, mine in zip(text, ours, strict=True):
        assert [float(n) for n in line.split("\t")] == [c["log_probability"] for c in mine["translations"]]
    # Through a pipe the name tells nothing.
    unpacked = gzip.decompress(chosen.read_bytes())
    piped = nmt("score", RUN, source, "-", "--target-format", "jsonl", stdin=unpacked)
    assert piped.lines == text


def test_options_that_shape_scores(tiny_run: Path, tmp_path: Path) -> None:
    """What search was asked for can be asked for here."""
    nmt = Nmt(tiny_run)
    source = write(tmp_path / "s", ["A dog.", "", "The cat sees the old house.", "The dog runs. " * 40])
    options = ["--coverage-penalty", "0.5", "--normalization", "average", "--length-penalty", "0.7"]
    found = nmt("translate", RUN, source, *options, "--beam-size", "3", "--format", "jsonl").stdout
    jsonl = ["--format", "jsonl", "--target-format", "jsonl"]
    done = nmt("score", RUN, source, "-", *options, *jsonl, stdin=found)
    without = nmt("score", RUN, source, "-", *jsonl, stdin=found)
    scores, theirs, others = (
        [record["translations"][0]["score"] for record in records(text)]
        for text in (done.lines, found.decode().splitlines(), without.lines)
    )
    assert scores == pytest.approx(theirs, abs=1e-4, rel=1e-6)
    assert others != pytest.approx(theirs, abs=1e-2)
    wrong = nmt.error("score", RUN, source, source, "--normalization", "sum")
    assert "normalization" in wrong
    wrong = nmt.error("score", RUN, source, source, "--ensemble-by", "probability")
    assert "--ensemble-by is about several models" in wrong


def test_text_and_its_tokens(tiny_run: Path) -> None:
    nmt = Nmt(tiny_run)
    numbers = [float(line) for line in nmt("score", RUN, *TEST).lines]
    found = records(nmt("score", RUN, *TEST, "--format", "jsonl", "--length-penalty", "1").lines)
    targets = (tiny_run / TEST[1]).read_text().split("\n")[:-1]
    assert len(numbers) == len(found) == len(targets) == 40
    for number, record, target in zip(numbers, found, targets, strict=True):
        assert list(record) == ["line", "log_probability", "score", "tokens", "token_log_probabilities"]
        assert record["log_probability"] == number < 0
        assert number == pytest.approx(sum(record["token_log_probabilities"]), abs=1e-9)
        assert record["tokens"][-1] == "</s>"
        text = "".join(record["tokens"][:-1]).replace("▁", " ").replace("<0x3A>", ":")
        assert text.strip() == target
        assert record["score"] == pytest.approx(number / ((5 + len(record["tokens"])) / 6))
    # The whole is the perplexity that nmt evaluate reports.
    rows = json.loads(
        nmt("evaluate", RUN, "--source", TEST[0], "--reference", TEST[1], "--json", "--no-confidence").stdout
    )
    (perplexity,) = (row["score"] for row in rows if row["metric"] == "perplexity")
    tokens = sum(len(record["tokens"]) for record in found)
    assert math.exp(-sum(numbers) / tokens) == pytest.approx(perplexity, rel=1e-4)


def test_an_answer_for_each_pair(tiny_run: Path, tmp_path: Path) -> None:
    nmt = Nmt(tiny_run)
    chance = random.Random(1)
    sides = [[*chance.choices(ODD, k=120), "many words " * 2500, "A dog."] for _ in range(2)]
    sides[0][-1] = "A dog."
    sides[1][-1] = "Wort " * 5000
    files = [write(tmp_path / name, side) for name, side in zip("st", sides, strict=True)]
    done = nmt("score", RUN, *files)
    assert done.stdout.count(b"\n") == 122
    warned = 0
    for number, (source, target, line) in enumerate(zip(*sides, done.lines, strict=True), start=1):
        warnings = [
            w for w in done.stderr.split("\n") if w.startswith(f"nmt: warning: {files[0]}:{number}: ")
        ]
        if number > 120:
            assert line == ""
            assert "not scored" in warnings[0]
        elif not source.strip():
            assert (float(line) == 0.0) == (not target.strip())
            warned += bool(target.strip())
            assert bool(warnings) == (bool(target.strip()) and warned <= 10)  # the others are counted
        else:
            assert -2000 < float(line) < 0
            assert not warnings
    assert f"nmt: warning: {files[0]}: {warned - 10} more lines were like these (" in done.stderr
    assert [
        json.loads(line)["score"] for line in nmt("score", RUN, *files, "--format", "jsonl").lines[-2:]
    ] == [
        None,
        None,
    ]
    windows = [write(tmp_path / f"{name}.w", side, "\r\n") for name, side in zip("st", sides, strict=True)]
    assert nmt("score", RUN, *windows).stdout == done.stdout
    alone = nmt("score", RUN, *files, "--batch-tokens", "1").lines
    for one, other in zip(alone, done.lines, strict=True):
        assert one == other == "" or float(one) == pytest.approx(float(other), abs=1e-4)
    empty = write(tmp_path / "empty", [])
    assert nmt("score", RUN, empty, empty).stdout == b""
    (tmp_path / "empty.jsonl").touch()
    assert nmt("score", RUN, empty, tmp_path / "empty.jsonl").stdout == b""


def test_standard_input_output_and_ensemble(tiny_run: Path, tmp_path: Path) -> None:
    nmt = Nmt(tiny_run)
    expected = nmt("score", RUN, *TEST)
    for place in (0, 1):
        given: list[Any] = list(TEST)
        given[place] = "-"
        assert nmt("score", RUN, *given, stdin=(tiny_run / TEST[place]).read_bytes()).lines == expected.lines
    nmt("score", RUN, *TEST, "--output", tmp_path / "plain")
    nmt("score", RUN, *TEST, "--output", tmp_path / "packed.gz")
    assert (tmp_path / "plain").read_bytes() == expected.stdout
    assert gzip.decompress((tmp_path / "packed.gz").read_bytes()) == expected.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["packed.gz", "plain"]
    # Of each token the mean of the probabilities that the models give it alone.
    models = sorted((tiny_run / RUN / "checkpoints").iterdir())
    first, last, both = (
        records(nmt("score", *given, *TEST, "--format", "jsonl").lines)
        for given in ([models[0]], [models[-1]], [models[0], "--ensemble", models[-1]])
    )
    for one, two, mean in zip(first, last, both, strict=True):
        alone = zip(one["token_log_probabilities"], two["token_log_probabilities"], strict=True)
        expected_mean = [math.log((math.exp(a) + math.exp(b)) / 2) for a, b in alone]
        assert mean["token_log_probabilities"] == pytest.approx(expected_mean, abs=1e-5)
        assert mean["log_probability"] != one["log_probability"] != two["log_probability"]
    os.mkfifo(tmp_path / "pipe")
    feed = threading.Thread(
        target=lambda: (tmp_path / "pipe").write_bytes((tiny_run / TEST[0]).read_bytes()), daemon=True
    )
    feed.start()
    assert nmt("score", RUN, tmp_path / "pipe", TEST[1]).lines == expected.lines
    feed.join(5)


def test_what_came_before_an_error_is_kept(tiny_run: Path, tmp_path: Path) -> None:
    nmt = Nmt(tiny_run)
    chosen = nmt("translate", RUN, TEST[0], "--format", "jsonl").lines
    expected = nmt("score", RUN, TEST[0], write(tmp_path / "good.jsonl", chosen)).lines
    chosen[7] = chosen[7].replace('"tokens": [', '"tokens": ["no such token", ')
    bad = write(tmp_path / "bad.jsonl", chosen)
    done = nmt("score", RUN, TEST[0], bad, expect=2)
    assert done.lines == expected[:7]
    assert f"{bad}:8: the token 'no such token' is not in its vocabulary" in done.stderr
    output = tmp_path / "scores"
    nmt("score", RUN, TEST[0], bad, "--output", output, expect=2)
    assert not output.exists()
    assert [path.name for path in tmp_path.glob(".*")] == []
    assert (tmp_path / "scores.unfinished").read_text().split("\n")[:-1] == expected[:7]
    # Of a pipe the length is known at its end.
    short = b"".join((tiny_run / TEST[0]).read_bytes().splitlines(keepends=True)[:9])
    done = nmt("score", RUN, "-", TEST[1], stdin=short, expect=2)
    assert len(done.lines) == 9
    assert f"{TEST[1]} is longer: <stdin> has 9 lines and {TEST[1]} has 40" in done.stderr


def test_another_source_is_warned_of_once(tiny_run: Path, tmp_path: Path) -> None:
    nmt = Nmt(tiny_run)
    chosen = tmp_path / "chosen.jsonl"
    nmt("translate", RUN, TEST[0], "--format", "jsonl", "--output", chosen)
    lines = (tiny_run / TEST[0]).read_text().split("\n")[:-1]
    swapped = write(tmp_path / "swapped", [lines[0], lines[2], lines[1], *lines[3:]])
    done = nmt("score", RUN, swapped, chosen)
    assert len(done.lines) == 40
    assert done.stderr == (
        f"nmt: warning: {chosen}:2: made from another source than that line of {swapped}, "
        "given which it is scored\n"
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("corpus/test.en corpus/train.de", "40 lines, but corpus/train.de has 300"),
        ("corpus/test.en three.jsonl", "corpus/test.en is longer: corpus/test.en has 40 lines and"),
        ("three three.jsonl", 'three.jsonl:2: the record says "line": 3 where 2 is due'),
        ("three text.jsonl", "text.jsonl:1: this is not a JSON record"),
        ("three latin", "latin:2: byte 5 is not valid UTF-8"),
        ("three empty", "empty: the file is empty beside 3 lines in"),
        ("absent corpus/test.de", "absent: no such file"),
        ("corpus/test.en absent.jsonl", "absent.jsonl: no such file"),
        ("corpus corpus/test.de", "corpus: this is a folder"),
        ("- -", "cannot both be standard input"),
        ("corpus/test.en corpus/test.de --format json", "--format json is not known; use text or jsonl"),
        ("corpus/test.en corpus/test.de --target-format csv", "--target-format csv is not known"),
        ("corpus/test.en corpus/test.de --length-penalty nan", "--length-penalty"),
        ("corpus/test.en corpus/test.de --length-penalty -1", "--length-penalty"),
        ("corpus/test.en corpus/test.de --output corpus", "corpus: is a folder"),
        ("corpus/test.en corpus/test.de --output corpus/test.de", "corpus/test.de: is the input too"),
        ("corpus/test.en corpus/test.de --ensemble corpus", "corpus: holds no model"),
        ("corpus/test.en corpus/test.de --device gpu", "gpu"),
    ],
)
def test_refuses(tiny_run: Path, tmp_path: Path, given: str, message: str) -> None:
    write(tmp_path / "three", ["A dog.", "A cat.", "A house."])
    write(
        tmp_path / "three.jsonl", [f'{{"line": {n}, "translations": [{{"tokens": []}}]}}' for n in (1, 3, 2)]
    )
    write(tmp_path / "text.jsonl", ["Ein Hund.", "Eine Katze.", "Ein Haus."])
    (tmp_path / "latin").write_bytes(b"Ein\nZw\xc3\xb6\xf6lf\nDrei\n")
    (tmp_path / "empty").touch()
    made = ("three", "three.jsonl", "text.jsonl", "latin", "empty")
    arguments = [tmp_path / word if word in made else word for word in given.split()]
    assert message in Nmt(tiny_run).error("score", RUN, *arguments)
