"""nmt evaluate as a user runs it: tables, JSON, results, significance, parts, sentences, mistakes."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from sacrebleu_command import ORDINARY, disturbed, write
from support import Nmt

from nmt.breakdown import by_frequency, by_length, count_words
from nmt.data.corpus import read_lines
from nmt.evaluation import evaluate, scores_of
from nmt.metric_set import MetricOptions, MetricSet
from nmt.sentences import sentence_scores
from nmt.significance import TESTS, paired_test

ROW_KEYS = {
    *("system", "test_set", "lines", "references", "metric", "score", "confidence_low", "confidence_high"),
    *("signature", "parameters", "train_seconds", "device"),
}
KEYS = ROW_KEYS | {"mean", "half_width", "comparisons"}
METRICS = ["BLEU", "chrF2", "chrF2++", "TER"]
PAIR = ["evaluate", "--system", "good=a.de", "--system", "bad=b.de", "--reference", "reference.de"]


@pytest.fixture
def scored(tmp_path: Path) -> Nmt:
    """A folder with `reference.de`, the good `a.de` and the worse `b.de`, their `source.en`."""
    write(tmp_path / "reference.de", ORDINARY)
    write(tmp_path / "a.de", [*ORDINARY[:50], *disturbed(ORDINARY[50:], seed=1)])
    write(tmp_path / "b.de", disturbed(ORDINARY, seed=2))
    write(tmp_path / "source.en", [f"{line} {line}" if i % 3 else line for i, line in enumerate(ORDINARY)])
    return Nmt(tmp_path)


def lines_of(nmt: Nmt, name: str) -> list[str]:
    return list(read_lines(nmt.folder / name))


def test_scores_of_files_in_a_table_and_in_json(scored: Nmt) -> None:
    rows = json.loads(scored(*PAIR, "--json").stdout)
    names = [(system, metric) for system in ("good", "bad") for metric in METRICS]
    assert [(row["system"], row["metric"]) for row in rows] == names
    systems = {"good": lines_of(scored, "a.de"), "bad": lines_of(scored, "b.de")}
    tested = paired_test("bootstrap", systems, MetricSet([ORDINARY]))
    for row in rows:
        assert row.keys() == KEYS
        assert (row["test_set"], row["lines"]) == ("reference", 60)
        assert row["confidence_low"] <= row["score"] <= row["confidence_high"]
        expected = tested.scores[row["system"]][row["metric"]]
        assert (row["score"], row["signature"]) == (round(expected.score, 4), expected.signature)
        assert expected.mean is not None
        assert row["mean"] == round(expected.mean, 4)
        if row["system"] == "good":
            assert row["comparisons"] == []
        else:
            comparison = tested.comparisons["bad"][row["metric"]]
            (found,) = row["comparisons"]
            assert found == {
                **dict(test="bootstrap", baseline="good", p_value=comparison.p_value),
                **dict(signature=comparison.signature, differs=True),
            }
            assert found["p_value"] < 0.05
    # The scores are those of one system alone.
    alone = json.loads(scored("evaluate", *PAIR[3:], "--json").stdout)
    assert [row["score"] for row in alone] == [row["score"] for row in rows[4:]]
    assert [row["signature"] for row in alone] == [row["signature"] for row in rows[4:]]

    title, header, *rest = scored(*PAIR).lines
    assert title == "reference, 60 lines"
    assert header.split() == ["system", "metric", "score", "mean", "±", "95", "%", "p", "bootstrap"]
    for line, row in zip(rest[:8], rows, strict=True):
        expected = tested.scores[row["system"]][row["metric"]]
        cells = [row["system"], row["metric"], f"{expected.score:.2f}"]
        cells += [f"{expected.mean:.2f}", "±", f"{expected.half_width:.2f}"]
        cells += [f"{c['p_value']:.4f}*" for c in row["comparisons"]]
        assert line.split() == cells
    assert rest[8] == "p: of so large a difference from good by chance; * below 0.05"
    assert rest[9:] == [f"{row['metric']} {row['signature']}" for row in rows[:4]]


@pytest.fixture
def few_shuffles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 10,000; that so many are sacreBLEU's own is what tests/test_significance.py has."""
    monkeypatch.setitem(TESTS, "randomization", ("ar", 200))


