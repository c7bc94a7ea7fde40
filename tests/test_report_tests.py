"""What the runs of a report can be compared on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nmt.config_file import parse_config
from nmt.errors import UserError
from nmt.report_runs import ReportedRun
from nmt.report_tests import choose_test_set

LINES = [(f"source {number}", f"Ziel {number}") for number in range(6)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With the sets validation, first, second, copy (of second), part and else."""
    sets = {
        "validation": LINES[:2],
        "first": [*LINES[:4], LINES[0]],
        "second": LINES[3:],
        "copy": LINES[3:],
        "part": [LINES[5], LINES[2], LINES[0], LINES[0], LINES[0], LINES[1]],
        "else": [("source 0", "Ziel 1"), ("something", "anderes")],
    }
    for name, pairs in sets.items():
        for side, language in enumerate(("en", "de")):
            (tmp_path / f"{name}.{language}").write_text("".join(f"{pair[side]}\n" for pair in pairs))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(name: str, *tests: str) -> ReportedRun:
    text = '[data]\ntrain = "t"\nvalidation = "validation"\nsource_language = "en"\ntarget_language = "de"\n'
    return ReportedRun(
        name, Path(name), parse_config(f"{text}test = {json.dumps(tests)}"), [], {}, Path(name), {}
    )


@pytest.mark.usefixtures("folder")
class TestChoice:
    def test_the_first_test_set(self) -> None:
        found = choose_test_set([run("a", "first", "second"), run("b", "first")], None)
        assert [test.prefix for test in found.sets] == ["first", "first"]
        assert (found.places, found.notes, found.is_whole) == ([[0, 1, 2, 3, 4]] * 2, [], True)
        assert [row["file"] for row in found.sets[0].rows()] == ["first.en", "first.de"]

    def test_the_validation_set_where_there_is_no_other(self) -> None:
        found = choose_test_set([run("a")], None)
        assert found.sets[0].name == "validation"
        assert "validation set" in found.notes[0]

    def test_what_is_given(self) -> None:
        found = choose_test_set([run("a", "first"), run("b", "second")], "copy")
        assert [test.prefix for test in found.sets] == ["copy", "copy"]
        assert found.notes == []

    def test_a_set_that_all_name_though_not_first_nor_by_the_same_path(self) -> None:
        found = choose_test_set([run("a", "first", "nowhere", "second"), run("b", "copy")], None)
        assert [test.prefix for test in found.sets] == ["second", "copy"]
        assert "compared on second" in found.notes[0]
        assert found.is_whole

    def test_the_pairs_that_all_share(self) -> None:
        found = choose_test_set([run("a", "first"), run("b", "part")], None)
        # The pair that `first` has twice and `part` three times is shared twice.
        assert found.places == [[0, 1, 2, 4], [2, 5, 1, 3]]
        for at_first, at_second in zip(*found.places, strict=True):
            assert found.sets[0].pairs[at_first] == found.sets[1].pairs[at_second]
        assert "4 pairs" in found.notes[0]
        assert not found.is_whole

    def test_nothing_shared(self) -> None:
        with pytest.raises(UserError, match=r"no test sentence in common \(a first .*b else .*--test"):
            choose_test_set([run("a", "first"), run("b", "else")], None)

    def test_a_set_that_is_not_there(self) -> None:
        with pytest.raises(UserError, match=r"nowhere: .*run a: name a test set with --test"):
            choose_test_set([run("a", "nowhere")], None)
