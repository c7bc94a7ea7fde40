"""nmt align: a line of links for each pair of lines, whatever they hold; and what nmt evaluate adds."""

from __future__ import annotations

import gzip
import json
import random
import re
from pathlib import Path

import pytest
from support import TINY, Nmt

from nmt.alignment import in_order, pharaoh
from nmt.checkpoint import load_model, model_hash
from nmt.results import without_model
from nmt.symmetrize import METHODS
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
    assert found["shift"] is False
    gold = (tiny_run / "corpus/test.align").read_text().split("\n")[:-1]
    ours = {(n, link) for n, line in enumerate(done.lines) for link in line.split()}
    right = {(n, link) for n, line in enumerate(gold) for link in line.split()}
    assert found["aer"] == round(1 - 2 * len(ours & right) / (len(ours) + len(right)), 4)
    assert found["precision"] == round(len(ours & right) / len(ours), 4)
    assert found["recall"] == round(len(ours & right) / len(right), 4)
    numbers = f"{found['aer']:.4f} (precision {found['precision']:.4f}, recall {found['recall']:.4f}"
    (model,) = found["models"]
    assert done.stderr == (
        f"AER {numbers}, 40 lines of test.align; mean of layers, mean of heads; model {model})\n"
    )
    manifest = load_model(tiny_run / RUN).manifest
    assert model_hash(manifest).startswith(model)
    assert found["gold"] == "test.align"
    # The gold against itself, counted from 1.
    from_one = re.sub(r"\d+", lambda number: str(int(number[0]) + 1), "\n".join([*gold, ""]))
    (tmp_path / "one").write_text(from_one)
    again = nmt("align", RUN, *TEST, "--words", "punctuation", "--gold", tmp_path / "one", "--gold-base", "1")
    assert again.stderr == done.stderr.replace("test.align", "one")
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
    shifted = [
        json.loads(nmt("align", RUN, *TEST, *GOLD, "--shift", "--layer", "1", *head, "--json").stdout)
        for head in ([], ["--head", "1"], ["--head", "2"])
    ]
    everything = [first, second, mean, *shifted]
    best = json.loads(nmt("align", RUN, *TEST, *GOLD, "--layer", "best", "--json").stdout)
    ranking = best.pop("views")
    assert best["aer"] == min(found["aer"] for found in everything) == ranking[0]["aer"]
    assert best in (*everything, *(found | {"layer": None} for found in everything))
    assert [view["aer"] for view in ranking] == sorted(view["aer"] for view in ranking)
    # With one layer the mean of all is its mean.
    expected = [(f["layer"] if f["head"] else None, f["head"], f["shift"], f["aer"]) for f in everything]
    assert sorted(map(str, expected)) == sorted(str(tuple(view.values())[:4]) for view in ranking)
    done = nmt("align", RUN, *TEST, *GOLD, "--best")
    assert done.lines == best["links"]
    *notes, last = done.stderr.split("\n")[:-1]
    assert len(notes) == 6
    assert notes[0].endswith(f"AER {best['aer']:.4f}")
    assert last.startswith(f"AER {best['aer']:.4f} (precision")
    # The shift can be said beforehand.
    kept = json.loads(nmt("align", RUN, *TEST, *GOLD, "--best", "--no-shift", "--json").stdout)
    assert [view["shift"] for view in kept["views"]] == [False] * 3
    plain = nmt("align", RUN, *TEST).lines
    assert plain == nmt("align", RUN, *TEST, "--layer", "mean", "--head", "mean", "--no-shift").lines


@pytest.fixture(scope="module")
def both_ways(tiny_run: Path) -> Nmt:
    """`runs/tiny` and, in `back`, a model that translates German to English."""
    nmt = Nmt(tiny_run)
    turned = ["--set", "data.source_language=de", "--set", "data.target_language=en"]
    nmt("train", "tiny.toml", "--run", "back", *turned)
    return nmt


