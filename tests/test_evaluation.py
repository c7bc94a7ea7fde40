"""Scores are sacreBLEU's: those of its own command line on the same files, to the last digit it prints."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import Nmt

from nmt.data.corpus import read_lines
from nmt.data.synthetic import generate
from nmt.errors import UserError
from nmt.evaluation import bleu, evaluate, perplexity
from nmt.results import Row, add_rows, read_rows

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


def sacrebleu(
    folder: Path, hypotheses: list[str], references: list[list[str]], *options: str
) -> list[dict[str, Any]]:
    """What `sacrebleu --format json` says: name, score, signature and, with -ci, mean and half width."""
    files = [write(folder / f"reference.{i}", lines) for i, lines in enumerate(references)]
    system = write(folder / "system", hypotheses)
    given = [*files, "--input", system, "--format", "json", "--width", str(DIGITS), "--force", *options]
    done = subprocess.run(
        [sys.executable, "-m", "sacrebleu", *given, "--metrics", "bleu", "chrf", "ter"],
        capture_output=True,
        text=True,
        check=True,
        env={k: v for k, v in os.environ.items() if not k.startswith("SACREBLEU")},
    )
    answers: list[dict[str, Any]] = json.loads(done.stdout)
    return answers


def printed(number: float) -> float:
    return float(f"{number:.{DIGITS}f}")


TEXTS = {"ordinary": ORDINARY, "hostile": HOSTILE}
LOWERCASE = ["--lowercase", "--chrf-lowercase"]


@pytest.mark.parametrize(
    ("text", "references", "chosen", "options"),
    [
        ("ordinary", 1, {}, []),
        ("ordinary", 3, {"lowercase": True}, LOWERCASE),
        ("ordinary", 1, {"tokenize": "none"}, ["--tokenize", "none"]),
        ("hostile", 1, {}, []),
        ("hostile", 2, {"tokenize": "char", "lowercase": True}, ["--tokenize", "char", *LOWERCASE]),
        ("hostile", 1, {"tokenize": "none"}, ["--tokenize", "none"]),
    ],
)
def test_scores_are_those_of_the_sacrebleu_command(
    tmp_path: Path, text: str, references: int, chosen: dict[str, Any], options: list[str]
) -> None:
    lines = TEXTS[text]
    hypotheses = disturbed(lines, seed=0)
    right = [lines, *(disturbed(lines, seed=i) for i in range(1, references))]
    expected = sacrebleu(tmp_path, hypotheses, right, *options)
    found = evaluate(hypotheses, right, **chosen)
    assert [(f.metric, printed(f.score)) for f in found] == [(e["name"], e["score"]) for e in expected]
    assert [f.signature for f in found] == [e["signature"] for e in expected]
    assert all(0 < f.score < 100 for f in found)


def test_intervals_are_those_of_the_sacrebleu_command(tmp_path: Path) -> None:
    hypotheses = disturbed(ORDINARY, seed=0)
    expected = sacrebleu(tmp_path, hypotheses, [ORDINARY], "--confidence")
    found = evaluate(hypotheses, [ORDINARY], confidence=True)
    for score, answer in zip(found, expected, strict=True):
        # sacreBLEU gives some in float32, which JSON has no word for.
        assert type(score.confidence_low) is float
        assert type(score.confidence_high) is float
        # The command prints the middle and half the width.
        middle, half = answer["confidence_mean"], answer["confidence_var"]
        assert score.confidence_low == pytest.approx(middle - half, abs=1e-5)
        assert score.confidence_high == pytest.approx(middle + half, abs=1e-5)
        assert score.signature == answer["signature"]
        assert "|bs:1000|seed:12345|" in score.signature
        assert score.confidence_low < score.score < score.confidence_high


def test_intervals_of_a_test_set_so_small_that_some_resamples_have_nothing_right() -> None:
    found = evaluate(["Der Hund", "", "x"], [["Ein Hund.", "Wort " * 200, "Wort"]], confidence=True)
    for score in found:
        assert type(score.confidence_low) is float
        assert score.confidence_low <= score.score


def test_bleu_is_the_default_bleu() -> None:
    hypotheses = disturbed(ORDINARY, seed=0)
    assert bleu(hypotheses, ORDINARY) == evaluate(hypotheses, [ORDINARY])[0].score
    assert bleu(ORDINARY, ORDINARY) == pytest.approx(100)
    assert bleu([""] * len(ORDINARY), ORDINARY) == 0


def test_perplexity() -> None:
    assert perplexity(0.0) == 1
    assert perplexity(1.0) == pytest.approx(2.718281828)
    # JSON knows no infinity.
    assert json.loads(json.dumps(perplexity(1e6), allow_nan=False)) > 1e300


def test_what_is_not_parallel_is_refused() -> None:
    with pytest.raises(UserError, match="there are no lines"):
        evaluate([], [[]])
    with pytest.raises(UserError, match="reference 2 has 1 lines and the translation 2"):
        evaluate(["a", "b"], [["a", "b"], ["a"]])
    with pytest.raises(UserError, match=r"--tokenize 13b is not one of sacreBLEU's: 13a, .*none"):
        evaluate(["a"], [["a"]], tokenize="13b")


# The command

KEYS = {
    *("system", "test_set", "metric", "score", "confidence_low", "confidence_high"),
    *("signature", "parameters", "train_seconds", "device"),
}


@pytest.fixture
def scored(tmp_path: Path) -> Nmt:
    """A folder with `reference.de`, the good `a.de` and the worse `b.de`."""
    write(tmp_path / "reference.de", ORDINARY)
    write(tmp_path / "a.de", [*ORDINARY[:50], *disturbed(ORDINARY[50:], seed=1)])
    write(tmp_path / "b.de", disturbed(ORDINARY, seed=2))
    return Nmt(tmp_path)


def test_command_scores_files_in_a_table_and_in_json(scored: Nmt) -> None:
    given = ["evaluate", "--system", "good=a.de", "--system", "bad=b.de", "--reference", "reference.de"]
    rows = json.loads(scored(*given, "--json").stdout)
    names = [(system, metric) for system in ("good", "bad") for metric in ("BLEU", "chrF2", "TER")]
    assert [(row["system"], row["metric"]) for row in rows] == names
    for row in rows:
        assert row.keys() == KEYS
        assert row["test_set"] == "reference"
        assert row["confidence_low"] <= row["score"] <= row["confidence_high"]
    lines = list(read_lines(scored.folder / "b.de"))
    expected = evaluate(lines, [ORDINARY], confidence=True)
    assert [row["score"] for row in rows[3:]] == [round(e.score, 4) for e in expected]
    assert [row["signature"] for row in rows[3:]] == [e.signature for e in expected]

    title, header, *table, bleu_, chrf, ter = scored(*given).lines
    assert title == "reference, 60 lines"
    assert header.split() == ["system", "metric", "score", "95", "%", "interval"]
    assert [line.split() for line in table] == [
        [
            *(row["system"], row["metric"], f"{row['score']:.2f}"),
            *(f"{row['confidence_low']:.2f}", "-", f"{row['confidence_high']:.2f}"),
        ]
        for row in rows
    ]
    assert [bleu_, chrf, ter] == [f"{row['metric']} {row['signature']}" for row in rows[:3]]


def test_command_options_are_sacrebleus(scored: Nmt) -> None:
    given = ["evaluate", "--system", "b=b.de", "--reference", "reference.de", "--reference", "a.de"]
    options = ["--no-confidence", "--lowercase", "--tokenize", "char", "--test-set", "mine"]
    rows = json.loads(scored(*given, *options, "--json").stdout)
    lines, other = (list(read_lines(scored.folder / name)) for name in ("b.de", "a.de"))
    expected = evaluate(lines, [ORDINARY, other], lowercase=True, tokenize="char")
    assert [row["score"] for row in rows] == [round(e.score, 4) for e in expected]
    assert [row["signature"] for row in rows] == [e.signature for e in expected]
    assert {(row["test_set"], row["confidence_low"], row["confidence_high"]) for row in rows} == {
        ("mine", None, None)
    }
    assert "nrefs:2|case:lc|eff:no|tok:char|" in rows[0]["signature"]
    assert "interval" not in scored(*given, "--no-confidence").lines[1]


def test_command_translates_and_scores_a_model(tiny_run: Path, tmp_path: Path) -> None:
    nmt = Nmt(tiny_run)
    test = ["--source", "corpus/test.en", "--reference", "corpus/test.de"]
    options = ["--output", tmp_path / "out" / "test.de", "--beam-size", "1", "--json"]
    rows = json.loads(nmt("evaluate", "runs/tiny/best", *test, *options).stdout)
    assert [row["metric"] for row in rows] == ["BLEU", "chrF2", "TER", "perplexity"]
    info = json.loads(nmt("info", "runs/tiny", "--json").stdout)
    for row in rows:
        assert row.keys() == KEYS
        assert (row["system"], row["test_set"]) == ("tiny", "test")
        assert row["parameters"] == info["parameters"]["total"]
        assert row["train_seconds"] == info["manifest"]["train_seconds"] > 0
        assert row["device"] == "cpu" or row["device"].startswith("cuda")
    # What was scored is what `nmt translate` writes, and it can be scored again.
    translated = nmt("translate", "runs/tiny", "corpus/test.en", "--beam-size", "1").stdout
    assert (tmp_path / "out" / "test.de").read_bytes() == translated
    again = json.loads(nmt("evaluate", "--system", f"x={tmp_path}/out/test.de", *test[2:], "--json").stdout)
    assert [row["score"] for row in again] == [row["score"] for row in rows[:3]]


def test_results_tables_are_added_to_and_rows_replaced(scored: Nmt) -> None:
    given = ["evaluate", "--reference", "reference.de", "--results", "tables/results.json"]
    scored(*given, "--system", "a=a.de")
    path = scored.folder / "tables" / "results.json"
    first = json.loads(path.read_text())
    assert len(first) == 3
    assert all(row.keys() == KEYS for row in first)
    scored(*given, "--system", "a=a.de")
    assert json.loads(path.read_text()) == first
    # The same system, test set and metric with another translation: replaced where it stood.
    (scored.folder / "a.de").write_bytes((scored.folder / "reference.de").read_bytes())
    scored(*given, "--system", "b=b.de", "--system", "a=a.de")
    second = json.loads(path.read_text())
    assert [(row["system"], row["metric"]) for row in second] == [
        (system, metric) for system in "ab" for metric in ("BLEU", "chrF2", "TER")
    ]
    assert second[0]["score"] == 100
    title, _, *table = path.with_suffix(".md").read_text().split("\n")
    assert title == "| system | test set | BLEU | chrF2 | TER | parameters | training | device |"
    assert [line.split(" | ")[:2] for line in table[:2]] == [["| a", "reference"], ["| b", "reference"]]
    assert table[0].split(" | ")[2] == "100.00 (100.0-100.0)"
    assert table[3:] == [*(f"- {row['metric']}: `{row['signature']}`" for row in second[:3]), ""]
    # Measured in another way, a number is another row.
    scored(*given, "--system", "a=a.de", "--lowercase")
    assert len(json.loads(path.read_text())) == 8  # TER has no case as it is
    assert [p.name for p in path.parent.iterdir() if "partial" in p.name] == []


def test_results_table_shows_every_row(tmp_path: Path) -> None:
    rows = [
        Row("s", "t", "BLEU", score, None, None, f"case:{case}")
        for score, case in ((12, "mixed"), (34, "lc"))
    ]
    add_rows(tmp_path / "results.json", rows)
    table = (tmp_path / "results.md").read_text()
    assert "12.00" in table
    assert "34.00" in table


def test_results_table_of_a_trained_system(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    row = Row("s", "t", "BLEU", 12.3456, 11.0, 13.0, "sig", 1_234_567, 90.0, "cpu")
    add_rows(path, [row])
    assert read_rows(path) == [row]
    assert "| s | t | 12.35 (11.0-13.0) | 1,234,567 | 1.5 min | cpu |" in path.with_suffix(".md").read_text()
    assert read_rows(tmp_path / "absent.json") == []
    for wrong in ("{", "[1]", '[{"system": "s"}]', '{"system": "s"}'):
        path.write_text(wrong)
        with pytest.raises(UserError, match="is not a results table"):
            read_rows(path)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("--system a=a.de", "no reference given; add --reference FILE"),
        ("--reference reference.de", "give either MODEL with --source, or --system NAME=FILE"),
        ("m --system a=a.de --reference reference.de", "give either MODEL"),
        ("m --reference reference.de", "add --source FILE"),
        ("--system a.de --reference reference.de", "--system a.de is not of the form NAME=FILE"),
        ("--system a=short.de --reference reference.de", "short.de: has 1 lines and reference.de has 60"),
        ("m --source short.de --reference reference.de", "short.de: has 1 lines and reference.de has 60"),
        (
            "--system a=a.de --reference reference.de --reference short.de",
            "short.de: has 1 lines and reference.de has 60",
        ),
        ("--system a=empty.de --reference empty.de", "there are no lines to evaluate"),
        ("--system a=absent.de --reference reference.de", "absent.de"),
        ("--system a=a.de --reference reference.de --tokenize 13b", "13b is not one of sacreBLEU's"),
    ],
)
def test_command_refuses(scored: Nmt, given: str, message: str) -> None:
    write(scored.folder / "short.de", ["eine Zeile"])
    write(scored.folder / "empty.de", [])
    assert message in scored.error("evaluate", *given.split())