@pytest.mark.usefixtures("few_shuffles")
def test_tests_are_chosen(scored: Nmt) -> None:
    both = json.loads(scored(*PAIR, "--paired", "both", "--json").stdout)
    assert [c["test"] for c in both[4]["comparisons"]] == ["bootstrap", "randomization"]
    shuffled = both[4]["comparisons"][1]
    assert "|ar:200|seed:12345|" in shuffled["signature"]
    alone = json.loads(scored(*PAIR, "--paired", "randomization", "--json").stdout)
    assert alone[4]["comparisons"] == [shuffled]
    assert alone[4]["confidence_low"] < alone[4]["score"]  # intervals are there with every test
    assert alone[4]["signature"] == both[4]["signature"]
    lines = scored(*PAIR, "--paired", "both").lines
    assert lines[1].split()[-4:] == ["p", "bootstrap", "p", "randomization"]
    assert f"p randomization BLEU {shuffled['signature']}" in lines
    for options in (["--paired", "none"], ["--no-confidence"]):
        none = json.loads(scored(*PAIR, *options, "--json").stdout)
        assert all(row["comparisons"] == [] for row in none)
    assert "p bootstrap" not in scored(*PAIR, "--paired", "none").stdout.decode()


def test_equal_systems_are_said_to_be_equal(scored: Nmt) -> None:
    given = ["evaluate", "--system", "a=a.de", "--system", "b=a.de", "--reference", "reference.de"]
    assert [line.split()[-1] for line in scored(*given).lines[6:10]] == ["equal"] * 4


def test_options_are_sacrebleus(scored: Nmt) -> None:
    given = ["evaluate", "--system", "b=b.de", "--reference", "reference.de", "--reference", "a.de"]
    lines, other = lines_of(scored, "b.de"), lines_of(scored, "a.de")
    cases = {
        "--lowercase --tokenize char": MetricOptions("char", lowercase=True),
        "--lowercase --no-chrf-lowercase": MetricOptions(lowercase=True, chrf_lowercase=False),
        "--chrf-lowercase --ter-case-sensitive": MetricOptions(chrf_lowercase=True, ter_case_sensitive=True),
    }
    for options, chosen in cases.items():
        rows = json.loads(scored(*given, *options.split(), "--no-confidence", "--json").stdout)
        expected = scores_of(lines, MetricSet([ORDINARY, other], chosen))
        assert [row["score"] for row in rows] == [round(e.score, 4) for e in expected]
        assert [row["signature"] for row in rows] == [e.signature for e in expected]
        assert "nrefs:2|" in rows[0]["signature"]
        assert {(row["confidence_low"], row["confidence_high"]) for row in rows} == {(None, None)}
    assert "95" not in scored(*given, "--no-confidence").lines[1]
    rows = json.loads(scored(*given, "--test-set", "mine", "--json").stdout)
    assert rows[0]["test_set"] == "mine"


def test_parts_by_length_and_by_frequency(scored: Nmt) -> None:
    write(scored.folder / "train.de", ORDINARY[:10] * 3)
    options = ["--source", "source.en", "--by-length", "--training", "train.de"]
    rows = json.loads(scored(*PAIR, *options, "--json").stdout)
    assert [row["metric"] for row in rows] == [*METRICS, "word F1"] * 2
    metrics, sources = MetricSet([ORDINARY]), lines_of(scored, "source.en")
    training = count_words(ORDINARY[:10] * 3, metrics)
    for system, file, of_system in (("good", "a.de", rows[:5]), ("bad", "b.de", rows[5:])):
        lines = lines_of(scored, file)
        lengths = by_length(lines, sources, metrics, confidence=True)
        for row in of_system[:4]:
            assert row["system"] == system
            assert [(b["name"], b["size"], b["score"]) for b in row["by_source_length"]] == [
                (b.name, b.size, round(b.score, 4)) for b in lengths[row["metric"]]
            ]
        whole, buckets = by_frequency(lines, metrics, training, confidence=True)
        assert of_system[4]["score"] == round(whole.score, 4)
        assert of_system[4]["confidence_low"] < whole.score < of_system[4]["confidence_high"]
        assert of_system[4]["signature"].startswith(
            f"reference:1|bs:1000|seed:12345|case:mixed|tok:13a|training-words:{training.total()}|nmt:"
        )
        found = of_system[4]["by_training_frequency"]
        assert [(b["name"], b["size"], b["score"]) for b in found] == [
            (b.name, b.size, round(b.score, 4)) for b in buckets
        ]
    lines = scored(*PAIR, *options).lines
    place = lines.index("source, 60 lines, by words of the source (lines)")
    sizes = [f"{b['name']} ({b['size']})" for b in rows[0]["by_source_length"]]
    assert lines[place + 1].split() == ["system", "metric", *" ".join(sizes).split()]
    assert lines[place + 2].split()[:3] == ["good", "BLEU", f"{rows[0]['by_source_length'][0]['score']:.2f}"]
    place = lines.index("source, 60 lines, F1 of words by their count in training (words of the reference)")
    assert lines[place + 1].split()[:3] == ["system", "0", f"({rows[4]['by_training_frequency'][0]['size']})"]
    assert lines[place + 3].split()[0] == "bad"


