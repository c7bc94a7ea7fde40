"""Every step of every recipe, on small corpora and for a few steps; the second time nothing is done again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recipes import make, workshop

SHORT = "training.max_steps=4 training.validate_every=2 training.log_every=2 training.warmup_steps=2"


@pytest.mark.slow
def test_quickstart(tmp_path: Path) -> None:
    folder = workshop(tmp_path / "work")
    first = make(folder, "quickstart", SET=SHORT)
    assert first.returncode == 0, first.stderr
    results = folder / "runs" / "quickstart" / "results.json"
    systems = {(row["system"], row["test_set"]) for row in json.loads(results.read_text())}
    assert systems == {(a, b) for a in ("transformer", "bahdanau") for b in ("test", "test-compositional")}
    written = results.read_bytes()
    again = make(folder, "quickstart", SET=SHORT)
    assert again.returncode == 0, again.stderr
    assert results.read_bytes() == written
    assert "nmt train" not in again.stdout


@pytest.mark.slow
def test_attention_history(tmp_path: Path) -> None:
    folder = workshop(tmp_path / "work")
    chosen = "no-attention luong-dot transformer"
    short = f"{SHORT} search.max_length_factor=0.2 search.max_length_offset=1"
    first = make(folder, "attention-history", SET=short, SYSTEMS=chosen)
    assert first.returncode == 0, first.stderr
    results = folder / "runs" / "attention-history" / "offline" / "results.json"
    systems = {(row["system"], row["test_set"]) for row in json.loads(results.read_text())}
    assert systems == {(system, test) for system in chosen.split() for test in ("test", "test-long")}
    assert all(f"| {system} |" in first.stdout for system in chosen.split())
    written = results.read_bytes()
    again = make(folder, "attention-history", SET=short, SYSTEMS=chosen)
    assert again.returncode == 0, again.stderr
    assert results.read_bytes() == written
    assert "nmt train" not in again.stdout
