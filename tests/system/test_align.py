"""nmt align: a line of links for each pair of lines, whatever they hold; and what nmt evaluate adds."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest
from support import Nmt

from nmt.translator import Translator
from nmt.words import split_words

RUN = "runs/tiny"
TEST = ["corpus/test.en", "corpus/test.de"]
GOLD = ["--gold", "corpus/test.align", "--words", "punctuation"]
ODD = [
    *("", "   ", "\t", "a\u2028b\u0085 c", "nul\0nul", "\x0b \x0c", "😀👩‍👩‍👧‍👦 🏳️‍🌈", "שלום עולם", "▁a▁ ▁"),
    *("<s> </s> <0x0A>", "  two  blanks ", "a\rb", "x" * 60, "The dog sees the house.", "\ufeff", "3-4 0-0"),
]


def test_a_line_of_links_for_each_pair(tiny_run: Path, tmp_path: Path) -> None:
    nmt = Nmt(tiny_run)
    chance = random.Random(1)
    sides = [chance.choices(ODD, k=80) for _ in range(2)]
    for name, side in zip(("s", "t"), sides, strict=True):
        (tmp_path / name).write_bytes("".join(f"{line}\n" for line in side).encode())
    for words in ("blank", "punctuation"):
        found = nmt("align", RUN, tmp_path / "s", tmp_path / "t", "--words", words).lines
        assert len(found) == 80
        for source, target, line in zip(*sides, found, strict=True):
            assert re.fullmatch(r"(\d+-\d+( \d+-\d+)*)?", line)
            linked = [tuple(map(int, link.split("-"))) for link in line.split()]
            counts = len(split_words(source, words)), len(split_words(target, words))
            assert all(i < counts[0] and j < counts[1] for i, j in linked)
            assert [j for _, j in linked] == sorted({j for _, j in linked})
            if not (source.strip() and target.strip()):
                assert line == ""
    # Alone a pair has the links it has in company.
    text = f"{sides[0][7]}\n".encode()
    (tmp_path / "one").write_bytes(f"{sides[1][7]}\n".encode())
    alone = nmt("align", RUN, "-", tmp_path / "one", "--words", "punctuation", stdin=text)
    assert alone.lines == found[7:8]


def test_what_is_too_long_is_left_unaligned(tiny_run: Path, tmp_path: Path) -> None:
    (tmp_path / "s").write_text("A dog.\n" + "word " * 200 + "\nA cat.\nA cat.\n")
    (tmp_path / "t").write_text("Ein Hund.\nWort\n" + "Wort " * 200 + "\nEine Katze.\n")
    done = Nmt(tiny_run)("align", RUN, tmp_path / "s", tmp_path / "t")
    assert [bool(line) for line in done.lines] == [True, False, False, True]
    warnings = done.stderr.split("\n")[:-1]
    assert [line.partition(": the pair is too long")[0] for line in warnings] == [
        f"nmt: warning: {tmp_path}/s:{number}" for number in (2, 3)
    ]
    empty = tmp_path / "empty"
    empty.write_text("")
    assert Nmt(tiny_run)("align", RUN, empty, empty).stdout == b""


def test_error_rate(tiny_run: Path, tmp_path: Path) -> None:
    nmt = Nmt(tiny_run)
    done = nmt("align", RUN, *TEST, *GOLD)
    found = json.loads(nmt("align", RUN, *TEST, *GOLD, "--json", "--output", tmp_path / "links").stdout)
    assert found["links"] == done.lines == (tmp_path / "links").read_text().split("\n")[:-1]
    assert (found["lines"], found["words"], found["layer"], found["head"]) == (40, "punctuation", None, None)
    gold = (tiny_run / "corpus/test.align").read_text().split("\n")[:-1]
    ours = {(n, link) for n, line in enumerate(done.lines) for link in line.split()}
    right = {(n, link) for n, line in enumerate(gold) for link in line.split()}
    assert found["aer"] == round(1 - 2 * len(ours & right) / (len(ours) + len(right)), 4)
    assert found["precision"] == round(len(ours & right) / len(ours), 4)
    assert found["recall"] == round(len(ours & right) / len(right), 4)
    numbers = f"{found['aer']:.4f} (precision {found['precision']:.4f}, recall {found['recall']:.4f}"
    assert done.stderr == f"AER {numbers}, 40 lines; mean of layers, mean of heads)\n"
    # The gold against itself, counted from 1.
    from_one = re.sub(r"\d+", lambda number: str(int(number[0]) + 1), "\n".join([*gold, ""]))
    (tmp_path / "one").write_text(from_one)
    again = nmt("align", RUN, *TEST, "--words", "punctuation", "--gold", tmp_path / "one", "--gold-base", "1")
    assert again.stderr == done.stderr
    nothing = json.loads(nmt("align", RUN, *TEST, "--json").stdout)
    assert (nothing["aer"], nothing["precision"], nothing["recall"]) == (None, None, None)


def test_layers_and_heads(tiny_run: Path) -> None:
    nmt = Nmt(tiny_run)
    first, second = (
        json.loads(nmt("align", RUN, *TEST, *GOLD, "--layer", "1", "--head", head, "--json").stdout)
        for head in "12"
    )
    assert (first["layer"], first["head"]) == (1, 1)
    assert first["links"] != second["links"]
    mean = json.loads(nmt("align", RUN, *TEST, *GOLD, "--layer", "1", "--json").stdout)
    best = json.loads(nmt("align", RUN, *TEST, *GOLD, "--layer", "best", "--json").stdout)
    assert best["aer"] == min(found["aer"] for found in (first, second, mean))
    assert best in (first, second, mean | {"layer": None})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("corpus/test.en corpus/train.de", "corpus/test.en"),
        ("corpus/test.en corpus/train.de", "40 lines, but corpus/train.de has 300"),
        ("absent corpus/test.de", "absent: no such file"),
        ("- -", "cannot both be standard input"),
        (
            "corpus/test.en corpus/test.de --words token",
            "--words token is not known; use blank or punctuation",
        ),
        ("corpus/test.en corpus/test.de --head 1", "--head 1 needs --layer"),
        ("corpus/test.en corpus/test.de --layer 2", "no attention layer 2; leave it out"),
        ("corpus/test.en corpus/test.de --layer 1 --head 3", "no attention head 3; choose 1 to 2"),
        ("corpus/test.en corpus/test.de --layer first", "--layer first is not a number from 1, nor best"),
        ("corpus/test.en corpus/test.de --layer best", "--layer best needs a gold alignment"),
        ("corpus/test.en corpus/test.de --gold corpus/test.align", "test.align:1: link"),
        ("corpus/test.en corpus/test.de --gold corpus/test.align", "are inside with --words punctuation"),
        ("corpus/test.en corpus/test.de --gold corpus/train.align", "has 300 lines for 40 sentence pairs"),
        ("corpus/test.en corpus/test.de --gold corpus/test.de", "test.de:1: "),
        ("corpus/test.en corpus/test.de --output corpus", "corpus: is a folder"),
        ("corpus/test.en corpus/test.de --output corpus/test.de", "corpus/test.de: is the input too"),
    ],
)
def test_refuses(tiny_run: Path, given: str, message: str) -> None:
    assert message in Nmt(tiny_run).error("align", RUN, *given.split())


# nmt evaluate

EVALUATE = ["evaluate", RUN, "--source", "corpus/test.en", "--reference", "corpus/test.de"]


def test_evaluate_measures_the_alignment_and_the_perplexity(tiny_run: Path, tmp_path: Path) -> None:
    nmt = Nmt(tiny_run)
    gold = ["--gold-alignment", "corpus/test.align", "--words", "punctuation"]
    results = ["--results", tmp_path / "results.json"]
    lines = nmt(*EVALUATE, *gold, *results).lines
    rows = json.loads((tmp_path / "results.json").read_text())
    assert [row["metric"] for row in rows] == ["BLEU", "chrF2", "TER", "perplexity", "AER"]
    aer = json.loads(nmt("align", RUN, *TEST, *GOLD, "--json").stdout)["aer"]
    assert rows[4]["score"] == aer
    assert rows[4]["signature"].startswith("words:punctuation|layer:mean|head:mean|links:argmax|nmt:")
    assert rows[3]["signature"].startswith("tokens:bpe|vocabulary:400|nmt:")
    assert [row["confidence_low"] is None for row in rows] == [False] * 3 + [True] * 2
    assert lines[5].split() == ["tiny", "perplexity", f"{rows[3]['score']:.2f}"]
    assert lines[6].split() == ["tiny", "AER", f"{aer:.4f}"]
    assert f" {aer:.4f} " in (tmp_path / "results.md").read_text()
    best = json.loads(nmt(*EVALUATE, *gold, "--layer", "best", "--json").stdout)[4]
    assert best["score"] <= aer


def test_perplexity_is_that_of_validation(tiny_run: Path) -> None:
    events = map(json.loads, (tiny_run / RUN / "metrics.jsonl").read_text().splitlines())
    expected = [event["perplexity"] for event in events if event["event"] == "validation"][-1]
    test = ["--source", "corpus/validation.en", "--reference", "corpus/validation.de", "--json"]
    rows = json.loads(Nmt(tiny_run)("evaluate", f"{RUN}/last", *test).stdout)
    assert rows[3]["score"] == pytest.approx(expected, rel=1e-3)


def test_perplexity_leaves_out_what_is_too_long(tiny_run: Path, tmp_path: Path) -> None:
    (tmp_path / "s").write_text("A dog.\nA dog.\n" + "word " * 200 + "\n")
    (tmp_path / "t").write_text("Ein Hund.\n" + "Wort " * 200 + "\nWort\n")
    test = ["--source", tmp_path / "s", "--reference", tmp_path / "t", "--json"]
    done = Nmt(tiny_run)("evaluate", RUN, *test)
    assert "2 of 3 pairs are too long" in done.stderr
    assert "|left-out:2|" in json.loads(done.stdout)[3]["signature"]


def test_another_search_is_another_row(tiny_run: Path, tmp_path: Path) -> None:
    """Rows of beam 1 and of the model's own beam stand side by side."""
    nmt = Nmt(tiny_run)
    options = ["--no-confidence", "--results", tmp_path / "results.json"]
    nmt(*EVALUATE, *options)
    nmt(*EVALUATE, *options, "--beam-size", "2", "--length-penalty", "1.0")  # as configured
    assert len(json.loads((tmp_path / "results.json").read_text())) == 4
    nmt(*EVALUATE, *options, "--beam-size", "1", "--length-penalty", "0.5")
    rows = json.loads((tmp_path / "results.json").read_text())
    assert len(rows) == 7  # the perplexity does not depend on search
    assert rows[4]["signature"] == rows[0]["signature"] + "|beam:1|penalty:0.5"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("--reference corpus/train.de", "corpus/train.de: has 300 lines and corpus/test.de has 40"),
        ("--tokenize 13b", "13b is not one of sacreBLEU's"),
        ("--gold-alignment corpus/test.align", "are inside with --words punctuation"),
        ("--gold-alignment corpus/test.align --words punctuation --layer 9", "no attention layer 9"),
        ("--layer 1", "--gold-alignment"),
        ("--results corpus/test.en", "is not a results table"),
        ("--output corpus", "corpus: is a folder"),
    ],
)
def test_evaluate_finds_mistakes_before_it_translates(
    tiny_run: Path, monkeypatch: pytest.MonkeyPatch, given: str, message: str
) -> None:
    def translate(*_: object) -> None:
        raise AssertionError("it translates")

    monkeypatch.setattr(Translator, "translate", translate)
    assert message in Nmt(tiny_run).error(*EVALUATE, *given.split())


def test_alignment_goes_with_a_model(tiny_run: Path) -> None:
    given = ["--system", "x=corpus/test.de", "--reference", "corpus/test.de", "--gold-alignment", "x"]
    assert "go with MODEL" in Nmt(tiny_run).error("evaluate", *given)
