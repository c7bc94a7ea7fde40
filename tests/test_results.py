"""Results tables are added to, show every row, and know which model a number is of."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from nmt.errors import UserError
from nmt.results import Row, add_rows, as_markdown, of_model, read_rows, without_model


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


def test_a_table_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    """Which had no sizes of test sets."""
    old = {"system": "s", "test_set": "t", "metric": "BLEU", "score": 1.0, "signature": "x"}
    old |= {
        "confidence_low": None,
        "confidence_high": None,
        "parameters": 1,
        "train_seconds": 1.0,
        "device": "cpu",
    }
    (tmp_path / "r.json").write_text(json.dumps([old]))
    assert read_rows(tmp_path / "r.json")[0].lines is None


def test_models_in_signatures(tmp_path: Path) -> None:
    """Numbers of different models stand in one column; a model trained again replaces its rows."""
    path = tmp_path / "results.json"
    hashes = ["0123456789abcdef", "fedcba9876543210", "00000000000000ff"]
    signatures = [f"case:mixed|version:2.6.0{of_model(hash_)}|beam:1" for hash_ in hashes]
    assert signatures[0] == "case:mixed|version:2.6.0 model:0123456789ab|beam:1"
    assert {without_model(signature) for signature in signatures} == {"case:mixed|version:2.6.0|beam:1"}

    def row(system: str, score: float, signature: str) -> Row:
        return Row(system, "t", "BLEU", score, None, None, signature, 5, 60.0, "cpu", 1000)

    add_rows(path, [row("a", 10, signatures[0]), row("b", 20, signatures[1])])
    add_rows(path, [row("a", 30, signatures[2])])
    assert [(found.score, found.signature) for found in read_rows(path)] == [
        (30, signatures[2]),
        (20, signatures[1]),
    ]
    assert path.with_suffix(".md").read_text().split("\n") == [
        "| system | test set | BLEU | parameters | training | device | model |",
        "| --- | --- | ---: | ---: | ---: | --- | --- |",
        "| a | t (1,000 lines) | 30.00 | 5 | 1.0 min | cpu | 000000000000 |",
        "| b | t (1,000 lines) | 20.00 | 5 | 1.0 min | cpu | fedcba987654 |",
        "",
        "- BLEU: `case:mixed|version:2.6.0|beam:1`",
        "",
    ]


def test_processes_that_add_at_once_lose_nothing(tmp_path: Path) -> None:
    """As `make -j2` of a recipe does."""
    path = tmp_path / "results.json"
    adding = f"""
import sys
from dataclasses import asdict
from pathlib import Path
from nmt.results import Row, add_rows
for number in range(25):
    add_rows(Path({str(path)!r}), [Row(sys.argv[1], str(number), "BLEU", 1.0, None, None, "x")])
"""
    running = [subprocess.Popen([sys.executable, "-c", adding, name]) for name in "ab"]
    assert [process.wait(timeout=120) for process in running] == [0, 0]
    found = {(row.system, row.test_set) for row in read_rows(path)}
    assert found == {(name, str(number)) for name in "ab" for number in range(25)}
    assert path.with_suffix(".md").read_text().count("\n| a |") == 25


def test_another_test_set_of_the_same_name_is_another_row(tmp_path: Path) -> None:
    path = tmp_path / "r.json"

    def row(score: float, lines: int | None, references: str | None) -> Row:
        return Row("s", "test", "BLEU", score, None, None, "x", lines=lines, references=references)

    add_rows(path, [row(1, 3, "aa")])
    add_rows(path, [row(2, 2, "bb")])
    add_rows(path, [row(3, 3, "cc")])
    add_rows(path, [row(4, 3, "aa")])
    assert [found.score for found in read_rows(path)] == [4, 2, 3]
    table = path.with_suffix(".md").read_text()
    names = ["test (3 lines, references aa)", "test (2 lines)", "test (3 lines, references cc)"]
    assert [line.split(" | ")[1] for line in table.split("\n")[2:5]] == names
    # A row of an earlier version, which knew no references, is replaced where it stood.
    other = tmp_path / "old.json"
    add_rows(other, [row(1, 3, None), row(2, 5, None)])
    add_rows(other, [row(3, 3, "aa")])
    assert [(found.score, found.references) for found in read_rows(other)] == [(3, "aa"), (2, None)]


def test_a_table_is_named_json(tmp_path: Path) -> None:
    """Its Markdown would take the place of results.md."""
    with pytest.raises(UserError, match=r"name a file FILE\.json"):
        add_rows(tmp_path / "results.md", [Row("s", "t", "BLEU", 1.0, None, None, "x")])
    assert list(tmp_path.iterdir()) == []


def test_a_cell_stays_a_cell() -> None:
    table = as_markdown([Row("a|b\nc", "t\\|", "BLEU", 1.0, None, None, "x")])
    assert table.split("\n")[2] == r"| a\|b c | t\\\| | 1.00 |  |  |  |"


@pytest.mark.parametrize(
    ("metric", "numbers", "shown"),
    [
        ("perplexity", (1.19, 1.171, 1.212), "1.19 (1.17-1.21)"),
        ("perplexity", (1.19, 1.1894, 1.1911), "1.19 (1.189-1.191)"),
        ("BLEU", (12.3456, 12.31, 12.34), "12.35 (12.31-12.34)"),
        ("BLEU", (100.0, 100.0, 100.0), "100.00 (100.0-100.0)"),
    ],
)
def test_the_ends_of_an_interval_are_two_numbers(
    metric: str, numbers: tuple[float, float, float], shown: str
) -> None:
    assert f"| {shown} |" in as_markdown([Row("s", "t", metric, *numbers, "x")])


def test_what_was_chosen_for_a_model_is_of_that_model() -> None:
    """A model trained again may have another best layer: its row is replaced all the same."""
    signature = f"view:best-of-6-by-gold{of_model('0123456789abcdef', chosen='layer:1|head:2')}"
    assert signature == "view:best-of-6-by-gold model:0123456789ab(layer:1|head:2)"
    assert without_model(signature) == "view:best-of-6-by-gold"
    two = of_model("0123456789abcdef", "fedcba9876543210")
    assert without_model(f"x{two}|models:2") == "x|models:2"
    table = as_markdown([Row("s", "t", "BLEU", 1.0, None, None, f"x{two}|models:2")])
    assert "| 0123456789ab+fedcba987654 |" in table


@pytest.mark.parametrize(
    "text",
    [
        *("{}", "3", "[3]", "[[]]", "[" * 100_000),
        *(
            json.dumps([asdict(Row("a", "t", "BLEU", 1.0, None, None, "x")) | wrong])
            for wrong in (
                *({"score": "x"}, {"score": None}, {"score": True}, {"signature": 7}, {"system": None}),
                *({"parameters": "many"}, {"parameters": 1.5}, {"train_seconds": "x"}, {"lines": "x"}),
                {"unknown": 1},
            )
        ),
    ],
)
def test_what_is_no_table_is_left_alone(tmp_path: Path, text: str) -> None:
    file = tmp_path / "results.json"
    file.write_text(text)
    with pytest.raises(UserError, match=r"results\.json: is not a results table; move it away"):
        add_rows(file, [Row("a", "t", "BLEU", 1.0, None, None, "x")])
    assert file.read_text() == text
    assert not (tmp_path / "results.md").exists()


def test_whole_numbers_are_numbers(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    file.write_text(json.dumps([asdict(Row("a", "t", "BLEU", 1, None, None, "x", train_seconds=60))]))
    assert read_rows(file)[0].score == 1
