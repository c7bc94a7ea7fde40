"""The facts of a report: the same numbers that other commands give, and what they are of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reported import HOSTILE, RUNS, runs_of
from support import Nmt

from nmt.alignment import View
from nmt.checkpoint import load_model
from nmt.data.corpus import read_lines
from nmt.errors import UserError
from nmt.forced import attention
from nmt.report import MOST_ATTENTION, MOST_TOKENS, Observer, report
from nmt.report_sentences import FLAGS

pytestmark = pytest.mark.usefixtures("there")


@pytest.fixture(scope="module")
def folder(tiny_run: Path) -> Path:
    return runs_of(tiny_run)


def report_of(*runs: str, **options: Any) -> dict[str, Any]:
    """Plain JSON, as it says it is."""
    found: dict[str, Any] = report([Path(run) for run in runs], **options)
    text = json.dumps(found, allow_nan=False)
    assert json.loads(text) == found
    return found


@pytest.fixture(scope="module")
def three(folder: Path) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return report_of(*RUNS, test="corpus/test", max_sentences=4, command=["/x/nmt", "report", "a b"])


def test_scores_are_those_of_evaluate(folder: Path) -> None:
    found = report_of(RUNS[0], test="corpus/test")
    arguments = found["commands"][0]["evaluate"].split()
    assert arguments == [
        "nmt",
        "evaluate",
        *f"{RUNS[0]} --source corpus/test.en --reference corpus/test.de".split(),
    ]
    rows = json.loads(Nmt(folder)(*arguments[1:], "--by-length", "--json").stdout)
    expected = {row["metric"]: row for row in rows}
    assert [row["metric"] for row in found["scores"]] == ["BLEU", "chrF2", "chrF2++", "TER", "perplexity"]
    for row in found["scores"]:
        assert row == expected[row["metric"]]


def test_several_runs_are_compared_with_the_first(folder: Path, three: dict[str, Any]) -> None:
    for number, run in enumerate(RUNS):
        Nmt(folder)("translate", run, "corpus/test.en", "--output", f"of-{number}.de", "--restart")
    systems = [f"--system={Path(run).name}=of-{number}.de" for number, run in enumerate(RUNS)]
    arguments = ["--reference", "corpus/test.de", "--source", "corpus/test.en", "--by-length", "--json"]
    rows = json.loads(Nmt(folder)("evaluate", *systems, *arguments).stdout)
    expected = {(row["system"], row["metric"]): row for row in rows}
    compared = [row for row in three["scores"] if row["metric"] != "perplexity"]
    assert len(compared) == 12
    for row in compared:
        other = expected[row["system"], row["metric"]]
        for key in ("score", "mean", "half_width", "lines"):
            assert row[key] == other[key]
        assert row["signature"].startswith(other["signature"] + " model:")
        p_values = [[one["p_value"] for one in which["comparisons"]] for which in (row, other)]
        assert p_values[0] == p_values[1]
        assert len(p_values[0]) == (row["system"] != "tiny")
        assert row["by_source_length"] == other["by_source_length"]


def test_sentences_are_those_of_the_test_set(folder: Path, three: dict[str, Any]) -> None:
    sources, references = (list(read_lines(f"corpus/test.{side}")) for side in ("en", "de"))
    found = three["sentences"]
    assert [one["title"] for one in found["lists"]] == [
        *(f"{kind} by {Path(run).name}" for run in RUNS for kind in ("Best", "Worst")),
        *(f"Most different: {name} and tiny" for name in ("other", "plain")),
        "Flagged",
    ]
    for one in found["lists"]:
        assert len(one["rows"]) == min(4, one["of"])
    for row in found["rows"]:
        assert (row["source"], row["reference"]) == (sources[row["line"] - 1], references[row["line"] - 1])
        assert [of["run"] for of in row["systems"]] == ["tiny", "other", "plain"]
    best = [found["rows"][place]["systems"][0]["score"] for place in found["lists"][0]["rows"]]
    assert best == sorted(best, reverse=True)
    assert found["counts"]["tiny"].keys() == FLAGS.keys()


def test_attention_is_the_mean_of_layers_and_heads(three: dict[str, Any]) -> None:
    found = three["attention"]
    assert found["without"] == ["plain"]
    assert 0 < len(found["sentences"]) <= MOST_ATTENTION
    loaded = load_model(Path(RUNS[0]))
    for one in found["sentences"]:
        row = three["sentences"]["rows"][one["row"]]
        assert one["line"] == row["line"]
        assert [drawn["run"] for drawn in one["maps"]] == ["tiny", "other"]
        drawn = one["maps"][0]
        source = loaded.source_tokenizer.encode(row["source"])
        target = [loaded.target_tokenizer.id_of(piece.replace("·", "▁")) for piece in drawn["rows"][:-1]]
        assert loaded.target_tokenizer.decode(target) == row["systems"][0]["text"]
        assert len(drawn["columns"]) == len(source) + 1 <= MOST_TOKENS + 1
        ((_, weights_LHTS),) = attention(loaded, [source], [target])
        assert np.allclose(np.array(drawn["weights"]) / 100, weights_LHTS.mean(axis=(0, 1)), atol=0.006)


def test_attention_of_lines_that_are_asked_for(
    folder: Path, three: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {drawn["view"] for one in three["attention"]["sentences"] for drawn in one["maps"]} == {
        str(View())
    }
    shown = {row["line"] for row in three["sentences"]["rows"]}
    unshown = next(line for line in range(1, 41) if line not in shown)
    monkeypatch.setattr("nmt.report.default_view", lambda _: View(1, 2))  # as of a model with a guided head
    found = report_of(RUNS[0], test="corpus/test", max_sentences=1, lines=[unshown, 3, unshown])
    assert [one["line"] for one in found["attention"]["sentences"]] == [unshown, 3]
    assert [found["sentences"]["rows"][one["row"]]["line"] for one in found["attention"]["sentences"]] == [
        unshown,
        3,
    ]
    loaded = load_model(Path(RUNS[0]))
    (drawn,) = found["attention"]["sentences"][0]["maps"]
    assert drawn["view"] == "layer 1, head 2"
    source = loaded.source_tokenizer.encode(list(read_lines("corpus/test.en"))[unshown - 1])
    target = [loaded.target_tokenizer.id_of(piece.replace("·", "▁")) for piece in drawn["rows"][:-1]]
    ((_, weights_LHTS),) = attention(loaded, [source], [target])
    assert np.allclose(np.array(drawn["weights"]) / 100, weights_LHTS[0, 1], atol=0.006)

    said: list[str] = []
    found = report_of(RUNS[0], test="hostile", lines=[4, 5], observer=Observer(warn=said.append))
    assert found["attention"]["sentences"] == []
    for line in (4, 5):
        assert any(f"the attention of line {line} is not drawn" in text for text in said)
    with pytest.raises(UserError, match="has no line 41 that is compared; choose another --line"):
        report_of(RUNS[0], test="corpus/test", lines=[41])


def test_a_model_without_attention_has_none(folder: Path) -> None:
    found = report_of(RUNS[2])
    assert found["attention"] == {"sentences": [], "without": ["plain"], "parts": 100}
    assert "validation set" in found["test_set"]["notes"][0]
    assert {row["test_set"] for row in found["scores"]} == {"validation"}


def test_cost_environment_and_commands(three: dict[str, Any]) -> None:
    assert [run["run"] for run in three["runs"]] == ["tiny", "other", "plain"]
    for run in three["runs"]:
        assert run["parameters"]["total"] > 0
        assert run["environment"].keys() >= {"nmt", "python", "torch", "sacrebleu"}
        assert (run["steps"], run["max_steps"], run["threads"]) == (12, 12, 1)
        assert run["training_data"][0]["file"] == "corpus/train.en"
        assert run["target_tokens"] > 0
    assert three["command"] == "nmt report 'a b'"
    assert [row["file"] for row in three["test_set"]["files"]] == ["corpus/test.en", "corpus/test.de"] * 3
    rows = {row["key"]: row["values"] for row in three["configuration"]["rows"]}
    assert rows["training.seed"] == ["1", "2", "1"]
    assert rows["model.architecture"][2] == '"recurrent"'


def test_a_part_of_the_test_sets_is_compared_and_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for side in ("en", "de"):
        lines = Path(f"corpus/test.{side}").read_text().split("\n")[:-1]
        Path(f"both.{side}").write_text("\n".join(lines[10:20]) + "\n")
    monkeypatch.setattr(
        "nmt.report_tests._candidates", lambda run: ("both",) if run.name == "tiny" else ("corpus/test",)
    )
    said: list[str] = []
    found = report_of(*RUNS[:2], observer=Observer(note=said.append))
    assert said == found["test_set"]["notes"]
    assert "10 pairs" in said[0]
    assert found["test_set"]["lines"] == 10
    assert [of["evaluate"] for of in found["commands"]] == [None, None]
    whole = report_of(*RUNS[:2], test="both")
    scores = [[(row["metric"], row["score"]) for row in one["scores"]] for one in (found, whole)]
    assert scores[0] == scores[1]


def test_hostile_text(three: dict[str, Any]) -> None:
    found = report_of(*RUNS[:2], test="hostile")
    rows = {row["line"]: row for row in found["sentences"]["rows"]}
    assert rows.keys() == {1, 2, 3, 4, 6}  # nothing is said of the blank line
    for line, row in rows.items():
        assert (row["source"], row["reference"]) == HOSTILE[line - 1]
    assert rows[4]["systems"][0]["parts"] > 1
    assert 4 not in [one["line"] for one in found["attention"]["sentences"]]