def test_the_sentence_table(scored: Nmt) -> None:
    scored(*PAIR, "--source", "source.en", "--sentences", "out/table.jsonl", "--no-confidence")
    path = scored.folder / "out" / "table.jsonl"
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]
    assert [record["line"] for record in records] == list(range(1, 61))
    metrics = MetricSet([ORDINARY])
    for system, file in (("good", "a.de"), ("bad", "b.de")):
        lines = lines_of(scored, file)
        expected = sentence_scores(lines, metrics)
        for index, record in enumerate(records):
            found = record["systems"][system]
            assert found["hypothesis"] == lines[index]
            assert {name: found[name] for name in METRICS} == {
                name: round(values[index], 4) for name, values in expected.items()
            }
    assert [record["source"] for record in records] == lines_of(scored, "source.en")
    assert (records[0]["test_set"], records[0]["lines"]) == ("source", 60)
    assert [p.name for p in path.parent.iterdir()] == ["table.jsonl"]


def test_a_model_is_translated_and_scored(tiny_run: Path, tmp_path: Path) -> None:
    nmt = Nmt(tiny_run)
    test = ["--source", "corpus/test.en", "--reference", "corpus/test.de"]
    options = ["--output", tmp_path / "out" / "test.de", "--beam-size", "1", "--json"]
    more = ["--sentences", tmp_path / "table.jsonl", "--training", "runs/tiny", "--by-length"]
    rows = json.loads(nmt("evaluate", "runs/tiny/best", *test, *options, *more).stdout)
    assert [row["metric"] for row in rows] == [*METRICS, "word F1", "perplexity"]
    info = json.loads(nmt("info", "runs/tiny", "--json").stdout)
    for row in rows:
        assert row.keys() >= KEYS
        assert (row["system"], row["test_set"], row["lines"]) == ("tiny", "test", 40)
        assert row["parameters"] == info["parameters"]["total"]
        assert row["train_seconds"] == info["manifest"]["train_seconds"] > 0
        assert row["device"] == "cpu" or row["device"].startswith("cuda")
        searched = "" if row["metric"] == "perplexity" else "|beam:1"
        assert row["signature"].endswith(f" model:{info['model_sha256'][:12]}{searched}")
    # What was scored is what `nmt translate` writes, and it can be scored again.
    translated = nmt("translate", "runs/tiny", "corpus/test.en", "--beam-size", "1").stdout
    assert (tmp_path / "out" / "test.de").read_bytes() == translated
    again = json.loads(nmt("evaluate", "--system", f"x={tmp_path}/out/test.de", *test[2:], "--json").stdout)
    assert [row["score"] for row in again] == [row["score"] for row in rows[:4]]
    # A run says what it was trained on.
    with_file = ["--training", "corpus/train.de", "--system", f"x={tmp_path}/out/test.de", "--json"]
    again = json.loads(nmt("evaluate", *with_file, *test[2:]).stdout)
    assert again[4]["by_training_frequency"] == rows[4]["by_training_frequency"]
    record = json.loads((tmp_path / "table.jsonl").read_text().split("\n")[0])
    assert record["systems"]["tiny"]["about"] == f"model:{info['model_sha256'][:12]}|beam:1"


