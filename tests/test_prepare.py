"""Preparation: which lines are too long, and what sampling does to length."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nmt.config_file import parse_config
from nmt.data.prepare import prepare
from nmt.data.sampling import Part, Segmenter
from nmt.errors import UserError

CONFIG = """
[data]
train = ["{folder}/first", "{folder}/second"]
validation = "{folder}/first"
source_language = "en"
target_language = "de"
max_tokens = {most}
[tokenizer]
type = "{type}"
vocabulary_size = {size}
"""
SHORT, LONG = "a b c", " ".join("abcdefghijkl")


def write(folder: Path, name: str, source: list[str], target: list[str]) -> None:
    for suffix, lines in (("en", source), ("de", target)):
        (folder / f"{name}.{suffix}").write_text("".join(f"{line}\n" for line in lines))


def config(folder: Path, most: int, type: str = "word", size: int = 50):  # type: ignore[no-untyped-def]
    return parse_config(CONFIG.format(folder=folder, most=most, type=type, size=size))


def test_too_many_tokens_are_counted_and_named(tmp_path: Path) -> None:
    write(tmp_path, "first", [SHORT, "", LONG, SHORT], [SHORT, "b", SHORT, SHORT])
    write(tmp_path, "second", [SHORT, SHORT], [LONG, SHORT])
    data = prepare(config(tmp_path, 8), tmp_path / "prepared")
    manifest = json.loads((data.folder / "manifest.json").read_text())
    (row,) = [row for row in manifest["dropped"] if row["reason"] == "too many tokens"]
    assert row["places"] == ["first:3", "second:1"]
    assert row["count"] == 2
    assert manifest["kept"] == len(data.source) == 3
    assert manifest["lines"] == 6


def test_nothing_left(tmp_path: Path) -> None:
    write(tmp_path, "first", ["", LONG], ["a", SHORT])
    write(tmp_path, "second", [LONG], [LONG])
    with pytest.raises(UserError, match=r"first:2: .*data\.max_tokens = 8; raise it"):
        prepare(config(tmp_path, 8), tmp_path / "prepared")


def test_sampling_keeps_to_the_most_tokens(tmp_path: Path) -> None:
    """Some segmentations sampled at this rate are longer than the sentence's own; none passes the limit."""
    words = [f"{a}{b}{c}at {c}{b}{a}ing" for a in "bcd" for b in "aeiou" for c in "lmnr"]
    write(tmp_path, "first", words, words)
    write(tmp_path, "second", words, words)
    data = prepare(config(tmp_path, 12, "bpe", 300), tmp_path / "prepared")
    part = Part("source", np.arange(len(data.source)), (0,))

    def sampled(most: int) -> list[list[int]]:
        tokens = Segmenter(data.folder, data.manifest["dtype"], 0.5, 1, max_tokens=most)(part)
        return [tokens[i].tolist() for i in range(len(tokens))]

    free, kept = sampled(1000), sampled(12)
    own = [data.source[i].tolist() for i in range(len(data.source))]
    too_long = [i for i, ids in enumerate(free) if len(ids) > 12]
    assert too_long
    assert all(kept[i] == (own[i] if i in too_long else free[i]) for i in range(len(own)))
    assert max(map(len, kept)) <= 12
