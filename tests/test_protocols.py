"""Scores and texts as papers had them, against computations of others."""

from __future__ import annotations

import gzip
import json
import math
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt.data.synthetic import generate
from nmt.errors import UserError

pytest.importorskip("sacremoses", reason="needs sacremoses: pip install -e '.[recipes]'")

from exported import random_model, tokenizer
from protocols import moses
from protocols.__main__ import main
from protocols.score import TOKENISED, Protocol
from protocols.text import Cleaning, join, prepare

HYPOTHESES = [
    "Der reich-verzierte Text, sagte er, ist gut.",
    "Das E-Mail-Programm kostet 3,50 Euro (heute).",
    "Ein Haus am See.",
]
REFERENCES = [
    "Der reich-verzierte Text, sagte sie, ist sehr gut.",
    "Das E-Mail-Programm kostet heute 3,50 Euro (heute).",
    "Ein kleines Haus am See.",
]
# By hand, from the rules of Moses's tokenizer.perl -l de.
TOKENS = [
    "Der reich-verzierte Text , sagte er , ist gut .",
    "Das E-Mail-Programm kostet 3,50 Euro ( heute ) .",
    "Ein Haus am See .",
]


def multi_bleu(hypotheses: list[str], references: list[str]) -> float:
    """Papineni et al. 2002 as multi-bleu.perl has it: tokens at blanks, no smoothing."""
    matches, totals = [0] * 4, [0] * 4
    lengths = [0, 0]
    for hypothesis, reference in zip(hypotheses, references, strict=True):
        left, right = hypothesis.split(), reference.split()
        lengths = [lengths[0] + len(left), lengths[1] + len(right)]
        for n in range(4):
            counts = [Counter(tuple(w[i : i + n + 1]) for i in range(len(w) - n)) for w in (left, right)]
            matches[n] += sum((counts[0] & counts[1]).values())
            totals[n] += sum(counts[0].values())
    precision = sum(math.log(m / t) for m, t in zip(matches, totals, strict=True)) / 4
    return 100 * math.exp(precision + min(0.0, 1 - lengths[1] / lengths[0]))


def test_tokens() -> None:
    assert list(moses.tokenise(HYPOTHESES, "de")) == TOKENS
    assert list(moses.detokenise(TOKENS, "de")) == HYPOTHESES


def test_english_tokens_and_what_moses_escapes() -> None:
    assert list(moses.tokenise(["He doesn't, at 5 o'clock & so [on]."], "en")) == [
        "He doesn 't , at 5 o 'clock & so [ on ] ."
    ]
    assert list(moses.detokenise(["it &apos;s &quot; fine &quot; ."], "en")) == ['it\'s "fine".']


@pytest.mark.parametrize("compounds", [False, True])
def test_bleu_is_that_of_multi_bleu(compounds: bool) -> None:
    protocol = Protocol("de", compounds=compounds)
    (score,) = protocol.scores(HYPOTHESES, REFERENCES)
    sides = [list(moses.tokenise(lines, "de")) for lines in (HYPOTHESES, REFERENCES)]
    if compounds:  # by hand: each hyphen between characters, of two in a row of one letter the first
        sides = [[moses.split_compounds(line) for line in lines] for lines in sides]
        assert "reich ##AT##-##AT## verzierte" in sides[0][0]
    assert score.score == pytest.approx(multi_bleu(*sides), abs=1e-6)
    assert score.metric == TOKENISED
    assert score.signature.startswith("nrefs:1|bs:1000")
    assert f"|text:sacremoses-{moses.sacremoses().__version__}-de" in score.signature
    assert score.signature.endswith("+ATAT") == compounds


def test_compounds_change_the_score() -> None:
    one, other = (Protocol("de", compounds=c).scores(HYPOTHESES, REFERENCES)[0].score for c in (True, False))
    assert one > other


@settings(deadline=None, max_examples=30)  # each starts a perl
@given(st.lists(st.text("ab- -é\u00a0", max_size=12), min_size=1, max_size=20))
def test_compounds_are_split_as_perl_does(lines: list[str]) -> None:
    """The command of tensor2tensor's get_ende_bleu.sh, of which this is the only line that is not Moses."""
    if shutil.which("perl") is None:
        pytest.skip("needs perl, which the command is written for")
    script = "s{(\\S)-(\\S)}{$1 ##AT##-##AT## $2}g"
    text = "\n".join(lines) + "\n"
    done = subprocess.run(
        ["perl", "-CSD", "-ple", script], input=text.encode(), capture_output=True, check=True
    )
    assert [moses.split_compounds(line) for line in lines] == done.stdout.decode().split("\n")[:-1]