def test_results_tables_are_added_to_and_rows_replaced(scored: Nmt) -> None:
    given = ["evaluate", "--reference", "reference.de", "--results", "tables/results.json"]
    scored(*given, "--system", "a=a.de")
    path = scored.folder / "tables" / "results.json"
    first = json.loads(path.read_text())
    assert len(first) == 4
    assert all(row.keys() == ROW_KEYS for row in first)
    scored(*given, "--system", "a=a.de")
    assert json.loads(path.read_text()) == first
    # The same system, test set and metric with another translation: replaced where it stood.
    (scored.folder / "a.de").write_bytes((scored.folder / "reference.de").read_bytes())
    scored(*given, "--system", "b=b.de", "--system", "a=a.de")
    second = json.loads(path.read_text())
    assert [(row["system"], row["metric"]) for row in second] == [
        (system, metric) for system in "ab" for metric in METRICS
    ]
    assert second[0]["score"] == 100
    title, _, *table = path.with_suffix(".md").read_text().split("\n")
    assert title == "| system | test set | BLEU | chrF2 | chrF2++ | TER | parameters | training | device |"
    assert [line.split(" | ")[:2] for line in table[:2]] == [
        ["| a", "reference (60 lines)"],
        ["| b", "reference (60 lines)"],
    ]
    assert table[0].split(" | ")[2] == "100.00 (100.0-100.0)"
    assert table[3:] == [*(f"- {row['metric']}: `{row['signature']}`" for row in second[:4]), ""]
    # Measured in another way, a number is another row.
    scored(*given, "--system", "a=a.de", "--lowercase")
    assert len(json.loads(path.read_text())) == 11  # TER has no case as it is
    assert [p.name for p in path.parent.iterdir() if "partial" in p.name] == []


@pytest.mark.usefixtures("few_shuffles")
@pytest.mark.parametrize("line", ["", "Ein Haus.", "\u2028\t \0", "x" * 500])
def test_test_sets_of_one_line(scored: Nmt, line: str) -> None:
    """With every number asked for; blank translations are translations."""
    write(scored.folder / "one.a", [line])
    write(scored.folder / "one.b", ["Ein Hund."])
    write(scored.folder / "one.de", ["Ein Haus."])
    given = ["evaluate", "--system", "a=one.a", "--system", "b=one.b", "--reference", "one.de"]
    more = [
        "--source",
        "one.a",
        "--by-length",
        "--training",
        "one.de",
        "--sentences",
        "t.jsonl",
        "--paired",
        "both",
    ]
    rows = json.loads(scored(*given, *more, "--json").stdout)
    assert [row["metric"] for row in rows] == [*METRICS, "word F1"] * 2
    assert all(row["mean"] == pytest.approx(row["score"], abs=1e-3) for row in rows)
    assert all(row["half_width"] == 0 for row in rows)
    assert len(scored(*given, *more).lines) > 20
    assert len((scored.folder / "t.jsonl").read_text(encoding="utf-8").split("\n")) == 2


