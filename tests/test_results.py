"""Results tables are added to, show every row, and know which model a number is of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nmt.errors import UserError
from nmt.results import Row, add_rows, of_model, read_rows, without_model


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