def test_two_directions(both_ways: Nmt, tmp_path: Path) -> None:
    forward = both_ways("align", RUN, *TEST).lines
    back = both_ways("align", "back", *reversed(TEST)).lines
    (tmp_path / "forward").write_text("".join(f"{line}\n" for line in forward))
    (tmp_path / "back").write_text("".join(f"{line}\n" for line in back))
    files = ["--forward", tmp_path / "forward", "--backward", tmp_path / "back", "--turn-backward"]
    sides = [
        (
            {tuple(map(int, link.split("-"))) for link in ours.split()},
            {tuple(map(int, link.split("-")))[::-1] for link in theirs.split()},
        )
        for ours, theirs in zip(forward, back, strict=True)
    ]
    for method, combine in METHODS.items():
        found = both_ways("align", RUN, *TEST, "--reverse", "back", "--symmetrize", method)
        assert found.lines == [pharaoh(in_order(combine(*pair))) for pair in sides]
        assert found.stderr == ""
        assert both_ways("align", *files, "--symmetrize", method).lines == found.lines
    # Without a method it is grow-diag-final-and.
    default = both_ways("align", RUN, *TEST, "--reverse", "back").lines
    assert default == both_ways("align", *files, "--symmetrize", "grow-diag-final-and").lines
    assert default == both_ways("align", *files).lines


def test_error_rates_of_two_directions(both_ways: Nmt, tmp_path: Path) -> None:
    given = ["align", RUN, *TEST, *GOLD, "--reverse", "back"]
    found = json.loads(both_ways(*given, "--json").stdout)
    assert found["symmetrize"] == "grow-diag-final-and"
    assert found["methods"].keys() == METHODS.keys()
    assert found["methods"]["grow-diag-final-and"]["aer"] == found["aer"]
    one = json.loads(both_ways("align", RUN, *TEST, *GOLD, "--json").stdout)
    assert found["directions"]["forward"]["aer"] == one["aer"]
    assert found["directions"]["reverse"]["aer"] != one["aer"]
    for method in METHODS:
        alone = json.loads(both_ways(*given, "--symmetrize", method, "--json").stdout)
        assert alone["aer"] == found["methods"][method]["aer"]
        # A file of those links has that error rate, and one of its own.
        both_ways(*given, "--symmetrize", method, "--output", tmp_path / "links")
        done = both_ways("align", "--forward", tmp_path / "links", "--gold", "corpus/test.align")
        assert done.stderr.startswith(f"AER {alone['aer']:.4f} (precision {alone['precision']:.4f}")
    lines = both_ways(*given).stderr.split("\n")[:-1]
    first, second = found["models"]
    assert [line.partition(" of test.align; ")[2].rstrip(")") for line in lines] == [
        f"forward: mean of layers, mean of heads; model {first}",
        f"reverse: mean of layers, mean of heads; model {second}",
        *(f"{method}; model {first}+{second}" for method in METHODS),
    ]
    # Each direction has its own best view, or one that is named.
    best = json.loads(both_ways(*given, "--best", "--json").stdout)
    assert best["directions"]["forward"]["aer"] <= found["directions"]["forward"]["aer"]
    assert best["directions"]["reverse"]["aer"] <= found["directions"]["reverse"]["aer"]
    assert both_ways(*given, "--best").stderr.count("reverse: ") == 7
    # Without gold the directions choose by each other.
    done = both_ways("align", RUN, *TEST, "--reverse", "back", "--best", "--words", "punctuation")
    assert done.stderr.startswith("the directions agree most, F1 0.")
    assert len(done.lines) == 40
    named = ["--layer", "1", "--head", "1", "--reverse-layer", "1", "--reverse-head", "2"]
    views = json.loads(both_ways(*given, *named, "--json").stdout)["directions"]
    assert [(view["layer"], view["head"]) for view in views.values()] == [(1, 1), (1, 2)]


def test_what_is_too_long_for_one_direction_is_left_unaligned(both_ways: Nmt, tmp_path: Path) -> None:
    (tmp_path / "s").write_text("A dog.\n" + "word " * 200 + "\n")
    (tmp_path / "t").write_text("Ein Hund.\nWort\n")
    done = both_ways("align", RUN, tmp_path / "s", tmp_path / "t", "--reverse", "back")
    assert [bool(line) for line in done.lines] == [True, False]
    assert done.stderr.count("the pair is too long") == 1


