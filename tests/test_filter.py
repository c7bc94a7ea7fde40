"""What preparation drops: the rules, their counts, and the set that knows duplicates."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nmt.data.filter import Dropper, Filter, HashSet, HeldOut, reason_to_drop


@pytest.mark.parametrize(
    ("source", "target", "reason"),
    [
        ("a b", "c d", None),
        ("", "c", "blank source"),
        ("\u00a0\u2028", "c", "blank source"),
        ("a", " ", "blank target"),
        ("a " * 5, "b", None),
        ("a " * 6, "b " * 6, "too long"),
        ("b " * 5, "b" * 31, "too long"),
        ("aaaa", "b" * 16, None),
        ("aaaa", "b" * 17, "length ratio"),
        (" same ", "same", "copy"),
    ],
)
def test_reasons(source: str, target: str, reason: str | None) -> None:
    rules = Filter(max_words=5, max_characters=30, max_ratio=9.0, drop_copies=True)
    if len(target) in (16, 17):
        rules = Filter(max_words=5, max_characters=30, max_ratio=4.0)
    assert reason_to_drop(source, target, rules) == reason


def test_dropper_counts_what_it_drops() -> None:
    held_out = HeldOut().add("test", [("held", "out")])
    dropper = Dropper(
        Filter(drop_copies=True, drop_duplicates=True, drop_overlap=True), held_out, most_places=1
    )
    pairs = [("a", "b"), ("a", "b "), ("a", "c"), ("x", "x"), ("held", "y"), ("", ""), ("a", "b")]
    reasons = [
        dropper.reason(source, target, file="t.en", line=number)
        for number, (source, target) in enumerate(pairs, start=1)
    ]
    assert reasons == [None, "duplicate", None, "copy", "overlap", "blank source", "duplicate"]
    assert (dropper.seen, dropper.kept) == (7, 2)
    table = {row.reason: row for row in dropper.drop_table()}
    assert sum(row.count for row in table.values()) == 5
    assert table["duplicate"].count == 2
    assert table["duplicate"].places == ("t.en:2",)
    assert table["duplicate"].share == pytest.approx(2 / 7)


def test_defaults_keep_copies_and_duplicates() -> None:
    dropper = Dropper(Filter())
    assert [dropper.reason("a", "a") for _ in range(3)] == [None] * 3


@given(st.lists(st.integers(min_value=1, max_value=2**64 - 1) | st.integers(min_value=1, max_value=3000)))
def test_hash_set_is_a_set(numbers: list[int]) -> None:
    ours, theirs = HashSet(), set[int]()
    for number in numbers:
        assert ours.add(number) == (number not in theirs)
        theirs.add(number)


def test_hash_set_grows() -> None:
    ours = HashSet()
    assert all(ours.add(number * 1024) for number in range(1, 3000))
    assert not any(ours.add(number * 1024) for number in range(1, 3000))
