"""Which translations are flagged, and which sentences a report lists."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nmt.report_sentences import copied_share, flags_of, has_repetition, sentence_lists

TOKENS = st.lists(st.sampled_from("abc"), max_size=40)


def repeats(tokens: list[str]) -> bool:
    """The definition, word for word."""
    return any(
        tokens[at : at + size] == tokens[at + size : at + 2 * size] == tokens[at + 2 * size : at + 3 * size]
        for size in range(3, len(tokens) // 3 + 1)
        for at in range(len(tokens) - 3 * size + 1)
    )


@given(TOKENS)
def test_repetition_is_what_the_definition_says(tokens: list[str]) -> None:
    assert has_repetition(tokens) == repeats(tokens)


@given(TOKENS, st.lists(st.sampled_from("abcde"), min_size=3, max_size=9), TOKENS)
def test_three_in_a_row_are_found_wherever_they_are(
    before: list[str], gram: list[str], after: list[str]
) -> None:
    assert has_repetition([*before, *gram * 3, *after])


def test_a_long_line_is_looked_at_quickly() -> None:
    assert not has_repetition([str(number) for number in range(20_000)])
    assert has_repetition(["x"] * 20_000)


def flags(source: str, text: str, reference: str) -> list[str]:
    return flags_of(source, text, reference, text.split(), reference.split())


@pytest.mark.parametrize(
    ("source", "text", "reference", "expected"),
    [
        ("The dog sleeps .", "Der Hund schläft .", "Der Hund schläft .", []),
        ("The dog sleeps .", "", "Der Hund schläft .", ["empty"]),
        ("The dog sleeps .", " \t", "Der Hund schläft .", ["empty"]),
        ("", "Der Hund schläft .", "Der Hund schläft .", []),
        ("The dog sleeps .", "The dog sleeps .", "Der Hund schläft .", ["copy"]),
        ("The big dog sleeps .", "Der big dog sleeps .", "Der große Hund schläft .", ["copy"]),
        ("New York", "New York", "New York", []),  # as the reference has it
        ("Tokyo", "Tokyo", "Tokio", ["copy"]),
        ("12 %", "12 %", "12%", []),  # no word
        ("a b", "x y z " * 3, "x y z " * 2, ["repetition"]),
        ("a b", "x y z " * 3, "x y z " * 3, []),  # a song
        ("a b", "x y x y x y", "x y x y", []),  # two tokens: too few
        ("a", "kurz", "eine viel längere Übersetzung", ["short"]),
        ("a", "eine viel längere Übersetzung", "kurz", ["long"]),
        ("a", "ja", "o", []),  # twice as long, and short nevertheless
    ],
)
def test_flags(source: str, text: str, reference: str, expected: list[str]) -> None:
    assert flags(source, text, reference) == expected


@given(st.text(), st.text(), st.text())
def test_any_text_has_flags(source: str, text: str, reference: str) -> None:
    assert set(flags(source, text, reference)) <= {"repetition", "copy", "empty", "short", "long"}
    assert 0 <= copied_share(source, text) <= 1
    assert "copy" not in flags(source, reference, reference)


def test_lists_begin_with_the_most_telling() -> None:
    sources = ["a", "b", "c", " ", "e"]
    references = ["r", "a longer one", "r", "r", "r"]
    scores = {"one": [100.0, 100.0, 10.0, 0.0, 50.0], "two": [90.0, 100.0, 70.0, 100.0, 45.0]}
    flagged: dict[str, list[list[str]]] = {
        "one": [[], [], ["copy"], ["empty"], []],
        "two": [[], [], [], [], []],
    }
    found = {
        one["title"]: (one["kind"], one["of"], one["places"])
        for one in sentence_lists(scores, flagged, references, sources, 2)
    }
    assert found == {
        "Best by one": ("best", 4, [1, 0]),  # the longer of two that are right
        "Worst by one": ("worst", 4, [2, 4]),
        "Best by two": ("best", 4, [1, 0]),
        "Worst by two": ("worst", 4, [4, 2]),
        "Most different: two and one": ("different", 3, [2, 0]),
        "Flagged": ("flagged", 1, [2]),
    }


def test_one_system_is_not_named() -> None:
    found = sentence_lists({"one": [1.0]}, {"one": [[]]}, ["r"], ["s"], 5)
    assert [one["title"] for one in found] == ["Best", "Worst", "Flagged"]