def test_scores_are_those_of_the_library(scored: Nmt) -> None:
    """`nmt.evaluation.evaluate`, which others call, and the command agree."""
    rows: list[dict[str, Any]] = json.loads(scored("evaluate", *PAIR[3:], "--json").stdout)
    expected = evaluate(lines_of(scored, "b.de"), [ORDINARY], confidence=True)
    assert [(row["score"], row["signature"]) for row in rows] == [
        (round(e.score, 4), e.signature) for e in expected
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("--system a=a.de", "no reference given; add --reference FILE"),
        ("--reference reference.de", "give either MODEL with --source, or --system NAME=FILE"),
        ("m --system a=a.de --reference reference.de", "give either MODEL"),
        ("m --reference reference.de", "add --source FILE"),
        ("--system a.de --reference reference.de", "--system a.de is not of the form NAME=FILE"),
        (
            "--system a=a.de --system a=b.de --reference reference.de",
            "--system a=b.de: there are two systems of that name",
        ),
        (
            "--system a=short.de --reference reference.de",
            "short.de: has 3 lines and reference.de has 60 (the first blank one is in short.de line 2);",
        ),
        ("m --source short.de --reference reference.de", "short.de: has 3 lines and reference.de has 60"),
        (
            "--system a=a.de --reference reference.de --reference short.de",
            "short.de: has 3 lines and reference.de has 60",
        ),
        ("--system a=empty.de --reference empty.de", "empty.de: there are no lines to evaluate"),
        ("--system a=a.de --reference empty.de", "empty.de: there are no lines to evaluate"),
        ("--system a=a.de --reference blank.de", "blank.de is blank in all its 60 lines"),
        ("--system a=empty.de --reference reference.de", "empty.de: has 0 lines and reference.de has 60"),
        ("--system a=absent.de --reference reference.de", "absent.de"),
        ("--system a=a.de --reference reference.de --tokenize 13b", "13b is not one of sacreBLEU's"),
        ("--system a=a.de --reference reference.de --paired t", "--paired t is not known; use bootstrap"),
        (
            "--system a=a.de --reference reference.de --paired bootstrap",
            "--paired compares systems; give two or more",
        ),
        ("--system a=a.de --reference reference.de --by-length", "--by-length looks at the source"),
        ("--system a=a.de --reference reference.de --training absent", "absent: no such file"),
        ("--system a=a.de --reference reference.de --training .", "holds no config.toml"),
        ("--system a=a.de --reference reference.de --training blank.de", "blank.de: has no words"),
        ("--system a=a.de --reference reference.de --sentences a.de", "a.de: is an input too"),
        (
            "--system a=a.de --reference reference.de --sentences .",
            "is a folder; name a file with --sentences",
        ),
        ("--system a=a.de --reference reference.de --shift", "--gold-alignment measures"),
        ("--system a=a.de --reference reference.de --name b", "--name is what to call MODEL"),
        ("--system a\x01=a.de --reference reference.de", "--system 'a\\x01' holds a character"),
        (
            "--system a=a.de --reference reference.de --test-set x\x7f",
            "--test-set 'x\\x7f' holds a character",
        ),
        ("--system a=a.de --reference reference.de --comet x", "--comet looks at the source"),
        ("no-run --source source.en --reference reference.de", "no-run: no such model"),
        (
            "begun --source source.en --reference reference.de",
            "begun: holds no model yet: training has not reached a checkpoint",
        ),
    ],
)
def test_refuses(scored: Nmt, given: str, message: str) -> None:
    write(scored.folder / "short.de", ["eine Zeile", "", "und noch eine"])
    write(scored.folder / "empty.de", [])
    write(scored.folder / "blank.de", [" "] * 60)
    (scored.folder / "begun").mkdir()
    (scored.folder / "begun" / "metrics.jsonl").write_text("")
    assert message in scored.error("evaluate", *given.split())


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "a.jsonl.gz"])
def test_json_lines_are_read_as_such(scored: Nmt, name: str) -> None:
    """By the name or the first line: the scores are those of their best translations."""
    records = [
        {"line": number, "source": "x", "translations": [{"text": text}, {"text": "anderes"}]}
        for number, text in enumerate(lines_of(scored, "a.de"), start=1)
    ]
    content = "".join(json.dumps(record) + "\n" for record in records).encode()
    (scored.folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    options = ["--reference", "reference.de", "--no-confidence", "--json"]
    found = scored("evaluate", "--system", f"a={name}", *options)
    assert found.stdout == scored("evaluate", "--system", "a=a.de", *options).stdout
    assert f"{name}: JSON lines" in found.stderr
    message = scored.error("evaluate", "--system", "a=a.de", "--reference", name)
    assert f"{name}: has JSON lines" in message


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["plain", "text"], "a.jsonl:1: this is not a JSON record"),
        (['{"line": 1, "translations": [{"text": "a"}]}', "text"], "a.jsonl:2: this is not a JSON record"),
        (['{"line": 2, "translations": [{"text": "a"}]}'], 'the record says "line": 2 where 1 is due'),
        (['{"translations": [{"tokens": []}]}'], 'a.jsonl:1: the first translation has no "text"'),
        (['{"translations": [3]}'], 'a.jsonl:1: the first translation has no "text"'),
        (['{"translations": []}'], 'has no list of "translations"'),
    ],
)
def test_json_lines_that_are_none(scored: Nmt, lines: list[str], said: str) -> None:
    (scored.folder / "a.jsonl").write_text("".join(f"{line}\n" for line in lines))
    assert said in scored.error("evaluate", "--system", "a=a.jsonl", "--reference", "reference.de")


def test_refuses_a_wrong_seed(scored: Nmt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SACREBLEU_SEED", "many")
    assert "SACREBLEU_SEED is 'many'" in scored.error(*PAIR)


def test_all_done_again_gives_the_same(tiny_run: Path, tmp_path: Path) -> None:
    """Elsewhere on the same machine: the table is the same bit for bit, but for the time it took."""
    nmt = Nmt(tmp_path)
    shutil.copytree(tiny_run / "corpus", tmp_path / "corpus")
    shutil.copy(tiny_run / "tiny.toml", tmp_path)
    nmt("train", "tiny.toml")
    tables = []
    for again, number in ((Nmt(tiny_run), 1), (nmt, 2)):
        test = ["--source", "corpus/test.en", "--reference", "corpus/test.de"]
        again("evaluate", "runs/tiny", *test, "--results", tmp_path / f"results-{number}.json")
        rows = json.loads((tmp_path / f"results-{number}.json").read_text())
        tables.append([{**row, "train_seconds": None} for row in rows])
    assert len(tables[0]) == 5
    assert tables[0] == tables[1]
