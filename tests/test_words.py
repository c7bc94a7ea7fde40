"""Encoding word by word gives what SentencePiece gives, whatever the text."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import text_lines, trained_once

from nmt.data import words
from nmt.data.words import LineEncoder

TEXT = [
    "A small boat crosses the quiet lake in the morning.",
    "Two children are building a tower out of wooden blocks.",
    "Ein kleines Boot fährt am Morgen über den stillen See.",
    "Der alte Bäcker öffnet seinen Laden vor Sonnenaufgang.",
]
trained = trained_once(TEXT, {"bpe": 380, "unigram": 315, "char": 400, "word": 400})
lines = text_lines(
    [
        "boat",
        "Bäcker",
        " ",
        "  ",
        "\u2581",
        "\u00a0",
        "\t",
        "<s>",
        "<0x41>",
        "\x00",
        "\U0001f469\u200d",
        "e\u0301",
        "東京",
    ],
    " aeboatäß\u2581\u3000.",
)


@settings(deadline=None, max_examples=400)
@given(text=st.lists(lines, max_size=6))
def test_bpe_word_by_word(text: list[str]) -> None:
    tokenizer = trained("bpe")
    encoder = LineEncoder(tokenizer, "uint16", by_words=True)
    for _ in range(2):  # the second time words are remembered
        found = [np.frombuffer(ids, "uint16").tolist() for ids in encoder.encode_all(text)]
        assert found == [tokenizer.encode(line) for line in text] == tokenizer.encode_all(text)


@pytest.mark.parametrize("kind", ["unigram", "char", "word"])
def test_other_types_go_through_sentencepiece(kind: str) -> None:
    tokenizer = trained(kind)
    found = LineEncoder(tokenizer, "uint32", by_words=False).encode_all([*TEXT, "", "東 x"])
    assert [np.frombuffer(ids, "uint32").tolist() for ids in found] == tokenizer.encode_all(
        [*TEXT, "", "東 x"]
    )


def test_memory_for_words_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "_MOST_WORDS", 10)
    encoder = LineEncoder(trained("bpe"), "uint16", by_words=True)
    for number in range(50):
        encoder.encode_all([f"a{number} b{number} c{number}"])
        assert len(encoder._known) <= 10
    encoder.encode_all(["x" * 10_000])
    assert "x" * 10_000 not in encoder._known