def test_a_reverse_that_does_not_lead_back(tiny_run: Path) -> None:
    done = Nmt(tiny_run)("align", RUN, *TEST, "--reverse", RUN, "--layer", "1")
    assert f"warning: {RUN} translates en to de, which is not back from en to de" in done.stderr


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
        (
            "corpus/test.en corpus/test.de --layer first",
            "--layer first is not a number from 1, nor mean, nor best",
        ),
        ("corpus/test.en corpus/test.de --layer best", "--layer best needs a gold alignment"),
        ("corpus/test.en corpus/test.de --best", "needs a gold alignment"),
        ("corpus/test.en corpus/test.de --best --layer 1", "--best chooses the layer; leave out --layer 1"),
        ("corpus/test.en corpus/test.de --gold corpus/test.align --best --head 1", "leave out --head"),
        ("corpus/test.en corpus/test.de --head first", "--head first is not a number from 1, nor mean"),
        ("corpus/test.en corpus/test.de --layer mean --head 1", "--head 1 needs --layer"),
        ("corpus/test.en corpus/test.de --symmetrize union", "--symmetrize needs two directions"),
        ("corpus/test.en corpus/test.de --reverse runs/tiny --symmetrize x", "--symmetrize x is not known"),
        ("corpus/test.en corpus/test.de --reverse-layer 1", "are of the model of --reverse; add that"),
        ("corpus/test.en corpus/test.de --reverse absent", "absent: no such model"),
        (
            "corpus/test.en corpus/test.de --reverse runs/tiny --reverse-layer x",
            "--reverse-layer x is not a number",
        ),
        ("corpus/test.en", "give MODEL SOURCE TARGET, or links with --forward FILE"),
        ("corpus/test.en corpus/test.de --forward corpus/test.align", "leave out MODEL"),
        ("corpus/test.en corpus/test.de --backward corpus/test.align", "add --forward FILE"),
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


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("--forward corpus/test.align --backward corpus/train.align", "train.align: has 300 lines and"),
        ("--forward corpus/test.align --gold corpus/train.align", "train.align: has 300 lines and"),
        ("--forward corpus/test.de", "test.de:1: "),
        ("--forward absent", "absent: no such file"),
        ("--forward corpus/test.align --turn-backward", "--turn-backward is about --backward"),
        ("--forward corpus/test.align --gold corpus/test.align --gold-base 1", "words count from 1"),
        ("--forward corpus/test.align --output corpus/test.align", "is the input too"),
        ("--forward corpus/test.align --layer 1", "leave out MODEL and what is about attention"),
        ("", "give MODEL SOURCE TARGET"),
    ],
)
def test_files_are_refused(tiny_run: Path, given: str, message: str) -> None:
    assert message in Nmt(tiny_run).error("align", *given.split())


def test_a_model_without_attention(tiny_run: Path, tmp_path: Path) -> None:
    nmt = Nmt(tiny_run)
    sizes = "embedding_width = 8\nhidden_width = 8\nlayers = 1\n"
    config = TINY.replace(TINY[TINY.index("[model]") : TINY.index("[training]")], "")
    (tmp_path / "plain.toml").write_text(f'{config}\n[model]\narchitecture = "recurrent"\n{sizes}')
    nmt("train", tmp_path / "plain.toml", "--run", tmp_path / "plain")
    message = 'model.architecture = "recurrent" has no attention over the source'
    assert message in nmt.error("align", tmp_path / "plain", *TEST)
    assert message in nmt.error("align", RUN, *TEST, "--reverse", tmp_path / "plain")
    gold = ["--gold-alignment", "corpus/test.align", "--words", "punctuation"]
    assert message in nmt.error("evaluate", tmp_path / "plain", *EVALUATE[2:], *gold)


# nmt evaluate

EVALUATE = ["evaluate", RUN, "--source", "corpus/test.en", "--reference", "corpus/test.de"]


