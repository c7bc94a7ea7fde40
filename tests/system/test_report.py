"""nmt report as a user runs it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from reported import RUNS, runs_of
from support import Nmt

from nmt import report_translations


@pytest.fixture(scope="module")
def there(tiny_run: Path) -> Nmt:
    return Nmt(runs_of(tiny_run))


def test_a_page_and_the_same_as_json(there: Nmt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "deep" / "r.html"
    page.parent.mkdir()
    done = there("report", *RUNS, "--test", "corpus/test", "--output", page)
    assert done.stdout == b""
    assert f"{page}: 3 runs" in done.stderr
    assert "test, 40 lines" in done.stderr
    text = page.read_text()
    assert text.startswith("<!DOCTYPE html>")
    assert "<title>Report of tiny, other, plain</title>" in text
    assert all(list((there.folder / run / "report").iterdir()) for run in RUNS)
    # Nothing is translated again.
    monkeypatch.setattr(report_translations, "Translator", None)
    facts = json.loads(there("report", *RUNS, "--test", "corpus/test", "--json").stdout)
    assert [row["reused"] for row in facts["translation"]] == [True] * 3
    raw = text.partition('id="data">')[2].partition("</script>")[0]
    embedded = json.loads(raw)
    assert embedded["scores"] == facts["scores"]
    assert embedded["sentences"] == facts["sentences"]


def test_a_run_that_cannot_be_written_to_is_reported_on(there: Nmt, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(there.folder / RUNS[0], run, symlinks=True, ignore=shutil.ignore_patterns("report"))
    (run / "report").touch()
    done = there("report", run, "--test", "corpus/test", "--output", tmp_path / "r.html")
    assert "nmt: warning: " in done.stderr
    assert "not kept" in done.stderr
    assert (tmp_path / "r.html").exists()


def test_fewer_sentences(there: Nmt) -> None:
    facts = json.loads(there("report", RUNS[0], "--max-sentences", 1, "--json").stdout)
    assert [len(one["rows"]) for one in facts["sentences"]["lists"]][:2] == [1, 1]


def test_mistakes(there: Nmt, tmp_path: Path) -> None:
    page = ["--output", tmp_path / "r.html"]
    assert "no such run" in there.error("report", "nowhere", *page)
    assert "is not a run" in there.error("report", "corpus", *page)
    assert "is a model and no run" in there.error("report", f"{RUNS[0]}/best", *page)
    assert "given twice" in there.error("report", RUNS[0], f"{RUNS[0]}/../tiny", *page)
    assert "no test sentence in common" in there.error("report", RUNS[0], RUNS[1], *page)
    assert "add --output" in there.error("report", RUNS[0])
    assert "name a .html file" in there.error("report", RUNS[0], "--output", tmp_path / "r.txt")
    assert "is a folder" in there.error("report", RUNS[0], "--output", _folder(tmp_path / "f.html"))
    assert "does not exist" in there.error("report", RUNS[0], "--output", tmp_path / "no" / "r.html")
    assert "--test" in there.error("report", RUNS[0], "--test", "nowhere", *page)
    (there.folder / "empty.en").write_text("one\n\n")
    (there.folder / "empty.de").write_text("\n \n")
    assert "blank in all its 2 lines" in there.error("report", RUNS[0], "--test", "empty", *page)
    assert not (tmp_path / "r.html").exists()


def test_a_run_without_validation(there: Nmt, tmp_path: Path) -> None:
    run = tmp_path / "young"
    shutil.copytree(there.folder / RUNS[0], run, symlinks=True)
    metrics = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(line for line in metrics if '"validation"' not in line))
    message = there.error("report", run, RUNS[1], "--output", tmp_path / "r.html")
    assert f"nmt: {run}: has no validation" in message


def _folder(path: Path) -> Path:
    path.mkdir()
    return path
