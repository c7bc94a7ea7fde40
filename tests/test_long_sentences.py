"""Where long lines are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nmt.data.tokenizer import Tokenizer, train_tokenizer
from nmt.long_sentences import split_long

TEXT = (
    "He met Mr. Smith on May 3. They spoke! Did they? Yes. “No.” She left at 5 p.m. and came back. "
    "Am 3. Mai kam Dr. J. Weiß. Er ging."
)
SENTENCES = [
    *("He met Mr. Smith on May 3. They spoke!", "Did they?", "Yes.", "“No.”"),
    *("She left at 5 p.m. and came back.", "Am 3. Mai kam Dr. J. Weiß.", "Er ging."),
]


@pytest.fixture(scope="module", params=["bpe", "word"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    lines = [TEXT, "你好。「再见。」谢谢!"] * 20
    return train_tokenizer(lines, type=request.param, vocabulary_size=330, character_coverage=1.0)


def texts(line: str, tokenizer: Tokenizer, most: int, seen: int | None) -> list[str]:
    ids = tokenizer.encode(line)
    parts = split_long(ids, tokenizer, most, seen)
    assert [token for part in parts for token in part] == ids
    return [tokenizer.decode(part).strip() for part in parts]


def test_a_line_that_training_has_seen_the_like_of_stays_whole(tokenizer: Tokenizer) -> None:
    count = len(tokenizer.encode(TEXT))
    assert texts(TEXT, tokenizer, 500, count) == [TEXT]
    assert texts(TEXT, tokenizer, 500, None) == [TEXT]


def test_a_longer_one_is_cut_sentence_by_sentence(tokenizer: Tokenizer) -> None:
    assert texts(TEXT, tokenizer, 500, 20) == SENTENCES


def test_blanks_at_the_end_are_no_sentence(tokenizer: Tokenizer) -> None:
    """Which a model would make words of."""
    assert texts(f"{TEXT}   ", tokenizer, 500, 20) == SENTENCES


def test_marks_without_blanks() -> None:
    tokenizer = train_tokenizer(
        ["你好。「再见。」谢谢!好。"] * 20, type="char", vocabulary_size=600, character_coverage=1.0
    )
    assert texts("你好。「再见。」谢谢!好。", tokenizer, 500, 3) == ["你好。", "「再见。」谢谢!好。"]


def test_a_sentence_is_cut_only_where_it_does_not_fit(tokenizer: Tokenizer) -> None:
    """Longer than all of training, but one sentence: the model may be able to."""
    long = " ".join(["came"] * 40)
    assert texts(long, tokenizer, 500, 5) == [long]
    assert len(texts(long, tokenizer, 30, 5)) > 1


@given(
    st.lists(st.sampled_from([*TEXT.split(), "。", "...", "?!", "”"])), st.integers(1, 30), st.integers(0, 50)
)
def test_parts_are_the_line_and_fit(tokenizer: Tokenizer, words: list[str], most: int, seen: int) -> None:
    ids = tokenizer.encode(" ".join(words))
    parts = split_long(ids, tokenizer, most, seen)
    assert [token for part in parts for token in part] == ids
    assert all(len(part) <= most for part in parts)
    assert len(parts) == 1 or all(parts)