def test_evaluate_measures_the_alignment_and_the_perplexity(tiny_run: Path, tmp_path: Path) -> None:
    nmt = Nmt(tiny_run)
    gold = ["--gold-alignment", "corpus/test.align", "--words", "punctuation"]
    results = ["--results", tmp_path / "results.json"]
    lines = nmt(*EVALUATE, *gold, *results).lines
    rows = json.loads((tmp_path / "results.json").read_text())
    assert [row["metric"] for row in rows] == ["BLEU", "chrF2", "chrF2++", "TER", "perplexity", "AER"]
    aer = json.loads(nmt("align", RUN, *TEST, *GOLD, "--json").stdout)["aer"]
    assert rows[5]["score"] == aer
    assert rows[5]["signature"].startswith("words:punctuation|layer:mean|head:mean|links:argmax|nmt:")
    assert rows[4]["signature"].startswith("tokens:bpe|vocabulary:400|nmt:")
    for row in rows:
        assert row["confidence_low"] <= row["score"] <= row["confidence_high"]
        assert "|bs:1000|seed:12345" in row["signature"]
    assert lines[6].split()[:3] == ["tiny", "perplexity", f"{rows[4]['score']:.2f}"]
    assert lines[7].split()[:3] == ["tiny", "AER", f"{aer:.4f}"]
    assert all(row["confidence_low"] < row["confidence_high"] for row in rows[4:])
    plain = json.loads(nmt(*EVALUATE, *gold, "--no-confidence", "--json").stdout)
    assert [row["score"] for row in plain] == [row["score"] for row in rows]
    assert all(row["confidence_low"] is None and "bs:" not in row["signature"] for row in plain)
    assert f" {aer:.4f} " in (tmp_path / "results.md").read_text()
    best = json.loads(nmt(*EVALUATE, *gold, "--layer", "best", "--json").stdout)[5]
    assert best["score"] <= aer
    # Chosen by the links it is measured by: that is said, and which view it was is said of the model.
    chosen = json.loads(nmt("align", RUN, *TEST, *GOLD, "--best", "--json").stdout)
    assert best["signature"].startswith(
        f"words:punctuation|view:best-of-{len(chosen['views'])}-by-gold|links:argmax|nmt:"
    )
    view = f"layer:{chosen['layer'] or 'mean'}|head:{chosen['head'] or 'mean'}"
    view += "|shift:yes" if chosen["shift"] else ""
    assert best["signature"].endswith(f"({view})")
    assert without_model(best["signature"]) == best["signature"].partition(" model:")[0]
    shifted = json.loads(nmt(*EVALUATE, *gold, "--shift", "--layer", "1", "--head", "2", "--json").stdout)[5]
    assert "|layer:1|head:2|shift:yes|" in shifted["signature"]
    view = ["--shift", "--layer", "1", "--head", "2"]
    assert json.loads(nmt("align", RUN, *TEST, *GOLD, *view, "--json").stdout)["aer"] == shifted["score"]


def test_links_are_packed_where_the_name_says_so(tiny_run: Path, tmp_path: Path) -> None:
    """Such a file is what data.alignments looks for."""
    nmt = Nmt(tiny_run)
    expected = nmt("align", RUN, *TEST).stdout
    nmt("align", RUN, *TEST, "--output", tmp_path / "test.align.gz")
    assert gzip.decompress((tmp_path / "test.align.gz").read_bytes()) == expected
    again = nmt("align", "--forward", tmp_path / "test.align.gz")
    assert again.stdout == expected


def test_perplexity_is_that_of_validation(tiny_run: Path) -> None:
    events = map(json.loads, (tiny_run / RUN / "metrics.jsonl").read_text().splitlines())
    expected = [event["perplexity"] for event in events if event["event"] == "validation"][-1]
    test = ["--source", "corpus/validation.en", "--reference", "corpus/validation.de", "--json"]
    rows = json.loads(Nmt(tiny_run)("evaluate", f"{RUN}/last", *test).stdout)
    assert rows[4]["score"] == pytest.approx(expected, rel=1e-3)


def test_perplexity_leaves_out_what_is_too_long(tiny_run: Path, tmp_path: Path) -> None:
    (tmp_path / "s").write_text("A dog.\nA dog.\n" + "word " * 200 + "\n")
    (tmp_path / "t").write_text("Ein Hund.\n" + "Wort " * 200 + "\nWort\n")
    test = ["--source", tmp_path / "s", "--reference", tmp_path / "t", "--json"]
    done = Nmt(tiny_run)("evaluate", RUN, *test)
    assert "2 of 3 pairs are too long" in done.stderr
    assert "|left-out:2|" in json.loads(done.stdout)[4]["signature"]


def test_another_search_is_another_row(tiny_run: Path, tmp_path: Path) -> None:
    """Rows of beam 1 and of the model's own beam stand side by side."""
    nmt = Nmt(tiny_run)
    options = ["--no-confidence", "--results", tmp_path / "results.json"]
    nmt(*EVALUATE, *options)
    nmt(*EVALUATE, *options, "--beam-size", "2", "--length-penalty", "1.0")  # as configured
    assert len(json.loads((tmp_path / "results.json").read_text())) == 5
    nmt(*EVALUATE, *options, "--beam-size", "1", "--length-penalty", "0.5")
    rows = json.loads((tmp_path / "results.json").read_text())
    assert len(rows) == 9  # the perplexity does not depend on search
    assert rows[5]["signature"] == rows[0]["signature"] + "|beam:1|penalty:0.5"


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
