"""Texts joined as their scripts want it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nmt.data.scripts import joined


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["A dog.", "A cat."], "A dog. A cat."),
        (["一只狗。", "一只猫。"], "一只狗。一只猫。"),
        (["犬がいる。", "Next.", "はい。"], "犬がいる。 Next. はい。"),
        (["개가 있다.", "고양이."], "개가 있다. 고양이."),
        (["", "a", "", "b", ""], "a b"),
        ([], ""),
    ],
)
def test_joined(texts: list[str], expected: str) -> None:
    assert joined(texts) == expected


@given(st.lists(st.text()))
def test_nothing_but_blanks_is_added(texts: list[str]) -> None:
    whole = joined(texts)
    assert whole.replace(" ", "") == "".join(texts).replace(" ", "")
    assert len(whole) <= len(" ".join(texts))