def test_tokens_that_are_there_already() -> None:
    """Given tokens are counted as they are, and text is made of them for sacreBLEU's own tokeniser."""
    references = list(moses.tokenise(REFERENCES, "de"))
    given = Protocol("de", given=True).scores(TOKENS, references, REFERENCES)
    made = Protocol("de", given=True).scores(TOKENS, references)
    whole = Protocol("de").scores(HYPOTHESES, REFERENCES)
    assert given[0].score == made[0].score == whole[0].score
    assert [score.metric for score in given] == [TOKENISED, "BLEU", "chrF2", "chrF2++", "TER"]
    assert "|text:given" in given[0].signature
    assert "tok:13a" in given[1].signature
    assert given[1].signature.endswith("-detokenised")
    assert made[1].signature.endswith("-detokenised|reference:detokenised")
    for score in (given[1], made[1]):  # these sentences come back from their tokens
        assert score.score == pytest.approx(sacrebleu.corpus_bleu(HYPOTHESES, [REFERENCES]).score)
    lower = Protocol("de", lowercase=True).scores([h.upper() for h in HYPOTHESES], REFERENCES)
    assert "case:lc" in lower[0].signature


def test_in_processes_as_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [pair.target for pair in generate("train", 60)] + ["", " ", "\u2028 x"]
    alone = list(moses.tokenise(lines, "de"))
    assert len(alone) == len(lines)
    monkeypatch.setattr(moses, "FEW_LINES", 5)
    monkeypatch.setattr(moses, "CHUNK_LINES", 7)
    monkeypatch.setattr(moses.os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    assert list(moses.tokenise(iter(lines), "de")) == alone


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    """Twelve pairs, of which Moses's clean-corpus-n.perl -ratio 1.5 with 1 to 6 tokens keeps eight."""
    pairs = [("Ja.", "Yes.")] * 7
    pairs[2] = ("", "Yes.")  # blank
    pairs[4] = ("a b c d e f g", "a b c d e f")  # too long
    pairs += [
        ("a b c d", "a b"),
        ("a b c", "a b"),
        ("a b", "a b c d"),
        ("Groß  ’s", "Big ’s"),
        ("Bald.", "Soon."),
    ]
    for language, lines in zip(("de", "en"), zip(*pairs, strict=True), strict=True):
        (tmp_path / f"c.{language}").write_text("".join(f"{line}\n" for line in lines))
    return str(tmp_path / "c")


def read(path: Path) -> list[str]:
    return path.read_text().split("\n")[:-1]


def test_cleaning_and_holding_out(corpus: str, tmp_path: Path) -> None:
    cleaning = Cleaning(lowercase=True, most=6, ratio=1.5)
    counts = prepare(
        [corpus], ("de", "en"), tmp_path / "train", cleaning, every=3, held_out=tmp_path / "valid"
    )
    assert counts == (8, 12)
    # Of the eight the third and the sixth.
    assert read(tmp_path / "train.de") == ["ja .", "ja .", "ja .", "ja .", "groß ’ s", "bald ."]
    assert read(tmp_path / "train.en") == ["yes .", "yes .", "yes .", "yes .", "big ’ s", "soon ."]
    assert read(tmp_path / "valid.de") == ["ja .", "a b c"]
    assert read(tmp_path / "valid.en") == ["yes .", "a b"]


def test_without_cleaning_nothing_is_lost(corpus: str, tmp_path: Path) -> None:
    prepare([corpus, corpus], ("de", "en"), tmp_path / "all.gz", Cleaning(straight=True))
    lines = gzip.decompress((tmp_path / "all.de.gz").read_bytes()).decode().split("\n")[:-1]
    assert len(lines) == 24
    assert lines[2] == ""
    assert "Groß ' s" in lines
    assert join([corpus, corpus], "en", tmp_path / "joined", lowercase=True) == 24
    assert read(tmp_path / "joined")[0] == "yes."


def test_unequal_sides_are_refused(corpus: str, tmp_path: Path) -> None:
    with Path(f"{corpus}.en").open("a") as more:
        more.write("one more\n")
    with pytest.raises(UserError, match=r"12 lines, but .* has 13"):
        prepare([corpus], ("de", "en"), tmp_path / "train", Cleaning())
    assert not list(tmp_path.glob("train*"))


def test_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Beside those of `nmt evaluate`, of the same model, and replaced when it is scored again."""
    for name, lines in (("h.de", HYPOTHESES), ("r.de", REFERENCES), ("short.de", REFERENCES[:2])):
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines))
    random_model(tmp_path / "model", tokenizer(), tokenizer())
    words = ["score", str(tmp_path / "model"), "--system", "s", "--test-set", "t", "--language", "de"]
    words += [
        "--compounds",
        "--hypothesis",
        str(tmp_path / "h.de"),
        "--results",
        str(tmp_path / "results.json"),
    ]
    assert main([*words, "--reference", str(tmp_path / "r.de")]) == 0
    assert main([*words, "--reference", str(tmp_path / "r.de")]) == 0
    (row,) = json.loads((tmp_path / "results.json").read_text())
    assert (row["system"], row["test_set"], row["metric"], row["lines"]) == ("s", "t", TOKENISED, 3)
    assert row["parameters"] > 0
    assert "+ATAT model:" in row["signature"]
    assert row["confidence_low"] < row["confidence_high"]
    assert "tokenised BLEU" in (tmp_path / "results.md").read_text()
    capsys.readouterr()
    assert main([*words, "--reference", str(tmp_path / "short.de")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("protocols: ")
    assert "short.de" in line


def test_without_sacremoses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sacremoses", None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[recipes\]'"):
        list(moses.tokenise(["a"], "en"))
